"""Correlation (cost) volume: how alike two feature maps are at each displacement up to a radius (Sun 2018, PWC-Net)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def correlate(a: Tensor, b: Tensor, radius: int) -> Tensor:
    """Products of two feature maps (batch, channels, y, x), summed over channels, at every displacement.

    Returns (batch, 2*radius + 1, 2*radius + 1, y, x): at [:, radius + dy, radius + dx, y, x] the product of ``a`` at
    (y, x) with ``b`` at (y + dy, x + dx), which counts 0 outside the image. Shape and order are those of
    ``spatial_correlation_sampler`` with kernel size 1, patch size 2*radius + 1, stride 1 and no padding.
    """
    height, width = a.shape[-2:]
    padded = F.pad(b, (radius, radius, radius, radius))
    shifts = range(2 * radius + 1)
    products = [(a * padded[..., dy : dy + height, dx : dx + width]).sum(1) for dy in shifts for dx in shifts]
    return torch.stack(products, 1).unflatten(1, (len(shifts), len(shifts)))


class Correlation(nn.Module):
    """The correlation volume as the input of convolutions; it has no weights."""

    def __init__(self, radius: int) -> None:
        super().__init__()
        if radius < 0:
            raise ValueError(f"radius {radius} of a correlation volume is negative: use 0 or more")
        self.radius = radius

    @property
    def channels(self) -> int:
        """How many displacements there are: (2*radius + 1) squared."""
        return (2 * self.radius + 1) ** 2

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Means over channels of products: two of (batch, channels, y, x) -> (batch, displacements, y, x), float32."""
        with torch.autocast(a.device.type, enabled=False):
            return correlate(a.float(), b.float(), self.radius).flatten(1, 2) / a.shape[1]
