"""Whole networks, one file each; the module name is the key in the config."""
