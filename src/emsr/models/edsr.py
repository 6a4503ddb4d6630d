"""EDSR: super-resolution of single sections by residual blocks without normalisation (Lim et al. 2017, 1707.02921)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor, nn

from emsr.layers.blocks import conv, trunk
from emsr.layers.upscale import upsampler
from emsr.models.section import SingleSection
from emsr.models.stage import Stage

SCALES = (2, 4, 8, 16)
NEEDS: dict[str, tuple[str, ...]] = {"image": ()}
READS = {"image": ("hr", "lr")}


@dataclass(frozen=True)
class Options:
    """What shapes the network; the values are in PRESETS."""

    width: int  # channels
    blocks: int  # residual blocks
    res_scale: float  # factor of what a block adds; below 1 keeps wide networks stable
    mean: float  # of images in [0, 1]; taken from lr and given back to sr, so that padding is grey and not black


PRESETS = {
    "published": Options(width=64, blocks=16, res_scale=1.0, mean=0.5),  # the paper's baseline
    "full": Options(width=256, blocks=32, res_scale=0.1, mean=0.5),
    "small": Options(width=48, blocks=10, res_scale=1.0, mean=0.5),
}

_PUBLISHED = Stage(
    "image",
    "image",
    steps=300_000,
    batch=16,
    patch=48,
    learning_rate=1e-4,
    betas=(0.9, 0.999),
    schedule="halvings",
    halvings=(200_000,),
    validate_every=5_000,
    checkpoint_every=5_000,
)
RECIPES: dict[str, tuple[Stage, ...]] = {
    "published": (_PUBLISHED,),
    "full": (_PUBLISHED,),
    # about 25 minutes of one core
    "small": (replace(_PUBLISHED, steps=6_000, batch=4, learning_rate=1e-3, betas=(0.9, 0.99), schedule="cosine",
                      halvings=(), warmup=100, minimum_rate=1e-5, weight_ema=0.995, precision="bfloat16",
                      validate_every=500, checkpoint_every=250, clip=1.0),),
}  # fmt: skip
_PATCHES = {"small": {2: 56, 4: 40, 8: 24, 16: 12}}  # lr pixels, so that a step takes about as long at each scale


def stages(preset: str, scale: int) -> tuple[Stage, ...]:
    """The training recipe of ``preset`` at ``scale``: one stage."""
    (stage,) = RECIPES[preset]
    return (replace(stage, patch=_PATCHES[preset][scale]) if preset in _PATCHES else stage,)


def build(scale: int, sections: int, options: Options) -> Edsr:
    """The untrained network; of ``sections`` it reads the centre alone.

    Raises ValueError for a scale or options that it cannot have.
    """
    if scale not in SCALES:
        raise ValueError(f"scale {scale} is not one of edsr's: use one of {', '.join(map(str, SCALES))}")
    if min(options.width, options.blocks) < 1:
        raise ValueError(f"width {options.width} and blocks {options.blocks} make no edsr: use 1 or more of each")
    if not (0 <= options.res_scale < math.inf and 0 <= options.mean <= 1):
        raise ValueError(
            f"res_scale {options.res_scale} is under 0 or mean {options.mean} outside [0, 1]: use 1 and 0.5"
        )
    return Edsr(scale, sections, options)


class Edsr(SingleSection):
    """Features, residual blocks with a skip around them all, enlargement by 2 as often as the scale asks."""

    def __init__(self, scale: int, sections: int, options: Options) -> None:
        super().__init__(scale, sections)
        width = options.width
        self.mean = options.mean
        self.halo = 2 * options.blocks + 4
        self.first = conv(1, width)
        self.blocks = trunk(width, options.blocks, options.res_scale)
        self.join = conv(width, width)
        self.ups = upsampler(width, scale)
        self.last = conv(width, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                layer.reset_parameters()  # as published, in the blocks too

    def enlarge(self, lr: Tensor) -> Tensor:
        """(batch, 1, y, x) in [0, 1] -> (batch, 1, scale*y, scale*x), not clamped."""
        features = self.first(lr - self.mean)
        deep = features + self.join(self.blocks(features))
        sr: Tensor = self.last(self.ups(deep)) + self.mean
        return sr
