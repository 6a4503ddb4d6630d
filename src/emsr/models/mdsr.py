"""MDSR: EDSR's trunk shared by several scales, each with a head of its own (Lim et al. 2017, 1707.02921)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor, nn

from emsr.layers.blocks import PlainBlock, conv, trunk
from emsr.layers.upscale import upsampler
from emsr.models import recipe
from emsr.models.section import SingleSection, check_counts, check_scale

SCALES = (2, 3, 4, 8, 16)
NEEDS: dict[str, tuple[str, ...]] = {"image": ()}
READS = {"image": ("hr", "lr")}


@dataclass(frozen=True)
class Options:
    """What shapes the network; the values are in PRESETS."""

    width: int  # channels
    blocks: int  # residual blocks that all scales share
    heads: tuple[int, ...]  # scales that it learns beside that of the training
    res_scale: float  # factor of what a block adds; below 1 keeps wide networks stable
    mean: float  # of images in [0, 1]; taken from lr and given back to sr, so that padding is grey and not black


PRESETS = {
    "published": Options(width=64, blocks=80, heads=(2, 3, 4), res_scale=1.0, mean=0.5),
    "published_16": Options(width=64, blocks=16, heads=(2, 3, 4), res_scale=1.0, mean=0.5),
    "small": Options(width=48, blocks=5, heads=(2, 4), res_scale=1.0, mean=0.5),
}

_PUBLISHED = replace(recipe.PUBLISHED, objective="heads", halvings=(200_000,))
stages = recipe.stages(
    {"published": _PUBLISHED, "published_16": _PUBLISHED, "small": recipe.small(_PUBLISHED)},
    {"small": {2: 44, 3: 44, 4: 44, 8: 33, 16: 21}},
)


def build(scale: int, sections: int, options: Options) -> Mdsr:
    """The untrained network; of ``sections`` it reads the centre alone.

    Raises ValueError for a scale or options that it cannot have.
    """
    for each in (scale, *options.heads):
        check_scale("mdsr", each, SCALES)
    check_counts("mdsr", width=options.width, blocks=options.blocks)
    if not (0 <= options.res_scale < math.inf and 0 <= options.mean <= 1):
        raise ValueError(
            f"res_scale {options.res_scale} is under 0 or mean {options.mean} outside [0, 1]: use 1 and 0.5"
        )
    return Mdsr(scale, sections, options)


class Mdsr(SingleSection):
    """Features, blocks of each scale, shared blocks with a skip around them all, enlargement of each scale."""

    def __init__(self, scale: int, sections: int, options: Options) -> None:
        super().__init__(scale, sections)
        width, self.mean = options.width, options.mean
        self.heads = tuple(sorted({scale, *options.heads}))
        self.halo = 2 * options.blocks + 12
        self.first = conv(1, width)
        self.before = nn.ModuleDict(
            {f"x{head}": nn.Sequential(*(PlainBlock(width, kernel=5) for _ in range(2))) for head in self.heads}
        )
        self.blocks = trunk(width, options.blocks, options.res_scale)
        self.join = conv(width, width)
        self.ups = nn.ModuleDict({f"x{head}": upsampler(width, head) for head in self.heads})
        self.last = conv(width, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                layer.reset_parameters()  # as published, in the blocks too

    def enlarge(self, lr: Tensor) -> Tensor:
        """(batch, 1, y, x) in [0, 1] -> (batch, 1, scale*y, scale*x), not clamped."""
        return self.at(lr, self.scale)

    def at(self, lr: Tensor, head: int) -> Tensor:
        """(batch, 1, y, x) in [0, 1] -> (batch, 1, head*y, head*x), not clamped; ``head`` is one of ``heads``."""
        features = self.before[f"x{head}"](self.first(lr - self.mean))
        deep = features + self.join(self.blocks(features))
        sr: Tensor = self.last(self.ups[f"x{head}"](deep)) + self.mean
        return sr
