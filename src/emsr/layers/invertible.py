"""Affine coupling and the dense modules inside it, which run exactly in both directions (Xiao et al. 2020, IRN).

Everything here is computed in float32 under autocast too, because less precision would not come back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAK = 0.2  # slope of LeakyReLU
SMALL = 0.1  # factor of Xavier's initial weights

Module = Callable[[int, int], nn.Module]


class Dense(nn.Module):
    """Branches of 3x3 convolutions that each see the input and all before them, side by side, and one that joins them.

    One branch per dilation: (1,) is IRN's dense block, (1, 2) the multi-scale one of SNADN. What joins them begins as
    zero.
    """

    def __init__(
        self, inputs: int, outputs: int, growth: int, layers: int, dilations: Sequence[int] = (1,), kernel: int = 3
    ) -> None:
        """``growth`` channels of each of ``layers`` convolutions; ``kernel`` is that of the last."""
        super().__init__()
        self.branches = nn.ModuleList(
            nn.ModuleList(_conv(inputs + i * growth, growth, 3, dilation) for i in range(layers))
            for dilation in dilations
        )
        self.fuse = _conv(inputs + len(dilations) * layers * growth, outputs, kernel)
        self.radius = layers * max(dilations) + kernel // 2
        nn.init.zeros_(self.fuse.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, y, x) -> (batch, outputs, y, x)."""
        seen = [x]
        for branch in self.branches:
            own = x
            for layer in cast(nn.ModuleList, branch):
                own = torch.cat([own, F.leaky_relu(layer(own), LEAK)], 1)
            seen.append(own[:, x.shape[1] :])
        joined: Tensor = self.fuse(torch.cat(seen, 1))
        return joined


def _conv(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2 * dilation, dilation=dilation)
    nn.init.xavier_uniform_(layer.weight, SMALL)
    nn.init.zeros_(torch.as_tensor(layer.bias))
    return layer


class Coupling(nn.Module):
    """One invertible sub-block: low += phi(high), then high = high * exp(S(low)) + eta(low) (SNADN eqs 12 to 15, with
    IRN's S(u) = clamp * (2 sigmoid(rho(u)) - 1), since a plain factor may be zero)."""

    def __init__(self, low: int, high: int, module: Module, clamp: float = 1.0) -> None:
        """``module(inputs, outputs)`` makes phi, rho and eta."""
        super().__init__()
        self.channels, self.clamp = (low, high), clamp
        self.phi, self.rho, self.eta = module(high, low), module(low, high), module(low, high)

    def scale(self, low: Tensor) -> Tensor:
        """S, the logarithm of the factor of ``high``, of the low part that comes out."""
        return self.clamp * (2 * torch.sigmoid(self.rho(low)) - 1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, low + high, y, x) -> the same shape."""
        low, high = x.split(self.channels, 1)
        low = low + self.phi(high)
        return torch.cat([low, high * self.scale(low).exp() + self.eta(low)], 1)

    def inverse(self, x: Tensor) -> Tensor:
        """What ``forward`` made ``x`` of."""
        low, high = x.split(self.channels, 1)
        high = (high - self.eta(low)) * (-self.scale(low)).exp()
        return torch.cat([low - self.phi(high), high], 1)

    def log_determinant(self, x: Tensor) -> Tensor:
        """log |det| of the Jacobian of ``forward`` at ``x``: (batch,)."""
        low, high = x.split(self.channels, 1)
        return self.scale(low + self.phi(high)).sum((1, 2, 3))


class Transform(nn.Module):
    """The invertible transform block: couplings of the first ``low + high`` channels; what comes after them passes."""

    def __init__(self, low: int, high: int, blocks: int, module: Module) -> None:
        super().__init__()
        self.coupled = low + high
        self.blocks = nn.ModuleList(Coupling(low, high, module) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, y, x) -> the same shape, float32 (float64 of float64)."""
        return self._through(x, list(self.blocks))

    def inverse(self, x: Tensor) -> Tensor:
        """What ``forward`` made ``x`` of."""
        blocks: list[Any] = list(self.blocks)
        return self._through(x, [block.inverse for block in reversed(blocks)])

    def _through(self, x: Tensor, ways: Sequence[Callable[[Tensor], Tensor]]) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x = x if x.dtype == torch.float64 else x.float()
            made = x[:, : self.coupled]
            for way in ways:
                made = way(made)
            return torch.cat([made, x[:, self.coupled :]], 1)
