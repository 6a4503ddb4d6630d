"""What lies within some nanometres: a ball of voxels, and the highest value inside it around each voxel.

Distances are between the centres of voxels. The ball is a set of rows along x, so the highest value costs one filter
per length of row and one comparison per row, whatever the length; grey levels are done at once. The set is that of
``scipy.ndimage.distance_transform_edt(..., sampling=voxel_size) <= nm``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import maximum_filter1d

SLACK = 1e-9  # so that three voxels of 0.1 nm lie within 0.3 nm


@dataclass(frozen=True)
class Tolerance:
    """A distance in nanometres on voxels of ``voxel_size`` (z, y, x; nm); ``in_plane`` keeps to the own section."""

    nm: float
    voxel_size: tuple[float, float, float]
    in_plane: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.nm) and self.nm >= 0):
            raise ValueError(f"tolerance of {self.nm} nm: give a finite distance of at least 0")
        if len(self.voxel_size) != 3 or not all(math.isfinite(size) and size > 0 for size in self.voxel_size):
            raise ValueError(f"voxel size {self.voxel_size} must be three lengths in nm above 0 (z, y, x)")

    @property
    def reach(self) -> tuple[int, int, int]:
        """Voxels (z, y, x) that the ball extends to each side: the halo that makes ``dilated`` exact in shards."""
        z, y, x = (math.floor(self.nm / size + SLACK) for size in self.voxel_size)
        return (0 if self.in_plane else z, y, x)

    def rows(self) -> dict[int, list[tuple[int, int]]]:
        """The ball as rows along x: half length in voxels -> steps (z, y) from the centre at which such a row lies."""
        depth, height, _ = self.reach
        vz, vy, vx = self.voxel_size
        rows: dict[int, list[tuple[int, int]]] = {}
        for z in range(-depth, depth + 1):
            for y in range(-height, height + 1):
                rest = self.nm**2 * (1 + SLACK) - (z * vz) ** 2 - (y * vy) ** 2
                if rest >= 0:
                    rows.setdefault(math.floor(math.sqrt(rest) / vx + SLACK), []).append((z, y))
        return rows


def dilated(values: np.ndarray, tolerance: Tolerance) -> np.ndarray:
    """Highest of ``values`` (z, y, x; uint8 or bool) within the tolerance of each voxel, in the same dtype.

    Nothing lies outside the array: give a shard with a halo of ``tolerance.reach`` voxels, less at the volume's ends,
    and take its inside.
    """
    if values.ndim != 3 or values.dtype not in (np.uint8, np.bool_):
        raise ValueError(f"values of shape {values.shape} and {values.dtype} must be uint8 or bool (z, y, x)")
    grey = values.view(np.uint8) if values.dtype == np.bool_ else values
    highest = grey.copy()
    for half, steps in tolerance.rows().items():
        line = maximum_filter1d(grey, 2 * half + 1, axis=2, mode="constant", cval=0) if half else grey
        for step in steps:
            _raise(highest, line, step)
    return highest.view(values.dtype)


def _raise(highest: np.ndarray, line: np.ndarray, step: tuple[int, int]) -> None:
    """Lift ``highest`` to ``line`` seen from a voxel ``step`` (z, y) away, in place."""
    here, there = zip(*(_overlap(length, by) for length, by in zip(line.shape, step, strict=False)), strict=True)
    np.maximum(highest[here], line[there], out=highest[here])


def _overlap(length: int, step: int) -> tuple[slice, slice]:
    """Of an axis: the voxels that have one ``step`` further on, and those that lie there."""
    here = slice(max(-step, 0), max(length - max(step, 0), 0))
    return here, slice(max(step, 0), max(length + min(step, 0), 0))
