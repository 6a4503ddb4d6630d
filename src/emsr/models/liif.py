"""LIIF: super-resolution of single sections by any real scale, a local implicit function (Chen et al. 2021,
2012.09161)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from emsr.layers.encoders import encoder, reach
from emsr.layers.implicit import Perceptron, Points
from emsr.models.real_scale import RealScale, Rows, Scale, check, recipe
from emsr.models.stage import Stage

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
    width=64,
    blocks=16,
    embedding=180,
    groups=6,
    layers=6,
    heads=6,
    window=8,
    mlp_ratio=2,
    drop_path=0.1,
    hidden=(256, 256, 256, 256),
)
PRESETS = {
    "published": _PAPER,
    "swinir": replace(_PAPER, encoder="swinir"),
    "small": replace(_PAPER, width=48, blocks=10, hidden=(128, 128, 128, 128)),
}

_PUBLISHED = Stage(
    "image",
    "scales",
    steps=1_000_000,
    batch=16,
    patch=48,
    learning_rate=1e-4,
    betas=(0.9, 0.999),
    schedule="halvings",
    halvings=(200_000, 400_000, 600_000, 800_000),
    validate_every=10_000,
    checkpoint_every=5_000,
)
RECIPES: dict[str, tuple[Stage, ...]] = {
    "published": (_PUBLISHED,),
    "swinir": (_PUBLISHED,),
    # about as much arithmetic as edsr's
    "small": (replace(_PUBLISHED, steps=6_000, batch=4, patch=40, learning_rate=1e-3, betas=(0.9, 0.99),
                      schedule="cosine", halvings=(), warmup=100, minimum_rate=1e-5, weight_ema=0.995,
                      precision="bfloat16", validate_every=500, checkpoint_every=250, clip=1.0),),
}  # fmt: skip


def stages(preset: str, scale: Scale) -> tuple[Stage, ...]:
    """The training recipe of ``preset`` for ``scale``: one stage, at random scales."""
    (stage,) = RECIPES[preset]
    return (recipe(stage, scale),)


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
