"""Exact agglomeration of a region graph that does not fit into memory: rounds of merges over edges kept elsewhere.

Memory is about 220 bytes per fragment (its id, its first edge, its merge) and what the rows asked for take, which
`memory` derives from a limit; a round reads and writes edges a few times, 40 bytes each. It merges every pair of
regions that are each other's first choice and drops the edges of finished regions, so the graph shrinks until the rest
fits and is finished in memory. By the argument in `agglomeration` the history is that of `agglomerate`, bit for bit.
A region that takes in many small ones one after the other needs as many rounds as long as the graph does not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from emsr.segmentation.agglomeration import NODE_EDGE, Best, found_in, node_edges
from emsr.segmentation.check import check_threshold
from emsr.segmentation.graph import check_graph, merge_streams
from emsr.segmentation.history import FOUND, History, history

Source = Callable[[], Iterator[np.ndarray]]
"""Replays a table in pieces, sorted by (u, v) within and between them."""


class Scratch(Protocol):
    """Where tables are kept for a while: files, say."""

    def keep(self, pieces: Iterator[np.ndarray]) -> Source:
        """Write pieces down as they come, and return what replays them in the same pieces."""

    def drop(self, source: Source) -> None:
        """A source that `keep` returned is not read again."""


def agglomerate_streamed(
    edges: Source, fragments: np.ndarray, until: float, scratch: Scratch, rows: int = 4_000_000
) -> History:
    """All merges with a score below `until` of a graph (`EDGE`) that is read in pieces; equal to `agglomerate`.

    `fragments` are all ids of the graph, rising; pieces should have at most `rows` rows, and the rest is finished in
    memory as soon as it has no more than that. Raises ValueError for a graph out of order and ids not in `fragments`.
    """
    check_threshold(until, "until")
    if rows < 1:
        raise ValueError(f"{rows} rows in memory are too few: give at least 1")
    source = scratch.keep(_gathered(_numbered(edges(), fragments), rows))
    found = [np.empty(0, FOUND)]
    while sum(len(piece) for piece in source()) > rows:
        merges, shorter = _round(source, len(fragments), until, scratch, rows)
        found.append(merges)
        scratch.drop(source)
        source = shorter
    rest = np.concatenate([np.empty(0, NODE_EDGE), *source()])
    scratch.drop(source)
    return history(np.concatenate([*found, _found_in_rest(rest, until)]), fragments, until)


def _found_in_rest(edges: np.ndarray, until: float) -> np.ndarray:
    """The merges of the edges that are left, between which nodes are numbered anew: they are few of all."""
    nodes, ends = np.unique(np.concatenate([edges["u"], edges["v"]]), return_inverse=True)
    edges["u"], edges["v"] = np.split(ends, 2)
    found = found_in(edges, len(nodes), until)
    found["a"], found["b"] = nodes[found["a"]], nodes[found["b"]]
    return found


def _numbered(pieces: Iterator[np.ndarray], fragments: np.ndarray) -> Iterator[np.ndarray]:
    """Pieces of `EDGE` as `NODE_EDGE`."""
    first, before = 0, (0, 0)
    for piece in pieces:
        check_graph(piece)
        if not len(piece):
            continue
        if (int(piece["u"][0]), int(piece["v"][0])) <= before:
            raise ValueError(
                f"a piece of the region graph starts with {piece[0]}, not behind {before}: sort the pieces"
            )
        unknown = ~(np.isin(piece["u"], fragments) & np.isin(piece["v"], fragments))
        if unknown.any():
            raise ValueError(f"edge {piece[unknown][0]} names a fragment that is not in the table of fragments")
        yield node_edges(piece, fragments, first)
        first += len(piece)
        before = (int(piece["u"][-1]), int(piece["v"][-1]))


def _round(source: Source, n: int, until: float, scratch: Scratch, rows: int) -> tuple[np.ndarray, Source]:
    """The merges of one round, and the edges after it."""
    best, pieces = Best(n), 0
    for piece in source():
        best.see(piece)
        pieces += 1
    found = np.concatenate([best.merges(piece, until) for piece in source()])
    runs = [
        scratch.keep(_cut(best.contracted(piece, found, until), -(-rows // pieces))) for piece in source()
    ]  # one piece of each is in memory when they are merged
    shorter = scratch.keep(_gathered(merge_streams([run() for run in runs]), rows))
    for run in runs:
        scratch.drop(run)
    return found, shorter


def _cut(table: np.ndarray, rows: int) -> Iterator[np.ndarray]:
    """The table in pieces of so many rows."""
    return (table[first : first + rows] for first in range(0, len(table), rows))


def _gathered(pieces: Iterator[np.ndarray], rows: int) -> Iterator[np.ndarray]:
    """Pieces put together to at most `rows` rows, unless one alone has more."""
    held: list[np.ndarray] = []
    for piece in pieces:
        if held and sum(map(len, held)) + len(piece) > rows:
            yield np.concatenate(held)
            held = []
        held.append(piece)
    if held:
        yield np.concatenate(held)
