"""The imaging model: how a coarse section comes from a fine one (kernel, then noise), and the bicubic way back.

Axes are (..., y, x). A coarse pixel covers ``scale`` x ``scale`` fine ones: the corners of both images coincide, so the
centre of coarse pixel i lies at fine coordinate (i + 1/2) * scale - 1/2. A real scale is that of the sizes of both
images (``emsr.resampling``), of which one is rounded.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.sparse import csr_array

from emsr import resampling, scales
from emsr.scales import Scale

KERNELS = ("bicubic", "area")


def _weights(targets: np.ndarray, source_length: int, width: float) -> csr_array:
    """Rows of cubic weights that sample a line of ``source_length`` at fractional ``targets``, stretched by ``width``.

    What reaches over the ends uses the edge pixel (edge replication).
    """
    reach = int(np.ceil(2 * width))
    first = np.floor(targets).astype(int) - reach
    taps = first[:, None] + np.arange(2 * reach + 2)[None, :]
    values = resampling.cubic((targets[:, None] - taps) / width)
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


def restore(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Round half to even and clip to ``dtype`` where it is an integer type."""
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        return np.clip(np.rint(values), limits.min, limits.max).astype(dtype)
    return values.astype(dtype)


def degrade(hr: np.ndarray, scale: Scale, kernel: str = "bicubic") -> np.ndarray:
    """Make sections coarser: ``hr`` (..., y, x) to (..., y / scale, x / scale), the same dtype and range, no noise.

    ``kernel`` is "bicubic" (antialiased, a = -0.5, as MATLAB and PIL) or "area" (the mean of what a coarse pixel
    covers, as a detector bins). Raises ValueError if y or x is not a multiple of ``scale``, at a real scale not the
    rounded multiple of a whole number of coarse pixels, or the kernel is unknown.
    """
    return restore(expected(hr, scale, kernel), hr.dtype)


def expected(hr: np.ndarray, scale: Scale, kernel: str) -> np.ndarray:
    """What the kernel makes of ``hr``, as ``degrade``, but float64 and neither rounded nor clipped: before noise."""
    y, x = hr.shape[-2:]
    if not isinstance(scale, int):
        check_kernel(kernel)
        coarse = scales.coarse_plane((y, x), scale)
        if scales.fine_plane(coarse, scale) != (y, x) or 0 in coarse:
            raise ValueError(f"section of {y} x {x} pixels is not a rounded multiple of scale {scale}; crop it first")
        grid = scales.axes(coarse, (y, x))
        return resampling.shrink(hr, grid, kernel, (0, 0), ((0, coarse[0]), (0, coarse[1])))
    if y % scale or x % scale:
        raise ValueError(f"section of {y} x {x} pixels is not a multiple of scale {scale}; crop it first")
    if kernel == "area":
        split = hr.reshape(*hr.shape[:-2], y // scale, scale, x // scale, scale)
        return np.asarray(split.mean(axis=(-3, -1), dtype=np.float64))
    check_kernel(kernel)
    return resampling.both_axes(hr, _down(y, scale), _down(x, scale))


def check_kernel(kernel: str) -> None:
    """ValueError for an unknown kernel."""
    if kernel not in KERNELS:
        raise ValueError(f"degradation kernel {kernel!r} is unknown; choose one of {', '.join(KERNELS)}")


def reach(scale: int, kernel: str = "bicubic") -> int:
    """How many fine pixels beyond a coarse pixel's own ``scale`` x ``scale`` area ``degrade`` looks at."""
    return 0 if kernel == "area" else 2 * scale


def upsample(lr: np.ndarray, scale: Scale) -> np.ndarray:
    """Bicubic (a = -0.5) enlargement of ``lr`` (..., y, x) to (..., scale * y, scale * x), the same dtype and range.

    At a real scale the sides of the result are rounded.
    """
    y, x = lr.shape[-2:]
    if not isinstance(scale, int):
        fine = scales.fine_plane((y, x), scale)
        large = resampling.enlarge(lr, scales.axes((y, x), fine), (0, 0), ((0, fine[0]), (0, fine[1])))
        return restore(large, lr.dtype)
    return restore(resampling.both_axes(lr, _up(y, scale), _up(x, scale)), lr.dtype)
