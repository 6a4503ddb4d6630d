"""A network over whole volumes: windows of one size, sections as a stream, exact blending."""
