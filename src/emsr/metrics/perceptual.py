"""LPIPS, the perceptual distance of Zhang et al. 2018, from the features of a network that is given by the caller."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

TINY = 1e-10  # keeps a pixel without any feature finite, as in the published version 0.1

STATED: dict[str, object] = {
    "lpips": "Zhang et al. 2018, eq. 1: features of each layer scaled to unit length at each pixel, squared "
    "difference, weighted by channel, mean over pixels, sum over layers; 0 for equal images, lower is nearer",
    "input": "version 0.1: grey repeated to three channels, in [-1, 1], shifted and scaled by channel",
}
"""What ``lpips_distance`` is, in words that go beside the figure; the network is stated by its weights."""


def lpips_distance(
    features_a: Sequence[np.ndarray], features_b: Sequence[np.ndarray], weights: Sequence[np.ndarray]
) -> float:
    """Distance of two images from their features, at least 0.

    ``features_a`` and ``features_b`` hold one array (c, y, x) for each layer, ``weights`` one of shape (c,), not
    negative. Raises ValueError for other shapes, other numbers of layers and negative weights.
    """
    if not len(features_a) == len(features_b) == len(weights) or not len(weights):
        raise ValueError(f"{len(features_a)} and {len(features_b)} layers for {len(weights)} weights: give one of each")
    return sum(_layer(*layer) for layer in zip(features_a, features_b, weights, strict=True))


def _layer(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> float:
    if a.ndim != 3 or a.shape != b.shape or weight.shape != a.shape[:1] or not a.size:
        raise ValueError(
            f"features {a.shape} and {b.shape} with weights {weight.shape} must be (c, y, x) twice and (c,)"
        )
    if (weight < 0).any():
        raise ValueError(f"weight {weight.min()} is negative: LPIPS weights are at least 0")
    squares = (_unit(a) - _unit(b)) ** 2  # (c, y, x)
    return float(np.einsum("c,cyx->", weight.astype(np.float64), squares) / (a.shape[1] * a.shape[2]))


def _unit(features: np.ndarray) -> np.ndarray:
    """Features (c, y, x) of length 1 at each pixel, float64; where there are none they stay 0."""
    values = features.astype(np.float64)
    return values / (np.sqrt((values**2).sum(axis=0, keepdims=True)) + TINY)
