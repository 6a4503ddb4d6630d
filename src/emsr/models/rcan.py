"""RCAN: residual groups with channel attention (Zhang et al. 2018, 1807.02758)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from emsr.layers.attention import ChannelAttention
from emsr.layers.blocks import PlainBlock, conv
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
    groups: int  # residual groups
    blocks: int  # blocks of a group
    reduction: int  # by which the attention has fewer channels
    mean: float  # of images in [0, 1]; taken from lr and given back to sr, so that padding is grey and not black


PRESETS = {
    "published": Options(width=64, groups=10, blocks=20, reduction=16, mean=0.5),
    "small": Options(width=48, groups=3, blocks=3, reduction=16, mean=0.5),
}

_PUBLISHED = replace(recipe.PUBLISHED, steps=1_000_000, halvings=(200_000, 400_000, 600_000, 800_000))
stages = recipe.stages(
    {"published": _PUBLISHED, "small": recipe.small(_PUBLISHED)},
    {"published": dict.fromkeys(SCALES, 48), "small": {2: 54, 3: 46, 4: 40, 8: 24, 16: 12}},
)


def build(scale: int, sections: int, options: Options) -> Rcan:
    """The untrained network; of ``sections`` it reads the centre alone.

    Raises ValueError for a scale or options that it cannot have.
    """
    check_scale("rcan", scale, SCALES)
    check_counts("rcan", groups=options.groups, blocks=options.blocks, reduction=options.reduction)
    if options.width < options.reduction:
        raise ValueError(
            f"reduction {options.reduction} leaves nothing of width {options.width}: use at most {options.width}"
        )
    if not 0 <= options.mean <= 1:
        raise ValueError(f"mean {options.mean} is outside [0, 1]: use 0.5")
    return Rcan(scale, sections, options)


class Rcan(SingleSection):
    """Residual groups with a skip around each and around all. Attention sees the whole window, so sr depends on it."""

    def __init__(self, scale: int, sections: int, options: Options) -> None:
        super().__init__(scale, sections)
        width, self.mean = options.width, options.mean
        self.first = conv(1, width)
        self.groups = nn.ModuleList(
            nn.Sequential(
                *(
                    PlainBlock(width, attention=ChannelAttention(width, options.reduction))
                    for _ in range(options.blocks)
                ),
                conv(width, width),
            )
            for _ in range(options.groups)
        )
        self.join = conv(width, width)
        self.ups = upsampler(width, scale)
        self.last = conv(width, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                layer.reset_parameters()  # as published, in the blocks too

    def enlarge(self, lr: Tensor) -> Tensor:
        """(batch, 1, y, x) in [0, 1] -> (batch, 1, scale*y, scale*x), not clamped."""
        features = deep = self.first(lr - self.mean)
        for group in self.groups:
            deep = deep + group(deep)
        sr: Tensor = self.last(self.ups(features + self.join(deep))) + self.mean
        return sr
