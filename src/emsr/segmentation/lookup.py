"""From merges to segments: which segment each fragment belongs to at a threshold, and the relabelling of a shard.

Segments are numbered 1, 2, ... by their first voxel in raster order (z, y, x) of the volume, whatever the ids of their
fragments, shards or jobs. Another threshold needs only `lookup` and `relabelled`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from emsr.geometry import Box, Triple
from emsr.segmentation.history import History

FIRST = np.dtype([("fragment", "<u8"), ("voxel", "<u8")])
"""A fragment and the number of its first voxel, (z * height + y) * width + x in the volume."""


@dataclass(frozen=True, eq=False)
class Lookup:
    """The segment of each fragment, uint64 (fragments + 1,) both, rising by fragment; background, 0 and 0, is first."""

    fragment: np.ndarray
    segment: np.ndarray


def first_voxels(fragments: np.ndarray, box: Box, shape: Triple) -> np.ndarray:
    """The fragments of a box, uint64 (z, y, x), as `FIRST`, rising; `shape` is the volume's. Background is left out."""
    if fragments.shape != box.shape or fragments.dtype != np.uint64:
        raise ValueError(f"fragments {fragments.dtype} {fragments.shape} do not fill a box of {box.shape} in uint64")
    _, height, width = shape
    tables = []
    for z, section in enumerate(fragments, start=box.start[0]):
        ids, place = np.unique(section, return_index=True)
        rows, columns = np.divmod(place, section.shape[1])
        table = np.empty(len(ids), FIRST)
        table["fragment"] = ids
        table["voxel"] = (z * height + box.start[1] + rows) * width + box.start[2] + columns
        tables.append(table[ids != 0])
    return merged_first_voxels(tables)


def merged_first_voxels(tables: Iterable[np.ndarray]) -> np.ndarray:
    """One table `FIRST` out of those of several boxes."""
    table = np.concatenate([np.empty(0, FIRST), *tables])
    table = table[np.lexsort((table["voxel"], table["fragment"]))]
    new = np.ones(len(table), bool)
    new[1:] = table["fragment"][1:] != table["fragment"][:-1]
    return table[new]


def roots(history: History, fragments: np.ndarray, threshold: float) -> np.ndarray:
    """For each of the fragments, uint64 and rising, the smallest fragment of its segment at a threshold.

    Raises ValueError for a merge of a fragment that is not among them, and a threshold above the history's end.
    """
    merges = history.below(threshold)
    places = [np.searchsorted(fragments, merges[name]) for name in ("a", "b")]
    for name, place in zip(("a", "b"), places, strict=True):
        unknown = place == len(fragments)
        unknown[~unknown] = fragments[place[~unknown]] != merges[name][~unknown]
        if unknown.any():
            raise ValueError(f"merge {merges[unknown][0]} names a fragment that is not in the table of fragments")
    parent = np.arange(len(fragments))
    parent[places[1]] = places[0]
    while not np.array_equal(parent, parent[parent]):
        parent = parent[parent]
    return fragments[parent]


def lookup(history: History, first: np.ndarray, threshold: float) -> Lookup:
    """The segment of every fragment at a threshold; `first` (`FIRST`) has all fragments of the volume.

    Segments are numbered from 1 by their first voxel. Raises ValueError as `roots` does.
    """
    root = roots(history, first["fragment"], threshold)
    order = np.argsort(first["voxel"])
    _, start, segment = np.unique(root[order], return_index=True, return_inverse=True)
    rank = np.empty(len(start), np.uint64)
    rank[np.argsort(start)] = np.arange(1, len(start) + 1)
    table = Lookup(*np.zeros((2, len(first) + 1), np.uint64))
    table.fragment[1:] = first["fragment"]
    table.segment[1:][order] = rank[segment]
    return table


def relabelled(fragments: np.ndarray, table: Lookup) -> np.ndarray:
    """Segments, uint64 (z, y, x), of a box of fragments; 0 stays 0. Raises ValueError for one that `table` lacks."""
    segments = np.empty(fragments.shape, np.uint64)
    for z, section in enumerate(fragments):
        ids, inverse = np.unique(section, return_inverse=True)
        place = np.minimum(np.searchsorted(table.fragment, ids), len(table.fragment) - 1)
        unknown = table.fragment[place] != ids
        if unknown.any():
            raise ValueError(f"fragment {ids[unknown][0]} is not in the lookup table: make it of all shards")
        segments[z] = table.segment[place][inverse].reshape(section.shape)
    return segments
