"""What the rules run: the only layer that touches files; one module per rule file, one function per rule."""
