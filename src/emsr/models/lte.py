"""LTE: super-resolution of single sections by any real scale, with local frequencies of its texture (Lee & Jin 2022,
2111.08918)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from emsr.layers.blocks import conv
from emsr.layers.encoders import encoder, reach
from emsr.layers.implicit import Perceptron, Points, bilinear, rows
from emsr.models import real_scale, recipe
from emsr.models.real_scale import RealScale, Rows, check
from emsr.scales import Scale

SCALES = (2, 4, 8, 16)  # among those of SCALE_RANGE
SCALE_RANGE = (1.0, 16.0)
NEEDS: dict[str, tuple[str, ...]] = {"image": ()}
READS = {"image": ("hr", "lr")}


@dataclass(frozen=True)
class Options:
    """What shapes the network; the values are in PRESETS."""

    encoder: str  # edsr or swinir
    width: int  # channels of features
    blocks: int  # edsr: residual blocks
    embedding: int  # swinir: channels inside
    groups: int  # swinir
    layers: int  # swinir: of each group
    heads: int  # swinir
    window: int  # swinir: lr pixels
    mlp_ratio: int  # swinir
    drop_path: float  # swinir: share of samples that skip the last layer in training; fewer skip earlier ones
    texture: int  # channels of texture, a cosine and a sine of each frequency
    hidden: tuple[int, ...]  # sizes of the layers that make a grey level of texture


_PAPER = Options(
    encoder="edsr",
    **real_scale.ENCODERS,
    texture=256,
    hidden=(256, 256, 256),
)
PRESETS = {
    "published": _PAPER,
    "swinir": replace(_PAPER, encoder="swinir"),
    "small": replace(_PAPER, width=48, blocks=10, texture=128, hidden=(128, 128, 128)),
}

stages = real_scale.stages(
    {
        "published": real_scale.PUBLISHED,
        "swinir": replace(
            real_scale.PUBLISHED, batch=32, learning_rate=2e-4, halvings=(500_000, 800_000, 900_000, 950_000)
        ),
        # about as much arithmetic as edsr's
        "small": recipe.small(real_scale.PUBLISHED, patch=40),
    }
)


def build(scale: Scale, sections: int, options: Options) -> Lte:
    """The untrained network; of ``sections`` it reads the centre alone.

    Raises ValueError for a scale or options that it cannot have.
    """
    check("lte", scale, SCALE_RANGE, options)
    if options.texture < 2 or options.texture % 2:
        raise ValueError(f"texture {options.texture} is not cosines and sines in pairs: use an even number")
    return Lte(scale, sections, options)


class Lte(RealScale):
    """A perceptron over cosines and sines whose amplitudes and frequencies are those of the pixels around a point."""

    def __init__(self, scale: Scale, sections: int, options: Options, channels: int = 1) -> None:
        super().__init__(scale, sections, channels)
        seen = reach(options)
        self.halo = None if seen is None else seen + 2
        self.encoder = encoder(options, channels)
        self.amplitude = conv(options.width, options.texture)
        self.frequency = conv(options.width, options.texture)
        self.phase = nn.Linear(2, options.texture // 2, bias=False)
        self.decoder = Perceptron(options.texture, 0, options.hidden, channels)

    def prepare(self, lr: Tensor, cell: Tensor, keys: Points | None) -> Rows:
        """Of each pixel its amplitudes, its frequencies along y and along x; and lr."""
        features = self.encoder(lr)
        return rows(self.amplitude(features)), rows(self.frequency(features)), lr

    def decode(self, known: Rows, points: Points, cell: Tensor) -> Tensor:
        """(batch * points, channels): bilinear lr, and what the pixels around a point say of it."""
        amplitudes, frequencies, lr = known
        phases, found = self.phase(cell).float(), bilinear(lr, points)
        for corner in points.corners():
            y, x = corner.take(frequencies).float().chunk(2, 1)
            turns = math.pi * (y * corner.apart[:, :1] + x * corner.apart[:, 1:] + phases)
            waves = corner.take(amplitudes) * torch.cat([turns.cos(), turns.sin()], 1)
            found = found + corner.weight * self.decoder(self.decoder.on_grid(waves)).float()
        return found
