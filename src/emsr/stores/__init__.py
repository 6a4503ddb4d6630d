"""Arrays on disk, one file a format."""
