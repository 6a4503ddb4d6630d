"""Counting pairs of ids: runs of equal voxels first, so that only their ends are sorted."""

from __future__ import annotations

import numpy as np


def runs(*arrays: np.ndarray, rows: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Stretches of consecutive elements over which none of several flat arrays of one length changes.

    Returns the index of the first element of each and their lengths, both int64 (runs,). ``rows`` is the length at
    which a run ends in any case, that of a row of voxels.
    """
    change = np.zeros(len(arrays[0]), bool)
    change[:1] = True
    for array in arrays:
        change[1:] |= array[1:] != array[:-1]
    if rows:
        change[::rows] = True
    starts = np.flatnonzero(change)
    return starts, np.diff(starts, append=len(change))


def ranks(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct pairs (first[i], second[i]) in ascending order, as two arrays: an index of one of each, and each's rank.

    ``first[index]``, ``second[index]`` are the distinct pairs and ``rank[i]`` is the place of pair i among them.
    """
    order = np.lexsort((second, first))
    a, b = first[order], second[order]
    new = np.ones(len(order), bool)
    new[1:] = (a[1:] != a[:-1]) | (b[1:] != b[:-1])
    rank = np.empty(len(order), np.int64)
    rank[order] = np.cumsum(new) - 1
    return order[new], rank


def added(first: np.ndarray, second: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct pairs in ascending order and the sum of the counts of each; exact, in int64."""
    index, rank = ranks(first, second)
    total = np.zeros(len(index), np.int64)
    np.add.at(total, rank, counts.astype(np.int64))
    return first[index], second[index], total
