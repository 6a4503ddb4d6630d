"""ESPCN: three convolutions on the lr grid and one PixelShuffle (Shi et al. 2016, 1609.05158)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from emsr.layers.blocks import conv
from emsr.models import recipe
from emsr.models.section import SingleSection, check_counts, check_scale

SCALES = (2, 3, 4, 8, 16)
NEEDS: dict[str, tuple[str, ...]] = {"image": ()}
READS = {"image": ("hr", "lr")}


@dataclass(frozen=True)
class Options:
    """What shapes the network; the values are in PRESETS."""

    widths: tuple[int, ...]  # channels after the first convolution and after the second


PRESETS = {
    "published": Options(widths=(64, 32)),
    "small": Options(widths=(64, 32)),  # it is small as published
}

_PUBLISHED = replace(
    recipe.PUBLISHED, image_error="squared", learning_rate=1e-3, halvings=(240_000,), halving=0.1, slow=("last",)
)
stages = recipe.stages(
    {"published": _PUBLISHED, "small": recipe.small(_PUBLISHED, batch=32)},
    {"small": {2: 64, 3: 64, 4: 64, 8: 40, 16: 20}},
)


def build(scale: int, sections: int, options: Options) -> Espcn:
    """The untrained network; of ``sections`` it reads the centre alone.

    Raises ValueError for a scale or options that it cannot have.
    """
    check_scale("espcn", scale, SCALES)
    if len(options.widths) != 2:
        raise ValueError(f"widths {options.widths} make no espcn: use two")
    check_counts("espcn", widths=min(options.widths))
    return Espcn(scale, sections, options)


class Espcn(SingleSection):
    """Features, fewer of them, and for each lr pixel its scale x scale voxels of sr."""

    halo = 4

    def __init__(self, scale: int, sections: int, options: Options) -> None:
        super().__init__(scale, sections)
        inner, outer = options.widths
        self.first = conv(1, inner, kernel=5)
        self.second = conv(inner, outer)
        self.last = conv(outer, scale**2)
        self.shuffle = nn.PixelShuffle(scale)

    def enlarge(self, lr: Tensor) -> Tensor:
        """(batch, 1, y, x) in [0, 1] -> (batch, 1, scale*y, scale*x), not clamped."""
        sr: Tensor = self.shuffle(self.last(self.second(self.first(lr).tanh()).tanh()))
        return sr
