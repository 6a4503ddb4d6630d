"""Dense layers, each of which sees what all before it made, and the blocks that are made of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emsr.layers.blocks import conv


class Dense(nn.Module):
    """``layers`` convolutions with ReLU of ``growth`` channels each; what they made lies side by side in the result.

    Where ``keeps`` is set all of them see the input too and it comes first in the result (Huang et al. 2017); else the
    first alone sees it.
    """

    def __init__(self, inputs: int, growth: int, layers: int, keeps: bool = True) -> None:
        super().__init__()
        self.keeps = keeps
        kept = inputs if keeps else 0
        self.outputs = kept + growth * layers
        sizes = [inputs, *(kept + growth * i for i in range(1, layers))]
        self.layers = nn.ModuleList(conv(size, growth) for size in sizes)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, y, x) -> (batch, outputs, y, x)."""
        seen = [x]
        for i, layer in enumerate(self.layers):
            made = F.relu(layer(torch.cat(seen, 1)))
            seen = [*seen, made] if self.keeps or i else [made]
        return torch.cat(seen, 1)


class ResidualDense(nn.Module):
    """x + what a 1x1 convolution makes of dense layers (RDN's block, Zhang et al. 2018, 1802.08797, section 3.2)."""

    def __init__(self, width: int, growth: int, layers: int) -> None:
        super().__init__()
        self.dense = Dense(width, growth, layers)
        self.fuse = conv(self.dense.outputs, width, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width, y, x) -> the same shape."""
        return x + self.fuse(self.dense(x))
