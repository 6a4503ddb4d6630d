"""Sections of an array, streamed: bands of rows of a few sections at a time, each chunk decoded once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from emsr.geometry import Box
from emsr.stores.shards import chunk_shape, each, read_box
from emsr.stores.zarr import open_array

Bands = Iterator[tuple[int, np.ndarray]]
Result = TypeVar("Result")


def visit(path: Path, visitor: Callable[[Box, Bands], Result], workers: int, label: str) -> list[Result]:
    """`visitor(slab, bands)` of every slab of sections, in order of z; a slab is one inner chunk deep.

    `bands` yields (first row, voxels (slab depth, rows, x)) from the top row to the last. A worker holds one band:
    chunk depth x chunk height x width of the volume.
    """
    array = open_array(path)
    (depth, height, width), chunk = array.shape, chunk_shape(array)
    slabs = [Box((z, 0, 0), (min(z + chunk[0], depth), height, width)) for z in range(0, depth, chunk[0])]

    def bands(slab: Box) -> Bands:
        for y in range(0, height, chunk[1]):
            rows = Box((slab.start[0], y, 0), (slab.stop[0], min(y + chunk[1], height), width))
            yield y, read_box(array, rows)

    return each(lambda slab: visitor(slab, bands(slab)), slabs, workers, label)


def section_sha256(path: Path, workers: int) -> list[str]:
    """Hash of every section of an array: sha256 over its voxels in C order (y, x), little endian.

    It does not depend on shards and chunks. `emsr.stores.card.root_sha256` makes one hash of them.
    """
    return [value for slab in visit(path, _hash_slab, workers, "hash sections") for value in slab]


class SectionHashes:
    """Hashes of a few sections that arrive as bands of rows from the top down."""

    def __init__(self, depth: int) -> None:
        self.digests = [hashlib.sha256() for _ in range(depth)]

    def add(self, band: np.ndarray) -> None:
        """Take in the next rows (depth, rows, x) of each section."""
        little = band.dtype.newbyteorder("<")
        for digest, rows in zip(self.digests, band, strict=True):
            digest.update(np.ascontiguousarray(rows, dtype=little).data)

    def result(self) -> list[str]:
        """Hexadecimal hashes, one a section."""
        return [digest.hexdigest() for digest in self.digests]


def _hash_slab(slab: Box, bands: Bands) -> list[str]:
    """Hashes of the sections of one slab."""
    hashes = SectionHashes(slab.shape[0])
    for _, band in bands:
        hashes.add(band)
    return hashes.result()
