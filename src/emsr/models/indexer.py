"""Stage two: predicts the index map of a section from its lr version alone (spec B)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from emsr.layers.attention import NonLocal
from emsr.layers.blocks import ResidualBlock, conv, group_norm

if TYPE_CHECKING:
    from emsr.models.gpemsr import Options


def build(scale: int, options: Options) -> Indexer:
    """The indexer of stage two, untrained."""
    return Indexer(scale, options)


class Indexer(nn.Module):
    """The last log2(latent_stride / scale) of its transitions halve the size, so logits lie on the latent grid."""

    def __init__(self, scale: int, options: Options) -> None:
        super().__init__()
        norm = group_norm(options.norm_groups, options.norm_group_channels)
        channels, width = options.indexer_channels, options.indexer_channels[-1]
        plain = len(channels) - 1 - halvings(scale, options)  # transitions that keep the size
        self.stem = nn.Sequential(conv(1, channels[0]), nn.ReLU(inplace=True))
        levels: list[nn.Module] = []
        for level, (wide, wider) in enumerate(pairwise(channels)):
            keeps = level < plain
            transition = ResidualBlock(wide, wider, norm) if keeps else conv(wide, wider, stride=2)
            levels += [ResidualBlock(wide, wide, norm), transition]
        self.levels = nn.Sequential(*levels, *([NonLocal(width, norm)] if options.attention else []))
        blocks = [ResidualBlock(width, width, norm) for _ in range(options.tail_blocks)]
        self.tail = nn.Sequential(*blocks, conv(width, options.latent, kernel=1))
        self.classify = nn.Linear(options.latent, options.entries)

    def forward(self, lr: Tensor) -> Tensor:
        """(batch, 1, y, x) in [0, 1] -> logits (batch, scale*y/stride, scale*x/stride, entries)."""
        latents = self.tail(self.levels(self.stem(lr)))  # (batch, latent, y', x')
        with torch.autocast(lr.device.type, enabled=False):  # an argmax follows
            logits: Tensor = self.classify(latents.float().permute(0, 2, 3, 1))
        return logits


def halvings(scale: int, options: Options) -> int:
    """log2(latent_stride / scale); ValueError when the stride is finer than the scale or there are too few widths."""
    stride, transitions = options.latent_stride, len(options.indexer_channels) - 1
    if stride < scale or stride % scale:
        raise ValueError(f"latent_stride {stride} is finer than scale {scale}: use a power of two of at least {scale}")
    count = (stride // scale).bit_length() - 1
    if count > transitions:
        raise ValueError(f"indexer_channels {options.indexer_channels} give {transitions} transitions: {count} needed")
    return count
