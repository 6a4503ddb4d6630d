"""Scores of one section from arrays on disk, tile by tile, so that memory does not grow with the section.

Tiles lie on the grid of lr pixels and are read with all that upsampling, degrading and SSIM look at, so the figures are
those of the whole section.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from emsr.degradation import degrade, reach, upsample
from emsr.metrics.image import BORDER, Tally, squared_error, tally_tile

TILE = 1024  # sr voxels, about the side of a tile
SUPPORT = 3  # lr pixels beyond its own that bicubic upsampling of a pixel looks at, one to spare
Span = tuple[int, int]  # half-open
Area = tuple[Span, Span]  # y, x


@dataclass(frozen=True)
class Images:
    """The arrays (z, y, x) of a volume, open for reading; ``kernel`` is the imaging model between hr and lr.

    ``shown`` is the part (sr voxels) of sections that hr shows, whole lr pixels; None is all that lr shows.
    """

    lr: Any
    sr: Any
    hr: Any | None
    scale: int
    kernel: str
    shown: Area | None = None

    @property
    def plane(self) -> tuple[int, int]:
        """Size (y, x) of an lr section."""
        return int(self.lr.shape[1]), int(self.lr.shape[2])

    @property
    def covered(self) -> Area:
        """The part (sr voxels) of sections that lr and hr show."""
        return self.shown or _scaled(((0, self.plane[0]), (0, self.plane[1])), self.scale)


def read(array: Any, z: int, area: Area) -> np.ndarray:
    """Voxels (y, x) of one section."""
    (y0, y1), (x0, x1) = area
    return np.asarray(array[z, y0:y1, x0:x1].read().result())


def grown(span: Span, by: int, length: int, first: int = 0) -> Span:
    """``span`` with ``by`` more on both sides, within [first, length)."""
    return max(span[0] - by, first), min(span[1] + by, length)


def inside(span: Span, outer: Span) -> slice:
    """Where ``span`` lies in an array that starts at ``outer``."""
    return slice(span[0] - outer[0], span[1] - outer[0])


def bicubic(images: Images, z: int, area: Area) -> np.ndarray:
    """The bicubic image of ``area`` (sr voxels) of one section, as uint8, the same as cut from the whole section."""
    s = images.scale
    parts = [
        grown((low // s, -(-high // s)), SUPPORT, length)
        for (low, high), length in zip(area, images.plane, strict=True)
    ]
    large = upsample(read(images.lr, z, (parts[0], parts[1])), s)
    rows, columns = (inside(span, (part[0] * s, part[1] * s)) for span, part in zip(area, parts, strict=True))
    return large[rows, columns]


def tiles(plane: tuple[int, int], side: int) -> Iterator[Area]:
    """Areas of at most ``side`` x ``side`` lr pixels that partition a section of ``plane`` lr pixels."""
    for y in range(0, plane[0], side):
        for x in range(0, plane[1], side):
            yield (y, min(y + side, plane[0])), (x, min(x + side, plane[1]))


def _scaled(area: Area, scale: int) -> Area:
    (y0, y1), (x0, x1) = area
    return (y0 * scale, y1 * scale), (x0 * scale, x1 * scale)


def against_truth(images: Images, z: int) -> dict[str, Tally]:
    """Tallies of section ``z`` of bicubic and sr against hr, over the scale * lr voxels that all of them have."""
    total = {"bicubic": Tally(), "sr": Tally()}
    s, whole = images.scale, images.covered
    (top, bottom), (left, right) = whole
    for (y0, y1), (x0, x1) in tiles(((bottom - top) // s, (right - left) // s), max(1, TILE // s)):
        area = (top + y0 * s, top + y1 * s), (left + x0 * s, left + x1 * s)
        y, x = (grown(span, BORDER, limit, first) for span, (first, limit) in zip(area, whole, strict=True))
        core = inside(area[0], y), inside(area[1], x)
        truth = read(images.hr, z, (y, x))
        total["bicubic"] += tally_tile(truth, bicubic(images, z, (y, x)), core)
        total["sr"] += tally_tile(truth, read(images.sr, z, (y, x)), core)
    return total


def consistency(images: Images, z: int) -> dict[str, Tally]:
    """Tallies of section ``z`` of bicubic and sr, made coarser again by ``kernel``, against lr."""
    total = {"bicubic": Tally(), "sr": Tally()}
    s = images.scale
    halo = -(-reach(s, images.kernel) // s)  # lr pixels
    for area in tiles(images.plane, max(1, TILE // s)):
        y, x = (grown(span, halo, length) for span, length in zip(area, images.plane, strict=True))
        core = inside(area[0], y), inside(area[1], x)
        seen, fine = read(images.lr, z, area), _scaled((y, x), s)
        for name, image in (("bicubic", bicubic(images, z, fine)), ("sr", read(images.sr, z, fine))):
            coarse = degrade(image, s, images.kernel)[core]
            total[name] += Tally(squared_error(seen, coarse), seen.size)
    return total
