"""DRCN: one convolution applied in turns, an image of every turn, and their mean (Kim et al. 2016, 1511.04491)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn
from torch.nn import functional as F

from emsr.layers.blocks import conv, he
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
    recursions: int  # turns of the one convolution


PRESETS = {
    "published": Options(width=256, recursions=16),
    "small": Options(width=32, recursions=9),
}

_PUBLISHED = replace(
    recipe.PUBLISHED, image_error="squared", weight_decay=1e-4, early_weight=1.0, early_until=1.0
)  # the images of the turns learn first, their mean last
stages = recipe.stages(
    {"published": _PUBLISHED, "small": recipe.small(_PUBLISHED)},
    {"small": {2: 44, 3: 29, 4: 22, 8: 11, 16: 5}},
)


def build(scale: int, sections: int, options: Options) -> Drcn:
    """The untrained network; of ``sections`` it reads the centre alone.

    Raises ValueError for a scale or options that it cannot have.
    """
    check_scale("drcn", scale, SCALES)
    check_counts("drcn", width=options.width, recursions=options.recursions)
    return Drcn(scale, sections, options)


class Drcn(EnsembleRefiner):
    """Features, a convolution that begins as the identity and is applied in turns, the same last layers after each."""

    def __init__(self, scale: int, sections: int, options: Options) -> None:
        super().__init__(scale, sections, options.recursions + 4)
        width, self.recursions = options.width, options.recursions
        self.embed = nn.Sequential(conv(1, width), nn.ReLU(), conv(width, width), nn.ReLU())
        self.again = conv(width, width)
        self.rebuild = nn.Sequential(conv(width, width), nn.ReLU(), conv(width, 1))
        self.mean = Ensemble(options.recursions)
        he(*(layer for layer in (*self.embed, self.rebuild[0]) if isinstance(layer, nn.Conv2d)))
        nn.init.dirac_(self.again.weight)
        if self.again.bias is not None:
            nn.init.zeros_(self.again.bias)

    def each(self, large: Tensor) -> list[Tensor]:
        """The enlarged section (batch, 1, y, x) -> the image of each turn."""
        features, made = self.embed(large), []
        for _ in range(self.recursions):
            features = F.relu(self.again(features))
            made.append(large + self.rebuild(features))
        return made
