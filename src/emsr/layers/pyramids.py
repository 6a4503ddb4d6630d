"""One level of a pyramid that comes back exactly: an image of half the size, and what it lacks as further channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emsr.layers.blocks import conv, resize


class Haar(nn.Module):
    """The Haar wavelet: means of 2x2 and their differences along x, along y and across (a quarter each; IRN)."""

    reach = 0  # lr pixels around a pixel that ``inverse`` reads

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = 4 * channels

    def forward(self, x: Tensor) -> Tensor:
        """(batch, c, 2*y, 2*x) -> (batch, 4*c, y, x), the c means first."""
        a, b, c, d = F.pixel_unshuffle(x, 2).unflatten(1, (-1, 4)).unbind(2)
        return torch.cat([a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d], 1) / 4

    def inverse(self, x: Tensor) -> Tensor:
        """What ``forward`` made ``x`` of."""
        mean, along_x, along_y, across = x.chunk(4, 1)
        corners = [
            mean + along_x + along_y + across,
            mean - along_x + along_y - across,
            mean + along_x - along_y - across,
            mean - along_x - along_y + across,
        ]
        return F.pixel_shuffle(torch.stack(corners, 2).flatten(1, 2), 2)


class Laplacian(nn.Module):
    """A learned convolution to half the size, begun as the mean of 2x2, and what its enlargement lacks (SNADN, LPB).

    It holds five channels for four and comes back exactly whatever was learned.
    """

    reach = 1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = 5 * channels
        self.down = conv(channels, channels, stride=2)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(torch.as_tensor(self.down.bias))
        with torch.no_grad():
            for channel in range(channels):
                self.down.weight[channel, channel, 1:, 1:] = 0.25

    def forward(self, x: Tensor) -> Tensor:
        """(batch, c, 2*y, 2*x) -> (batch, 5*c, y, x), the c images first."""
        low = self.down(x)
        return torch.cat([low, F.pixel_unshuffle(x - resize(low, 2), 2)], 1)

    def inverse(self, x: Tensor) -> Tensor:
        """What ``forward`` made ``x`` of."""
        low, high = x[:, : self.channels // 5], x[:, self.channels // 5 :]
        return resize(low, 2) + F.pixel_shuffle(high, 2)
