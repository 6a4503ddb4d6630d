"""SNADN: a dual network of invertible blocks and sparse attention, in two readings of its paper (docs/models.md)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from emsr.layers.blocks import conv, resize, up
from emsr.layers.invertible import Dense, Module, Transform
from emsr.layers.sparse_attention import SparseAttention
from emsr.layers.upscale import steps, upsampler
from emsr.models import dual_recipe
from emsr.models.dual import POSITIONS, PYRAMIDS, Dual, Invertible, Latents, Lift
from emsr.models.section import check_counts, check_scale

SCALES = (2, 4, 8, 16)
NEEDS: dict[str, tuple[str, ...]] = {"image": ()}
READS = {"image": ("hr", "lr")}
LATENTS = True
RESULT = 2  # latents in units of their own, zero for half of the patches
VARIANTS = ("A", "B")


@dataclass(frozen=True)
class Options:
    """What shapes the network; the values are in PRESETS."""

    variant: str  # A: comes back exactly, the image beside all other channels; B: low and high of equal width
    pyramid: str  # A: laplacian, as described, or haar, as IRN has it
    nlsa_position: str  # A: attention at the lr or the hr end of each level
    attention: bool
    blocks: int  # couplings of each level
    layers: int  # dense convolutions of each dilation of a module, before the one that joins them
    growth: int  # channels of each
    max_h: int  # A: channels beside the image that a level couples; others pass through; 0: all
    width: int  # channels of attention, a multiple of 4; B: of low and of high too
    hashes: int  # rounds of hashing
    chunk: int  # positions that attend to each other and to as many on both sides


PRESETS = {
    "published": Options(
        variant="A", pyramid="laplacian", nlsa_position="lr", attention=True, blocks=8, layers=4, growth=16, max_h=0,
        width=64, hashes=4, chunk=144,
    ),
    "wide": Options(
        variant="B", pyramid="laplacian", nlsa_position="lr", attention=True, blocks=8, layers=2, growth=12, max_h=0,
        width=64, hashes=4, chunk=144,
    ),
    "small": Options(
        variant="A", pyramid="laplacian", nlsa_position="lr", attention=True, blocks=4, layers=3, growth=8, max_h=15,
        width=16, hashes=2, chunk=36,
    ),
}  # fmt: skip

_PUBLISHED = replace(
    dual_recipe.PUBLISHED,
    steps=400_000,
    batch=4,
    halvings=(80_000, 160_000, 240_000, 320_000),
    image_error="absolute",
)
stages = dual_recipe.stages(_PUBLISHED, hr_side=224)  # what the paper leaves open is as IRN has it


def build(scale: int, sections: int, options: Options, channels: int = 1) -> Dual:
    """The untrained network of images with ``channels``; of ``sections`` it reads the centre alone.

    Raises ValueError for a scale or options that it cannot have.
    """
    check_scale("snadn", scale, SCALES)
    check_counts("snadn", blocks=options.blocks, layers=options.layers, growth=options.growth, width=options.width)
    if options.max_h:
        check_counts("snadn", max_h=options.max_h)
    choices = {"variant": VARIANTS, "pyramid": tuple(PYRAMIDS), "nlsa_position": POSITIONS}
    for name, choice in choices.items():
        if getattr(options, name) not in choice:
            raise ValueError(f"{name} {getattr(options, name)!r} is unknown: use {' or '.join(choice)}")
    module = partial(Dense, growth=options.growth, layers=options.layers, dilations=(1, 2))
    if options.variant == "B":
        for name in ("pyramid", "nlsa_position"):
            if (value := getattr(options, name)) != (default := getattr(PRESETS["wide"], name)):
                raise ValueError(f"{name} {value!r} is variant A's alone: leave it {default!r}, or use variant A")
        return Wide(scale, sections, options, partial(module, kernel=1), channels)
    lift = Lift(options.width, options.hashes, options.chunk, options.nlsa_position) if options.attention else None
    return Invertible(
        scale, sections, options.blocks, options.pyramid, module, options.max_h, lift=lift, channels=channels
    )


class Wide(Dual):
    """Variant B, the paper's own words: features of ``width`` low and as many high channels, stem and tail learned.

    Only the couplings are inverses of each other here; ``up`` after ``down`` gives hr back as far as was learned. Its
    latents are learned features, to which the unit of grey levels means nothing at first.
    """

    def __init__(self, scale: int, sections: int, options: Options, module: Module, channels: int) -> None:
        super().__init__(scale, sections)
        width = options.width
        self.width = width
        self.levels = nn.ModuleList()
        for level in range(len(steps(scale))):
            self.levels.append(WideLevel(width if level else channels, options, module, first=level == 0))
        self.to_lr = conv(width, channels)
        self.from_lr = conv(channels, width)

    def latent_shapes(self, y: int, x: int) -> list[tuple[int, int, int]]:
        """One of each level, from the finest on."""
        count = len(self.levels)
        return [(self.width, y << left, x << left) for left in range(count - 1, -1, -1)]

    def _down(self, hr: Tensor) -> tuple[Tensor, Latents]:
        x, latents = hr, []
        for level in self.levels:
            x, high = level(x)
            latents.append(high)
        return self.to_lr(x), latents

    def _up(self, lr: Tensor, latents: Latents) -> Tensor:
        x: Tensor = self.from_lr(lr)
        for level, high in zip(reversed(self.levels), reversed(latents), strict=True):
            x = level.enlarged(x, high)  # type: ignore[operator]
        return x


class WideLevel(nn.Module):
    """A factor of 2: convolutions to half the size, split into low and high, attention, couplings.

    The paper's sizes are met by a last enlargement of one convolution to four times the image's channels, and by a
    transposed convolution from level to level.
    """

    def __init__(self, inputs: int, options: Options, module: Module, *, first: bool) -> None:
        super().__init__()
        width = options.width
        self.shrink, self.shrink_again = conv(inputs, width, stride=2), conv(width, width, stride=2)
        self.attention = SparseAttention(2 * width, options.hashes, options.chunk) if options.attention else None
        self.transform = Transform(width, width, options.blocks, module)
        self.enlarge = upsampler(width, 2, last=inputs) if first else up(width, inputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, inputs, 2*y, 2*x) -> low and high, (batch, width, y, x) each."""
        half = self.shrink(x)
        low = resize(self.shrink_again(half), 2)[..., : half.shape[-2], : half.shape[-1]]
        both = self.transform(self._attended(torch.cat([low, half - low], 1)))
        low, high = both.chunk(2, 1)
        return low, high

    def enlarged(self, low: Tensor, high: Tensor) -> Tensor:
        """low and high, (batch, width, y, x) each -> (batch, inputs, 2*y, 2*x)."""
        low, high = self._attended(self.transform.inverse(torch.cat([low, high], 1))).chunk(2, 1)
        made: Tensor = self.enlarge(low + high)
        return made

    def _attended(self, x: Tensor) -> Tensor:
        return x if self.attention is None else self.attention(x)
