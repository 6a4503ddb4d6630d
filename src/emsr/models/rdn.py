"""RDN: residual dense blocks, all of which the enlargement sees (Zhang et al. 2018, 1802.08797)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from emsr.layers.blocks import conv
from emsr.layers.dense import ResidualDense
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
    blocks: int  # residual dense blocks
    layers: int  # convolutions of a block
    growth: int  # channels of each of them, and where features are enlarged


PRESETS = {
    "published": Options(width=64, blocks=16, layers=8, growth=64),  # the paper's B
    "published_a": Options(width=64, blocks=20, layers=6, growth=32),
    "small": Options(width=48, blocks=4, layers=4, growth=32),
}

_PUBLISHED = replace(recipe.PUBLISHED, halvings=(200_000,))
stages = recipe.stages(
    {"published": _PUBLISHED, "published_a": _PUBLISHED, "small": recipe.small(_PUBLISHED)},
    {"small": {2: 52, 3: 47, 4: 43, 8: 30, 16: 17}},
)


def build(scale: int, sections: int, options: Options) -> Rdn:
    """The untrained network; of ``sections`` it reads the centre alone.

    Raises ValueError for a scale or options that it cannot have.
    """
    check_scale("rdn", scale, SCALES)
    check_counts("rdn", width=options.width, blocks=options.blocks, layers=options.layers, growth=options.growth)
    return Rdn(scale, sections, options)


class Rdn(SingleSection):
    """Features, residual dense blocks, the fusion of what each of them gave, a skip around all, enlargement."""

    def __init__(self, scale: int, sections: int, options: Options) -> None:
        super().__init__(scale, sections)
        width = options.width
        self.halo = options.blocks * options.layers + 5
        self.first = conv(1, width)
        self.second = conv(width, width)
        self.blocks = nn.ModuleList(ResidualDense(width, options.growth, options.layers) for _ in range(options.blocks))
        self.fuse = nn.Sequential(conv(options.blocks * width, width, kernel=1), conv(width, width))
        self.ups = upsampler(width, scale, options.growth)
        self.last = conv(options.growth, 1)

    def enlarge(self, lr: Tensor) -> Tensor:
        """(batch, 1, y, x) in [0, 1] -> (batch, 1, scale*y, scale*x), not clamped."""
        features = self.first(lr)
        deep, each = self.second(features), []
        for block in self.blocks:
            deep = block(deep)
            each.append(deep)
        sr: Tensor = self.last(self.ups(features + self.fuse(torch.cat(each, 1))))
        return sr
