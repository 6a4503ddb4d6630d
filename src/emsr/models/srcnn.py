"""SRCNN: three convolutions over the enlarged section (Dong et al. 2014, 1501.00092)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn
from torch.nn import functional as F

from emsr.models import recipe
from emsr.models.section import Refiner, check_counts, check_scale

SCALES = (2, 3, 4, 8, 16)
NEEDS: dict[str, tuple[str, ...]] = {"image": ()}
READS = {"image": ("hr", "lr")}


@dataclass(frozen=True)
class Options:
    """What shapes the network; the values are in PRESETS."""

    widths: tuple[int, ...]  # channels after the first convolution and after the second
    kernels: tuple[int, ...]  # sides of the three convolutions, odd


PRESETS = {
    "published": Options(widths=(64, 32), kernels=(9, 5, 5)),
    "published_915": Options(widths=(64, 32), kernels=(9, 1, 5)),
    "small": Options(widths=(64, 32), kernels=(9, 5, 5)),  # it is small as published
}

_PUBLISHED = replace(recipe.PUBLISHED, image_error="squared", halvings=(), slow=("last",))
stages = recipe.stages(
    {"published": _PUBLISHED, "published_915": _PUBLISHED, "small": recipe.small(_PUBLISHED)},
    {"small": {2: 80, 3: 53, 4: 40, 8: 20, 16: 10}},
)


def build(scale: int, sections: int, options: Options) -> Srcnn:
    """The untrained network; of ``sections`` it reads the centre alone.

    Raises ValueError for a scale or options that it cannot have.
    """
    check_scale("srcnn", scale, SCALES)
    if len(options.widths) != 2 or len(options.kernels) != 3 or not all(side % 2 for side in options.kernels):
        raise ValueError(
            f"widths {options.widths} and kernels {options.kernels} make no srcnn: use two widths and three odd sides"
        )
    check_counts("srcnn", widths=min(options.widths), kernels=min(options.kernels))
    return Srcnn(scale, sections, options)


class Srcnn(Refiner):
    """Patches, their mapping, reconstruction. Beyond an edge lies its last pixel."""

    def __init__(self, scale: int, sections: int, options: Options) -> None:
        super().__init__(scale, sections, sum(side // 2 for side in options.kernels))
        inner, outer = options.widths
        first, second, last = options.kernels
        self.first = nn.Conv2d(1, inner, first)
        self.second = nn.Conv2d(inner, outer, second)
        self.last = nn.Conv2d(outer, 1, last)

    def refine(self, large: Tensor) -> Tensor:
        """The enlarged section (batch, 1, y, x) -> a better one, not clamped."""
        padded = F.pad(large, 4 * (self.reach,), mode="replicate")
        sr: Tensor = self.last(F.relu(self.second(F.relu(self.first(padded)))))
        return sr
