"""Affinities without a network: smoothed grey levels, as membranes are dark. The baseline of affinity networks.

An affinity at a voxel is of the edge to its lower neighbour along z, y and x, in this order: the smaller of what the
two voxels say of themselves, 0 for grey levels up to `dark`, 1 from `bright` on, linear between.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from emsr.geometry import triple
from emsr.models.affinity import check
from emsr.models.affinity_geometry import Geometry
from emsr.models.stage import Stage

OUTPUT = "affinity"
SCALES = (1,)  # affinities lie on the grid of the image
NEEDS: dict[str, tuple[str, ...]] = {"untrained": ()}
READS: dict[str, tuple[str, ...]] = {"untrained": ()}
TRUNCATE = 4  # standard deviations at which the Gaussian ends, as in scipy


@dataclass(frozen=True)
class Options:
    """How grey levels become affinities."""

    sigma: tuple[float, ...]  # standard deviation of the Gaussian along z, y and x, voxels; 0 smooths nothing
    dark: float  # part of the range of grey levels, [0, 1], up to which an affinity is 0
    bright: float  # the same, from which on it is 1


# of a grid of values the one with the least VOI on validation sections of the FIB medulla (benchmarks/intensity.py):
# other images need others
_FOUND = Options(sigma=(0.7, 0.7, 0.7), dark=0.42, bright=0.55)
PRESETS = {"smoothed": _FOUND, "small": _FOUND}
_UNTRAINED = Stage("untrained", "none", steps=0, batch=1, patch=160, depth=32, learning_rate=0.0)
RECIPES: dict[str, tuple[Stage, ...]] = {"smoothed": (_UNTRAINED,), "small": (_UNTRAINED,)}


def stages(preset: str, scale: int) -> tuple[Stage, ...]:
    """One stage, which trains nothing; its depth is that of a window, halo included."""
    return RECIPES[preset]


def build(scale: int, sections: int, options: Options) -> nn.Module:
    """The map from images to affinities; it has no weights. Raises ValueError for options that make no sense."""
    if len(options.sigma) != 3 or not all(0 <= sigma < math.inf for sigma in options.sigma):
        raise ValueError(
            f"sigma {options.sigma} is not three numbers of at least 0: write voxels along z, y and x, as [1, 2, 2]"
        )
    if not 0 <= options.dark < options.bright <= 1:
        raise ValueError(
            f"dark {options.dark} and bright {options.bright} must be parts of the range of grey levels, dark the "
            "lower: use 0 <= dark < bright <= 1"
        )
    return Intensity(options)


class Intensity(nn.Module):
    """Valid smoothing, so that no voxel depends on its window; a lower neighbour takes one voxel more of the halo."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.options = options
        # other options are other weights: cards and scores tell networks apart by the hash of their tensors
        self.register_buffer("values", torch.tensor([*options.sigma, options.dark, options.bright]))
        halo = triple([radius(sigma) + 1 for sigma in options.sigma])
        self.geometry = Geometry(halo, triple([2 * margin + 1 for margin in halo]), (1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """(batch, 1, z, y, x) in [0, 1] -> affinities (batch, 3, z - 2 hz, y - 2 hy, x - 2 hx) in [0, 1], halo h.

        Raises ValueError for shapes that ``geometry`` does not allow.
        """
        check(image, self.geometry)
        for axis, sigma in enumerate(self.options.sigma, start=2):
            image = smoothed(image, axis, sigma)
        dark, bright = self.options.dark, self.options.bright
        inside = ((image - dark) / (bright - dark)).clamp(0, 1)
        here, lower = slice(1, -1), slice(0, -2)
        edges = ((lower, here, here), (here, lower, here), (here, here, lower))
        own = inside[..., here, here, here]
        return torch.cat([torch.minimum(own, inside[(..., *edge)]) for edge in edges], dim=1)


def radius(sigma: float) -> int:
    """Voxels on either side that the truncated Gaussian reaches."""
    return int(TRUNCATE * sigma + 0.5)


def smoothed(image: Tensor, axis: int, sigma: float) -> Tensor:
    """``image`` under a Gaussian along one axis, shorter there by ``radius`` on either side.

    A sum of shifted images: every voxel is made by the same operations, wherever its window lies.
    """
    reach = radius(sigma)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / (sigma or 1)) ** 2)
    length = image.shape[axis] - 2 * reach
    whole = torch.zeros_like(image.narrow(axis, 0, length))
    for first, weight in enumerate((weights / weights.sum()).tolist()):
        whole += weight * image.narrow(axis, first, length)
    return whole
