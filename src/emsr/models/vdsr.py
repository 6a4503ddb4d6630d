"""VDSR: a deep column of convolutions adds detail to the enlarged section (Kim et al. 2016, 1511.04587)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from emsr.layers.blocks import conv, he
from emsr.models import recipe
from emsr.models.section import Refiner, check_counts, check_scale

SCALES = (2, 3, 4, 8, 16)
NEEDS: dict[str, tuple[str, ...]] = {"image": ()}
READS = {"image": ("hr", "lr")}


@dataclass(frozen=True)
class Options:
    """What shapes the network; the values are in PRESETS."""

    width: int  # channels
    depth: int  # convolutions, at least two


PRESETS = {
    "published": Options(width=64, depth=20),
    "small": Options(width=32, depth=20),
}

_PUBLISHED = recipe.descent(41, halvings=(75_000, 150_000, 225_000), halving=0.1)
stages = recipe.stages(
    {"published": _PUBLISHED, "small": recipe.small(_PUBLISHED)},
    {"small": {2: 46, 3: 30, 4: 23, 8: 11, 16: 5}},
)


def build(scale: int, sections: int, options: Options) -> Vdsr:
    """The untrained network; of ``sections`` it reads the centre alone.

    Raises ValueError for a scale or options that it cannot have.
    """
    check_scale("vdsr", scale, SCALES)
    check_counts("vdsr", width=options.width)
    if options.depth < 2:
        raise ValueError(f"depth {options.depth} makes no vdsr: use 2 or more")
    return Vdsr(scale, sections, options)


class Vdsr(Refiner):
    """3x3 convolutions with ReLU between them; their sum with the enlarged section is sr."""

    def __init__(self, scale: int, sections: int, options: Options) -> None:
        super().__init__(scale, sections, options.depth)
        width = options.width
        self.layers = nn.Sequential(conv(1, width), nn.ReLU())
        for _ in range(options.depth - 2):
            self.layers.extend([conv(width, width), nn.ReLU()])
        self.last = conv(width, 1)
        he(*(layer for layer in self.layers if isinstance(layer, nn.Conv2d)))

    def refine(self, large: Tensor) -> Tensor:
        """The enlarged section (batch, 1, y, x) -> a better one, not clamped."""
        sr: Tensor = large + self.last(self.layers(large))
        return sr
