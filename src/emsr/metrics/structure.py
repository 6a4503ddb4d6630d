"""Multi-scale structural similarity of sections (Wang, Simoncelli & Bovik 2003), also tile by tile.

Five scales, each half as fine as the one before (mean of 2 x 2 pixels). Contrast and structure count at all of them,
luminance at the last (eq. 7). Windows are Gaussian, 11 x 11 with sigma 1.5, wholly inside the section; K1 = 0.01,
K2 = 0.03, population covariance. At one scale it is scikit-image's SSIM with ``gaussian_weights``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import correlate1d

from emsr.metrics.image import whole_windows

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales, finest first (Wang et al. 2003, section 4)."""
SIGMA = 1.5  # pixels
BORDER = 5  # pixels from the centre of the 11 x 11 window to its side
WINDOW = 2 * BORDER + 1
DATA_RANGE = 255.0  # grey levels of uint8
HALO = BORDER * 2 ** (len(WEIGHTS) - 1)
"""Pixels around a tile that the windows of the coarsest of five scales need."""

STATED: dict[str, object] = {
    "ms_ssim": "Wang 2003: contrast-structure at every scale, luminance at the last; product of the means over pixels",
    "weights": WEIGHTS,
    "window": {"size": WINDOW, "weights": "Gaussian", "sigma": SIGMA, "K1": 0.01, "K2": 0.03},
    "scales": "halved by the mean of 2 x 2 pixels, an odd last row or column left out",
    "negative": "a negative mean of contrast-structure counts as 0",
    "data_range": DATA_RANGE,
}
"""What ``ms_ssim`` is, in words that go beside the figure."""


@dataclass(frozen=True)
class Tally:
    """By scale, finest first: the sum of contrast-structure over ``pixels``, at the last times luminance.

    Tallies of tiles of a section add up to the section's; the score is of the sums.
    """

    sums: tuple[float, ...]
    pixels: tuple[int, ...]

    def __add__(self, other: Tally) -> Tally:
        if len(self.sums) != len(other.sums):
            raise ValueError(f"{len(self.sums)} and {len(other.sums)} scales do not add up: score all at the same")
        return Tally(
            tuple(a + b for a, b in zip(self.sums, other.sums, strict=True)),
            tuple(a + b for a, b in zip(self.pixels, other.pixels, strict=True)),
        )

    def score(self) -> float:
        """MS-SSIM, 0 to 1, 1 for equal images: the product of the scales' means to the power of their weights.

        Five scales have the published weights, which sum to 1.0001; fewer have those of the finest, made to sum to 1.
        Raises ValueError if a scale has no pixel.
        """
        if 0 in self.pixels:
            raise ValueError(f"pixels by scale {self.pixels}: sections are too small, ask for fewer scales")
        weights = np.array(WEIGHTS[: len(self.sums)])
        if len(weights) < len(WEIGHTS):
            weights /= weights.sum()
        means = np.maximum(np.array(self.sums) / np.array(self.pixels), 0.0)
        return float(np.prod(means**weights))


def scales_that_fit(shape: tuple[int, int]) -> int:
    """How many scales, at most five, a section of ``shape`` (y, x) has windows for; 0 if it is smaller than 11."""
    return sum(min(shape) >> scale >= WINDOW for scale in range(len(WEIGHTS)))


def ms_ssim(truth: np.ndarray, image: np.ndarray, scales: int = 5, data_range: float = DATA_RANGE) -> float:
    """MS-SSIM of a section (y, x), 0 to 1.

    Raises ValueError if the section is smaller than the window at the coarsest scale (176 pixels for five): ask for
    fewer scales, which is another figure.
    """
    _check(truth, image, scales)
    if scales_that_fit((truth.shape[0], truth.shape[1])) < scales:
        least = WINDOW << (scales - 1)
        raise ValueError(
            f"section of {truth.shape} pixels is smaller than {least} x {least}, which {scales} scales need"
        )
    whole = slice(0, truth.shape[0]), slice(0, truth.shape[1])
    return tally_tile(truth, image, whole, scales, data_range).score()


