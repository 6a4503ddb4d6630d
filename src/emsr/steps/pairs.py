"""Both images of a volume's sections, read piece by piece, and the similarity of every pair of sections."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from emsr import degradation, registration
from emsr.geometry import Box
from emsr.registration import Area, Fit, Image, Similarity
from emsr.stores.shards import each, read_box

THUMB = 192  # pixels along the longer side of the small images that are searched
PIECE = 256  # pixels along y and x that are read at once for them, about
Fits = dict[int, Fit]


@dataclass(frozen=True)
class Pair:
    """Open arrays (z, y, x) of lr and hr, and how hr is made coarser.

    ``ratio`` is the length of an lr pixel in ``scale`` hr pixels, by the stated voxel sizes: about 1.
    """

    lr: Any
    hr: Any
    scale: int
    kernel: str
    ratio: float

    @property
    def shape(self) -> tuple[int, int]:
        """Size (y, x) of an lr section in lr pixels."""
        return int(self.lr.shape[1]), int(self.lr.shape[2])

    @property
    def coarse_shape(self) -> tuple[int, int]:
        """Size (y, x) of an hr section made coarser."""
        return int(self.hr.shape[1]) // self.scale, int(self.hr.shape[2]) // self.scale

    def still(self, z: int) -> Image:
        """A section of lr."""
        return Image(self.shape, partial(section, self.lr, z))

    def moving(self, z: int) -> Image:
        """A section of hr, made coarser area by area, as it would be as a whole."""
        return Image(self.coarse_shape, partial(self._coarse, z))

    def _coarse(self, z: int, area: Area) -> np.ndarray:
        halo = -(-degradation.reach(self.scale, self.kernel) // self.scale)
        (top, bottom), (left, right) = (
            (max(low - halo, 0), min(high + halo, side))
            for (low, high), side in zip(area, self.coarse_shape, strict=True)
        )
        s = self.scale
        fine = section(self.hr, z, ((top * s, bottom * s), (left * s, right * s)))
        coarse = degradation.degrade(fine, s, self.kernel)
        return coarse[area[0][0] - top : area[0][1] - top, area[1][0] - left : area[1][1] - left]

    @property
    def block(self) -> int:
        """Lr pixels along the side of a pixel of the small images."""
        return -(-max(*self.shape, *self.coarse_shape) // THUMB)

    def fit(self, z: int, fixed: np.ndarray, moving: np.ndarray) -> Fit | None:
        """The similarity of a section, searched on small images of lr and hr and refined on the whole ones."""
        rough = registration.search(fixed, moving, self.ratio)
        near = registration.refine(Image.of(fixed), Image.of(moving), rough)
        start = near.similarity if near else rough
        return registration.refine(self.still(z), self.moving(z), start.scaled(self.block))


def estimate(pair: Pair, sections: list[int], limit: float, depth: int, workers: int) -> Fits:
    """The best fit of each of `sections` that has one.

    Each is searched alone; ``depth`` sections at a time are read. One that does not agree to ``limit`` lr pixels is
    fitted once more, from where the sections around it lie.
    """
    slabs = [Box((z, 0, 0), (min(z + depth, pair.lr.shape[0]), 1, 1)) for z in range(0, pair.lr.shape[0], depth)]
    alone = [found for slab in each(partial(_slab, pair, sections), slabs, workers, "register") for found in slab]
    fits = {z: fit for z, fit in alone if fit}
    good = {z: fit for z, fit in fits.items() if agrees(fit, limit)}
    again = [Box((z, 0, 0), (z + 1, 1, 1)) for z in sections if z not in good]
    if not (good and again):
        return fits
    retried = each(partial(_retried, pair, good), again, workers, "register again")
    better = {box.start[0]: fit for box, fit in zip(again, retried, strict=True) if fit and agrees(fit, limit)}
    return fits | better


def agrees(fit: Fit, limit: float) -> bool:
    """Whether hr lies on lr to ``limit`` lr pixels, and is no negative of it."""
    return fit.residual <= limit and fit.gain > 0


def _expected(good: Fits, z: int) -> Similarity:
    """Where a section should lie by the nearest ones that agree, below and above."""
    below, above = [k for k in good if k < z], [k for k in good if k > z]
    low, high = max(below, default=min(above, default=z)), min(above, default=max(below, default=z))
    part = (z - low) / (high - low) if high > low else 0.0
    return registration.between(good[low].similarity, good[high].similarity, part)


def _slab(pair: Pair, sections: list[int], slab: Box) -> list[tuple[int, Fit | None]]:
    """Fits of those of the sections that lie in a slab."""
    low, high = slab.start[0], slab.stop[0]
    here = [z for z in sections if low <= z < high]
    if not here:
        return []
    fixed = _small(pair.lr, (low, high), pair.block)
    moving = _small(pair.hr, (low, high), pair.block * pair.scale)
    return [(z, pair.fit(z, fixed[z - low], moving[z - low])) for z in here]


def _retried(pair: Pair, good: Fits, box: Box) -> Fit | None:
    """The fit of a section that starts where the sections around it lie."""
    z = box.start[0]
    return registration.refine(pair.still(z), pair.moving(z), _expected(good, z))


def _small(array: Any, span: tuple[int, int], block: int) -> np.ndarray:
    """Means of ``block`` x ``block`` voxels of a span of sections; what fills no block is left out."""
    height, width = (int(side) // block for side in array.shape[1:])
    means = np.empty((span[1] - span[0], height, width))
    step = max(1, PIECE // block)
    for y in range(0, height, step):
        for x in range(0, width, step):
            bottom, right = min(y + step, height), min(x + step, width)
            piece = read_box(array, Box((span[0], y * block, x * block), (span[1], bottom * block, right * block)))
            shape = (len(piece), bottom - y, block, right - x, block)
            means[:, y:bottom, x:right] = piece.reshape(shape).mean((2, 4))
    return means


def section(array: Any, z: int, area: Area) -> np.ndarray:
    """Voxels of an area of one section, as float."""
    (top, bottom), (left, right) = area
    return read_box(array, Box((z, top, left), (z + 1, bottom, right)))[0].astype(np.float64)
