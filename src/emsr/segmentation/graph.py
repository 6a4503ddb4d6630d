"""The region graph: which fragments touch, in how many contacts, with what sum of affinities. Exact integers.

A graph is a structured array of `EDGE`, one row per pair of fragments with u < v, sorted by (u, v): it can be saved,
mapped into memory and sent about as it is. A contact is a pair of voxels, one the lower neighbour of the other along an
axis, in two fragments; it belongs to the box that holds the upper voxel, so the graphs of boxes that partition a volume
add up to the volume's, in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from emsr.geometry import Box, triple
from emsr.segmentation.check import WHITE, check_affinities
from emsr.segmentation.fragments import Read

AT_ONCE = 64
"""Streams that are merged at a time, as every step looks at each of them."""
EDGE = np.dtype([("u", "<u8"), ("v", "<u8"), ("count", "<i8"), ("sum", "<i8")])
"""Fragments u < v, number of contacts, sum of their affinities in 1/255; 32 bytes."""


def read_graph(box: Box, fragments: Read, affinities: Read) -> np.ndarray:
    """The contacts that a box owns, as a graph; `fragments` is asked for one voxel more at the low side of an axis."""
    below = triple([max(first - 1, 0) for first in box.start])
    return contacts(fragments(Box(below, box.stop)), affinities(box))


def contacts(fragments: np.ndarray, affinities: np.ndarray) -> np.ndarray:
    """The contacts of the voxels of a box with their lower neighbours, as a graph.

    `affinities` uint8 (3, z, y, x) are those of the box; `fragments` uint64 (z, y, x) too, or with one voxel more at
    the low side of an axis, where the box does not start at the volume's origin. Background has no contacts.
    Raises ValueError for other shapes and types.
    """
    check_affinities(affinities)
    more = tuple(have - box for have, box in zip(fragments.shape, affinities.shape[1:], strict=False))
    if fragments.ndim != 3 or fragments.dtype != np.uint64 or not set(more) <= {0, 1}:
        raise ValueError(
            f"fragments {fragments.dtype} {fragments.shape} do not belong to affinities {affinities.shape}: give "
            "uint64 (z, y, x) of the box, or one voxel more at the low side of an axis"
        )
    tables = [empty()]
    for z in range(affinities.shape[1]):
        tables += _section_contacts(fragments, affinities[:, z], z + more[0], (more[1], more[2]))
    return merged(tables)


def _section_contacts(
    fragments: np.ndarray, affinities: np.ndarray, z: int, more: tuple[int, int]
) -> Iterator[np.ndarray]:
    """Graphs of one section's contacts along z, y and x; `affinities` are (3, y, x)."""
    rows, columns = more
    section = fragments[z]
    if z > 0:
        yield _pairs(fragments[z - 1, rows:, columns:], section[rows:, columns:], affinities[0])
    yield _pairs(section[:-1, columns:], section[1:, columns:], affinities[1, 1 - rows :])
    yield _pairs(section[rows:, :-1], section[rows:, 1:], affinities[2, :, 1 - columns :])


def _pairs(lower: np.ndarray, upper: np.ndarray, affinity: np.ndarray) -> np.ndarray:
    """The graph of pairs of voxels, given as arrays of one shape."""
    touching = (lower != upper) & (lower != 0) & (upper != 0)
    table = empty(int(np.count_nonzero(touching)))
    table["u"] = np.minimum(lower[touching], upper[touching])
    table["v"] = np.maximum(lower[touching], upper[touching])
    table["count"] = 1
    table["sum"] = affinity[touching]
    return summed(table)


def empty(rows: int = 0) -> np.ndarray:
    """A graph with so many rows to be filled."""
    return np.empty(rows, EDGE)


def summed(table: np.ndarray) -> np.ndarray:
    """Rows in the order of (u, v), one for each pair: counts and sums added, the largest `last` if there is one."""
    short = _runs(table)  # neighbouring voxels mostly touch the same pair, so there is little left to sort
    return _runs(short[np.lexsort((short["v"], short["u"]))])


def _runs(table: np.ndarray) -> np.ndarray:
    """Neighbouring rows of one pair as one row."""
    if len(table) < 2:
        return table
    new = (table["u"][1:] != table["u"][:-1]) | (table["v"][1:] != table["v"][:-1])
    first = np.flatnonzero(np.concatenate(([True], new)))
    short = table[first]
    for name in ("count", "sum"):
        short[name] = np.add.reduceat(table[name], first)
    if "last" in (table.dtype.names or ()):
        short["last"] = np.maximum.reduceat(table["last"], first)
    return short


def merged(graphs: Iterable[np.ndarray]) -> np.ndarray:
    """The sum of graphs, in memory."""
    tables = list(graphs)
    return summed(np.concatenate(tables)) if tables else empty()


def merge_streams(sources: Sequence[Iterator[np.ndarray]]) -> Iterator[np.ndarray]:
    """The sum of graphs that do not fit into memory, as sorted pieces; no pair is in two of them.

    Each source yields one graph in pieces, sorted within and between them. Of each source one piece is held at a time:
    memory is about three times the sum of these, and once more for each level of groups of `AT_ONCE` sources.
    """
    while len(sources) > AT_ONCE:
        sources = [_merge_few(sources[first : first + AT_ONCE]) for first in range(0, len(sources), AT_ONCE)]
    return _merge_few(sources)


def _merge_few(sources: Sequence[Iterator[np.ndarray]]) -> Iterator[np.ndarray]:
    held = list(map(_next, sources))
    while any(piece is not None for piece in held):
        # what follows in a source lies behind its held piece: up to the first of their ends everything is here
        ends = [(int(piece["u"][-1]), int(piece["v"][-1])) for piece in held if piece is not None]
        ready = []
        for number, piece in enumerate(held):
            if piece is None:
                continue
            cut = _behind(piece, *min(ends))
            ready.append(piece[:cut])
            held[number] = piece[cut:] if cut < len(piece) else _next(sources[number])
        yield merged(ready)


def _next(source: Iterator[np.ndarray]) -> np.ndarray | None:
    """The next piece that has rows; None at the end."""
    return next((piece for piece in source if len(piece)), None)


def _behind(table: np.ndarray, u: int, v: int) -> int:
    """The number of rows up to and with the pair (u, v)."""
    first, last = (int(np.searchsorted(table["u"], np.uint64(u), side)) for side in ("left", "right"))
    return first + int(np.searchsorted(table["v"][first:last], np.uint64(v), "right"))


def check_graph(graph: np.ndarray) -> None:
    """Raise ValueError unless the rows are `EDGE`, sorted, one for each pair, and hold possible sums."""
    if graph.dtype != EDGE or graph.ndim != 1:
        raise ValueError(f"region graph is {graph.dtype} {graph.shape}, not one row of {EDGE.names} per pair")
    u, v = graph["u"], graph["v"]
    rising = (u[1:] > u[:-1]) | ((u[1:] == u[:-1]) & (v[1:] > v[:-1]))
    count, total = graph["count"], graph["sum"]
    possible = (u > 0) & (u < v) & (count > 0) & (total >= 0) & (total <= WHITE * count)
    if not (rising.all() and possible.all()):
        wrong = int(np.flatnonzero(~np.concatenate(([True], rising))[: len(graph)] | ~possible)[0])
        raise ValueError(
            f"row {wrong} of the region graph, {graph[wrong]}, is out of order or impossible: rows rise by (u, v), "
            f"0 < u < v, 0 <= sum <= {WHITE} * count"
        )
