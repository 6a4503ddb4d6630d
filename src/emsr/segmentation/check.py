"""What this package refuses, in one line each."""

from __future__ import annotations

import math

import numpy as np

WHITE = 255
"""The uint8 that stands for an affinity of 1.0."""


def check_threshold(value: float, name: str = "threshold") -> float:
    """The value itself; raises ValueError unless it is a number in [0, 1]."""
    if math.isnan(value) or not 0 <= value <= 1:
        raise ValueError(f"{name} {value} is outside [0, 1]: scores are 1 - mean affinity")
    return float(value)


def check_affinities(affinities: np.ndarray, channels: int = 3) -> None:
    """Raise ValueError unless the affinities are uint8 (channels, z, y, x) with at least one voxel."""
    if affinities.dtype != np.uint8:
        found = f"{affinities.dtype}{_not_finite(affinities)}"
        raise ValueError(f"affinities are {found}, not uint8: store round(255 * affinity)")
    if affinities.ndim != 4 or affinities.shape[0] != channels or affinities.size == 0:
        raise ValueError(
            f"affinities of shape {affinities.shape} are not ({channels}, z, y, x) with voxels: predict them again"
        )


def _not_finite(affinities: np.ndarray) -> str:
    if not np.issubdtype(affinities.dtype, np.floating):
        return ""
    count = int(np.count_nonzero(~np.isfinite(affinities)))
    return f" with {count} values that are NaN or infinite" if count else ""
