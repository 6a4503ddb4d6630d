"""Small volumes to segment: affinities of noise and of something like cells, and ways to read them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from emsr.geometry import Box, Triple


def noise(shape: Triple, seed: int) -> np.ndarray:
    """Affinities uint8 (3, z, y, x) without any structure."""
    return np.random.default_rng(seed).integers(0, 256, (3, *shape), np.uint8)


def cells(shape: Triple, seed: int, size: float = 5.0) -> np.ndarray:
    """Affinities uint8 (3, z, y, x) of smooth blobs about `size` pixels wide between membranes, with a little noise."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.standard_normal(shape), (1, size / 2, size / 2))
    inside = np.clip(0.5 + 4 * np.abs(field) / np.abs(field).max() - 0.6, 0, 1)
    pairs = [np.minimum(inside, np.roll(inside, 1, axis)) for axis in range(3)]
    return np.uint8(np.clip(255 * np.stack(pairs) + rng.normal(0, 8, (3, *shape)), 0, 255))


def tiles(shape: Triple, side: int, seed: int) -> np.ndarray:
    """Fragments uint64 (z, y, x): the nearest of random points, about side**3 voxels each, ids dense from 1, some 0."""
    rng = np.random.default_rng(seed)
    count = max(2, int(np.prod(shape)) // side**3)
    points = rng.uniform(0, 1, (count, 3)) * shape
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    near = ((grid[..., None, :] - points) ** 2).sum(-1).argmin(-1)
    return np.unique(near, return_inverse=True)[1].reshape(shape).astype(np.uint64)


def reader(volume: np.ndarray) -> Callable[[Box], np.ndarray]:
    """Reads boxes of a volume, whatever axes it has before z."""
    return lambda box: volume[(..., *box.slices)]


def same_partition(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two labellings agree but for the names of the labels."""
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    return len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
