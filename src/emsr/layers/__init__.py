"""Building parts of the networks: torch, tensors in, tensors out; no files."""
