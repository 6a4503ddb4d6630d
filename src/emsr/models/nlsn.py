"""NLSN: EDSR with sparse attention between its residual blocks (Mei et al. 2021, CVPR)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor, nn

from emsr.layers.blocks import conv, trunk
from emsr.layers.sparse_attention import SparseAttention
from emsr.layers.upscale import upsampler
from emsr.models import recipe
from emsr.models.section import SingleSection, check_scale

SCALES = (2, 4, 8, 16)
NEEDS: dict[str, tuple[str, ...]] = {"image": ()}
READS = {"image": ("hr", "lr")}


@dataclass(frozen=True)
class Options:
    """What shapes the network; the values are in PRESETS."""

    width: int  # channels, a multiple of 4
    blocks: int  # residual blocks
    every: int  # residual blocks from one attention to the next; the first comes before them all
    hashes: int  # rounds of hashing
    chunk: int  # positions that attend to each other and to as many on both sides
    res_scale: float  # factor of what a block adds
    attention_scale: float  # factor of what attention adds
    mean: float  # of images in [0, 1]; taken from lr and given back to sr


PRESETS = {
    "published": Options(
        width=256, blocks=32, every=8, hashes=4, chunk=144, res_scale=0.1, attention_scale=0.1, mean=0.5
    ),
    "lite": Options(width=64, blocks=16, every=8, hashes=4, chunk=144, res_scale=1.0, attention_scale=0.1, mean=0.5),
    "small": Options(width=48, blocks=8, every=8, hashes=4, chunk=48, res_scale=1.0, attention_scale=0.1, mean=0.5),
}

_PUBLISHED = replace(recipe.PUBLISHED, steps=1_000_000, halvings=(200_000, 400_000, 600_000, 800_000))
stages = recipe.stages(
    # small: a step takes about what one of edsr's small takes
    {"published": _PUBLISHED, "lite": _PUBLISHED, "small": recipe.small(_PUBLISHED)},
    {"small": {2: 56, 4: 40, 8: 24, 16: 12}},
)


def build(scale: int, sections: int, options: Options, channels: int = 1) -> Nlsn:
    """The untrained network of images with ``channels``; of ``sections`` it reads the centre alone.

    Raises ValueError for a scale or options that it cannot have.
    """
    check_scale("nlsn", scale, SCALES)
    if min(options.width, options.blocks, options.every) < 1:
        raise ValueError(
            f"width {options.width}, blocks {options.blocks} and every {options.every} make no nlsn: use 1 or more"
        )
    factors = {"res_scale": options.res_scale, "attention_scale": options.attention_scale}
    for name, factor in factors.items():
        if not 0 <= factor < math.inf:
            raise ValueError(f"{name} {factor} is no factor from 0 on: use 0.1")
    if not 0 <= options.mean <= 1:
        raise ValueError(f"mean {options.mean} is outside [0, 1]: use 0.5")
    return Nlsn(scale, sections, options, channels)


class Nlsn(SingleSection):
    """Features, residual blocks among attention with a skip around them all, enlargement; depends on the window."""

    def __init__(self, scale: int, sections: int, options: Options, channels: int) -> None:
        super().__init__(scale, sections)
        width = options.width
        self.mean = options.mean
        self.first = conv(channels, width)
        self.body = nn.Sequential(_attention(options, 0))
        for done in range(0, options.blocks, options.every):
            blocks = min(options.every, options.blocks - done)
            self.body.append(trunk(width, blocks, options.res_scale))
            if blocks == options.every:
                self.body.append(_attention(options, done + blocks))
        self.join = conv(width, width)
        self.ups = upsampler(width, scale)
        self.last = conv(width, channels)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                layer.reset_parameters()

    def enlarge(self, lr: Tensor) -> Tensor:
        """(batch, 1, y, x) in [0, 1] -> (batch, 1, scale*y, scale*x), not clamped."""
        features = self.first(lr - self.mean)
        deep = features + self.join(self.body(features))
        sr: Tensor = self.last(self.ups(deep)) + self.mean
        return sr


def _attention(options: Options, place: int) -> SparseAttention:
    """The attention after so many blocks, with rotations of its own."""
    return SparseAttention(options.width, options.hashes, options.chunk, options.attention_scale, seed=place)
