"""From optical density to grey: sections laid down unevenly, brightness, optics, counted electrons, damage."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .cut import RIM, Owners
from .lattice import Floats
from .processes import Rng

Bytes = NDArray[np.uint8]

LIGHT = 226.0
"""Grey level where there is nothing in the beam."""


def lay_down(owner: Owners, density: Floats, pixel_nm: float, rng: Rng) -> tuple[Owners, Floats]:
    """Owner and density of a section (y, x), drifted by up to two pixels and gently bent, without their rim."""
    shape = density.shape
    ticks = np.ogrid[RIM : shape[0] - RIM, RIM : shape[1] - RIM]
    moved = []
    for tick in ticks:
        drift = np.clip(rng.normal(0, 0.7), -1.3, 1.3)
        moved.append((tick + drift + _bend(ticks[0] * pixel_nm, ticks[1] * pixel_nm, rng)).astype(np.float32))
    y, x = (np.rint(m).astype(np.int32) for m in moved)
    return owner[y, x], ndimage.map_coordinates(density, moved, order=1)


def _bend(y: NDArray[np.float64], x: NDArray[np.float64], rng: Rng) -> NDArray[np.float64]:
    """A smooth displacement (y, x) of at most 0.7 pixels; `y` and `x` in nm."""
    waves = 2 * np.pi / rng.uniform(700, 2500, 3)
    angles, phases = rng.uniform(0, 2 * np.pi, (2, 3))
    bends = (np.sin(w * (np.cos(a) * y + np.sin(a) * x) + p) for w, a, p in zip(waves, angles, phases, strict=True))
    return 0.7 / 3 * sum(bends, np.zeros(1))


def expose(density: Floats, pixel_nm: float, rng: Rng) -> Bytes:
    """Grey levels (y, x) of an optical density: bright where little stain lies in the beam."""
    gain, offset = rng.normal(1, 0.03), rng.normal(-5, 4)
    y, x = np.ogrid[-1 : 1 : density.shape[0] * 1j, -1 : 1 : density.shape[1] * 1j]
    shade = rng.normal(0, 3) * y + rng.normal(0, 3) * x
    light = LIGHT * np.exp(-density)
    light += 0.4 * (light - ndimage.gaussian_filter(light, 10 / pixel_nm, truncate=3))  # defocus: edges overshoot
    electrons = np.sqrt(np.maximum(light, 0) + 20) * rng.standard_normal(light.shape, dtype=np.float32)
    grey = gain * ndimage.gaussian_filter(light + 1.15 * electrons, 0.5, truncate=3) + offset + shade
    levels: Bytes = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
    return levels


def turn_and_fold(section: Bytes, rng: Rng) -> Bytes:
    """The section (y, x) picked up the wrong way round, with a dark fold across it."""
    y, x = np.ogrid[: section.shape[0], : section.shape[1]]
    angle, width = rng.uniform(0, np.pi), 0.04 * min(section.shape)
    across = np.cos(angle) * (y - section.shape[0] / 2) + np.sin(angle) * (x - section.shape[1] / 2)
    fold = np.exp(-(((across + width * np.sin((y + x) / (6 * width))) / width) ** 2))
    spoilt: Bytes = np.rint(section[::-1, ::-1] * (1 - 0.85 * fold)).astype(np.uint8)
    return spoilt
