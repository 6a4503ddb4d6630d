"""WASA's wavelet block: channel attention among the bands of features, at half their size.

Its wavelet is Haar's, orthonormal: the sum of squares stays what it was, and bands of a constant c are 2c and zeros.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emsr.layers.attention import PeakAttention
from emsr.layers.blocks import conv
from emsr.layers.pyramids import Haar


def dwt(x: Tensor) -> Tensor:
    """(batch, c, 2*y, 2*x) -> (batch, 4*c, y, x): the c means, then what they lack along x, along y and across.

    Of a square a, b over c, d these are half of a + b + c + d, -a + b - c + d, -a - b + c + d and a - b - c + d.
    """
    mean, along_x, along_y, across = (2 * Haar(x.shape[1])(x)).chunk(4, 1)
    return torch.cat([mean, -along_x, -along_y, across], 1)


def iwt(bands: Tensor) -> Tensor:
    """What ``dwt`` made ``bands`` of."""
    mean, along_x, along_y, across = (bands / 2).chunk(4, 1)
    return Haar(mean.shape[1]).inverse(torch.cat([mean, -along_x, -along_y, across], 1))


class WaveletBlock(nn.Module):
    """x + Conv(IWT(attention(Conv(ReLU(Conv(DWT(x)))))))."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.conv1 = conv(4 * width, 4 * width)
        self.conv2 = conv(4 * width, 4 * width)
        self.attention = PeakAttention(4 * width, reduction)
        self.join = conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width, y, x), y and x even -> the same shape."""
        bands = self.attention(self.conv2(F.relu(self.conv1(dwt(x)), inplace=True)))
        added: Tensor = self.join(iwt(bands))
        return x + added
