"""SRResNet: SRGAN's generator, trained by pixels alone (Ledig et al. 2017, 1609.04802)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from emsr.layers.blocks import NormalisedBlock, conv, normalised
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
    blocks: int  # residual blocks
    batch_norm: bool  # normalise over the batch, as published; without it grey levels stay what they are


PRESETS = {
    "published": Options(width=64, blocks=16, batch_norm=True),
    "published_plain": Options(width=64, blocks=16, batch_norm=False),
    "small": Options(width=48, blocks=9, batch_norm=False),
}

_LARGE = {2: 48, 3: 32, 4: 24, 8: 24, 16: 16}  # 96 hr pixels, and at x8 and x16 what there is room for
PATCHES = {"published": _LARGE, "published_plain": _LARGE, "small": {2: 56, 3: 46, 4: 39, 8: 23, 16: 11}}
_PUBLISHED = replace(recipe.PUBLISHED, steps=1_000_000, schedule="halvings", halvings=(), image_error="squared")
_PLAIN = replace(_PUBLISHED, image_error="absolute")
stages = recipe.stages(
    {"published": _PUBLISHED, "published_plain": _PLAIN, "small": recipe.small(_PLAIN)},
    PATCHES,
)


def build(scale: int, sections: int, options: Options) -> Generator:
    """The untrained network; of ``sections`` it reads the centre alone.

    Raises ValueError for a scale or options that it cannot have.
    """
    check_scale("srresnet", scale, SCALES)
    check_counts("srresnet", width=options.width, blocks=options.blocks)
    return Generator(scale, sections, options.width, options.blocks, options.batch_norm)


class Generator(SingleSection):
    """Features by a wide kernel, residual blocks with a skip around them all, enlargement with PReLU."""

    def __init__(self, scale: int, sections: int, width: int, blocks: int, norm: bool) -> None:
        super().__init__(scale, sections)
        self.halo = 2 * blocks + 8
        self.first = nn.Sequential(conv(1, width, kernel=9), nn.PReLU())
        self.blocks = nn.Sequential(*(NormalisedBlock(width, norm) for _ in range(blocks)))
        self.join = normalised(width, width, norm)
        self.ups = nn.Sequential(*(nn.Sequential(larger, nn.PReLU()) for larger in upsampler(width, scale)))
        self.last = conv(width, 1, kernel=9)

    def enlarge(self, lr: Tensor) -> Tensor:
        """(batch, 1, y, x) in [0, 1] -> (batch, 1, scale*y, scale*x), not clamped."""
        features = self.first(lr)
        sr: Tensor = self.last(self.ups(features + self.join(self.blocks(features))))
        return sr
