"""SpyNet: the displacement between two sections, coarse to fine (Ranjan 2017; spec C.6)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class SpyNet(nn.Module):
    """One small convolutional network a level, each correcting the flow of the coarser one.

    ``channels`` is 3 for published weights, which see ImageNet's normalisation of a repeated grey image, else 1: then
    each level sees zero mean and unit variance, without which coarse levels, whose contrast is low, hardly learn.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, levels: int, widths: tuple[int, ...], kernel: int, channels: int) -> None:
        """Raises ValueError for sizes that make no network."""
        super().__init__()
        if levels < 1 or min(widths, default=1) < 1:
            raise ValueError(f"flow_levels {levels} and flow_widths {list(widths)} make no flow network: use 1 or more")
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"flow_kernel {kernel} has no centre: use an odd number, as 7")
        if channels not in (1, 3):
            raise ValueError(f"flow_channels {channels} are neither 1 nor 3: use 3 for published weights, else 1")
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.5,), (0.25,))
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
        ends = (2 * channels + 2, *widths, 2)
        self.levels = nn.ModuleList(_convolutions(ends, kernel) for _ in range(levels))

    def forward(self, moved: Tensor, fixed: Tensor) -> Tensor:
        """Two images (batch, 1, y, x) in [0, 1] -> flow (batch, 2, y, x), channels (dx, dy) in pixels, in float32.

        ``moved`` at p shows what ``fixed`` shows at p + flow(p).
        """
        return self.between(self.pyramid(moved), self.pyramid(fixed), (moved.shape[-2], moved.shape[-1]))

    def pyramid(self, image: Tensor) -> tuple[Tensor, ...]:
        """What depends on one image (batch, 1, y, x) alone: what each level sees of it, coarsest first, in float32.

        Sides are brought to the next multiples of 2 to the number of levels less one.
        """
        with torch.autocast(image.device.type, enabled=False):
            return tuple(self._normalised(fitted(image.float(), 2 ** (len(self.levels) - 1))))

    def between(self, moved: Sequence[Tensor], fixed: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """``forward`` from the pyramids of two images of ``size`` (y, x)."""
        with torch.autocast(moved[0].device.type, enabled=False):
            return of_size(self._refined(moved, fixed)[-1], size)

    def coarse_to_fine(self, moved: Tensor, fixed: Tensor, levels: int | None = None) -> list[Tensor]:
        """The flow after each of the coarsest ``levels`` levels (all by default), each in pixels of its own grid.

        Both images float32, sides multiples of 2 to the number of levels less one.
        """
        return self._refined(self._normalised(moved)[:levels], self._normalised(fixed)[:levels])

    def _refined(self, moved: Sequence[Tensor], fixed: Sequence[Tensor]) -> list[Tensor]:
        flows: list[Tensor] = []
        for network, a, b in zip(self.levels, moved, fixed, strict=False):
            flow = _doubled(flows[-1]) if flows else a.new_zeros(a.shape[0], 2, *a.shape[-2:])
            flows.append(flow + network(torch.cat([a, warp(b, flow), flow], 1)))
        return flows

    def _normalised(self, image: Tensor) -> list[Tensor]:
        """Images of each level, coarsest first."""
        images = [(image - self.mean) / self.std]
        for _ in range(len(self.levels) - 1):
            images.append(F.avg_pool2d(images[-1], 2))
        return images[::-1] if self.mean.shape[1] == 3 else [standardised(image) for image in images[::-1]]


def _convolutions(ends: tuple[int, ...], kernel: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(ends):
        layers += [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


def standardised(image: Tensor) -> Tensor:
    """(batch, channels, y, x) with zero mean and unit variance over y and x; a constant image becomes zero."""
    centred = image - image.mean((-2, -1), keepdim=True)
    return centred * torch.rsqrt(centred.square().mean((-2, -1), keepdim=True) + 1e-4)


def fitted(image: Tensor, multiple: int) -> Tensor:
    """``image`` (batch, channels, y, x), its sides brought to the next multiples, bilinear."""
    size = (-(-image.shape[-2] // multiple) * multiple, -(-image.shape[-1] // multiple) * multiple)
    if size == tuple(image.shape[-2:]):
        return image
    return F.interpolate(image, size, mode="bilinear", align_corners=False)


def of_size(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """``flow`` (batch, 2, ...), channels (dx, dy), on a grid of ``size`` (y, x) and in its pixels."""
    (height, width), (y, x) = flow.shape[-2:], size
    if (height, width) == (y, x):
        return flow
    flow = F.interpolate(flow, size, mode="bilinear", align_corners=False)
    return flow * flow.new_tensor([x / width, y / height]).view(1, 2, 1, 1)


def _doubled(flow: Tensor) -> Tensor:
    return 2 * F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True)


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """``image`` (batch, channels, y, x) sampled at p + flow(p), flow (batch, 2, y, x) as (dx, dy); edges repeat."""
    height, width = image.shape[-2:]
    x = flow[:, 0] + torch.arange(width, dtype=flow.dtype, device=flow.device)
    y = flow[:, 1] + torch.arange(height, dtype=flow.dtype, device=flow.device)[:, None]
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)  # pixel centres at halves
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)
