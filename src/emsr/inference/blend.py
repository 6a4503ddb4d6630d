"""Overlapping windows into one image, in integers: the sum does not depend on the order of the windows.

A window's output v in [0, 1] becomes round(255 * 128 * v), is multiplied by integer weights that ramp up over the
overlap along y and x (and z, where windows are deeper than a section), summed in int32, divided by the sum of the
weights and rounded once, half up.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from emsr import scales
from emsr.geometry import Box, Triple, touching, triple, windows_at_most
from emsr.plan import Plan

STEPS = 255 * 128
"""Steps between black and white in which windows are summed."""
PER_GREY = 128
"""Steps in one grey level."""
LARGEST = 256
"""Bound of the sum of weights on an axis: (256 * 256) * (STEPS + PER_GREY / 2) < 2**31."""
LARGEST_IN_VOLUMES = 40
"""The same where windows overlap along three axes: (40 * 40 * 40) * (STEPS + PER_GREY / 2) < 2**31."""


def axis_weights(window: int, overlap: int, scale: int, largest: int = LARGEST) -> np.ndarray:
    """Weights of one window along one axis, int32 of shape (window * scale,), at least 1.

    They rise in a straight line over the overlap and are constant between; where as many windows as the grid allows lie
    over one voxel, their sum is at most `largest`.
    """
    peak = _peak(window, overlap, largest)
    position = np.arange(window * scale, dtype=np.int64)
    edge = np.minimum(position, position[::-1])
    ramp = 1 + edge * (peak - 1) // max(overlap * scale - 1, 1)
    return np.minimum(ramp, peak).astype(np.int32)


def _peak(window: int, overlap: int, largest: int) -> int:
    """The weight of a voxel in the middle of a window."""
    peak = largest // windows_at_most(window, overlap)
    if peak < 1:
        raise ValueError(f"overlap {overlap} puts more than {largest} windows of {window} over a voxel: lower it")
    return peak


def weights_at(plan: Plan, axis: int, start: int, largest: int = LARGEST) -> np.ndarray:
    """Weights along axis 1 (y) or 2 (x) of the window that starts at `start`, int32, one for each voxel of its span.

    What `axis_weights` are at a whole scale, by where a voxel's centre lies in the window: ratios of integers, rounded
    down.
    """
    along, window, overlap = plan.axis(axis), plan.window, plan.overlap
    if scales.whole(plan.scale):
        return axis_weights(window, overlap, along.step, largest)
    peak = _peak(window, overlap, largest)
    voxel = np.arange(*plan.span(axis, start), dtype=np.int64)
    place = (2 * voxel + 1) * along.coarse - 2 * along.fine * start  # in units of 1 / (2 * fine) lr pixels
    edge = np.maximum(np.minimum(place, 2 * along.fine * window - place) - along.coarse, 0)
    ramp = 1 + edge * (peak - 1) // max(2 * (overlap * along.fine - along.coarse), 1)
    return np.minimum(ramp, peak).astype(np.int32)


def plan_weights(plan: Plan, axis: int, start: int = 0) -> np.ndarray:
    """Weights of the window of `plan` at `start` along axis 0 (z), 1 (y) or 2 (x), int32; 1 along z where depth is 1.

    The same for all windows at a whole scale.
    """
    if plan.depth == 1:
        return weights_at(plan, axis, start) if axis else np.ones(1, np.int32)
    if axis == 0:
        return axis_weights(plan.depth, plan.depth_overlap, 1, LARGEST_IN_VOLUMES)
    return weights_at(plan, axis, start, LARGEST_IN_VOLUMES)


def total_weights(plan: Plan, axis: int, first: int, last: int) -> np.ndarray:
    """Sum of all windows' weights along one axis for the output voxels [first, last), int32."""
    if axis == 0 and plan.depth == 1:
        return np.ones(last - first, np.int32)
    total = np.zeros(last - first, np.int32)
    pixels, side = (plan.axis(axis).coarser(first, last), plan.window) if axis else ((first, last), plan.depth)
    for window in touching(plan.starts(axis), side, *pixels):
        weights = plan_weights(plan, axis, window)
        start = plan.span(axis, window)[0] if axis else window
        low, high = max(start, first), min(start + len(weights), last)
        total[low - first : high - first] += weights[low - start : high - start]
    return total


