"""The displacement between two sections from correlation volumes, coarse to fine (Sun 2018, PWC-Net)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emsr.layers.blocks import conv, leaky
from emsr.layers.correlation import Correlation
from emsr.layers.flow import fitted, of_size, standardised, warp


class CorrelationFlow(nn.Module):
    """A pyramid of features for each image; at each level a correlation volume, from which the flow is corrected.

    It has the interface of ``SpyNet``. Images are made ``reduction`` times coarser first, as much as they were enlarged
    before, for what lies between pixels of lr is interpolated. The finest of ``levels`` levels has that size, each
    further one half of it; ``maps`` is the width of the features, ``radius`` the largest displacement that one level
    corrects along each axis, in its own pixels; ``widths`` are of the 3x3 convolutions that estimate flow from it.
    """

    def __init__(self, levels: int, maps: int, radius: int, widths: tuple[int, ...], reduction: int) -> None:
        super().__init__()
        if levels < 1 or maps < 1:
            raise ValueError(f"flow_levels {levels} and flow_maps {maps} make no pyramid: use 1 or more of each")
        self.reduction = reduction
        self.correlation = Correlation(radius)
        self.features = nn.ModuleList(_Features(maps if level else 1, maps) for level in range(levels))
        ends = (self.correlation.channels + maps + 2, *widths, 2)
        self.levels = nn.ModuleList(_estimator(ends) for _ in range(levels))

    def forward(self, moved: Tensor, fixed: Tensor) -> Tensor:
        """Two images (batch, 1, y, x) in [0, 1] -> flow (batch, 2, y, x), channels (dx, dy) in pixels, in float32.

        ``moved`` at p shows what ``fixed`` shows at p + flow(p).
        """
        return self.between(self.pyramid(moved), self.pyramid(fixed), (moved.shape[-2], moved.shape[-1]))

    def pyramid(self, image: Tensor) -> tuple[Tensor, ...]:
        """What depends on one image (batch, 1, y, x) alone: its features at each level, coarsest first, in float32.

        Sides are brought to the next multiples of ``reduction`` times 2 to the number of levels less one.
        """
        with torch.autocast(image.device.type, enabled=False):
            image = fitted(image.float(), self.reduction * 2 ** (len(self.levels) - 1))
            features = standardised(F.avg_pool2d(image, self.reduction))
            found: list[Tensor] = []
            for level, look in enumerate(self.features):
                features = look(F.avg_pool2d(features, 2) if level else features)
                found.append(features)
            return tuple(found[::-1])

    def between(self, moved: Sequence[Tensor], fixed: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """``forward`` from the pyramids of two images of ``size`` (y, x)."""
        with torch.autocast(moved[0].device.type, enabled=False):
            return of_size(self._refined(moved, fixed)[-1], size)

    def coarse_to_fine(self, moved: Tensor, fixed: Tensor, levels: int | None = None) -> list[Tensor]:
        """The flow after each of the coarsest ``levels`` levels (all by default), each in pixels of its own grid."""
        with torch.autocast(moved.device.type, enabled=False):
            return self._refined(self.pyramid(moved)[:levels], self.pyramid(fixed)[:levels])

    def _refined(self, moved: Sequence[Tensor], fixed: Sequence[Tensor]) -> list[Tensor]:
        flows: list[Tensor] = []
        for estimate, a, b in zip(self.levels, moved, fixed, strict=False):
            flow = a.new_zeros(a.shape[0], 2, *a.shape[-2:])
            if flows:
                flow = of_size(flows[-1], (a.shape[-2], a.shape[-1]))
            volume = leaky(self.correlation(_unit(a), _unit(warp(b, flow))))
            flows.append(flow + estimate(torch.cat([volume, a, flow], 1)))
        return flows


class _Features(nn.Sequential):
    """Two 3x3 convolutions: one level's features from those of the finer one, (batch, inputs, y, x) in any size."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__(conv(inputs, width), nn.LeakyReLU(0.1), conv(width, width))


def _estimator(ends: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(ends):
        layers += [conv(inputs, outputs), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers[:-1])


def _unit(features: Tensor) -> Tensor:
    """Features with a root mean square of one over the channels at each position: their products are likenesses."""
    return features * torch.rsqrt(features.square().mean(1, keepdim=True) + 1e-4)
