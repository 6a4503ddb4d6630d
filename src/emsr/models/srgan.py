"""SRGAN: SRResNet trained on by a discriminator, for looks and not for measurement (Ledig et al. 2017, 1609.04802)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

from torch import Tensor, nn

from emsr.layers.blocks import normalised
from emsr.models import recipe, srresnet
from emsr.models.section import check_counts, check_scale

SCALES = (2, 3, 4, 8, 16)
NEEDS: dict[str, tuple[str, ...]] = {"image": ()}
READS = {"image": ("hr", "lr", "perceptual")}
PERCEPTUAL = True  # its weights may draw what was not there: everything made with them says so
POOLED = 6  # side of the map that the discriminator judges: 96 hr pixels, halved four times


@dataclass(frozen=True)
class Options:
    """What shapes the networks; the values are in PRESETS."""

    width: int  # channels
    blocks: int  # residual blocks
    batch_norm: bool  # normalise over the batch, in both networks, as published
    discriminator_channels: tuple[int, ...]  # of pairs of convolutions, the second of which halves y and x
    discriminator_features: int  # between the two layers that judge the whole patch


_PLAIN = Options(
    width=64, blocks=16, batch_norm=False, discriminator_channels=(64, 128, 256, 512), discriminator_features=1024
)
PRESETS = {
    "published": replace(_PLAIN, batch_norm=True),
    "published_plain": _PLAIN,
    "small": Options(
        width=48, blocks=9, batch_norm=False, discriminator_channels=(16, 32, 64, 128), discriminator_features=128
    ),
}

_PUBLISHED = replace(
    recipe.PUBLISHED,
    objective="adversarial",
    steps=1_200_000,
    halvings=(1_100_000,),
    halving=0.1,
    image_error="squared",
    adversarial_from=1_000_000,
    adversarial_image=0.0,
    adversarial_weight=1e-3,
    perceptual_weight=0.006,
    perceptual_error="squared",
)
_PIXELS = replace(_PUBLISHED, image_error="absolute", adversarial_image=1.0, perceptual_weight=0.0)
# image 0.01, features 1 and the discriminator 0.005 where the features have weights
_PLAIN_RECIPE = replace(
    _PIXELS, adversarial_image=0.01, perceptual_weight=1.0, adversarial_weight=0.005, perceptual_error="absolute"
)
stages = recipe.stages(  # pixels first and then the discriminator too
    {"published": _PUBLISHED, "published_plain": _PLAIN_RECIPE, "small": recipe.small(_PIXELS, adversarial_from=4_000)},
    srresnet.PATCHES,
)


def build(scale: int, sections: int, options: Options) -> srresnet.Generator:
    """The untrained generator; of ``sections`` it reads the centre alone.

    Raises ValueError for a scale or options that it cannot have.
    """
    check_scale("srgan", scale, SCALES)
    check_counts("srgan", width=options.width, blocks=options.blocks)
    return srresnet.Generator(scale, sections, options.width, options.blocks, options.batch_norm)


def discriminator(options: Options) -> Discriminator:
    """The untrained discriminator. Raises ValueError for options that it cannot have."""
    check_counts("srgan", discriminator_features=options.discriminator_features)
    if not options.discriminator_channels or min(options.discriminator_channels) < 1:
        raise ValueError(
            f"discriminator_channels {list(options.discriminator_channels)} make nothing: use 64, 128, 256, 512"
        )
    return Discriminator(options)


class Discriminator(nn.Module):
    """Convolutions that halve an image again and again, and two layers that judge it as a whole.

    Images of any size: what is left is averaged to 6x6, which 96 pixels are already. What is normalised is so over the
    batch at hand, always: nothing of it is remembered.
    """

    def __init__(self, options: Options) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(1, options.discriminator_channels[0], 3, padding=1)]
        widths = [width for width in options.discriminator_channels for _ in range(2)]
        for number, (inputs, outputs) in enumerate(pairwise(widths)):
            layers += [nn.LeakyReLU(0.2), normalised(inputs, outputs, options.batch_norm, 2 - number % 2, False)]
        self.layers = nn.Sequential(*layers, nn.LeakyReLU(0.2), nn.AdaptiveAvgPool2d(POOLED))
        self.judge = nn.Sequential(
            nn.Flatten(),
            nn.Linear(widths[-1] * POOLED**2, options.discriminator_features),
            nn.LeakyReLU(0.2),
            nn.Linear(options.discriminator_features, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        """(batch, 1, y, x) in [0, 1] -> logits (batch, 1) that it is hr."""
        logits: Tensor = self.judge(self.layers(image))
        return logits
