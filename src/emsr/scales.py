"""Scales, whole and real, one number or one for y and one for x; and two grids of one extent, in integers alone.

A section of H coarse pixels has round(s*H) fine voxels. Both cover the same extent, so voxel j has its centre at coarse
coordinate (j + 1/2) * H / H', pixel i being [i, i + 1); it belongs to the pixel that holds its centre.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Scale = int | float | tuple[float, float]
"""Fine voxels per coarse pixel along y and x: a number for both, or (y, x)."""
NAME = "[0-9]+([.][0-9]+)?(x[0-9]+([.][0-9]+)?)?"
"""Regular expression of what `name` gives."""
MOST = 1000


def of(value: Any) -> Scale:
    """A scale from what YAML or JSON holds: a number, or [y, x]; whole numbers become int, equal pairs one number.

    ValueError, in one line, for anything else, and for numbers below 1.
    """
    numbers = list(value) if isinstance(value, list | tuple) else [value]
    wanted = "write a number of at least 1, as 4 or 3.7, or two for y and x, as [3.5, 2]"
    if isinstance(value, list | tuple) and len(numbers) != 2:
        raise ValueError(f"scale {list(value)} has {len(numbers)} numbers: {wanted}")
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int | float) or not 1 <= number <= MOST:
            raise ValueError(f"scale {stated(value)!r} is none: {wanted}")
    y, x = (int(number) if number == int(number) else float(number) for number in (numbers[0], numbers[-1]))
    return y if y == x else (y, x)


def stated(scale: Any) -> Any:
    """A scale as JSON holds it."""
    return list(scale) if isinstance(scale, tuple) else scale


def whole(scale: Scale) -> bool:
    """Whether a coarse pixel is a whole number of fine voxels, as many along y as along x."""
    return isinstance(scale, int)


def pair(scale: Scale) -> tuple[float, float]:
    """The scale along y and along x."""
    return scale if isinstance(scale, tuple) else (scale, scale)


def name(scale: Scale) -> str:
    """The scale in names of files: 4, 3.7 or 3.5x2."""
    y, x = (repr(one) for one in pair(scale))
    return y if y == x else f"{y}x{x}"


def of_name(text: str) -> Scale:
    """The scale that a name of a file states; ValueError for no scale."""
    if not re.fullmatch(NAME, text):
        raise ValueError(f"{text!r} is no scale of a file's name: write it like 4, 3.7 or 3.5x2")
    numbers = [float(number) for number in text.split("x")]
    return of(numbers if len(numbers) > 1 else numbers[0])


def fine_plane(coarse: Sequence[int], scale: Scale) -> tuple[int, int]:
    """Size (y, x) of a section of `coarse` (y, x) pixels with so many voxels a pixel, rounded (halves to even)."""
    y, x = (round(s * side) for s, side in zip(pair(scale), coarse, strict=True))
    return y, x


def coarse_plane(fine: Sequence[int], scale: Scale) -> tuple[int, int]:
    """Size (y, x) of the largest section whose `fine_plane` is within `fine` (y, x) voxels; 0 where none is."""
    y, x = (_coarse(side, s) for s, side in zip(pair(scale), fine, strict=True))
    return y, x


def _coarse(fine: int, scale: float) -> int:
    side = int(fine / scale) + 1
    while round(scale * side) > fine:
        side -= 1
    return side


def fits(coarse: Sequence[int], fine: Sequence[int], scale: Scale) -> bool:
    """Whether sections of `fine` (y, x) voxels are those of `coarse` pixels, with less than a pixel to spare."""
    more = fine_plane([side + 1 for side in coarse], scale)
    return all(low <= side < high for low, side, high in zip(fine_plane(coarse, scale), fine, more, strict=True))


def least(scale: Scale) -> int:
    """The least side of a fine section that has a coarse pixel along y and along x."""
    return max(round(one) for one in pair(scale))


@dataclass(frozen=True)
class Axis:
    """One axis of two grids of one extent: `coarse` pixels and `fine` voxels."""

    coarse: int
    fine: int

    def edge(self, pixel: int) -> int:
        """The first voxel whose centre lies at or behind the lower edge of a pixel, which may lie past the end."""
        return -((self.coarse - 2 * self.fine * pixel) // (2 * self.coarse))

    def pixel(self, voxel: int) -> int:
        """The pixel that holds the centre of a voxel."""
        return (2 * voxel + 1) * self.coarse // (2 * self.fine)

    def finer(self, first: int, last: int) -> tuple[int, int]:
        """The voxels whose centres lie in the pixels [first, last)."""
        return self.edge(first), self.edge(last)

    def coarser(self, first: int, last: int) -> tuple[int, int]:
        """The pixels that hold the centres of the voxels [first, last); empty for no voxel."""
        return self.pixel(first), (self.pixel(last - 1) + 1 if last > first else self.pixel(first))

    @property
    def ratio(self) -> float:
        """Voxels per pixel: the scale but for what rounding the number of voxels makes of it."""
        return self.fine / self.coarse

    @property
    def step(self) -> int:
        """The whole number of voxels that is nearest to a pixel."""
        return max(1, math.floor(self.ratio + 0.5))


def axes(coarse: Sequence[int], fine: Sequence[int]) -> tuple[Axis, Axis]:
    """The axes y and x of sections of `coarse` (y, x) pixels and `fine` (y, x) voxels."""
    y, x = (Axis(few, many) for few, many in zip(coarse, fine, strict=True))
    return y, x
