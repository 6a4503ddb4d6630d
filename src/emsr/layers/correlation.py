"""Correlation (cost) volume: how alike two feature maps are at each displacement up to a radius (Sun 2018, PWC-Net)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Correlation(nn.Module):
    """The correlation volume as the input of convolutions; it has no weights.

    ``accelerator`` (``layers.accelerators``) takes the place of ``correlate``.
    """

    accelerator: Callable[[Tensor, Tensor, int], Tensor] | None = None

    def __init__(self, radius: int) -> None:
        super().__init__()
        if radius < 0:
            raise ValueError(f"radius {radius} of a correlation volume is negative: use 0 or more")
        self.radius = radius

    @property
    def channels(self) -> int:
        """How many displacements there are: (2*radius + 1) squared."""
        return (2 * self.radius + 1) ** 2

    def macs(self, a: Tensor, _: Tensor) -> int:
        """Multiply-accumulates of a volume of such features."""
        return self.channels * a.numel()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Means over channels of products: two of (batch, channels, y, x) -> (batch, displacements, y, x), float32."""
        volume = self.accelerator or correlate
        with torch.autocast(a.device.type, enabled=False):
            return volume(a.float(), b.float(), self.radius).flatten(1, 2) / a.shape[1]


def correlate(a: Tensor, b: Tensor, radius: int) -> Tensor:
    """Products of two feature maps (batch, channels, y, x), summed over channels, at every displacement.

    Returns (batch, 2*radius + 1, 2*radius + 1, y, x): at [:, radius + dy, radius + dx, y, x] the product of ``a`` at
    (y, x) with ``b`` at (y + dy, x + dx), which counts 0 outside the image. Shape and order are those of
    ``spatial_correlation_sampler`` with kernel size 1, patch size 2*radius + 1, stride 1 and no padding.
    """
    volume: Tensor = _Correlate.apply(a, b, radius)
    return volume


class _Correlate(torch.autograd.Function):
    """Shifted products. Its own gradient adds each shift's in place, where autograd would make a whole map for each."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, radius: int) -> Tensor:
        ctx.radius, padded = radius, _padded(b, radius)
        ctx.save_for_backward(a, padded)
        side = 2 * radius + 1
        volume = a.new_empty(a.shape[0], side**2, *a.shape[-2:])
        product = torch.empty_like(a)  # one for all: fresh memory for each took three times as long
        for index, window in enumerate(_windows(padded, radius)):
            torch.sum(torch.mul(a, window, out=product), 1, out=volume[:, index])
        return volume.unflatten(1, (side, side))

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, None]:
        (a, padded), radius = ctx.saved_tensors, ctx.radius
        of_a, of_padded = torch.zeros_like(a), torch.zeros_like(padded)
        shares = grads[0].flatten(1, 2).unbind(1)  # each (batch, y, x)
        both = zip(shares, _windows(padded, radius), _windows(of_padded, radius), strict=True)
        for share, seen, of_seen in both:
            of_a.addcmul_(share[:, None], seen)
            of_seen.addcmul_(share[:, None], a)
        height, width = a.shape[-2:]
        return of_a, of_padded[..., radius : radius + height, radius : radius + width], None


def _padded(b: Tensor, radius: int) -> Tensor:
    return F.pad(b, (radius, radius, radius, radius))


def _windows(padded: Tensor, radius: int) -> Iterator[Tensor]:
    """Views of a padded map, one for each displacement, row by row."""
    height, width = (side - 2 * radius for side in padded.shape[-2:])
    for dy in range(2 * radius + 1):
        for dx in range(2 * radius + 1):
            yield padded[..., dy : dy + height, dx : dx + width]
