"""SRDenseNet: dense blocks that see all blocks before them, and transposed convolutions (Tong et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emsr.layers.blocks import conv, up
from emsr.layers.dense import Dense
from emsr.layers.upscale import steps
from emsr.models import recipe
from emsr.models.section import SingleSection, check_counts, check_scale

SCALES = (2, 4, 8, 16)
NEEDS: dict[str, tuple[str, ...]] = {"image": ()}
READS = {"image": ("hr", "lr")}


@dataclass(frozen=True)
class Options:
    """What shapes the network; the values are in PRESETS."""

    blocks: int  # dense blocks
    layers: int  # convolutions of a block
    growth: int  # channels of each of them
    width: int  # channels where features are enlarged


PRESETS = {
    "published": Options(blocks=8, layers=8, growth=16, width=256),
    "small": Options(blocks=4, layers=8, growth=16, width=48),
}

_PUBLISHED = replace(recipe.PUBLISHED, image_error="squared")
stages = recipe.stages(
    {"published": _PUBLISHED, "small": recipe.small(_PUBLISHED)},
    {"small": {2: 54, 4: 48, 8: 36, 16: 21}},
)


def build(scale: int, sections: int, options: Options) -> Srdensenet:
    """The untrained network; of ``sections`` it reads the centre alone.

    Raises ValueError for a scale or options that it cannot have.
    """
    check_scale("srdensenet", scale, SCALES)
    check_counts("srdensenet", blocks=options.blocks, layers=options.layers, growth=options.growth, width=options.width)
    return Srdensenet(scale, sections, options)


class Srdensenet(SingleSection):
    """Features, dense blocks, a 1x1 convolution of what all of them made, enlargement by 2 as often as it takes."""

    def __init__(self, scale: int, sections: int, options: Options) -> None:
        super().__init__(scale, sections)
        self.halo = options.blocks * options.layers + 2
        each, width = options.layers * options.growth, options.width  # what a block makes, and the first convolution
        self.first = conv(1, each)
        self.blocks = nn.ModuleList(
            Dense(each * before, options.growth, options.layers, keeps=False) for before in range(1, options.blocks + 1)
        )
        self.bottleneck = conv(each * (options.blocks + 1), width, kernel=1)
        self.ups = nn.ModuleList(up(width, width) for _ in steps(scale))
        self.last = conv(width, 1)

    def enlarge(self, lr: Tensor) -> Tensor:
        """(batch, 1, y, x) in [0, 1] -> (batch, 1, scale*y, scale*x), not clamped."""
        made = F.relu(self.first(lr))
        for block in self.blocks:
            made = torch.cat([made, block(made)], 1)
        features = F.relu(self.bottleneck(made))
        for enlarge in self.ups:
            features = F.relu(enlarge(features))
        sr: Tensor = self.last(features)
        return sr
