"""DRRN: residual units of the same weights, each starting from the first one's input (Tai et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from emsr.layers.blocks import Recursive, conv, he
from emsr.models import recipe
from emsr.models.section import Refiner, check_counts, check_scale

SCALES = (2, 3, 4, 8, 16)
NEEDS: dict[str, tuple[str, ...]] = {"image": ()}
READS = {"image": ("hr", "lr")}


@dataclass(frozen=True)
class Options:
    """What shapes the network; the values are in PRESETS."""

    width: int  # channels
    blocks: int  # recursive blocks, each of weights of its own
    units: int  # residual units of a block, all of the same weights


PRESETS = {
    "published": Options(width=128, blocks=1, units=25),
    "small": Options(width=32, blocks=1, units=9),
}

_PUBLISHED = recipe.descent(31, halvings=(60_000, 120_000, 180_000, 240_000))
stages = recipe.stages(
    {"published": _PUBLISHED, "small": recipe.small(_PUBLISHED)},
    {"small": {2: 46, 3: 30, 4: 23, 8: 11, 16: 5}},
)


def build(scale: int, sections: int, options: Options) -> Drrn:
    """The untrained network; of ``sections`` it reads the centre alone.

    Raises ValueError for a scale or options that it cannot have.
    """
    check_scale("drrn", scale, SCALES)
    check_counts("drrn", width=options.width, blocks=options.blocks, units=options.units)
    return Drrn(scale, sections, options)


class Drrn(Refiner):
    """Blocks of recursive units; what they make, added to the enlarged section, is sr. No convolution has a bias."""

    def __init__(self, scale: int, sections: int, options: Options) -> None:
        super().__init__(scale, sections, options.blocks * (2 * options.units + 1) + 1)
        width, self.units = options.width, options.units
        self.first = nn.ModuleList(conv(width if b else 1, width, bias=False) for b in range(options.blocks))
        self.unit = nn.ModuleList(Recursive(width, bias=False) for _ in range(options.blocks))
        self.last = conv(width, 1, bias=False)
        he(*(layer for layer in self.first if isinstance(layer, nn.Conv2d)))

    def refine(self, large: Tensor) -> Tensor:
        """The enlarged section (batch, 1, y, x) -> a better one, not clamped."""
        features = large
        for block, (first, unit) in enumerate(zip(self.first, self.unit, strict=True)):
            start = features = first(F.relu(features) if block else features)
            for turn in range(self.units):
                features = start + unit(features, turn)
        sr: Tensor = large + self.last(F.relu(features))
        return sr
