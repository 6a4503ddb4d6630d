"""PSNR and SSIM of sections, equal to scikit-image's, also when a section is scored tile by tile.

PSNR is ``10 log10(R^2 / MSE)`` over all pixels, no border left out. SSIM is Wang et al. 2004, eq. 13, with
scikit-image's defaults: uniform 7 x 7 window, K1 = 0.01, K2 = 0.03, sample covariance; its mean over the pixels whose
window lies inside the section. The data range R is stated by the caller (255 for uint8), never taken from the pixels.

Both are means over pixels, so a section of any size is scored from tiles: add their ``Tally``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from scipy.ndimage import maximum_filter
from skimage.metrics import structural_similarity

WINDOW = 7  # pixels, the side of SSIM's window
BORDER = WINDOW // 2  # pixels at the ends of a section that have no SSIM value of their own
DATA_RANGE = 255.0  # grey levels of uint8

STATED: dict[str, object] = {
    "data_range": DATA_RANGE,
    "psnr": "10 log10(data_range^2 / MSE) of whole sections, no border left out",
    "ssim": {"window": WINDOW, "weights": "uniform", "K1": 0.01, "K2": 0.03, "sample_covariance": True},
    "ssim_region": f"mean over pixels at least {BORDER} from the ends",
    "equal_to": ["skimage.metrics.peak_signal_noise_ratio", "skimage.metrics.structural_similarity"],
}
"""What ``psnr`` and ``ssim`` are, in words that go beside the figures."""


@dataclass(frozen=True)
class Tally:
    """Sums over the pixels of tiles or sections, from which PSNR and SSIM follow.

    ``squared_error`` in grey levels squared over ``pixels``; ``ssim`` summed over ``ssim_pixels``.
    """

    squared_error: float = 0.0
    pixels: int = 0
    ssim_sum: float = 0.0
    ssim_pixels: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.squared_error + other.squared_error,
            self.pixels + other.pixels,
            self.ssim_sum + other.ssim_sum,
            self.ssim_pixels + other.ssim_pixels,
        )

    def psnr(self, data_range: float = DATA_RANGE) -> float:
        """Decibels; infinite where there is no error at all."""
        if self.squared_error == 0:
            return math.inf
        return 10 * math.log10(data_range**2 * self.pixels / self.squared_error)

    def ssim(self) -> float:
        """Mean structural similarity, 1 for equal images; raises ValueError if no pixel has one."""
        if self.ssim_pixels == 0:
            raise ValueError(f"{self.pixels} pixels hold no SSIM window of {WINDOW} x {WINDOW}; score larger sections")
        return self.ssim_sum / self.ssim_pixels


def _same_shape(truth: np.ndarray, image: np.ndarray) -> None:
    if truth.ndim != 2 or truth.shape != image.shape:
        raise ValueError(f"truth {truth.shape} and image {image.shape} must be sections (y, x) of one shape")


def squared_error(truth: np.ndarray, image: np.ndarray) -> float:
    """Sum of squared differences of two sections (y, x) in grey levels squared; exact for integers."""
    _same_shape(truth, image)
    return float(np.sum((truth.astype(np.float64) - image.astype(np.float64)) ** 2))


def psnr(truth: np.ndarray, image: np.ndarray, data_range: float = DATA_RANGE) -> float:
    """Peak signal-to-noise ratio of a section (y, x) in decibels; infinite for equal images."""
    return Tally(squared_error(truth, image), truth.size).psnr(data_range)


def ssim(truth: np.ndarray, image: np.ndarray, data_range: float = DATA_RANGE) -> float:
    """Structural similarity of a section (y, x), at most 1.

    Raises ValueError if the section is smaller than the 7 x 7 window.
    """
    _same_shape(truth, image)
    if min(truth.shape) < WINDOW:
        raise ValueError(f"section of {truth.shape} pixels is smaller than SSIM's window {WINDOW} x {WINDOW}")
    return float(structural_similarity(truth, image, win_size=WINDOW, data_range=data_range))


def tally_tile(
    truth: np.ndarray,
    image: np.ndarray,
    core: tuple[slice, slice],
    data_range: float = DATA_RANGE,
    left_out: np.ndarray | None = None,
) -> Tally:
    """The sums of one tile of a section.

    ``truth`` and ``image`` (y, x) are the tile with a halo of ``BORDER`` pixels, less where the section ends; ``core``
    is the tile inside them. Tallies of tiles that partition a section add up to the section's, because the pixels
    whose window fits into the array are those of the tile that have an SSIM value in the whole section. ``left_out``
    (bool, as the arrays) are pixels that are in no sum, nor are windows that touch one.
    """
    _same_shape(truth, image)
    if left_out is not None:
        return _tally_rest(truth, image, core, data_range, left_out)
    error = squared_error(truth[core], image[core])
    pixels = truth[core].size
    if min(truth.shape) < WINDOW:  # all of the tile lies at the section's end, where there is no SSIM value
        return Tally(error, pixels)
    inner = (truth.shape[0] - 2 * BORDER) * (truth.shape[1] - 2 * BORDER)
    return Tally(error, pixels, ssim(truth, image, data_range) * inner, inner)


def _tally_rest(
    truth: np.ndarray, image: np.ndarray, core: tuple[slice, slice], data_range: float, left_out: np.ndarray
) -> Tally:
    """The sums of a tile without the pixels and windows that are left out."""
    kept = ~left_out[core]
    error, pixels = squared_error(*(one[core][kept][None] for one in (truth, image))), int(kept.sum())
    if min(truth.shape) < WINDOW:
        return Tally(error, pixels)
    _, values = structural_similarity(truth, image, win_size=WINDOW, data_range=data_range, full=True)
    whole = whole_windows(left_out, BORDER)
    return Tally(error, pixels, float(values[BORDER:-BORDER, BORDER:-BORDER][whole].sum()), int(whole.sum()))


def whole_windows(left_out: np.ndarray, border: int) -> np.ndarray:
    """Of the windows inside a section (y, x), ``border`` pixels around their centre, those (bool) that touch nothing
    that is left out.
    """
    touched = maximum_filter(left_out, 2 * border + 1, mode="constant", cval=False)
    found: np.ndarray = ~touched[border : len(touched) - border, border : touched.shape[1] - border]
    return found


def summary(sections: Sequence[Tally], data_range: float = DATA_RANGE) -> dict[str, float | int | None]:
    """Scores of a volume from the tallies of its sections: what goes into ``scores.json``.

    ``psnr`` is the mean over sections of their decibels and ``ssim`` that of their SSIM; ``psnr_pooled`` is the PSNR
    of the mean squared error over all pixels. Sections equal to the truth have no finite PSNR: they are counted in
    ``identical`` and left out of ``psnr``; what cannot be said is None. Raises ValueError without sections.
    """
    if not sections:
        raise ValueError("no section to score: every test section is damaged or missing")
    finite = [value for value in (section.psnr(data_range) for section in sections) if math.isfinite(value)]
    pooled = reduce(Tally.__add__, sections).psnr(data_range)
    return {
        "psnr": float(np.mean(finite)) if finite else None,
        "ssim": float(np.mean([section.ssim() for section in sections])),
        "psnr_pooled": pooled if math.isfinite(pooled) else None,
        "sections": len(sections),
        "identical": len(sections) - len(finite),
    }
