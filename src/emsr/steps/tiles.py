"""Scores of one section from arrays on disk, tile by tile, so that memory does not grow with the section.

Tiles are read with all that upsampling, degrading, SSIM and MS-SSIM look at, so the figures are those of the whole
section.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from scipy.ndimage import maximum_filter

from emsr import resampling, scales
from emsr.degradation import degrade, reach, restore, upsample
from emsr.inference.extent import made_areas
from emsr.metrics import structure
from emsr.metrics.image import BORDER, Tally, squared_error, tally_tile
from emsr.scales import Axis, Scale
from emsr.steps.parts import Area, Parts, Span, holds, mask, shared

RIVALS = ("bicubic", "sr")  # what is measured against hr
TILE = 1024  # sr voxels, about the side of a tile
HALO_BY_RATIO = {"bicubic": 5, "area": 1}  # lr pixels at a border of what was made that see beyond it
SUPPORT = 3  # lr pixels beyond its own that bicubic upsampling of a pixel looks at, one to spare


@dataclass(frozen=True)
class Images:
    """The arrays (z, y, x) of a volume, open for reading; ``kernel`` is the imaging model between hr and lr.

    ``shown`` is the part (sr voxels) of sections that hr shows, whole lr pixels; None is all that lr shows. ``made``
    gives the parts (sr voxels) of a section that were super-resolved; None is all. ``damaged`` are
    parts (sr voxels) of sections that are in no figure.
    """

    lr: Any
    sr: Any
    hr: Any | None
    scale: Scale
    kernel: str
    shown: Area | None = None
    made: Callable[[int], Sequence[Area]] | None = None
    damaged: Parts = field(default_factory=dict)

    @property
    def plane(self) -> tuple[int, int]:
        """Size (y, x) of an lr section."""
        return int(self.lr.shape[1]), int(self.lr.shape[2])

    @property
    def covered(self) -> Area:
        """The part (sr voxels) of sections that lr and hr show."""
        return self.shown or self.whole

    @property
    def fine_plane(self) -> tuple[int, int]:
        """Size (y, x) of that part: what is scored of a section where all was made."""
        (top, bottom), (left, right) = self.covered
        return bottom - top, right - left

    @property
    def whole(self) -> Area:
        """All (sr voxels) of a section that lr shows."""
        height, width = scales.fine_plane(self.plane, self.scale)
        return (0, height), (0, width)

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """lr and sr along y and along x."""
        return scales.axes(self.plane, scales.fine_plane(self.plane, self.scale))

    def parts(self, z: int, area: Area) -> list[Area]:
        """What was made of an area (sr voxels) of section ``z``: disjoint areas."""
        found = [shared(area, part) for part in (self.made(z) if self.made else [area])]
        return [part for part in found if holds(part)]

    def left_out(self, z: int, area: Area) -> np.ndarray | None:
        """Which voxels (bool) of an area (sr voxels) of section ``z`` lie in damaged parts; None where none does."""
        return mask(self.damaged.get(z, ()), area)


def made_of(sr: Mapping[str, Any]) -> Callable[[int], Sequence[Area]] | None:
    """What gives the parts of a section that were made, by the card of sr; None where nothing was skipped."""
    return partial(made_areas, sr) if sr.get("skipped") else None


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
    if not isinstance(s, int):
        rows, columns = (resampling.seen_by_fine(*line) for line in zip(images.axes, area, strict=True))
        large = resampling.enlarge(read(images.lr, z, (rows, columns)), images.axes, (rows[0], columns[0]), area)
        return restore(large, np.dtype(np.uint8))
    parts = [
        grown((low // s, -(-high // s)), SUPPORT, length)
        for (low, high), length in zip(area, images.plane, strict=True)
    ]
    large = upsample(read(images.lr, z, (parts[0], parts[1])), s)
    y, x = (inside(span, (part[0] * s, part[1] * s)) for span, part in zip(area, parts, strict=True))
    return large[y, x]


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
    """Tallies of section ``z`` of bicubic and sr against hr, over the voxels that all of them have.

    The second is MS-SSIM's, of so many ``scales``; empty for 0. Each part that was made is as a section of its own.
    """
    found = dict.fromkeys(RIVALS, (Tally(), structure.Tally((0.0,) * scales, (0,) * scales)))
    for part in images.parts(z, images.covered):
        for name, (pixels, coarser) in _part_against_truth(images, z, part, scales).items():
            found[name] = found[name][0] + pixels, found[name][1] + coarser
    return found


def _part_against_truth(images: Images, z: int, whole: Area, scales: int) -> dict[str, tuple[Tally, structure.Tally]]:
    """The same of one part."""
    step = 2 ** (len(structure.WEIGHTS) - 1)  # tiles start where pixels of the coarsest scale do
    (top, bottom), (left, right) = whole
    found = dict.fromkeys(RIVALS, (Tally(), structure.Tally((0.0,) * scales, (0,) * scales)))
    for (y0, y1), (x0, x1) in tiles((bottom - top, right - left), -(-TILE // step) * step):
        area = (top + y0, top + y1), (left + x0, left + x1)
        y, x = (grown(span, structure.HALO, limit, first) for span, (first, limit) in zip(area, whole, strict=True))
        voxels, out = rivals(images, z, (y, x)), images.left_out(z, (y, x))
        for name, (pixels, coarser) in found.items():
            pair = voxels["hr"], voxels[name]
            if scales:
                coarser += structure.tally_tile(*pair, _core(area, (y, x)), scales, left_out=out)
            found[name] = pixels + _near((*pair, out), area, (y, x), whole), coarser
    return found


def _core(area: Area, outer: Area) -> tuple[slice, slice]:
    """Where ``area`` lies in an array of ``outer``."""
    return inside(area[0], outer[0]), inside(area[1], outer[1])


def _near(arrays: tuple[np.ndarray, np.ndarray, np.ndarray | None], area: Area, outer: Area, whole: Area) -> Tally:
    """PSNR's and SSIM's tally of ``area`` from truth, image and what is left out of ``outer``, which is at least what
    their windows look at.
    """
    y, x = (grown(span, BORDER, limit, first) for span, (first, limit) in zip(area, whole, strict=True))
    here = _core((y, x), outer)
    truth, image, out = arrays
    return tally_tile(truth[here], image[here], _core(area, (y, x)), left_out=None if out is None else out[here])


def consistency(images: Images, z: int) -> dict[str, Tally]:
    """Tallies of section ``z`` of bicubic and sr, made coarser again by ``kernel``, against lr."""
    if not isinstance(images.scale, int):
        return _consistency_by_ratio(images, z)
    total = {name: Tally() for name in RIVALS}
    s = images.scale
    halo = -(-reach(s, images.kernel) // s)  # lr pixels
    for area in _areas_inside(images, z, halo, max(1, TILE // s)):
        y, x = (grown(span, halo, length) for span, length in zip(area, images.plane, strict=True))
        core = inside(area[0], y), inside(area[1], x)
        seen, fine = read(images.lr, z, area), _scaled((y, x), s)
        kept = _judged(images.left_out(z, fine), s, halo)
        for name, image in (("bicubic", bicubic(images, z, fine)), ("sr", read(images.sr, z, fine))):
            coarse = degrade(image, s, images.kernel)[core]
            pair = (seen, coarse) if kept is None else (seen[kept[core]][None], coarse[kept[core]][None])
            total[name] += Tally(squared_error(*pair), pair[0].size)
    return total


def _consistency_by_ratio(images: Images, z: int) -> dict[str, Tally]:
    """The same at a real scale."""
    total = {name: Tally() for name in RIVALS}
    for area in _areas_inside(images, z, HALO_BY_RATIO[images.kernel], TILE // max(one.step for one in images.axes)):
        y, x = (resampling.seen_by_coarse(*line, images.kernel) for line in zip(images.axes, area, strict=True))
        out, seen = images.left_out(z, (y, x)), read(images.lr, z, area)
        kept = np.ones(seen.shape, bool) if out is None else ~_touched(images, out, area, (y, x))
        for name, image in (("bicubic", bicubic(images, z, (y, x))), ("sr", read(images.sr, z, (y, x)))):
            coarse = resampling.shrink(image, images.axes, images.kernel, (y[0], x[0]), area)
            pair = seen[kept][None], restore(coarse, np.dtype(np.uint8))[kept][None]
            total[name] += Tally(squared_error(*pair), pair[0].size)
    return total


def _touched(images: Images, left_out: np.ndarray, area: Area, outer: Area) -> np.ndarray:
    """Which lr pixels (bool) of ``area`` are made from a voxel (of sr, in ``outer``) that is left out."""
    found = left_out
    for axis, (along, (low, high), (first, _)) in enumerate(zip(images.axes, area, outer, strict=True)):
        spans = [resampling.seen_by_coarse(along, (i, i + 1), images.kernel) for i in range(low, high)]
        lines = [found.take(range(start - first, stop - first), axis).any(axis) for start, stop in spans]
        found = np.stack(lines, axis)
    return found


def _judged(left_out: np.ndarray | None, scale: int, halo: int) -> np.ndarray | None:
    """The lr pixels (bool) farther than ``halo`` from any with a voxel (of sr) that is left out; None for all."""
    if left_out is None:
        return None
    y, x = (side // scale for side in left_out.shape)
    touched = left_out.reshape(y, scale, x, scale).any((1, 3))
    found: np.ndarray = ~maximum_filter(touched, 2 * halo + 1, mode="constant", cval=False)
    return found


def _areas_inside(images: Images, z: int, halo: int, side: int) -> Iterator[Area]:
    """Tiles (lr pixels) of what was made of section ``z``, but for ``halo`` at the borders of its parts."""
    for part in images.parts(z, images.whole):
        (top, bottom), (left, right) = (
            (along.pixel(low) + (halo if low else 0), along.pixel(high - 1) + 1 - (halo if high < end else 0))
            for along, (low, high), (_, end) in zip(images.axes, part, images.whole, strict=True)
        )
        if top < bottom and left < right:
            for (y0, y1), (x0, x1) in tiles((bottom - top, right - left), side):
                yield (top + y0, top + y1), (left + x0, left + x1)
