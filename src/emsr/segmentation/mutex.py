"""Mutex watershed (Wolf et al. 2018) through mwatershed: an alternative way to cut a block into fragments.

What mwatershed 0.5 does that must be known: it sorts edges with an unstable sort, so equal affinities, of which uint8
has many, would depend on its sort; the cluster whose representative is the first voxel gets label 0, as background
does; and a voxel with no attractive edge is background. Here ties are put in one order, and a plane in front takes the
first voxel's place.
"""

from __future__ import annotations

from collections.abc import Sequence

import mwatershed
import numpy as np

from emsr.geometry import Triple
from emsr.segmentation.check import WHITE, check_affinities, check_threshold

NEAREST: tuple[Triple, ...] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
"""From a voxel to the neighbours that the three nearest affinities belong to."""


def mutex_watershed(
    affinities: np.ndarray, offsets: Sequence[Triple] = NEAREST, bias: float | Sequence[float] = 0.5
) -> np.ndarray:
    """Cut uint8 affinities (channels, z, y, x) into labels int64 (z, y, x); 0 where every edge of a voxel repels.

    Channel k is the edge from p to p + offsets[k]; the first three are the nearest neighbours, more may be long range.
    An affinity above `bias` (one for all channels or one each, in [0, 1]) attracts, another repels, and edges are taken
    by their distance to it; equal ones by channel, then raster order of p.
    Measured: 80 bytes and half a microsecond per edge, so 240 bytes per voxel with nearest neighbours alone.
    Raises ValueError for another shape, type, offset or bias.
    """
    check_affinities(affinities, len(offsets))
    if tuple(offsets[:3]) != NEAREST or any(not any(offset) for offset in offsets):
        raise ValueError(f"offsets {tuple(offsets)} must start with {NEAREST}, and none is (0, 0, 0)")
    each = [bias] * len(offsets) if isinstance(bias, (int, float)) else list(bias)
    if len(each) != len(offsets):
        raise ValueError(f"{len(each)} values of bias for {len(offsets)} offsets: give one, or one each")
    weights = _distinct(affinities, np.array([check_threshold(value, "bias") for value in each]))
    inside = [k for k, offset in enumerate(offsets) if (np.abs(offset) < affinities.shape[1:]).all()]
    if not inside:  # a single voxel
        return np.zeros(affinities.shape[1:], np.int64)
    reached = [offsets[k] for k in inside]  # mwatershed panics at an offset that leaves the block from everywhere
    return mwatershed.agglom(_guarded(weights[inside], reached), reached)[1:].astype(np.int64)


def _distinct(affinities: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Signed float64 weights, no two of the same size, in the order of |affinity - bias|, then of channel and place."""
    weights = affinities - WHITE * bias[:, None, None, None]
    order = np.argsort(-np.abs(weights), axis=None, kind="stable")
    size = np.empty(weights.size)
    size[order] = np.arange(weights.size, 0, -1)
    return np.where(weights > 0, 1.0, -1.0) * size.reshape(weights.shape)


def _guarded(weights: np.ndarray, offsets: Sequence[Triple]) -> np.ndarray:
    """The weights with a plane in front, every edge of which repels: its voxels are background."""
    guarded = np.full((len(weights), weights.shape[1] + 1, *weights.shape[2:]), -1.0)
    guarded[:, 1:] = weights
    for channel, offset in zip(guarded, offsets, strict=True):
        if offset[0] < 0:
            channel[1 : 1 - offset[0]] = -1.0  # edges into the plane, or out of the volume
    return guarded
