"""Grey levels of a detector made those of emsr: 0 to 255 between two limits, the same for all voxels of an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def table(dtype: np.dtype, low: float, high: float) -> np.ndarray:
    """uint8 for every grey level of an unsigned ``dtype``: 255 (v - low) / (high - low), half to even, cut to 0-255."""
    levels = np.arange(np.iinfo(dtype).max + 1, dtype=np.float64)
    return np.clip(np.rint((levels - low) * (255 / (high - low))), 0, 255).astype(np.uint8)


def percentiles(counts: np.ndarray, asked: Sequence[float]) -> tuple[int, int]:
    """Grey levels at two percentiles of voxels of which ``counts[v]`` have level v.

    The lowest level that at least so many per cent of the voxels do not exceed (Hyndman & Fan 1996, definition 1).
    Raises ValueError where both are one level, so that nothing lies between.
    """
    parts = np.cumsum(counts) / counts.sum()
    low, high = (int(np.searchsorted(parts, one / 100)) if one else int(np.flatnonzero(counts)[0]) for one in asked)
    if low == high:
        raise ValueError(
            f"percentiles {list(asked)} are both grey level {low}, nothing lies between: state others, or low and high"
        )
    return low, high
