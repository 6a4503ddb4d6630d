"""LIIF: super-resolution of single sections by any real scale, a local implicit function (Chen et al. 2021,
2012.09161)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from emsr.layers.encoders import encoder, reach
from emsr.layers.implicit import Perceptron, Points
from emsr.models import real_scale, recipe
from emsr.models.real_scale import RealScale, Rows, check
from emsr.scales import Scale

SCALES = (2, 4, 8, 16)  # among those of SCALE_RANGE
SCALE_RANGE = (1.0, 16.0)
NEEDS: dict[str, tuple[str, ...]] = {"image": ()}
READS = {"image": ("hr", "lr")}


@dataclass(frozen=True)
class Options:
    """What shapes the network; the values are in PRESETS."""

    encoder: str  # edsr or swinir
    width: int  # channels of features
    blocks: int  # edsr: residual blocks
    embedding: int  # swinir: channels inside
    groups: int  # swinir
    layers: int  # swinir: of each group
    heads: int  # swinir
    window: int  # swinir: lr pixels
    mlp_ratio: int  # swinir
    drop_path: float  # swinir: share of samples that skip the last layer in training; fewer skip earlier ones
    hidden: tuple[int, ...]  # sizes of the layers that make a grey level of features and coordinates


_PAPER = Options(
    encoder="edsr",
    **real_scale.ENCODERS,
    hidden=(256, 256, 256, 256),
)
PRESETS = {
    "published": _PAPER,
    "swinir": replace(_PAPER, encoder="swinir"),
    "small": replace(_PAPER, width=48, blocks=10, hidden=(128, 128, 128, 128)),
}

stages = real_scale.stages(
    {
        "published": real_scale.PUBLISHED,
        "swinir": real_scale.PUBLISHED,
        # about as much arithmetic as edsr's
        "small": recipe.small(real_scale.PUBLISHED, patch=40),
    }
)


def build(scale: Scale, sections: int, options: Options) -> Liif:
    """The untrained network; of ``sections`` it reads the centre alone.

    Raises ValueError for a scale or options that it cannot have.
    """
    check("liif", scale, SCALE_RANGE, options)
    return Liif(scale, sections, options)


class Liif(RealScale):
    """A perceptron over features around a point, its place among them and the size of its voxel."""

    def __init__(self, scale: Scale, sections: int, options: Options, channels: int = 1) -> None:
        super().__init__(scale, sections, channels)
        seen = reach(options)
        self.halo = None if seen is None else seen + 2
        self.encoder = encoder(options, channels)
        self.decoder = Perceptron(9 * options.width, 4, options.hidden, channels)

    def prepare(self, lr: Tensor, cell: Tensor, keys: Points | None) -> Rows:
        """Of each pixel, what the perceptron's first layer makes of its 3 x 3 features."""
        return (self.decoder.unfolded(self.encoder(lr)),)

    def decode(self, known: Rows, points: Points, cell: Tensor) -> Tensor:
        """(batch * points, channels): what the pixels around a point say of it, each as near as it is."""
        found = torch.zeros((), device=cell.device)
        for corner in points.corners():
            beside = torch.cat([corner.apart, cell.expand_as(corner.apart)], 1)
            found = found + corner.weight * self.decoder(corner.take(known[0]), beside).float()
        return found
