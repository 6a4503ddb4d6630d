"""EDSR: super-resolution of single sections by residual blocks without normalisation (Lim et al. 2017, 1707.02921)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor, nn

from emsr.layers.blocks import conv, trunk
from emsr.layers.upscale import upsampler
from emsr.models import recipe
from emsr.models.section import SingleSection, check_scale

SCALES = (2, 3, 4, 8, 16)
NEEDS: dict[str, tuple[str, ...]] = {"image": ()}
READS = {"image": ("hr", "lr")}


@dataclass(frozen=True)
class Options:
    """What shapes the network; the values are in PRESETS."""

    width: int  # channels
    blocks: int  # residual blocks
    res_scale: float  # factor of what a block adds; below 1 keeps wide networks stable
    mean: float  # of images in [0, 1]; taken from lr and given back to sr, so that padding is grey and not black


PRESETS = {
    "published": Options(width=64, blocks=16, res_scale=1.0, mean=0.5),  # the paper's baseline
    "full": Options(width=256, blocks=32, res_scale=0.1, mean=0.5),
    "small": Options(width=48, blocks=10, res_scale=1.0, mean=0.5),
}

_PUBLISHED = replace(recipe.PUBLISHED, halvings=(200_000,))
_BASELINE = dict.fromkeys(SCALES, 48)
stages = recipe.stages(
    # small: about 25 minutes of one core, a step about as long at each scale
    {"published": _PUBLISHED, "full": _PUBLISHED, "small": recipe.small(_PUBLISHED)},
    {"published": _BASELINE, "full": _BASELINE, "small": {2: 56, 3: 48, 4: 40, 8: 24, 16: 12}},
)


def build(scale: int, sections: int, options: Options) -> Edsr:
    """The untrained network; of ``sections`` it reads the centre alone.

    Raises ValueError for a scale or options that it cannot have.
    """
    check_scale("edsr", scale, SCALES)
    if min(options.width, options.blocks) < 1:
        raise ValueError(f"width {options.width} and blocks {options.blocks} make no edsr: use 1 or more of each")
    if not (0 <= options.res_scale < math.inf and 0 <= options.mean <= 1):
        raise ValueError(
            f"res_scale {options.res_scale} is under 0 or mean {options.mean} outside [0, 1]: use 1 and 0.5"
        )
    return Edsr(scale, sections, options)


class Edsr(SingleSection):
    """Features, residual blocks with a skip around them all, enlargement by 2 as often as the scale asks."""

    def __init__(self, scale: int, sections: int, options: Options) -> None:
        super().__init__(scale, sections)
        width = options.width
        self.mean = options.mean
        self.halo = 2 * options.blocks + 4
        self.first = conv(1, width)
        self.blocks = trunk(width, options.blocks, options.res_scale)
        self.join = conv(width, width)
        self.ups = upsampler(width, scale)
        self.last = conv(width, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                layer.reset_parameters()  # as published, in the blocks too

    def enlarge(self, lr: Tensor) -> Tensor:
        """(batch, 1, y, x) in [0, 1] -> (batch, 1, scale*y, scale*x), not clamped."""
        features = self.first(lr - self.mean)
        deep = features + self.join(self.blocks(features))
        sr: Tensor = self.last(self.ups(deep)) + self.mean
        return sr
