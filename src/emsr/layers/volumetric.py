"""Blocks of the affinity networks: convolutions over z, y and x (spec F). Tensors are (batch, channels, z, y, x)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAK = 0.005  # slope of every LeakyReLU in mala


def flat_conv(inputs: int, outputs: int, kernel: int, bias: bool) -> nn.Conv3d:
    """A convolution within sections that keeps the size."""
    margin = kernel // 2
    return nn.Conv3d(inputs, outputs, (1, kernel, kernel), padding=(0, margin, margin), bias=bias)


class VolumeBlock(nn.Module):
    """r = ELU(BN(Conv(x))) within sections, then ELU(BN(r + Conv(ELU(BN(Conv(r)))))) over z, y, x."""

    def __init__(self, inputs: int, outputs: int, momentum: float) -> None:
        super().__init__()
        enter = flat_conv(inputs, outputs, 3, bias=False)
        self.enter = nn.Sequential(enter, nn.BatchNorm3d(outputs, momentum=momentum))
        self.body = nn.Sequential(
            nn.Conv3d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm3d(outputs, momentum=momentum),
            nn.ELU(inplace=True),
            nn.Conv3d(outputs, outputs, 3, padding=1, bias=False),
        )
        self.norm = nn.BatchNorm3d(outputs, momentum=momentum)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, z, y, x) -> (batch, outputs, z, y, x)."""
        r = F.elu(self.enter(x), inplace=True)
        return F.elu(self.norm(r + self.body(r)), inplace=True)


class PaddedUp(nn.Module):
    """Twice as large along y and x, the skip added, normalised, and a block."""

    def __init__(self, inputs: int, outputs: int, momentum: float) -> None:
        super().__init__()
        self.project = nn.Conv3d(inputs, outputs, 1)
        self.norm = nn.BatchNorm3d(outputs, momentum=momentum)
        self.block = VolumeBlock(outputs, outputs, momentum)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(batch, inputs, z, y, x) and the skip (batch, outputs, z, 2y, 2x) -> the skip's shape."""
        x = F.interpolate(x, scale_factor=(1.0, 2.0, 2.0), mode="trilinear", align_corners=True)
        return self.block(F.elu(self.norm(self.project(x) + skip), inplace=True))


def valid_pair(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3x3x3 convolutions without padding: every axis becomes 4 voxels shorter."""
    first, second = nn.Conv3d(inputs, outputs, 3), nn.Conv3d(outputs, outputs, 3)
    return nn.Sequential(first, nn.LeakyReLU(LEAK, inplace=True), second, nn.LeakyReLU(LEAK, inplace=True))


class ValidUp(nn.Module):
    """Three times as large along y and x, channel by channel; the middle of the skip added; a valid pair."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.lift = nn.ConvTranspose3d(inputs, inputs, (1, 3, 3), stride=(1, 3, 3), groups=inputs, bias=False)
        self.project = nn.Conv3d(inputs, outputs, 1)
        self.pair = valid_pair(outputs, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(batch, inputs, z, y, x) and a larger skip -> (batch, outputs, z - 4, 3y - 4, 3x - 4)."""
        x = self.project(self.lift(x))
        return self.pair(x + middle(skip, x))


def middle(x: Tensor, like: Tensor) -> Tensor:
    """The part of ``x`` in its middle that is as large as ``like`` along z, y and x."""
    margins = [(wide - narrow) // 2 for wide, narrow in zip(x.shape[2:], like.shape[2:], strict=True)]
    z, y, x_ = (slice(first, first + side) for first, side in zip(margins, like.shape[2:], strict=True))
    return x[:, :, z, y, x_]


def initialise(network: nn.Module, leak: float) -> None:
    """Kaiming normal weights for activations of negative slope ``leak``, biases zero."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d):
            if not layer.weight.is_meta:  # there it would draw nothing and import torch's compiler: a second
                nn.init.kaiming_normal_(layer.weight, a=leak)
            if layer.bias is not None:
                nn.init.zeros_(torch.as_tensor(layer.bias))
