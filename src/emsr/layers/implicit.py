"""Images as functions of coordinates: features around a point, and the perceptrons that make its grey level of them.

Coordinates are lr pixels, float64: pixel i spans [i, i + 1), so its centre lies at i + 1/2. Beyond its edge a map of
features goes on with its outermost values. Displacements and cells are in half lr pixels, as Chen et al. 2021
(2012.09161) count them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HALVES = 2.0  # half pixels in a pixel


@dataclass(frozen=True)
class Points:
    """Places ``y`` and ``x``, each (batch, points), on an image of ``size`` (y, x)."""

    y: Tensor
    x: Tensor
    size: tuple[int, int]

    def corners(self) -> Iterator[Corner]:
        """The four pixels whose centres lie around each point, in raster order."""
        return (self.corner(number) for number in range(4))

    def corner(self, number: int) -> Corner:
        """One of ``corners``."""
        row, down, down_share = _beside(self.y, self.size[0], number // 2)
        column, across, across_share = _beside(self.x, self.size[1], number % 2)
        batch = torch.arange(self.y.shape[0], device=self.y.device)[:, None] * (self.size[0] * self.size[1])
        index = (batch + row * self.size[1] + column).flatten()
        apart = torch.stack([down, across], -1).flatten(0, 1)
        return Corner(index, apart, (down_share * across_share).flatten()[:, None])


@dataclass(frozen=True)
class Corner:
    """One of the four pixels around each of n points.

    ``index`` (n,) is its row among all pixels of all images of the batch; ``apart`` (n, 2) how far the point lies from
    its centre along y and x; ``weight`` (n, 1) its share, the area of the rectangle between point and opposite corner.
    """

    index: Tensor
    apart: Tensor
    weight: Tensor

    def take(self, rows: Tensor) -> Tensor:
        """(batch * y * x, channels) -> (n, channels)."""
        return rows.index_select(0, self.index)


def _beside(at: Tensor, side: int, after: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of the pixel before (0) or after (1): its number, how far the points lie from its centre, its share."""
    low = (at - 0.5).floor()
    past = (at - 0.5 - low).float()
    number = (low.long() + after).clamp(0, side - 1)
    return number, HALVES * (past - after), past if after else 1 - past


def centres(length: int, scale: float, device: torch.device | str = "cpu") -> Tensor:
    """Where the centres of sr voxels lie on an axis of ``length`` lr pixels: round(scale * length) of them."""
    count = round(scale * length)
    return (torch.arange(count, dtype=torch.float64, device=device) + 0.5) * length / count


def every(y: Tensor, x: Tensor, batch: int, size: tuple[int, int]) -> Points:
    """All points of rows ``y`` and columns ``x``, in raster order, the same for each image of the batch."""
    shape = (len(y), len(x))
    ys, xs = (part.reshape(1, -1).expand(batch, -1) for part in (y[:, None].expand(shape), x.expand(shape)))
    return Points(ys, xs, size)


def rows(features: Tensor) -> Tensor:
    """(batch, channels, y, x) -> (batch * y * x, channels)."""
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


def bilinear(image: Tensor, points: Points) -> Tensor:
    """(batch, channels, y, x) between its pixels' centres: (batch * points, channels)."""
    pixels = rows(image)
    return torch.stack([corner.take(pixels) * corner.weight for corner in points.corners()]).sum(0)


class Perceptron(nn.Module):
    """Linear layers with ReLU between them, whose first is computed where its inputs are known.

    Of its inputs, those of the grid come first: what it makes of them is the same for all points around a pixel, so
    ``on_grid`` is computed once for each pixel and only the rest for each point.
    """

    def __init__(self, grid: int, beside: int, hidden: Sequence[int], outputs: int) -> None:
        """``grid`` inputs of the grid and ``beside`` of each point."""
        super().__init__()
        self.grid = grid
        sizes = [grid + beside, *hidden, outputs]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in itertools.pairwise(sizes))

    def forward(self, known: Tensor, beside: Tensor | None = None) -> Tensor:
        """What ``on_grid`` or ``unfolded`` gave for each of n points, and their other inputs -> (n, outputs)."""
        first, *others = self.layers
        x = known if beside is None else known + F.linear(beside, first.weight[:, self.grid :])  # type: ignore[index]
        for layer in others:
            x = layer(F.relu(x))
        return x

    def on_grid(self, inputs: Tensor) -> Tensor:
        """(n, grid) -> what the first layer makes of them, (n, hidden)."""
        first: nn.Linear = self.layers[0]  # type: ignore[assignment]
        return F.linear(inputs, first.weight[:, : self.grid], first.bias)

    def unfolded(self, features: Tensor) -> Tensor:
        """The same of each pixel's 3 x 3 features, 0 outside: (batch, channels, y, x) -> (batch * y * x, hidden)."""
        first: nn.Linear = self.layers[0]  # type: ignore[assignment]
        kernel = first.weight[:, : self.grid].view(-1, features.shape[1], 3, 3)
        return rows(F.conv2d(features, kernel, first.bias, padding=1))
