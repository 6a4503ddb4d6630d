"""Noise of a detector: shot noise of electrons and read noise, added to images and estimated from them.

Grey levels run from 0 (no electron) to 255 (white). A pixel whose expected grey level is m receives a Poisson number of
electrons of mean ``dose * m / 255`` and a Gaussian read noise, so its variance is ``gain * m + read**2`` with ``gain =
255 / dose``: the photon transfer curve (Janesick, Photon Transfer, SPIE 2007, ch. 5).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy.ndimage import convolve, gaussian_filter, gaussian_gradient_magnitude, maximum_filter, minimum_filter
from scipy.optimize import nnls

WHITE = 255.0
TILE = 64  # pixels, the side of the squares that draw their noise on their own
MASK = np.outer((1, -2, 1), (1, -2, 1)).astype(float)  # Immerkaer, Comput. Vis. Image Underst. 64 (1996), eq. 3
SMOOTH = 2.0  # pixels, sigma of what stands for the expected grey level
FLATTEST = 0.25  # part of the pixels that is used: where the smoothed image changes least
BINS = 16  # equally full bins of grey levels
FEWEST = 200  # pixels of a bin
CLEAR = 2.0  # standard deviations between a bin's mean and black or white, where grey levels are clipped
NORMAL = 0.6745  # median absolute deviation of a normal distribution, in standard deviations


@dataclass(frozen=True)
class Noise:
    """``dose``: electrons per pixel at white, None for no shot noise. ``read``: standard deviation, grey levels."""

    dose: float | None
    read: float


def add(expected: np.ndarray, noise: Noise, seed: int, section: int, corner: tuple[int, int] = (0, 0)) -> np.ndarray:
    """``expected`` grey levels (y, x) as a detector counts them, float64, neither rounded nor clipped.

    ``corner`` is the place of the first pixel in its section, a multiple of ``TILE``. Every square of the section has a
    counter of its own (Philox, Salmon et al. 2011), so what is added to a pixel depends on seed, section and place and
    on the expected grey levels of its square, which the array must hold whole unless the section ends there.
    """
    if any(side % TILE for side in corner):
        raise ValueError(f"corner {corner} of noise is not a multiple of {TILE}: begin at a square's first pixel")
    noisy = np.empty(expected.shape)
    for y in range(0, expected.shape[0], TILE):
        for x in range(0, expected.shape[1], TILE):
            square = (slice(y, y + TILE), slice(x, x + TILE))
            place = np.array([0, section, (corner[0] + y) // TILE, (corner[1] + x) // TILE], np.uint64)
            draw = np.random.Generator(np.random.Philox(key=seed, counter=place))
            noisy[square] = _counted(expected[square], noise, draw)
    return noisy


def _counted(expected: np.ndarray, noise: Noise, draw: np.random.Generator) -> np.ndarray:
    """Shot noise, then read noise; a kernel's undershoot below black receives no electron."""
    light = expected if noise.dose is None else draw.poisson(np.maximum(expected, 0) * (noise.dose / WHITE))
    scale = 1.0 if noise.dose is None else WHITE / noise.dose
    return np.asarray(scale * light + draw.normal(0.0, noise.read, expected.shape))


def estimate(sections: Iterable[np.ndarray]) -> Noise:
    """The noise of ``sections`` (y, x) of uint8, read one after the other.

    A mask that is blind to linear structure (Immerkaer 1996) leaves residuals; where the smoothed image is flattest,
    their robust variance in bins of grey level is fitted by ``gain * mean + read**2`` with neither part below 0, as in
    Foi et al. 2008 (IEEE Trans. Image Process. 17, 1737). What texture is left counts as noise, so it is an upper
    bound; noise that the microscope smoothed over pixels is not seen in full. Raises ValueError where too few pixels
    are usable.
    """
    found = [_residuals(section) for section in sections if min(section.shape) > 2 * len(MASK)]
    level, residual = (np.concatenate(parts) for parts in zip(*found, strict=True)) if found else (np.zeros(0),) * 2
    if len(level) < BINS * FEWEST:
        raise ValueError(
            f"{len(level)} flat pixels between black and white are too few to estimate noise, {BINS * FEWEST} are "
            "needed: state dose and read"
        )
    parts = np.array_split(np.argsort(level, kind="stable"), BINS)
    mean = np.array([level[part].mean() for part in parts])
    variance = np.array([_variance(residual[part]) for part in parts])
    whole = (mean > CLEAR * np.sqrt(variance)) & (mean < WHITE - CLEAR * np.sqrt(variance))
    if whole.sum() < 2:
        raise ValueError("nearly every flat pixel is black or white, so noise cannot be estimated: state dose and read")
    mean, variance = mean[whole], variance[whole]
    # a bin's variance is known to a part of itself, so rows are weighted by 1 / variance
    rows = np.stack([mean, np.ones_like(mean)], axis=1) / variance[:, None]
    (gain, rest), _ = nnls(rows, np.ones_like(mean))
    return Noise(float(WHITE / gain) if gain > 0 else None, sqrt(rest))


def _variance(residual: np.ndarray) -> float:
    """Robust variance of grey levels behind residuals, without that of rounding to integers (1 / 12)."""
    deviation = float(np.median(np.abs(residual))) / NORMAL
    return max(deviation**2 / float((MASK**2).sum()) - 1 / 12, 1e-3)


def _residuals(section: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Expected grey level and residual of the flattest pixels away from what is all black or all white."""
    image = section.astype(np.float64)
    smooth, residual = gaussian_filter(image, SMOOTH), convolve(image, MASK)
    empty = (maximum_filter(section, 3) == 0) | (minimum_filter(section, 3) == WHITE)
    inside = maximum_filter(empty, 2 * round(4 * SMOOTH) + 1) == 0  # where the filter, cut at 4 sigma, sees no padding
    slope = gaussian_gradient_magnitude(image, SMOOTH)[inside]
    flat = slope <= np.quantile(slope, FLATTEST) if slope.size else np.zeros(0, bool)
    return smooth[inside][flat], residual[inside][flat]
