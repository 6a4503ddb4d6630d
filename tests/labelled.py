"""A labelled volume of a few voxels and recipes for it, which tests of affinity training share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from emsr.models.stage import Stage
from emsr.training.volumes import LabelledSeries

STAGE = Stage(
    "affinity", "affinity", steps=8, batch=2, patch=10, depth=4, border=1, learning_rate=0.02, balance_limit=10.0,
    validate_every=4, checkpoint_every=3, augment=False,
)  # fmt: skip
ROUGH = replace(
    STAGE,
    **{"augment": True, "rotation_share": 0.5, "rotation": 180.0, "elastic_share": 0.5, "elastic": 3.0},
    **{"shift_share": 0.5, "shift": 2, "intensity_share": 0.5, "contrast": 0.2, "brightness": 0.1, "gamma": 0.2},
    **{"poor_share": 0.5, "poor": 1, "blur": 1.0, "faint": 0.5, "missing_share": 0.5, "missing": 1},
)


def tissue(z: int = 12, y: int = 30, x: int = 26, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Image and labels of slanted boxes; the image is the id, 20 grey levels each."""
    grid = np.meshgrid(np.arange(z), np.arange(y), np.arange(x), indexing="ij")
    cells = np.random.default_rng(seed).integers(0, 12, (6, 20, 20))
    labels = cells[grid[0] // 5, (grid[1] + grid[0] // 2) // 7, (grid[2] + grid[0]) // 6].astype(np.uint64)
    return (labels * 20).astype(np.uint8), labels


def series(ranges: Any = ((0, 12),), bad: Any = (), seed: int = 0) -> LabelledSeries:
    """All or some of its sections."""
    return LabelledSeries("a", *tissue(seed=seed), tuple(ranges), frozenset(bad))
