"""How well membrane is found, at every threshold at once, with a tolerance; and what of it is lost and invented.

A predicted membrane voxel is right if a true one lies within the tolerance; a true one is found if a predicted one
does, which at all thresholds follows from the highest prediction within the tolerance. Histograms over the 256 levels
of a uint8 hold both, and add up over shards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal, TypeVar

import numpy as np

from emsr.metrics.tolerance import Tolerance, dilated

LEVELS = 256
Region = tuple[slice, slice, slice]
EVERYWHERE: Region = (slice(None), slice(None), slice(None))
Key = TypeVar("Key")

STATED: dict[str, object] = {
    "thresholds": "membrane is what has a probability of at least k / 255, k = 0 to 255",
    "precision": "share of predicted membrane voxels with a true one within the tolerance; 1 where none is predicted",
    "recall": "share of true membrane voxels with a predicted one within the tolerance",
    "best_f1": "highest F1 over all thresholds of the very data that are scored, at the lowest such threshold",
    "average_precision": "sum over thresholds of precision times the step of recall, both with the tolerance",
    "auc": "area under the ROC curve, without tolerance",
    "invented_lost": "share of a window's voxels that are membrane in sr (hr), with none in hr (sr) within tolerance",
}
"""What the figures are, in words that go beside them."""


def levels(probability: np.ndarray) -> np.ndarray:
    """Probabilities as uint8 levels (255 = 1.0): uint8 as they are, floats as round(255 p).

    Raises ValueError for other integers and for floats outside [0, 1].
    """
    if probability.dtype == np.uint8:
        return probability
    if probability.dtype.kind != "f":
        raise ValueError(f"membrane probability is {probability.dtype}: give uint8 (255 = 1.0) or floats in [0, 1]")
    low, high = (probability.min(), probability.max()) if probability.size else (0.0, 0.0)
    if not (low >= 0 and high <= 1):  # also where something is not a number
        raise ValueError(f"membrane probability from {low} to {high} is not in [0, 1]: divide integers by 255")
    return np.rint(probability * 255).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class MembraneTally:
    """Voxels by level, int64 (256,) each; tallies of shards add up exactly.

    ``predicted`` counts all voxels by their own level, ``right`` those of them with true membrane within the
    tolerance, ``true`` the true membrane voxels by their own level, and ``found`` the same voxels by the highest level
    within the tolerance.
    """

    predicted: np.ndarray
    right: np.ndarray
    true: np.ndarray
    found: np.ndarray

    def __add__(self, other: MembraneTally) -> MembraneTally:
        return MembraneTally(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))


def tally(
    probability: np.ndarray,
    truth: np.ndarray,
    tolerance: Tolerance,
    core: Region = EVERYWHERE,
    counted: np.ndarray | None = None,
) -> MembraneTally:
    """The histograms of a shard.

    ``probability`` (z, y, x; uint8 or floats in [0, 1]) and ``truth`` (bool) are the shard with a halo of
    ``tolerance.reach`` voxels, less at the volume's ends; ``core`` is the shard inside them. Voxels outside ``counted``
    (bool, same shape) are not counted, but may be what others find. Raises ValueError for other kinds and shapes.
    """
    grey = levels(probability)
    if truth.dtype != np.bool_ or truth.shape != grey.shape or truth.ndim != 3:
        raise ValueError(f"truth is {truth.dtype} {truth.shape}: membrane truth must be bool (z, y, x) {grey.shape}")
    if counted is not None and (counted.dtype != np.bool_ or counted.shape != truth.shape):
        raise ValueError(f"counted is {counted.dtype} {counted.shape}: it must be bool {truth.shape} as the truth")
    inside = np.ones(truth[core].shape, bool) if counted is None else counted[core]
    right = dilated(truth, tolerance)[core] & inside
    true = truth[core] & inside
    near = dilated(grey, tolerance)[core]
    own = grey[core]
    return MembraneTally(*(_histogram(part) for part in (own[inside], own[right], own[true], near[true])))


def _histogram(grey: np.ndarray) -> np.ndarray:
    return np.bincount(grey, minlength=LEVELS).astype(np.int64)


def _from(histogram: np.ndarray) -> np.ndarray:
    """Voxels of at least each level."""
    return histogram[::-1].cumsum()[::-1]


@dataclass(frozen=True, eq=False)
class Curve:
    """Precision, recall and F1, each (256,) in [0, 1], where membrane is what has at least level 0 to 255."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


def curve(total: MembraneTally) -> Curve:
    """Precision and recall at all thresholds; raises ValueError if the truth holds no membrane."""
    membrane = int(total.true.sum())
    if not membrane:
        raise ValueError("the truth holds no membrane voxel that is counted: recall is undefined")
    predicted = _from(total.predicted)
    precision = np.where(predicted > 0, _from(total.right) / np.maximum(predicted, 1), 1.0)
    recall = _from(total.found) / membrane
    both = precision + recall
    return Curve(precision, recall, np.where(both > 0, 2 * precision * recall / np.where(both > 0, both, 1), 0.0))


