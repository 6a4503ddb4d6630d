"""Modulated deformable convolution by bilinear sampling (Zhu 2019, DCNv2; spec C.6)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emsr.layers.blocks import conv

TAPS = 9  # of a 3x3 kernel, row-major


class DeformableConv(nn.Module):
    """A 3x3 convolution whose taps are displaced and weighted as a second tensor says; padding 1, stride 1.

    ``groups`` groups of consecutive input channels share their displacements. ``accelerator``
    (``layers.accelerators``) takes the place of sampling and convolution, then in float32.
    """

    accelerator: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor] | None = None

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        if width % groups:
            raise ValueError(f"deformable_groups {groups} do not divide width {width}: choose a divisor")
        self.groups = groups
        self.weight = nn.Parameter(torch.empty(width, width, 3, 3))
        self.bias = nn.Parameter(torch.zeros(width))
        self.offsets = conv(width, groups * TAPS * 3)
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        nn.init.zeros_(self.offsets.weight)
        nn.init.zeros_(torch.as_tensor(self.offsets.bias))

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        """Features and what their displacements are read from, each (batch, width, y, x) -> (batch, width, y, x).

        Displacements and weights are computed in float32 whatever the precision of the rest.
        """
        with torch.autocast(x.device.type, enabled=False):
            offsets, mask = self.displacements(guide)
            if self.accelerator:
                weights = self.weight.float(), self.bias.float()
                return self.accelerator(x.float(), offsets, torch.sigmoid(mask), *weights).to(x.dtype)
            samples = sample_taps(x.float(), offsets, torch.sigmoid(mask))
        batch, width, y, x_size = x.shape
        columns = samples.reshape(batch, width * TAPS, y, x_size)
        return F.conv2d(columns, self.weight.reshape(width, width * TAPS, 1, 1), self.bias)

    def displacements(self, guide: Tensor) -> tuple[Tensor, ...]:
        """What ``guide`` displaces the taps by (pixels) and, before its sigmoid, weighs them by, as ``sample_taps`` has
        them; in float32 outside of autocast.
        """
        raw = F.conv2d(guide.float(), self.offsets.weight.float(), self.offsets.bias, padding=1)
        return raw.split([self.groups * TAPS * 2, self.groups * TAPS], 1)


def sample_taps(x: Tensor, offsets: Tensor, mask: Tensor) -> Tensor:
    """What each tap of a 3x3 kernel sees at each position.

    ``x`` (batch, channels, y, x); ``offsets`` (batch, groups*9*2, y, x) in pixels, ordered group, tap, (dy, dx);
    ``mask`` (batch, groups*9, y, x) multiplies. A corner outside the image counts 0.
    Returns (batch, channels, 9, y, x).
    """
    batch, channels, height, width = x.shape
    groups = mask.shape[1] // TAPS
    moves = offsets.reshape(batch * groups, TAPS, 2, height, width)
    grid = _grid(moves, height, width).reshape(batch * groups, TAPS * height, width, 2)
    grouped = x.reshape(batch * groups, channels // groups, height, width)
    samples = F.grid_sample(grouped, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    weighted = samples * mask.reshape(batch * groups, 1, TAPS * height, width)
    return weighted.reshape(batch, channels, TAPS, height, width)


def _grid(moves: Tensor, height: int, width: int) -> Tensor:
    """Displacements (n, 9, 2, y, x) in pixels -> sampling positions (n, 9, y, x, 2) as grid_sample counts them."""
    tap_y, tap_x = (axis.reshape(TAPS, 1, 1) for axis in torch.meshgrid(*[_steps(3, moves) - 1] * 2, indexing="ij"))
    y = moves[:, :, 0] + (tap_y + _steps(height, moves)[:, None])
    x = moves[:, :, 1] + (tap_x + _steps(width, moves)[None, :])
    return torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)


def _steps(count: int, like: Tensor) -> Tensor:
    return torch.arange(count, dtype=like.dtype, device=like.device)
