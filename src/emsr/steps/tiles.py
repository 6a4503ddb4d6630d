"""Scores of one section from arrays on disk, tile by tile, so that memory does not grow with the section.

Tiles are read with all that upsampling, degrading, SSIM and MS-SSIM look at, so the figures are those of the whole
section.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from emsr.degradation import degrade, reach, upsample
from emsr.metrics import structure
from emsr.metrics.image import BORDER, Tally, squared_error, tally_tile

RIVALS = ("bicubic", "sr")  # what is measured against hr
TILE = 1024  # sr voxels, about the side of a tile
SUPPORT = 3  # lr pixels beyond its own that bicubic upsampling of a pixel looks at, one to spare
Span = tuple[int, int]  # half-open
Area = tuple[Span, Span]  # y, x


@dataclass(frozen=True)
class Images:
    """The arrays (z, y, x) of a volume, open for reading; ``kernel`` is the imaging model between hr and lr."""

    lr: Any
    sr: Any
    hr: Any | None
    scale: int
    kernel: str

    @property
    def plane(self) -> tuple[int, int]:
        """Size (y, x) of an lr section."""
        return int(self.lr.shape[1]), int(self.lr.shape[2])

    @property
    def fine_plane(self) -> tuple[int, int]:
        """Size (y, x) of a section of sr: what is scored of one."""
        return self.plane[0] * self.scale, self.plane[1] * self.scale


def read(array: Any, z: int, area: Area) -> np.ndarray:
    """Voxels (y, x) of one section."""
    (y0, y1), (x0, x1) = area
    return np.asarray(array[z, y0:y1, x0:x1].read().result())


def grown(span: Span, by: int, length: int) -> Span:
    """``span`` with ``by`` more on both sides, within [0, length)."""
    return max(span[0] - by, 0), min(span[1] + by, length)


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
    """Areas of at most ``side`` x ``side`` pixels that partition a section of ``plane`` pixels."""
    for y in range(0, plane[0], side):
        for x in range(0, plane[1], side):
            yield (y, min(y + side, plane[0])), (x, min(x + side, plane[1]))


def _scaled(area: Area, scale: int) -> Area:
    (y0, y1), (x0, x1) = area
    return (y0 * scale, y1 * scale), (x0 * scale, x1 * scale)


def rivals(images: Images, z: int, area: Area) -> dict[str, np.ndarray]:
    """Voxels (y, x) of ``area`` (sr voxels) of one section: "hr", and what is measured against it."""
    return {
        "hr": read(images.hr, z, area),
        "bicubic": bicubic(images, z, area),
        "sr": read(images.sr, z, area),
    }


def against_truth(images: Images, z: int, scales: int) -> dict[str, tuple[Tally, structure.Tally]]:
    """Tallies of section ``z`` of bicubic and sr against hr, over the scale * lr voxels that all of them have.

    The second is MS-SSIM's, of so many ``scales``; empty for 0.
    """
    step = 2 ** (len(structure.WEIGHTS) - 1)  # tiles start where pixels of the coarsest scale do
    plane = images.fine_plane
    found = dict.fromkeys(RIVALS, (Tally(), structure.Tally((0.0,) * scales, (0,) * scales)))
    for area in tiles(plane, -(-TILE // step) * step):
        y, x = (grown(span, structure.HALO, limit) for span, limit in zip(area, plane, strict=True))
        voxels = rivals(images, z, (y, x))
        for name, (pixels, coarser) in found.items():
            pair = voxels["hr"], voxels[name]
            if scales:
                coarser += structure.tally_tile(*pair, _core(area, (y, x)), scales)
            found[name] = pixels + _near(pair, area, (y, x), plane), coarser
    return found


def _core(area: Area, outer: Area) -> tuple[slice, slice]:
    """Where ``area`` lies in an array of ``outer``."""
    return inside(area[0], outer[0]), inside(area[1], outer[1])


def _near(pair: tuple[np.ndarray, np.ndarray], area: Area, outer: Area, plane: Span) -> Tally:
    """PSNR's and SSIM's tally of ``area`` from arrays of ``outer``, which is at least what their windows look at."""
    y, x = (grown(span, BORDER, limit) for span, limit in zip(area, plane, strict=True))
    truth, image = (voxels[_core((y, x), outer)] for voxels in pair)
    return tally_tile(truth, image, _core(area, (y, x)))


def consistency(images: Images, z: int) -> dict[str, Tally]:
    """Tallies of section ``z`` of bicubic and sr, made coarser again by ``kernel``, against lr."""
    total = {name: Tally() for name in RIVALS}
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