class Blend:
    """The shards under way: int32 sums that windows are added to, and how many tasks each still waits for.

    Memory: 4 bytes for each voxel of the shards that have been touched and not taken. `add` may be called from several
    threads.
    """

    def __init__(self, plan: Plan, waiting: dict[Triple, int]) -> None:
        """`waiting` says for each wanted shard how many tasks will touch it."""
        self._plan = plan
        self._waiting = dict(waiting)
        self._boxes = {index: plan.grid.box(index) for index in waiting}
        self._sums: dict[Triple, np.ndarray] = {}
        self._lock = threading.Lock()
        self._windows = {axis: {plan.span(axis, start)[0]: start for start in plan.starts(axis)} for axis in (1, 2)}
        self._weights_of = lru_cache(8)(self._weights)

    def add(self, z: int, corner: tuple[int, int], steps: np.ndarray, shards: Iterable[Triple]) -> None:
        """Add the window that starts at section z; `corner` (y, x) is in output voxels, `steps` int16 in 1/128 grey
        levels: (y, x), or (channels, depth, y, x).
        """
        weights = self._weights_of((0, 0) if scales.whole(self._plan.scale) else corner)
        steps = steps.reshape(self._plan.channels, *weights.shape)
        stop = [first + side for first, side in zip((z, *corner), weights.shape, strict=True)]
        window = Box((z, *corner), triple(stop))
        weighted = steps * weights  # int32
        for index in shards:
            shared = self._boxes[index].intersect(window)
            if not shared.size:
                continue
            part = shared.shifted(tuple(-first for first in window.start)).slices  # type: ignore[arg-type]
            inside = shared.shifted(tuple(-first for first in self._boxes[index].start)).slices  # type: ignore[arg-type]
            with self._lock:
                self._sum(index)[(slice(None), *inside)] += weighted[(slice(None), *part)]

    def _weights(self, corner: tuple[int, int]) -> np.ndarray:
        """(depth, y, x) of the window whose first voxel is `corner` (y, x); of whole scales all are as the first."""
        starts = (0, *(self._windows[axis][first] for axis, first in zip((1, 2), corner, strict=True)))
        deep, rows, columns = (plan_weights(self._plan, axis, start) for axis, start in enumerate(starts))
        weights: np.ndarray = deep[:, None, None] * rows[:, None] * columns
        return weights

    def done(self, shards: Iterable[Triple]) -> list[Triple]:
        """One task that touches these shards is done; which of them are finished now."""
        with self._lock:
            touched = list(shards)
            for index in touched:
                self._waiting[index] -= 1
            return [index for index in touched if self._waiting[index] == 0]

    def take(self, index: Triple) -> np.ndarray:
        """The voxels of a finished shard, uint8 (z, y, x), or (channels, z, y, x) where the plan has several.

        Its sums are let go. Sections without data are 0.
        """
        with self._lock:
            sums = self._sum(index)
            del self._sums[index]
        box = self._boxes[index]
        deep, rows, columns = (total_weights(self._plan, axis, box.start[axis], box.stop[axis]) for axis in range(3))
        plane = rows[:, None] * columns[None, :]
        voxels = np.empty(sums.shape, np.uint8)
        for z, weight in enumerate(deep):
            weights = weight * plane
            voxels[:, z] = (sums[:, z] + weights * (PER_GREY // 2)) // (weights * PER_GREY)
        return voxels if self._plan.channels > 1 else voxels[0]

    def _sum(self, index: Triple) -> np.ndarray:
        if index not in self._sums:
            self._sums[index] = np.zeros((self._plan.channels, *self._boxes[index].shape), np.int32)
        return self._sums[index]