def tally_tile(
    truth: np.ndarray,
    image: np.ndarray,
    core: tuple[slice, slice],
    scales: int = 5,
    data_range: float = DATA_RANGE,
    left_out: np.ndarray | None = None,
) -> Tally:
    """The sums of one tile of a section.

    ``truth`` and ``image`` (y, x) are the tile with a halo of ``HALO`` pixels, less where the section ends; ``core`` is
    the tile inside them. Tiles start at multiples of 16 pixels of the section, and so must the arrays, so that the
    coarse pixels are the section's. Windows that touch a pixel of ``left_out`` (bool, as the arrays) at their scale are
    in no sum. Raises ValueError where ``core`` does not, for other shapes and for scales outside 1 to 5.
    """
    _check(truth, image, scales)
    step = 2 ** (scales - 1)
    bounds = [part.indices(length)[:2] for part, length in zip(core, truth.shape, strict=True)]
    if any(low % step or (high % step and high != end) for (low, high), end in zip(bounds, truth.shape, strict=True)):
        raise ValueError(f"tile {bounds} must start and stop at multiples of {step} pixels or at the section's end")
    pair = truth.astype(np.float64), image.astype(np.float64)
    sums, pixels = [], []
    for scale in range(scales):
        if scale:
            pair = _halved(pair[0]), _halved(pair[1])
            left_out = None if left_out is None else _halved(left_out.astype(np.float64)) > 0
        part = _inside(pair[0].shape, [(low >> scale, high >> scale) for low, high in bounds])
        structure, luminance = similarity(*pair, data_range)
        values = (structure * luminance if scale == scales - 1 else structure)[part]
        if left_out is not None and values.size:
            values = values[whole_windows(left_out, BORDER)[part]]
        sums.append(float(values.sum()))
        pixels.append(values.size)
    return Tally(tuple(sums), tuple(pixels))


def similarity(truth: np.ndarray, image: np.ndarray, data_range: float = DATA_RANGE) -> tuple[np.ndarray, np.ndarray]:
    """Contrast-structure and luminance of two sections (y, x) at each pixel whose window is inside: (y - 10, x - 10).

    Wang et al. 2003, eqs. 1-3 with C3 = C2 / 2, so that contrast times structure is (2 cov + C2) / (var + var + C2).
    """
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    x, y = truth.astype(np.float64), image.astype(np.float64)
    if min(x.shape) < WINDOW:
        empty = np.zeros([max(length - 2 * BORDER, 0) for length in x.shape])
        return empty, empty
    mean_x, mean_y, xx, yy, xy = (_blurred(values) for values in (x, y, x * x, y * y, x * y))
    product, squares = mean_x * mean_y, mean_x**2 + mean_y**2
    structure = (2 * (xy - product) + c2) / (xx + yy - squares + c2)
    return structure, (2 * product + c1) / (squares + c1)


def _blurred(section: np.ndarray) -> np.ndarray:
    """Gaussian mean over the windows inside the section."""
    line = np.exp(-0.5 * (np.arange(-BORDER, BORDER + 1) / SIGMA) ** 2)
    blurred = correlate1d(correlate1d(section, line / line.sum(), axis=0), line / line.sum(), axis=1)
    return blurred[BORDER:-BORDER, BORDER:-BORDER]


def _halved(section: np.ndarray) -> np.ndarray:
    """Mean of 2 x 2 pixels; an odd last row or column is left out."""
    even = section[: section.shape[0] // 2 * 2, : section.shape[1] // 2 * 2]
    return (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4


def _inside(shape: Sequence[int], bounds: Sequence[tuple[int, int]]) -> tuple[slice, ...]:
    """Where in the array of pixels with a window those of a tile lie."""
    return tuple(
        slice(max(low - BORDER, 0), max(min(high, length - BORDER) - BORDER, 0))
        for (low, high), length in zip(bounds, shape, strict=True)
    )


def _check(truth: np.ndarray, image: np.ndarray, scales: int) -> None:
    if truth.ndim != 2 or truth.shape != image.shape:
        raise ValueError(f"truth {truth.shape} and image {image.shape} must be sections (y, x) of one shape")
    if not 1 <= scales <= len(WEIGHTS) or math.trunc(scales) != scales:
        raise ValueError(f"{scales} scales: MS-SSIM has 1 to {len(WEIGHTS)}")
