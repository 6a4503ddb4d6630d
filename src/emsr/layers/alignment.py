"""Deformable alignment of a neighbour to the centre (PCD; Wang et al. 2019), guided also by flow (POD; spec C.6)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from emsr.layers.blocks import conv, leaky, resize
from emsr.layers.deform import DeformableConv

LEVELS = 3  # full, half and quarter size


class Alignment(nn.Module):
    """Sampling offsets from coarse to fine, then a cascade at full size.

    ``flow_features`` channels carry each of the two readings of the flow, whose grid is ``flow_scale`` times finer than
    that of the features; with 0 features alone guide the offsets, without flow and images.
    """

    def __init__(self, width: int, flow_features: int, groups: int, flow_scale: int = 1) -> None:
        super().__init__()
        guides = 2 * flow_features + 2 if flow_features else 0
        self.flows = nn.ModuleList(_flow_pyramid(flow_features, flow_scale) for _ in range(2 if guides else 0))
        joined = 2 * width + guides
        self.levels = nn.ModuleList(AlignmentLevel(width, joined, groups, level) for level in range(LEVELS))
        self.cascade1 = conv(2 * width, width)
        self.cascade2 = conv(width, width)
        self.cascade = DeformableConv(width, groups)

    def forward(
        self,
        neighbour: Sequence[Tensor],
        centre: Sequence[Tensor],
        images: Tensor | None = None,
        flow: Tensor | None = None,
    ) -> Tensor:
        """Features of the neighbour, moved onto the centre.

        ``neighbour`` and ``centre``: feature pyramids (batch, width, y, x), halves and quarters; with flow features
        ``images`` (batch, 2, y, x) are the two lr sections, neighbour first, and ``flow``
        (batch, 2, flow_scale*y, flow_scale*x). Returns (batch, width, y, x).
        """
        guides = [torch.cat(pair, 1) for pair in zip(neighbour, centre, strict=True)]
        if images is not None and flow is not None:
            guides = self._with_flow(guides, images, flow)
        offsets: Tensor | None = None
        features: Tensor | None = None
        for level in range(LEVELS)[::-1]:
            offsets, features = self.levels[level](guides[level], neighbour[level], offsets, features)
        assert features is not None
        guide = leaky(self.cascade2(leaky(self.cascade1(torch.cat([features, centre[0]], 1)))))
        return leaky(self.cascade(features, guide))

    def _with_flow(self, guides: list[Tensor], images: Tensor, flow: Tensor) -> list[Tensor]:
        """Each level's features with what it sees of the flow, read in two ways, and of both images."""
        branches, flows = [list(branch.children()) for branch in self.flows], [flow, flow]
        for level in range(LEVELS):
            images = resize(images, 0.5) if level else images
            flows = [branch[level](each) for branch, each in zip(branches, flows, strict=True)]
            guides[level] = torch.cat([guides[level], *flows, images], 1)
        return guides


def _flow_pyramid(width: int, flow_scale: int) -> nn.ModuleList:
    first = conv(2, width, stride=flow_scale)
    return nn.ModuleList([first, *(conv(width, width, stride=2) for _ in range(LEVELS - 1))])


class AlignmentLevel(nn.Module):
    """One size of the pyramid: offsets and features, refined from those of the coarser level."""

    def __init__(self, width: int, joined: int, groups: int, level: int) -> None:
        super().__init__()
        self.finest, self.coarsest = level == 0, level == LEVELS - 1
        self.conv1 = conv(joined, width)
        self.conv2 = conv(width if self.coarsest else 2 * width, width)
        self.deform = DeformableConv(width, groups)
        if not self.coarsest:
            self.conv3 = conv(width, width)
            self.merge = conv(2 * width, width)

    def forward(
        self, guide: Tensor, neighbour: Tensor, offsets: Tensor | None, features: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """``guide`` (batch, joined, y, x), ``neighbour`` (batch, width, y, x), the coarser level's results or None.

        Returns what the offsets are read from and the moved features, each (batch, width, y, x).
        """
        own = leaky(self.conv1(guide))
        if offsets is None or features is None:
            own = leaky(self.conv2(own))
            return own, leaky(self.deform(neighbour, own))
        own = leaky(self.conv2(torch.cat([own, 2 * resize(offsets, 2)], 1)))
        own = leaky(self.conv3(own))
        moved = self.merge(torch.cat([self.deform(neighbour, own), resize(features, 2)], 1))
        return own, moved if self.finest else leaky(moved)
