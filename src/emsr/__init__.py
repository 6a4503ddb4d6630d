"""Super-resolve whole electron-microscopy volumes, and prove what that was worth."""
