"""The imaging model: how a coarse section comes from a fine one (kernel, then noise), and the bicubic way back.

Axes are (..., y, x). A coarse pixel covers ``scale`` x ``scale`` fine ones: the corners of both images coincide, so the
centre of coarse pixel i lies at fine coordinate (i + 1/2) * scale - 1/2.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.sparse import csr_array

Scale = int | float | tuple[float, float]  # real ones along both axes, or along y and x
KERNELS = ("bicubic", "area")
CUBIC_A = -0.5  # Keys' cubic, as MATLAB and PIL use it


def _cubic(t: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel (Keys 1981, eq. 4) with a = -0.5 at distances ``t``."""
    t = np.abs(t)
    near = ((CUBIC_A + 2) * t - (CUBIC_A + 3)) * t**2 + 1
    far = CUBIC_A * (((t - 5) * t + 8) * t - 4)
    return np.where(t <= 1, near, np.where(t < 2, far, 0.0))


def _weights(targets: np.ndarray, source_length: int, width: float) -> csr_array:
    """Rows of cubic weights that sample a line of ``source_length`` at fractional ``targets``, stretched by ``width``.

    What reaches over the ends uses the edge pixel (edge replication).
    """
    reach = int(np.ceil(2 * width))
    first = np.floor(targets).astype(int) - reach
    taps = first[:, None] + np.arange(2 * reach + 2)[None, :]
    values = _cubic((targets[:, None] - taps) / width)
    values /= values.sum(axis=1, keepdims=True)
    rows = np.repeat(np.arange(len(targets)), taps.shape[1])
    columns = np.clip(taps, 0, source_length - 1).ravel()
    return csr_array((values.ravel(), (rows, columns)), shape=(len(targets), source_length))


@lru_cache(maxsize=64)
def _down(length: int, scale: int) -> csr_array:
    """(length / scale, length) antialiased bicubic weights: the kernel is stretched by ``scale``."""
    return _weights((np.arange(length // scale) + 0.5) * scale - 0.5, length, float(scale))


@lru_cache(maxsize=64)
def _up(length: int, scale: int) -> csr_array:
    """(length * scale, length) bicubic weights."""
    return _weights((np.arange(length * scale) + 0.5) / scale - 0.5, length, 1.0)


@lru_cache(maxsize=64)
def _real(length: int, scale: float, kernel: str) -> csr_array:
    """(round(length / scale), length) weights of a real scale, that of both lengths."""
    count = round(length / scale)
    ratio = length / count
    if kernel == "bicubic":
        return _weights((np.arange(count) + 0.5) * ratio - 0.5, length, ratio)
    first = np.floor(np.arange(count) * ratio + 1e-9).astype(int)
    taps = first[:, None] + np.arange(int(np.ceil(ratio)) + 1)
    ends = np.arange(count + 1)[:, None] * ratio
    covered = np.clip(np.minimum(taps + 1, ends[1:]) - np.maximum(taps, ends[:-1]), 0, None)
    rows = np.repeat(np.arange(count), taps.shape[1])
    columns = np.minimum(taps, length - 1).ravel()
    return csr_array(((covered / ratio).ravel(), (rows, columns)), shape=(count, length))


def _both_axes(image: np.ndarray, rows: csr_array, columns: csr_array) -> np.ndarray:
    """Apply ``rows`` along y and ``columns`` along x of ``image`` (..., y, x) in float64."""
    flat = image.reshape(-1, *image.shape[-2:]).astype(np.float64)
    out = np.stack([(columns @ (rows @ section).T).T for section in flat])
    return out.reshape(*image.shape[:-2], *out.shape[-2:])


def restore(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Round half to even and clip to ``dtype`` where it is an integer type."""
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        return np.clip(np.rint(values), limits.min, limits.max).astype(dtype)
    return values.astype(dtype)


def degrade(hr: np.ndarray, scale: Scale, kernel: str = "bicubic") -> np.ndarray:
    """Make sections coarser: ``hr`` (..., y, x) to (..., y / scale, x / scale), the same dtype and range, no noise.

    ``kernel`` is "bicubic" (antialiased, a = -0.5, as MATLAB and PIL) or "area" (the mean of scale x scale pixels, as a
    detector bins). At a real scale the sides of the result are rounded. Raises ValueError if y or x is not a multiple
    of an int ``scale`` or the kernel is unknown.
    """
    return restore(expected(hr, scale, kernel), hr.dtype)


def expected(hr: np.ndarray, scale: Scale, kernel: str) -> np.ndarray:
    """What the kernel makes of ``hr``, as ``degrade``, but float64 and neither rounded nor clipped: before noise."""
    y, x = hr.shape[-2:]
    if kernel not in KERNELS:
        raise ValueError(f"degradation kernel {kernel!r} is unknown; choose one of {', '.join(KERNELS)}")
    if not isinstance(scale, int):
        along_y, along_x = scale if isinstance(scale, tuple) else (scale, scale)
        return _both_axes(hr, _real(y, along_y, kernel), _real(x, along_x, kernel))
    if y % scale or x % scale:
        raise ValueError(f"section of {y} x {x} pixels is not a multiple of scale {scale}; crop it first")
    if kernel == "area":
        split = hr.reshape(*hr.shape[:-2], y // scale, scale, x // scale, scale)
        return np.asarray(split.mean(axis=(-3, -1), dtype=np.float64))
    return _both_axes(hr, _down(y, scale), _down(x, scale))


def reach(scale: int, kernel: str = "bicubic") -> int:
    """How many fine pixels beyond a coarse pixel's own ``scale`` x ``scale`` area ``degrade`` looks at."""
    return 0 if kernel == "area" else 2 * scale


def upsample(lr: np.ndarray, scale: int) -> np.ndarray:
    """Bicubic (a = -0.5) enlargement of ``lr`` (..., y, x) to (..., scale * y, scale * x), the same dtype and range."""
    y, x = lr.shape[-2:]
    return restore(_both_axes(lr, _up(y, scale), _up(x, scale)), lr.dtype)
