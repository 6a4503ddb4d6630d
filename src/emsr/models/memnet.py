"""MemNet: memory blocks whose gates see all that earlier blocks remember (Tai et al. 2017, 1708.02209)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emsr.layers.blocks import Recursive, conv
from emsr.layers.ensemble import Ensemble
from emsr.models import recipe
from emsr.models.section import EnsembleRefiner, check_counts, check_scale

SCALES = (2, 3, 4, 8, 16)
NEEDS: dict[str, tuple[str, ...]] = {"image": ()}
READS = {"image": ("hr", "lr")}


@dataclass(frozen=True)
class Options:
    """What shapes the network; the values are in PRESETS."""

    width: int  # channels
    blocks: int  # memory blocks
    recursions: int  # turns of a block's residual unit
    norm: bool  # normalise over the batch before each activation


PRESETS = {
    "published": Options(width=64, blocks=6, recursions=6, norm=True),
    "small": Options(width=32, blocks=3, recursions=3, norm=False),
}

# the images of the six blocks and sr count alike
_PUBLISHED = recipe.descent(31, halvings=(75_000, 150_000, 225_000), halving=0.1, early_weight=6 / 7)
stages = recipe.stages(
    {"published": _PUBLISHED, "small": recipe.small(_PUBLISHED, early_weight=3 / 4)},
    {"small": {2: 44, 3: 29, 4: 22, 8: 11, 16: 5}},
)


def build(scale: int, sections: int, options: Options) -> Memnet:
    """The untrained network; of ``sections`` it reads the centre alone.

    Raises ValueError for a scale or options that it cannot have.
    """
    check_scale("memnet", scale, SCALES)
    check_counts("memnet", width=options.width, blocks=options.blocks, recursions=options.recursions)
    return Memnet(scale, sections, options)


class Memory(nn.Module):
    """A residual unit in turns, and a gate over what each turn gave and what blocks before remember."""

    def __init__(self, options: Options, block: int) -> None:
        super().__init__()
        self.recursions = options.recursions
        self.unit = Recursive(options.width, options.recursions if options.norm else 0)
        inputs = options.width * (options.recursions + block)
        self.norm = nn.BatchNorm2d(inputs) if options.norm else nn.Identity()
        self.gate = conv(inputs, options.width, kernel=1)

    def forward(self, remembered: list[Tensor]) -> Tensor:
        """What the blocks before gave, (batch, width, y, x) each, the latest last -> what this one does."""
        x, turns = remembered[-1], []
        for turn in range(self.recursions):
            x = x + self.unit(x, turn)
            turns.append(x)
        gated: Tensor = self.gate(F.relu(self.norm(torch.cat([*turns, *remembered], 1))))
        return gated


class Memnet(EnsembleRefiner):
    """Features, memory blocks, an image of each by the same last convolution, and their mean."""

    def __init__(self, scale: int, sections: int, options: Options) -> None:
        super().__init__(scale, sections, 2 * options.blocks * options.recursions + 2)
        self.first = conv(1, options.width)
        self.blocks = nn.ModuleList(Memory(options, block) for block in range(1, options.blocks + 1))
        self.last = conv(options.width, 1)
        self.mean = Ensemble(options.blocks)

    def each(self, large: Tensor) -> list[Tensor]:
        """The enlarged section (batch, 1, y, x) -> the image of each block."""
        remembered = [self.first(large)]
        for block in self.blocks:
            remembered.append(block(remembered))
        return [large + self.last(features) for features in remembered[1:]]
