"""Texture of an image and what of it is alike elsewhere in it (ISTE: Duan et al. 2024, 2401.15613).

Where the text and the released code disagree, the text is followed: attention over the 3 x 3 windows themselves, scaled
before its softmax, with gradients through keys and values; what is compared is compared among points that are fixed
beforehand, so that no point's grey level depends on which others are asked for at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emsr.layers.blocks import conv
from emsr.layers.implicit import Corner, Points, rows

COMPARED = 2**22  # pairs that are compared at once


class LocalAttention(nn.Module):
    """LFI: each pixel attends to itself, the mean of its 3 x 3 window and its eight neighbours."""

    def __init__(self, width: int, heads: int) -> None:
        """Raises ValueError for heads that cannot share the width."""
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"width {width} cannot be shared by {heads} heads of attention: use a multiple")
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.project = nn.Linear(width, width)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, width, y, x) -> the same shape; beyond its edge the map is mirrored at its outermost pixels."""
        mixed = self.project(self.shares(features)[1])
        return mixed.view(features.shape[0], *features.shape[-2:], -1).permute(0, 3, 1, 2)

    def shares(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of the ten tokens, (batch * y * x, heads, 10), and what they make of their values, (.., width)."""
        batch, width, height, across = features.shape
        # a token is the same whoever looks at it, so keys and values are made once
        looked = torch.cat([rows(features), rows(F.avg_pool2d(_framed(features), 3, 1))])
        k, v = (_tokens(layer(looked), batch, height, across) for layer in (self.k, self.v))
        q = self.q(rows(features)).view(-1, self.heads, 1, width // self.heads)
        k, v = (part.view(-1, 10, self.heads, width // self.heads).transpose(1, 2) for part in (k, v))
        shares = (q @ k.transpose(-1, -2) * (width // self.heads) ** -0.5).softmax(-1)
        return shares.squeeze(2), (shares.to(v.dtype) @ v).reshape(-1, width)


def _framed(x: Tensor) -> Tensor:
    """A pixel more on every side: the mirror image, or a single row or column again."""
    for axis, pad in ((-1, (1, 1, 0, 0)), (-2, (0, 0, 1, 1))):
        x = F.pad(x, pad, mode="reflect" if x.shape[axis] > 1 else "replicate")
    return x


def _tokens(made: Tensor, batch: int, height: int, width: int) -> Tensor:
    """Of a layer's (2 * batch * y * x, channels), pixels then means: (batch * y * x, 10, channels)."""
    own, mean = made.chunk(2)
    framed = _framed(own.view(batch, height, width, -1).permute(0, 3, 1, 2))
    shifted = [framed[..., dy : dy + height, dx : dx + width] for dy in range(3) for dx in range(3)]
    around = torch.stack([rows(part) for part in shifted], 1)
    return torch.cat([around, mean[:, None]], 1)


class Texture(nn.Module):
    """TL: at a point near a pixel, amplitude * sin(frequency . displacement + phase), each of many channels."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.amplitude = conv(width, channels)
        self.frequency_y = conv(width, channels)
        self.frequency_x = conv(width, channels)
        self.phase = nn.Linear(2, channels, bias=False)

    def waves(self, features: Tensor) -> Tensor:
        """Amplitudes and frequencies of each pixel: (batch, width, y, x) -> (batch * y * x, 3 * channels)."""
        return torch.cat([rows(f(features)) for f in (self.amplitude, self.frequency_y, self.frequency_x)], 1)

    def phases(self, cell: Tensor) -> Tensor:
        """For voxels of sides ``cell`` (2,), in (0, 2 pi): (channels,)."""
        return 2 * math.pi * torch.sigmoid(self.phase(cell.float()))

    def forward(self, waves: Tensor, phases: Tensor, corner: Corner) -> Tensor:
        """The texture at the points of ``corner``, (n, channels)."""
        amplitude, y, x = corner.take(waves).chunk(3, 1)
        return amplitude * torch.sin(y * corner.apart[:, :1] + x * corner.apart[:, 1:] + phases)


class SelfTexture(nn.Module):
    """STF: to the features of each pixel, the texture among the key points that is most like them.

    With queries Q and, at the same corner of all key points, textures V: Q + S * linear([Q, V_t]), S the greatest
    cosine and t its key, the lowest of equals. Q is the same for all points around a pixel, so each pixel is compared
    once. float32, whatever is asked for.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Linear(2 * channels, channels, bias=False)

    def forward(self, queries: Tensor, texture: Callable[[Corner], Tensor], keys: Points) -> list[Tensor]:
        """(batch * y * x, channels) -> the same for each of the four corners, as ``Points.corners`` orders them."""
        found = best_keys(queries, texture, keys)
        return [self._mixed(queries, texture, keys, number, best) for number, best in enumerate(found)]

    def _mixed(
        self, queries: Tensor, texture: Callable[[Corner], Tensor], keys: Points, number: int, best: Tensor
    ) -> Tensor:
        chosen = Points(keys.y.gather(1, best), keys.x.gather(1, best), keys.size)
        found = texture(chosen.corner(number))
        likeness = F.cosine_similarity(queries, found, dim=1)[:, None]
        return queries + likeness * self.mix(torch.cat([queries, found], 1))


@torch.no_grad()
def best_keys(
    queries: Tensor, texture: Callable[[Corner], Tensor], keys: Points, block: int | None = None
) -> list[Tensor]:
    """For each of the four corners the key most like each query, (batch, queries): numbers of ``keys``.

    Of equals the lowest. Keys go by in blocks, so memory does not grow with their number.
    """
    batch, count = keys.y.shape
    wanted = F.normalize(queries.float(), dim=1).view(batch, -1, queries.shape[1])
    block = block or max(1, COMPARED // (batch * wanted.shape[1]))
    best = [torch.full(wanted.shape[:2], -math.inf, device=queries.device) for _ in range(4)]
    where = [torch.zeros(wanted.shape[:2], dtype=torch.long, device=queries.device) for _ in range(4)]
    for first in range(0, count, block):
        here = Points(keys.y[:, first : first + block], keys.x[:, first : first + block], keys.size)
        for number, corner in enumerate(here.corners()):
            found = F.normalize(texture(corner).float(), dim=1).view(batch, -1, queries.shape[1])
            likeness, nearest = (wanted @ found.transpose(1, 2)).max(2)
            where[number] = torch.where(likeness > best[number], nearest + first, where[number])
            best[number] = torch.maximum(likeness, best[number])
    return where
