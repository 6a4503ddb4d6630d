"""Volumes in neuroglancer: which layers a place holds, their state, the server of their files, a picture of them."""
