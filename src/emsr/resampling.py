"""Weights by which lines of pixels become coarser and finer at any ratio of their lengths, whole or in parts.

Positions are ratios of integers, so that a part of a section has bit for bit the values that the whole has there. Axes
are (..., y, x); spans are half-open. What reaches over the ends of a section uses its edge pixel.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.sparse import csr_array

from emsr.scales import Axis

CUBIC_A = -0.5  # Keys' cubic, as MATLAB and PIL use it
Span = tuple[int, int]


def cubic(t: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel (Keys 1981, eq. 4) with a = -0.5 at distances ``t``."""
    t = np.abs(t)
    near = ((CUBIC_A + 2) * t - (CUBIC_A + 3)) * t**2 + 1
    far = CUBIC_A * (((t - 5) * t + 8) * t - 4)
    return np.where(t <= 1, near, np.where(t < 2, far, 0.0))


def both_axes(image: np.ndarray, rows: csr_array, columns: csr_array) -> np.ndarray:
    """Apply ``rows`` along y and ``columns`` along x of ``image`` (..., y, x) in float64."""
    flat = image.reshape(-1, *image.shape[-2:]).astype(np.float64)
    out = np.stack([(columns @ (rows @ section).T).T for section in flat])
    return out.reshape(*image.shape[:-2], *out.shape[-2:])


def shrink(
    hr: np.ndarray, axes: tuple[Axis, Axis], kernel: str, corner: tuple[int, int], wanted: tuple[Span, Span]
) -> np.ndarray:
    """Coarse pixels ``wanted`` (y, x) of a section as float64, from a part ``hr`` (..., y, x) of it at ``corner``.

    The part must hold what ``seen_by_coarse`` says of them. ``kernel`` is "bicubic" (stretched by the ratio, so
    antialiased) or "area" (mean of what a coarse pixel covers, with pixels at its border in part).
    """
    held = ((low, low + side) for low, side in zip(corner, hr.shape[-2:], strict=True))
    rows, columns = (_down(*line, kernel) for line in zip(axes, wanted, held, strict=True))
    return both_axes(hr, rows, columns)


def enlarge(lr: np.ndarray, axes: tuple[Axis, Axis], corner: tuple[int, int], wanted: tuple[Span, Span]) -> np.ndarray:
    """Fine voxels ``wanted`` (y, x) of a section as float64, bicubic, from a part ``lr`` (..., y, x) at ``corner``.

    The part must hold what ``seen_by_fine`` says of them.
    """
    held = ((low, low + side) for low, side in zip(corner, lr.shape[-2:], strict=True))
    rows, columns = (_up(*line) for line in zip(axes, wanted, held, strict=True))
    return both_axes(lr, rows, columns)


def seen_by_coarse(axis: Axis, span: Span, kernel: str) -> Span:
    """The fine pixels that coarse ones are made from."""
    if kernel == "area":
        return span[0] * axis.fine // axis.coarse, -(-span[1] * axis.fine // axis.coarse)
    first, last = (_floor_down(axis, i) for i in (span[0], span[1] - 1))
    return max(0, first - _reach(axis)), min(axis.fine, last + _reach(axis) + 2)


def seen_by_fine(axis: Axis, span: Span) -> Span:
    """The coarse pixels that fine ones are interpolated from."""
    first, last = (((2 * j + 1) * axis.coarse - axis.fine) // (2 * axis.fine) for j in (span[0], span[1] - 1))
    return max(0, first - 2), min(axis.coarse, last + 4)


def _floor_down(axis: Axis, pixel: int) -> int:
    """The fine pixel whose centre is the last one not behind that of a coarse pixel."""
    return ((2 * pixel + 1) * axis.fine - axis.coarse) // (2 * axis.coarse)


def _reach(axis: Axis) -> int:
    return -(-2 * axis.fine // axis.coarse)


@lru_cache(maxsize=256)
def _down(axis: Axis, span: Span, held: Span, kernel: str) -> csr_array:
    """Weights that make coarse pixels of a line from the fine ones ``held``."""
    wanted = np.arange(*span, dtype=np.int64)
    if kernel == "area":
        low, high = wanted * axis.fine, (wanted + 1) * axis.fine  # in units of 1 / coarse fine pixels
        taps = (low // axis.coarse)[:, None] + np.arange(axis.fine // axis.coarse + 2)
        covered = np.minimum(high[:, None], (taps + 1) * axis.coarse) - np.maximum(low[:, None], taps * axis.coarse)
        return _matrix(np.maximum(covered, 0) / axis.fine, taps, held)
    centres = (2 * wanted + 1) * axis.fine - axis.coarse  # of coarse pixels, in units of 1 / (2 * coarse) fine ones
    taps = (centres // (2 * axis.coarse) - _reach(axis))[:, None] + np.arange(2 * _reach(axis) + 2)
    values = cubic((centres[:, None] - 2 * axis.coarse * taps) / (2 * axis.fine))
    return _matrix(values / values.sum(axis=1, keepdims=True), taps, held)


@lru_cache(maxsize=256)
def _up(axis: Axis, span: Span, held: Span) -> csr_array:
    """Weights that make fine pixels of a line from the coarse ones ``held``."""
    centres = (2 * np.arange(*span, dtype=np.int64) + 1) * axis.coarse - axis.fine  # in 1 / (2 * fine) coarse pixels
    taps = (centres // (2 * axis.fine) - 2)[:, None] + np.arange(6)
    values = cubic((centres[:, None] - 2 * axis.fine * taps) / (2 * axis.fine))
    return _matrix(values / values.sum(axis=1, keepdims=True), taps, held)


def _matrix(values: np.ndarray, taps: np.ndarray, held: Span) -> csr_array:
    columns = np.clip(taps, held[0], held[1] - 1).ravel() - held[0]
    rows = np.repeat(np.arange(len(taps)), taps.shape[1])
    return csr_array((values.ravel(), (rows, columns)), shape=(len(taps), held[1] - held[0]))
