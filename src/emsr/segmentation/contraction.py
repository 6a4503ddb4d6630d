"""A graph that shrinks: two nodes become one, their edges to a common neighbour one edge. Python, edge by edge."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from emsr.segmentation.check import WHITE

Survivor = Callable[[int, int], int]
"""Of the edges that a and b, a < b, have to a common neighbour: which number the one has that both become."""


class Contraction:
    """Edges are numbered as the rows of the table (u, v, count, sum) they came from.

    `score` is what the caller last knew of each edge, `gone` is 1 for edges that were merged into another.
    """

    def __init__(self, table: np.ndarray) -> None:
        nodes, ends = np.unique(np.concatenate([table["u"], table["v"]]), return_inverse=True)
        self._least: list[int] = nodes.tolist()  # smallest node of the region in each slot
        self._one: list[int] = ends[: len(table)].tolist()
        self._other: list[int] = ends[len(table) :].tolist()
        self._count: list[int] = table["count"].tolist()
        self._sum: list[int] = table["sum"].tolist()
        self._around: list[dict[int, int]] = [{} for _ in self._least]  # neighbour: edge
        for edge, (one, other) in enumerate(zip(self._one, self._other, strict=True)):
            self._around[one][other] = self._around[other][one] = edge
        self.gone = bytearray(len(table))
        self.score = [self.fresh_score(edge) for edge in range(len(table))]

    def fresh_score(self, edge: int) -> float:
        """1 - mean affinity of the edge as it is now; integers are exact, the division rounds once."""
        white = WHITE * self._count[edge]
        return (white - self._sum[edge]) / white

    def nodes(self, edge: int) -> tuple[int, int]:
        """The regions at an edge, a < b, each by its smallest node."""
        a, b = self._least[self._one[edge]], self._least[self._other[edge]]
        return (a, b) if a < b else (b, a)

    def merge(self, edge: int, survivor: Survivor) -> list[int]:
        """Make the two regions at an edge one; returns the edges that took in another, whose scores have changed."""
        big, small = self._one[edge], self._other[edge]
        if len(self._around[big]) < len(self._around[small]):
            big, small = small, big
        lost, self._around[small] = self._around[small], {}
        del lost[big], self._around[big][small]
        self.gone[edge] = 1
        small_is_b = self._least[small] > self._least[big]
        changed = []
        for node, moved in lost.items():
            del self._around[node][small]
            rival = self._around[big].get(node)
            if rival is not None:
                moved = self._united(rival, moved, survivor) if small_is_b else self._united(moved, rival, survivor)
                changed.append(moved)
            self._around[big][node] = self._around[node][big] = moved
            self._one[moved], self._other[moved] = big, node
        self._least[big] = min(self._least[big], self._least[small])
        return changed

    def _united(self, of_a: int, of_b: int, survivor: Survivor) -> int:
        """One edge out of two."""
        kept = survivor(of_a, of_b)
        dropped = of_b if kept == of_a else of_a
        self._count[kept] += self._count[dropped]
        self._sum[kept] += self._sum[dropped]
        self.gone[dropped] = 1
        return kept
