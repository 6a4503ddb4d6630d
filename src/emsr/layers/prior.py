"""Multi-scale prior fusion: reference features, weighted by how far the reference can be believed (spec C.3, C.4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from emsr.layers.blocks import conv, leaky, resize, trunk, up


class SimilarityMask(nn.Module):
    """From the cosine of reference and input, patch by patch, to a weight in (0, 1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = conv(1, width)
        self.conv2 = conv(width, width)
        self.conv3 = conv(width, 1)

    def logits(self, similarity: Tensor) -> Tensor:
        """What the last convolution gives; shapes as in ``forward``."""
        result: Tensor = self.conv3(leaky(self.conv2(leaky(self.conv1(similarity)))))
        return result

    def forward(self, similarity: Tensor) -> Tensor:
        """(batch, 1, y, x) on the latent grid -> the same shape."""
        return torch.sigmoid(leaky(self.logits(similarity)))


class PriorFusion(nn.Module):
    """Fuses lr features with reference features of strides 2, 4, ... scale, finest first, down to the lr grid.

    ``widths`` are the channels of those reference features, finest first.
    """

    def __init__(self, width: int, widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        levels = range(len(widths))
        self.mask = SimilarityMask(width)
        self.lifts = nn.ModuleList(up(width, width) for _ in levels[1:])
        self.fuse = nn.ModuleList(
            nn.Sequential(conv(width + reference + level * width, width), trunk(width, blocks))
            for level, reference in zip(levels, widths, strict=True)
        )
        self.downs = nn.ModuleList(conv(level * width, level * width, stride=2) for level in levels[1:])
        self.reduce = conv((len(widths) + 1) * width, width, kernel=1)

    def forward(self, lr_features: Tensor, references: Sequence[Tensor], similarity: Tensor) -> Tensor:
        """lr features (batch, width, y, x), reference features finest first, cosine on the latent grid.

        Returns (batch, width, y, x).
        """
        mask = self.mask(similarity)
        pyramid = [lr_features]
        for lift in self.lifts:
            pyramid.append(leaky(lift(pyramid[-1])))
        carried: list[Tensor] = []  # d of the finer level, with what it carries
        for level, (own, reference) in enumerate(zip(pyramid[::-1], references, strict=True)):
            joined = torch.cat([own, reference.to(own.dtype), *carried], 1)
            fused = self.fuse[level](joined)
            fused = fused * resize(mask, fused.shape[-1] / mask.shape[-1])
            joined = torch.cat([fused, *carried], 1)
            if level < len(self.downs):
                carried = [self.downs[level](joined)]
        result: Tensor = self.reduce(torch.cat([joined, lr_features], 1))
        return result


class Pyramid(nn.Module):
    """Features at full, half and quarter size for alignment (spec C.5)."""

    def __init__(self, width: int, levels: int) -> None:
        super().__init__()
        self.downs = nn.ModuleList(conv(width, width, stride=2) for _ in range(levels - 1))
        self.convs = nn.ModuleList(conv(width, width) for _ in range(levels - 1))

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """(batch, width, y, x) -> that, and halves of it."""
        pyramid = [features]
        for down, same in zip(self.downs, self.convs, strict=True):
            pyramid.append(leaky(same(leaky(down(pyramid[-1])))))
        return tuple(pyramid)
