"""DRRN: residual units of the same weights, each starting from the first one's input (Tai et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn
from torch.nn import functional as F

from emsr.layers.blocks import Recursive, conv, he
from emsr.models import recipe
from emsr.models.section import Refiner, check_counts, check_scale
from emsr.models.stage import Stage

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

_PUBLISHED = replace(
    recipe.PUBLISHED,
    image_error="squared",
    image_weight=31**2 / 2,  # half the sum over a patch of 31 x 31, to which the learning rate belongs
    optimiser="sgd",
    betas=(0.9, 0.0),
    weight_decay=1e-4,
    learning_rate=0.1,
    halvings=(60_000, 120_000, 180_000, 240_000),
    clip_change=0.01,
)
RECIPES: dict[str, tuple[Stage, ...]] = {
    "published": (_PUBLISHED,),
    "small": (recipe.small(_PUBLISHED),),
}
_PATCHES = {"published": recipe.PATCHES, "small": {2: 46, 3: 30, 4: 23, 8: 11, 16: 5}}


def stages(preset: str, scale: int) -> tuple[Stage, ...]:
    """The training recipe of ``preset`` at ``scale``: one stage."""
    return recipe.stages(RECIPES, _PATCHES, preset, scale)


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
