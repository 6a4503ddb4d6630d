"""How near an image is to the truth. Arrays in, numbers out; no files."""
