"""A plane cut through the processes, and what a section of some thickness sees of sheets and edges.

Sheets (membranes) are averaged over the thickness in closed form, so that a membrane cut obliquely is wide and faint,
and one cut across is thin and dark.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from .lattice import Floats, Footprint, Lattice, Pixels

Owners = NDArray[np.int32]

RIM = 8
"""Pixels rendered beyond each edge, so that sections can be moved."""


@dataclass(frozen=True)
class Place:
    """Where a section lies: its number, thickness and pixel size (nm), and the pixels' rows and columns (nm)."""

    section: int
    thickness: float
    pixel: float
    rows: NDArray[np.float64]
    columns: NDArray[np.float64]
    pixels: Pixels

    def of(self, field: Floats) -> Floats:
        """A field (z, y, x) on the whole lattice at this section's pixels (y, x)."""
        found = self.pixels.of((0, 0), np.ascontiguousarray(field[2 * self.section + 1]))
        if found is None or found[1][0].shape != self.pixels.shape:
            raise ValueError(f"pixels of section {self.section} lie outside the lattice: make its margin wider")
        return found[1][0]

    def patch(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> tuple[slice, slice]:
        """The pixels between two corners (y, x) in nm; may be empty."""
        axes = []
        for axis, ticks in enumerate((self.rows, self.columns)):
            first = int(np.clip(np.ceil((low[axis] - ticks[0]) / self.pixel), 0, len(ticks)))
            axes.append(slice(first, int(np.clip((high[axis] - ticks[0]) // self.pixel + 1, first, len(ticks)))))
        return axes[0], axes[1]


@dataclass(frozen=True)
class Cut:
    """The processes in one section, each (y, x): nearest owner, distance (nm) to the middle of the cleft around it,
    and tilt, the part of the cleft's normal that points along z (0 cut across, 1 cut flat)."""

    owner: Owners
    distance: Floats
    tilt: Floats


def place_of(
    lattice: Lattice, section: int, shape: tuple[int, int], voxel_size_nm: tuple[float, float, float]
) -> Place:
    """The place of a section whose plane has `shape` pixels and a rim of RIM pixels more on every side."""
    rows, columns = (voxel_size_nm[1] * np.arange(-RIM, n + RIM, dtype=np.float64) for n in shape)
    return Place(section, voxel_size_nm[0], voxel_size_nm[1], rows, columns, Pixels(lattice, rows, columns))


def cut(footprints: list[Footprint], place: Place) -> Cut:
    """The nearest process at every pixel, and the distance to where the second nearest is as near."""
    shape = place.pixels.shape
    first, second = (np.full(shape, 200 + 200 * i, np.float32) for i in (0, 1))
    first_slope, second_slope = (np.zeros(shape, np.float32) for _ in range(2))
    owner = np.zeros(shape, np.int32)
    for footprint in footprints:
        found = place.pixels.of(footprint.corner, footprint.distance, footprint.slope)
        if found is None:
            continue
        part, (distance, slope) = found
        nearest, runner_up = first[part], second[part]
        if_first = distance < nearest
        if_second = ~if_first & (distance < runner_up)
        second_slope[part] = np.where(if_first, first_slope[part], np.where(if_second, slope, second_slope[part]))
        second[part] = np.where(if_first, nearest, np.where(if_second, distance, runner_up))
        first_slope[part] = np.where(if_first, slope, first_slope[part])
        first[part] = np.where(if_first, distance, nearest)
        owner[part] = np.where(if_first, footprint.owner, owner[part])
    return _cut(owner, second - first, second_slope - first_slope, place.pixel)


def _cut(owner: Owners, gap: Floats, across: Floats, pixel_nm: float) -> Cut:
    steepness = np.maximum(np.sqrt(_steepness(gap, pixel_nm) ** 2 + across**2), np.float32(0.35))
    return Cut(owner, gap / steepness, np.abs(across) / steepness)


def _steepness(field: Floats, pixel_nm: float) -> Floats:
    """Slope of a field with kinks: on each axis the steeper of the two one-sided differences."""
    total = np.zeros_like(field)
    for axis in (0, 1):
        step = np.abs(np.diff(field, axis=axis))
        before = np.concatenate([step.take([0], axis), step], axis)
        after = np.concatenate([step, step.take([-1], axis)], axis)
        total += np.maximum(before, after) ** 2  # a footprint that ends is a jump: see the limit below
    return np.minimum(np.sqrt(total) / np.float32(pixel_nm), np.float32(2.4))


def sheet(distance: Floats, half: Floats, blur: float) -> Floats:
    """Mean over the slab, `half` nm of it on either side along the normal, of a sheet of unit peak at distance 0."""
    half = np.maximum(half, np.float32(0.5))
    peak = np.float32(blur * np.sqrt(2 * np.pi) / 2)
    mean: Floats = (
        (ndtr((distance + half) / np.float32(blur)) - ndtr((distance - half) / np.float32(blur))) * peak / half
    )
    return mean


def edge(distance: Floats, half: Floats, blur: float) -> Floats:
    """1 where the distance is well below 0, 0 well above, softened by the slab and the blur (nm)."""
    side: Floats = ndtr(-distance / np.sqrt(np.float32(blur**2) + half**2 / 3))
    return side
