"""Organelles that the truth gives ids of their own: into the object that encloses them.

A segmentation follows cell membranes, so a mitochondrion with its own id in the truth counts as a merge although
nobody would correct it. What is done about it is a list of ids or a size, stated beside the figures.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from emsr.metrics.pairs import added
from emsr.metrics.truth import check_labels

STATED: dict[str, object] = {
    "organelles": "an object of at most max_voxels, or listed, whose faces touch one larger object only, becomes part "
    "of it, from the smallest on, so that an absorbed object inside it is no other; background counts as another "
    "object, and an object at the volume's end is left as it is unless listed",
}
"""What ``absorb_enclosed`` does, in words that go beside the figures."""


@dataclass(frozen=True)
class Which:
    """Which objects may be absorbed: those of at most ``max_voxels``, and those listed in ``ids``.

    ``share`` (0.5 to 1) of the faces must touch the enclosing object; below 1 lets stray voxels of others touch too.
    """

    max_voxels: int = 0
    ids: Collection[int] = ()
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.max_voxels < 0 or not (self.max_voxels or self.ids):
            raise ValueError(f"nothing to absorb: max_voxels is {self.max_voxels} and no ids are listed; give one")
        if not 0.5 < self.share <= 1:
            raise ValueError(f"share {self.share} of the surface: give more than 0.5 and at most 1")


def absorb_enclosed(labels: np.ndarray, which: Which) -> np.ndarray:
    """A copy of ``labels`` (z, y, x) in which enclosed objects have the id of the object around them.

    The whole truth at once: a shard does not see the whole surface. Objects that are absorbed into an absorbed object
    go along; two organelles that touch each other are not enclosed by one object, and stay.
    Raises ValueError for a listed object that is not enclosed.
    """
    mapping = enclosing(labels, which)
    if not mapping:
        return labels.copy()
    inner = np.array(sorted(mapping), labels.dtype)
    outer = np.array([_outermost(int(one), mapping) for one in inner], labels.dtype)
    place = np.minimum(np.searchsorted(inner, labels), len(inner) - 1)
    return np.where(inner[place] == labels, outer[place], labels)


def enclosing(labels: np.ndarray, which: Which) -> dict[int, int]:
    """Id of each object that ``which`` absorbs -> id of the object that it touches."""
    check_labels(labels, "truth")
    ids, counts = np.unique(labels, return_counts=True)
    voxels = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    small = {one for one, size in voxels.items() if one and size <= which.max_voxels} - _at_ends(labels)
    listed = {int(one) for one in which.ids} & voxels.keys() - {0}
    around = _neighbours(labels, small | listed)
    mapping: dict[int, int] = {}
    for one in sorted(around, key=lambda one: (voxels[one], one)):
        faces = _outside(one, around[one], mapping)
        main = max(faces, key=lambda other: (faces[other], -other))
        if main and faces[main] >= which.share * sum(faces.values()) and voxels[main] > voxels[one]:
            mapping[one] = main
        elif one in listed:
            raise ValueError(
                f"object {one} is not enclosed: it touches {len(faces)} labels, most of all {main}, which must be a "
                f"larger object and cover {which.share:.0%} of its surface; take it off the list"
            )
    return mapping


def _neighbours(labels: np.ndarray, wanted: Collection[int]) -> dict[int, dict[int, int]]:
    """Of the wanted objects that touch anything: which labels, over how many faces."""
    ones, others = [np.empty(0, labels.dtype)], [np.empty(0, labels.dtype)]
    for axis in range(labels.ndim):
        along = np.moveaxis(labels, axis, 0)
        lower, upper = along[:-1], along[1:]
        differs = lower != upper
        ones += [lower[differs], upper[differs]]
        others += [upper[differs], lower[differs]]
    one, other = np.concatenate(ones), np.concatenate(others)
    keep = np.isin(one, np.array(sorted(wanted), labels.dtype))
    around: dict[int, dict[int, int]] = {}
    for a, b, faces in zip(*added(one[keep], other[keep], np.ones(np.count_nonzero(keep))), strict=True):
        around.setdefault(int(a), {})[int(b)] = int(faces)
    return around


def _outside(one: int, faces: dict[int, int], mapping: dict[int, int]) -> dict[int, int]:
    """The faces of an object without those to smaller ones that are absorbed into it."""
    return {other: count for other, count in faces.items() if _outermost(other, mapping) != one}


def _at_ends(labels: np.ndarray) -> set[int]:
    """Ids that reach an end of the array along an axis longer than one voxel."""
    ends: set[int] = set()
    for axis, length in enumerate(labels.shape):
        if length > 1:
            ends.update(np.unique(labels.take([0, length - 1], axis)).tolist())
    return ends


def _outermost(one: int, mapping: dict[int, int]) -> int:
    """Follow ``mapping`` to the object that nothing encloses; each is larger than the one before, so it ends."""
    while one in mapping:
        one = mapping[one]
    return one
