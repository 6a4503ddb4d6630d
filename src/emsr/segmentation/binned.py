"""Agglomeration with a queue of bins, as published (waterz, discretize_queue 256): sequential, in memory, not exact.

Scores fall into 256 bins, and within a bin the first come is merged first. The result therefore depends on the order of
the fragments' ids (spec of waterz: adapted Rand error 0.004 after a permutation), and so on the block grid; it does not
depend on shards or jobs. Means are exact here and float32 running means in waterz: histories are equal except where
that rounding puts a score into another bin or decides between equal scores. Measured on 6.3 million voxels of synthetic
cells: of 37,590 merges of waterz at 0.5, 6 are missing, whose score is exactly 0.5; at 0.432 all 26,460 are the same.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from emsr.segmentation.agglomeration import numbered, within_parts
from emsr.segmentation.check import check_threshold
from emsr.segmentation.contraction import Contraction
from emsr.segmentation.graph import check_graph
from emsr.segmentation.history import MERGE, History

BINS = 256


def agglomerate_binned(graph: np.ndarray, until: float = 1.0) -> History:
    """The merges of waterz with discretize_queue 256 at threshold `until`, of a region graph (`EDGE`).

    An edge that took in another keeps its place in the queue, and gets its true score when it comes to the front, where
    it joins the end of its bin. It stops at the first edge in front that is not below `until`, even if others in the
    bin are; the history's levels say at which lower thresholds it would have stopped before.
    Raises ValueError for a graph out of order and for `until` outside [0, 1].

    Measured as `agglomerate` is: up to 0.5, 4 microseconds and 120 bytes per edge; up to 1.0, 18 and 400.
    """
    check_threshold(until, "until")
    check_graph(graph)
    fragments, edges = numbered(graph)
    bound = math.ceil(until * BINS)
    if bound < BINS:  # bins below are emptied before an edge between two parts comes up; the last bin holds 1 as well
        edges = within_parts(edges, len(fragments), bound / BINS)
    pool = Contraction(edges)
    found = np.array(_merges(pool, until), MERGE)
    for name in ("a", "b", "c"):
        found[name] = fragments[found[name].astype(np.int64)]
    return History(found, until)


def _merges(pool: Contraction, until: float) -> list[tuple[int, int, int, float, float]]:
    """Rows of `MERGE` with nodes for fragments, in the order of the queue."""
    queue = _Bins(pool.score)
    stale = bytearray(len(pool.score))
    found, level = [], 0.0

    def cheaper(of_a: int, of_b: int) -> int:
        """waterz keeps the edge of b unless its score is larger: what remains must come up early enough."""
        return of_a if pool.score[of_b] > pool.score[of_a] else of_b

    while (edge := queue.front()) is not None and pool.score[edge] < until:
        queue.pop()
        level = max(level, pool.score[edge])
        if pool.gone[edge]:
            continue
        if stale[edge]:
            stale[edge] = 0
            pool.score[edge] = pool.fresh_score(edge)
            queue.push(edge, pool.score[edge])
            continue
        a, b = pool.nodes(edge)
        found.append((a, b, a, pool.score[edge], level))
        for kept in pool.merge(edge, cheaper):
            stale[kept] = 1
    return found


class _Bins:
    """First in, first out, within bins of 1/256; the lowest bin first."""

    def __init__(self, scores: list[float]) -> None:
        self._bins: list[deque[int]] = [deque() for _ in range(BINS)]
        self._lowest = BINS
        for edge, score in enumerate(scores):
            self.push(edge, score)

    def push(self, edge: int, score: float) -> None:
        """Put an edge at the end of its bin; a score of 1 belongs to the last."""
        number = min(int(score * BINS), BINS - 1)
        self._bins[number].append(edge)
        self._lowest = min(self._lowest, number)

    def front(self) -> int | None:
        """The edge whose turn it is; None when there is none."""
        while self._lowest < BINS and not self._bins[self._lowest]:
            self._lowest += 1
        return self._bins[self._lowest][0] if self._lowest < BINS else None

    def pop(self) -> None:
        """Remove the edge in front."""
        self._bins[self._lowest].popleft()
