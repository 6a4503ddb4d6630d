"""Enlargement of images and features: bicubic, also at any positions, and convolutions with PixelShuffle."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emsr.layers.blocks import conv
from emsr.scales import Scale, fine_plane

CUBIC_A = -0.5


def bicubic(x: Tensor, scale: int) -> Tensor:
    """(batch, channels, y, x) -> (batch, channels, scale*y, scale*x): Keys' cubic, a = -0.5.

    Pixel centres lie at halves and edge pixels are repeated, as in ``degradation.upsample``; not clamped.
    """
    padded = F.pad(x, (2, 2, 2, 2), mode="replicate")
    # antialias chooses a = -0.5; it changes nothing else when enlarging
    large = F.interpolate(padded, scale_factor=scale, mode="bicubic", align_corners=False, antialias=True)
    border = 2 * scale
    return large[..., border:-border, border:-border]


def positions(sides: tuple[int, int], scale: Scale) -> tuple[Tensor, Tensor]:
    """Where the voxels of an image of ``sides`` (y, x) pixels, enlarged by ``scale``, have their centres.

    float64, along y and along x, in pixels; pixel i is [i, i + 1). Their numbers are rounded, the extent is the same.
    """
    y, x = (
        (torch.arange(fine, dtype=torch.float64) * 2 + 1) * side / (2 * fine)
        for side, fine in zip(sides, fine_plane(sides, scale), strict=True)
    )
    return y, x


def bicubic_at(x: Tensor, at: tuple[Tensor, Tensor]) -> Tensor:
    """(batch, channels, y, x) -> (batch, channels, len(at[0]), len(at[1])): Keys' cubic, a = -0.5, at any positions.

    ``at`` are 1-D float64 coordinates along y and along x, pixel i being [i, i + 1); edge pixels are repeated.
    """
    for axis, centres in zip((-2, -1), at, strict=True):
        x = _line_at(x, centres.to(x.device), axis)
    return x


def _line_at(x: Tensor, centres: Tensor, axis: int) -> Tensor:
    """One axis of it: a sum of four pixels, each times its weight, in float32 or more whatever autocast says."""
    first = torch.floor(centres - 0.5)
    weights = [_cubic(centres - 0.5 - first - tap).to(x.dtype) for tap in (-1, 0, 1, 2)]
    shape = (-1, 1) if axis == -2 else (-1,)
    total = torch.zeros((), dtype=x.dtype, device=x.device)
    for tap, weight in zip((-1, 0, 1, 2), weights, strict=True):
        pixel = (first.long() + tap).clamp(0, x.shape[axis] - 1)
        total = total + x.index_select(axis, pixel) * weight.view(shape)
    return total


def _cubic(t: Tensor) -> Tensor:
    """Keys' cubic convolution kernel (Keys 1981, eq. 4) at distances ``t``."""
    t = t.abs()
    near = ((CUBIC_A + 2) * t - (CUBIC_A + 3)) * t**2 + 1
    far = CUBIC_A * (((t - 5) * t + 8) * t - 4)
    return torch.where(t <= 1, near, torch.where(t < 2, far, 0.0))


def steps(scale: int) -> list[int]:
    """The factors by which features grow, one after the other: 2 as often as it divides ``scale``, or 3 alone.

    Raises ValueError for another scale.
    """
    if scale == 3:
        return [3]
    if scale < 1 or scale & (scale - 1):
        raise ValueError(f"scale {scale} is neither 3 nor a power of two: use one of 2, 3, 4, 8, 16")
    return [2] * (scale.bit_length() - 1)


def upsampler(width: int, scale: int, outputs: int | None = None, last: int = 0) -> nn.Sequential:
    """For each of ``steps(scale)`` a convolution to factor^2 times the width and a PixelShuffle (Shi et al. 2016).

    From the first of them on there are ``outputs`` channels, or ``width``; ``last`` above 0 is how many the last gives.
    """
    factors = steps(scale)
    widths = [outputs or width] * len(factors)
    if last and widths:
        widths[-1] = last
    return nn.Sequential(
        *(
            nn.Sequential(conv(inputs, factor**2 * out), nn.PixelShuffle(factor))
            for factor, inputs, out in zip(factors, [width, *widths], widths, strict=False)
        )
    )
