"""Overlapping windows into one image, in integers: the sum does not depend on the order of the windows.

A window's output v in [0, 1] becomes round(255 * 128 * v), is multiplied by integer weights that ramp up over the
overlap along y and x, summed in int32, divided by the sum of the weights and rounded once, half up.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

import numpy as np

from emsr.geometry import Box, Triple, touching, windows_at_most
from emsr.plan import Plan

STEPS = 255 * 128
"""Steps between black and white in which windows are summed."""
PER_GREY = 128
"""Steps in one grey level."""
LARGEST = 256
"""Bound of the sum of weights on an axis: (256 * 256) * (STEPS + PER_GREY / 2) < 2**31."""


def axis_weights(window: int, overlap: int, scale: int) -> np.ndarray:
    """Weights of one window along one axis, int32 of shape (window * scale,), at least 1.

    They rise in a straight line over the overlap and are constant between; where as many windows as the grid allows lie
    over one voxel, their sum is at most 256.
    """
    peak = LARGEST // windows_at_most(window, overlap)
    if peak < 1:
        raise ValueError(f"overlap {overlap} puts more than {LARGEST} windows of {window} over a voxel: lower it")
    position = np.arange(window * scale, dtype=np.int64)
    edge = np.minimum(position, position[::-1])
    ramp = 1 + edge * (peak - 1) // max(overlap * scale - 1, 1)
    return np.minimum(ramp, peak).astype(np.int32)


def total_weights(plan: Plan, axis: int, first: int, last: int) -> np.ndarray:
    """Sum of all windows' weights along one axis for the sr voxels [first, last), int32."""
    weights = axis_weights(plan.window, plan.overlap, plan.scale)
    total = np.zeros(last - first, np.int32)
    starts = touching(tuple(start * plan.scale for start in plan.starts(axis)), len(weights), first, last)
    for start in starts:
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
        line = axis_weights(plan.window, plan.overlap, plan.scale)
        self._weights = line[:, None] * line[None, :]  # (s*window, s*window)

    def add(self, z: int, corner: tuple[int, int], steps: np.ndarray, shards: Iterable[Triple]) -> None:
        """Add one window of section z; `corner` (y, x) and `steps` (int16, in 1/128 grey levels) are in sr voxels."""
        height, width = steps.shape
        window = Box((z, *corner), (z + 1, corner[0] + height, corner[1] + width))
        weighted = steps * self._weights  # int32
        for index in shards:
            shared = self._boxes[index].intersect(window)
            if not shared.size:
                continue
            _, rows, columns = shared.shifted(tuple(-first for first in window.start)).slices  # type: ignore[arg-type]
            inside = shared.shifted(tuple(-first for first in self._boxes[index].start)).slices  # type: ignore[arg-type]
            with self._lock:
                self._sum(index)[inside] += weighted[None, rows, columns]

    def done(self, shards: Iterable[Triple]) -> list[Triple]:
        """One task that touches these shards is done; which of them are finished now."""
        with self._lock:
            touched = list(shards)
            for index in touched:
                self._waiting[index] -= 1
            return [index for index in touched if self._waiting[index] == 0]

    def take(self, index: Triple) -> np.ndarray:
        """The voxels of a finished shard, uint8 (z, y, x); its sums are let go. Sections without data are 0."""
        with self._lock:
            sums = self._sum(index)
            del self._sums[index]
        box = self._boxes[index]
        rows, columns = (total_weights(self._plan, axis, box.start[axis], box.stop[axis]) for axis in (1, 2))
        weights = rows[:, None] * columns[None, :]
        voxels = np.empty(box.shape, np.uint8)
        for z, section in enumerate(sums):
            voxels[z] = (section + weights * (PER_GREY // 2)) // (weights * PER_GREY)
        return voxels

    def _sum(self, index: Triple) -> np.ndarray:
        if index not in self._sums:
            self._sums[index] = np.zeros(self._boxes[index].shape, np.int32)
        return self._sums[index]