def roc_area(total: MembraneTally) -> float | None:
    """Probability that a true membrane voxel has a higher level than another voxel, ties one half; no tolerance.

    The area under the ROC curve (Hanley & McNeil 1982); None unless both kinds of voxels occur.
    """
    true, false = total.true.astype(np.float64), (total.predicted - total.true).astype(np.float64)
    if not (true.sum() and false.sum()):
        return None
    below = np.cumsum(false) - false
    return float(true @ (below + false / 2) / (true.sum() * false.sum()))


def summary(total: MembraneTally, chosen: int | None = None) -> dict[str, object]:
    """Figures of a volume from its tally: what goes into ``scores.json``; None what is undefined, with a ``reason``.

    ``chosen`` is a threshold level (0 to 255) that validation chose; with it come ``f1``, ``precision`` and ``recall``
    there, without it they are those of ``best_f1``. ``threshold`` and ``best_threshold`` are levels / 255. Raises
    ValueError for a level outside 0 to 255.
    """
    if chosen is not None and not 0 <= chosen < LEVELS:
        raise ValueError(f"threshold level {chosen} must be from 0 to {LEVELS - 1}")
    voxels, membrane = int(total.predicted.sum()), int(total.true.sum())
    names = ("best_f1", "best_threshold", "threshold", "f1", "precision", "recall", "average_precision")
    figures: dict[str, object] = dict.fromkeys(names)
    if membrane:
        line = curve(total)
        best = int(line.f1.argmax())
        at = best if chosen is None else chosen
        average = float(-np.diff(line.recall, append=0.0) @ line.precision)
        values = (line.f1[best], best / 255, at / 255, line.f1[at], line.precision[at], line.recall[at], average)
        figures = dict(zip(names, map(float, values), strict=True))
    reason = None if membrane else "the truth holds no membrane voxel that is counted"
    return figures | {"auc": roc_area(total), "voxels": voxels, "membrane_voxels": membrane, "reason": reason}


@dataclass(frozen=True)
class Difference:
    """Membrane of sr against that of hr in a window: ``invented`` of the ``sr`` membrane voxels, ``lost`` of hr's."""

    voxels: int = 0
    sr: int = 0
    invented: int = 0
    hr: int = 0
    lost: int = 0

    def __add__(self, other: Difference) -> Difference:
        return Difference(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))

    @property
    def invented_share(self) -> float | None:
        """Share of the sr membrane that hr has nothing of nearby; None without sr membrane."""
        return self.invented / self.sr if self.sr else None

    @property
    def lost_share(self) -> float | None:
        """Share of the hr membrane that sr has nothing of nearby; None without hr membrane."""
        return self.lost / self.hr if self.hr else None


def difference(
    sr: np.ndarray,
    hr: np.ndarray,
    thresholds: tuple[int, int],
    tolerance: Tolerance,
    core: Region = EVERYWHERE,
    left_out: np.ndarray | None = None,
) -> Difference:
    """What sr invents and loses of hr's membrane in one window.

    ``sr`` and ``hr`` are membrane probabilities (z, y, x; uint8 or floats in [0, 1]) with a halo of ``tolerance.reach``
    voxels around ``core``; ``thresholds`` the levels (0 to 255) from which each is membrane. Voxels within the
    tolerance of one that is ``left_out`` (bool, same shape), where either image may show nothing, are not compared.
    """
    if sr.shape != hr.shape or sr.ndim != 3:
        raise ValueError(f"sr is {sr.shape} and hr {hr.shape} voxels: compare one window (z, y, x) of both")
    if not all(0 <= level < LEVELS for level in thresholds):
        raise ValueError(f"threshold levels {thresholds} must be from 0 to {LEVELS - 1}")
    ours, theirs = (levels(image) >= level for image, level in zip((sr, hr), thresholds, strict=True))
    invented = ours & ~dilated(theirs, tolerance)
    lost = theirs & ~dilated(ours, tolerance)
    kept = np.ones(sr.shape, bool) if left_out is None else ~dilated(left_out, tolerance)
    counts = (int(np.count_nonzero((part & kept)[core])) for part in (ours, invented, theirs, lost))
    return Difference(int(np.count_nonzero(kept[core])), *counts)


def ranked(
    windows: Mapping[Key, Difference], by: Literal["invented", "lost"], count: int = 50
) -> list[tuple[Key, Difference]]:
    """The windows with most invented or most lost membrane for their size, worst first; none without any.

    Windows are compared by the share of their voxels, not of their membrane, so a window with a speck of membrane
    does not win; equal ones keep their order.
    """
    if by not in ("invented", "lost"):
        raise ValueError(f"rank windows by 'invented' or 'lost', not {by!r}")
    rows = [(key, window) for key, window in windows.items() if getattr(window, by)]
    return sorted(rows, key=lambda row: -getattr(row[1], by) / row[1].voxels)[:count]
