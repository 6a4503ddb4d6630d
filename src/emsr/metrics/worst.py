"""The mistakes of a segmentation that cost most, and where they lie.

An object in several segments keeps its largest piece; every other piece is a split. A segment over several objects
keeps the one that it covers most of; every other object in it is a merge. Their rank is what the pair adds to VOI.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np

from emsr.metrics.pairs import runs
from emsr.metrics.segmentation import Contingency, contributions
from emsr.metrics.truth import check_pair

Kind = Literal["split", "merge"]
Triple = tuple[int, int, int]

STATED: dict[str, object] = {
    "worst": "pairs of an object and a segment by the bits that they add to VOI split or merge, without the largest "
    "piece of each object (split) or segment (merge)",
}
"""What ``worst`` lists, in words that go beside the pictures."""


@dataclass(frozen=True)
class Mistake:
    """``voxels`` of object ``truth`` that lie in ``segment``, of the ``whole`` object (split) or segment (merge).

    ``main`` is the segment that holds most of the object (split), the object that the segment holds most of (merge).
    """

    kind: Kind
    truth: int
    segment: int
    voxels: int
    whole: int
    main: int
    bits: float


def worst(table: Contingency, kind: Kind, count: int = 50) -> list[Mistake]:
    """The ``count`` worst splits or merges, worst first, equal ones by ids; fewer if there are fewer.

    ``table`` must be without ignored labels (``Contingency.without``). Raises ValueError for another kind.
    """
    if kind not in ("split", "merge"):
        raise ValueError(f"kind {kind!r} must be split or merge")
    if not table.total:
        return []
    side = 0 if kind == "split" else 1
    own, other = (table.truth, table.segment) if kind == "split" else (table.segment, table.truth)
    bits, whole = contributions(table)[side], table.sizes()[side]
    main = _largest(own, table.voxels)
    order = np.lexsort((table.segment, table.truth, -bits))
    rest = order[main[order] != order][:count]
    return [
        Mistake(
            kind,
            int(table.truth[i]),
            int(table.segment[i]),
            int(table.voxels[i]),
            int(whole[i]),
            int(other[main[i]]),
            float(bits[i]),
        )
        for i in rest
    ]


def _largest(ids: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    """For each pair the index of the largest pair of the same id, of equal ones the first."""
    _, place = np.unique(ids, return_inverse=True)
    order = np.lexsort((-voxels, place))  # stable: equal ones in their order
    first = np.searchsorted(place[order], np.arange(place.max() + 1))
    return order[first][place]


@dataclass(frozen=True)
class Place:
    """Where the voxels of a pair lie: the box ``start`` to ``stop`` (half-open, z y x) and the sum of the coordinates.

    Places of shards add up.
    """

    voxels: int
    sums: Triple
    start: Triple
    stop: Triple

    def __add__(self, other: Place) -> Place:
        z, y, x = (a + b for a, b in zip(self.sums, other.sums, strict=True))
        return Place(
            self.voxels + other.voxels,
            (z, y, x),
            _each(min, self.start, other.start),
            _each(max, self.stop, other.stop),
        )

    @property
    def centre(self) -> tuple[float, float, float]:
        """Mean of the voxels' coordinates (z, y, x); it may lie outside a bent object."""
        z, y, x = (total / self.voxels for total in self.sums)
        return z, y, x


def _each(choose: Callable[[int, int], int], a: Triple, b: Triple) -> Triple:
    return choose(a[0], b[0]), choose(a[1], b[1]), choose(a[2], b[2])


def places(
    truth: np.ndarray, segments: np.ndarray, pairs: Collection[tuple[int, int]], origin: Triple = (0, 0, 0)
) -> dict[tuple[int, int], Place]:
    """Places in one shard of the pairs (truth label, segment) that occur in it, in coordinates of the volume.

    ``truth`` and ``segments`` are the shard's labels (z, y, x), ``origin`` its first voxel. Raises ValueError as
    ``Contingency.of``.
    """
    check_pair(truth, segments)
    flat = truth.ravel(), segments.ravel()
    starts, lengths = runs(*flat, rows=truth.shape[2])
    objects, pieces = flat[0][starts].astype(np.uint64), flat[1][starts].astype(np.uint64)
    wanted = [np.array([pair[side] for pair in pairs], np.uint64) for side in (0, 1)]
    near = np.flatnonzero(np.isin(objects, wanted[0]) & np.isin(pieces, wanted[1]))
    found = {}
    for pair in pairs:
        mine = near[(objects[near] == pair[0]) & (pieces[near] == pair[1])]
        if len(mine):
            found[pair] = _place(starts[mine], lengths[mine], truth.shape, origin)
    return found


def _place(starts: np.ndarray, lengths: np.ndarray, shape: tuple[int, ...], origin: Triple) -> Place:
    """The place of runs along x, given the index of their first voxel in the shard and their lengths."""
    z, y, x = (axis + first for axis, first in zip(np.unravel_index(starts, shape), origin, strict=True))
    middle = (2 * x + lengths - 1) * lengths // 2  # sum of the coordinates of a run, always whole
    return Place(
        int(lengths.sum()),
        (int(z @ lengths), int(y @ lengths), int(middle.sum())),
        (int(z.min()), int(y.min()), int(x.min())),
        (int(z.max()) + 1, int(y.max()) + 1, int((x + lengths).max())),
    )
