"""Enlargement of images and features: bicubic, and convolutions with PixelShuffle."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from emsr.layers.blocks import conv


def bicubic(x: Tensor, scale: int) -> Tensor:
    """(batch, channels, y, x) -> (batch, channels, scale*y, scale*x): Keys' cubic, a = -0.5.

    Pixel centres lie at halves and edge pixels are repeated, as in ``degradation.upsample``; not clamped.
    """
    padded = F.pad(x, (2, 2, 2, 2), mode="replicate")
    # antialias chooses a = -0.5; it changes nothing else when enlarging
    large = F.interpolate(padded, scale_factor=scale, mode="bicubic", align_corners=False, antialias=True)
    border = 2 * scale
    return large[..., border:-border, border:-border]


def steps(scale: int) -> list[int]:
    """The factors by which features grow, one after the other: 2 as often as it divides ``scale``, or 3 alone.

    Raises ValueError for another scale.
    """
    if scale == 3:
        return [3]
    if scale < 1 or scale & (scale - 1):
        raise ValueError(f"scale {scale} is neither 3 nor a power of two: use one of 2, 3, 4, 8, 16")
    return [2] * (scale.bit_length() - 1)


def upsampler(width: int, scale: int, last: int = 0) -> nn.Sequential:
    """For each of ``steps(scale)`` a convolution to factor^2 times the width and a PixelShuffle (Shi et al. 2016).

    ``last`` above 0 is the width after the last of them.
    """
    factors = steps(scale)
    widths = [width] * len(factors)
    if last and widths:
        widths[-1] = last
    return nn.Sequential(
        *(nn.Sequential(conv(width, f**2 * out), nn.PixelShuffle(f)) for f, out in zip(factors, widths, strict=True))
    )
