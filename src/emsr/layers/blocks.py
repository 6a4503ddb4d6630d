"""Residual blocks and the resizing that all networks share (spec A.1, C.1)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Norm = Callable[[int], nn.Module]
LEAK = 0.1  # slope of every LeakyReLU in the fusion network


def group_norm(groups: int, group_channels: int) -> Norm:
    """Maker of GroupNorm (eps 1e-6): ``groups`` groups, or groups of ``group_channels`` channels when groups is 0.

    Raises ValueError unless exactly one of the two is positive.
    """
    if (groups > 0) == (group_channels > 0):
        raise ValueError(f"norm_groups {groups} and norm_group_channels {group_channels}: set one of them, the other 0")
    return partial(_group_norm, groups, group_channels)


def _group_norm(groups: int, group_channels: int, channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups or max(1, channels // group_channels), channels, eps=1e-6)


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    """A convolution that keeps the size (up to its stride)."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=bias)


def up(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    """A transposed convolution that doubles y and x."""
    return nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)


def leaky(x: Tensor) -> Tensor:
    """LeakyReLU with slope 0.1; any shape."""
    return F.leaky_relu(x, LEAK)


def resize(x: Tensor, factor: float) -> Tensor:
    """Bilinear resize of (batch, channels, y, x) by ``factor``, pixel centres at halves, no antialiasing."""
    if factor == 1:
        return x
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


class ResidualBlock(nn.Module):
    """x + ReLU(GN(Conv(ReLU(GN(Conv(x)))))), the skip a 1x1 convolution where the widths differ (spec A.1, RB)."""

    def __init__(self, inputs: int, outputs: int, norm: Norm) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(inputs, outputs),
            norm(outputs),
            nn.ReLU(inplace=True),
            conv(outputs, outputs),
            norm(outputs),
            nn.ReLU(inplace=True),
        )
        self.skip = nn.Identity() if inputs == outputs else conv(inputs, outputs, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, y, x) -> (batch, outputs, y, x)."""
        return self.skip(x) + self.body(x)


class PlainBlock(nn.Module):
    """x + res_scale * Conv(ReLU(Conv(x))), without normalisation, small at the start (spec C.1, RBnoBN).

    With ``attention`` what is added goes through it first.
    """

    def __init__(self, width: int, res_scale: float = 1.0, kernel: int = 3, attention: nn.Module | None = None) -> None:
        super().__init__()
        self.res_scale, self.attention = res_scale, attention
        self.conv1 = conv(width, width, kernel)
        self.conv2 = conv(width, width, kernel)
        for layer in (self.conv1, self.conv2):
            if not layer.weight.is_meta:  # there it would draw nothing and import torch's compiler: a second
                nn.init.kaiming_normal_(layer.weight)
                layer.weight.data.mul_(0.1)
            nn.init.zeros_(torch.as_tensor(layer.bias))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width, y, x) -> the same shape."""
        added = self.conv2(F.relu(self.conv1(x), inplace=True))
        return torch.add(x, self.attention(added) if self.attention else added, alpha=self.res_scale)


class NormalisedBlock(nn.Module):
    """x + BN(Conv(PReLU(BN(Conv(x))))) (SRResNet, Ledig et al. 2017); without ``norm`` there are biases instead."""

    def __init__(self, width: int, norm: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(normalised(width, width, norm), nn.PReLU(), normalised(width, width, norm))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width, y, x) -> the same shape."""
        added: Tensor = self.body(x)
        return x + added


def normalised(inputs: int, outputs: int, norm: bool, stride: int = 1, running: bool = True) -> nn.Sequential:
    """A convolution and, with ``norm``, normalisation over the batch, which makes its biases useless; by ``running``
    means at inference, or else always by those of the batch."""
    layer = conv(inputs, outputs, stride=stride, bias=not norm)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs, track_running_stats=running)) if norm else nn.Sequential(layer)


class Recursive(nn.Module):
    """Conv(ReLU(Conv(ReLU(x)))), what a residual unit adds; a network applies the same weights again and again.

    With ``norms`` there are as many turns, each of which normalises over the batch by numbers of its own before it
    activates.
    """

    def __init__(self, width: int, norms: int = 0, bias: bool = True) -> None:
        super().__init__()
        self.conv1 = conv(width, width, bias=bias)
        self.conv2 = conv(width, width, bias=bias)
        self.norm1 = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(norms))
        self.norm2 = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(norms))
        he(self.conv1, self.conv2)
        self.conv2.weight.data.mul_(0.1)  # the same weights many times over would let signals grow

    def forward(self, x: Tensor, turn: int) -> Tensor:
        """(batch, width, y, x) -> the same shape, at the ``turn``-th application from 0."""
        first, second = (norms[turn] if len(norms) else nn.Identity() for norms in (self.norm1, self.norm2))
        inner: Tensor = self.conv2(F.relu(second(self.conv1(F.relu(first(x))))))
        return inner


def he(*layers: nn.Conv2d) -> None:
    """Let signals through many convolutions with ReLU keep their size at the start (He et al. 2015); biases are 0."""
    for layer in layers:
        nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def trunk(width: int, blocks: int, res_scale: float = 1.0) -> nn.Sequential:
    """``blocks`` plain blocks of one width."""
    return nn.Sequential(*(PlainBlock(width, res_scale) for _ in range(blocks)))
