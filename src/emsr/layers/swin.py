"""Swin transformer layers and the trunk of SwinIR without its enlargement (Liang et al. 2021, 2108.10257).

Windows begin at the corner of the image, so what the trunk says of a pixel depends on where the image begins, unless
that is a multiple of the window.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emsr.layers.blocks import conv

FULL = -100.0  # added to what must not be attended to; a softmax makes nothing of it
LAST_LEAK = 0.01


@dataclass(frozen=True)
class SwinSizes:
    """``embedding`` channels, ``groups`` of ``layers`` each, ``heads``, ``window`` in pixels, width of the perceptron
    as a multiple of the embedding, and the share of samples that skip the last layer in training (the first skips
    none)."""

    embedding: int
    groups: int
    layers: int
    heads: int
    window: int
    mlp_ratio: int
    drop_path: float


class SwinTrunk(nn.Module):
    """Image -> features on the same grid: convolution, groups of Swin layers, a skip around them, two convolutions."""

    def __init__(self, channels: int, width: int, sizes: SwinSizes) -> None:
        """``channels`` of the image, ``width`` of the features. Raises ValueError for heads that cannot
        share the embedding."""
        super().__init__()
        if sizes.embedding % sizes.heads:
            raise ValueError(f"embedding {sizes.embedding} cannot be shared by {sizes.heads} heads: use a multiple")
        self.window, embedding = sizes.window, sizes.embedding
        count = sizes.groups * sizes.layers
        drops = [sizes.drop_path * i / max(count - 1, 1) for i in range(count)]
        parts = [drops[i : i + sizes.layers] for i in range(0, count, sizes.layers)]
        self.first = conv(channels, embedding)
        self.normal = nn.LayerNorm(embedding)
        self.groups = nn.ModuleList(SwinGroup(sizes, part) for part in parts)
        self.last_normal = nn.LayerNorm(embedding)
        self.join = conv(embedding, embedding)
        self.last = conv(embedding, width)

    def forward(self, image: Tensor) -> Tensor:
        """(batch, channels, y, x) -> (batch, width, y, x); mirrored beyond its far ends to whole windows."""
        height, width = image.shape[-2:]
        shallow = self.first(mirrored_to(image, self.window))
        x = self.normal(shallow.permute(0, 2, 3, 1))  # (batch, y, x, embedding)
        apart = displacements(self.window, x.device)
        mask = shift_mask(x.shape[1], x.shape[2], self.window, x.device)
        for group in self.groups:
            x = group(x, apart, mask)
        deep = self.join(self.last_normal(x).permute(0, 3, 1, 2)) + shallow
        return F.leaky_relu(self.last(deep), LAST_LEAK)[..., :height, :width]


class SwinGroup(nn.Module):
    """RSTB: Swin layers, every second with shifted windows, a convolution, a skip around all."""

    def __init__(self, sizes: SwinSizes, drops: list[float]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            SwinLayer(sizes, sizes.window // 2 if i % 2 else 0, drop) for i, drop in enumerate(drops)
        )
        self.join = conv(sizes.embedding, sizes.embedding)

    def forward(self, x: Tensor, apart: Tensor, mask: Tensor) -> Tensor:
        """(batch, y, x, embedding), ``displacements`` and ``shift_mask`` -> the same shape."""
        inner = x
        for layer in self.layers:
            inner = layer(inner, apart, mask)
        joined: Tensor = self.join(inner.permute(0, 3, 1, 2))
        return x + joined.permute(0, 2, 3, 1)


class SwinLayer(nn.Module):
    """Attention within windows, then a perceptron for each pixel; each after a normalisation and beside a skip."""

    def __init__(self, sizes: SwinSizes, shift: int, drop: float) -> None:
        super().__init__()
        embedding, wide = sizes.embedding, sizes.mlp_ratio * sizes.embedding
        self.shift, self.drop = shift, drop
        self.normal1 = nn.LayerNorm(embedding)
        self.attention = WindowAttention(embedding, sizes.heads, sizes.window)
        self.normal2 = nn.LayerNorm(embedding)
        self.mlp = nn.Sequential(nn.Linear(embedding, wide), nn.GELU(), nn.Linear(wide, embedding))

    def forward(self, x: Tensor, apart: Tensor, mask: Tensor) -> Tensor:
        """(batch, y, x, embedding), sides multiples of the window -> the same shape."""
        normal = self.normal1(x)
        if self.shift:
            normal = self.attention(normal.roll((-self.shift, -self.shift), (1, 2)), apart, mask)
            normal = normal.roll((self.shift, self.shift), (1, 2))
        else:
            normal = self.attention(normal, apart, None)
        x = x + self._some(normal)
        return x + self._some(self.mlp(self.normal2(x)))

    def _some(self, added: Tensor) -> Tensor:
        """In training nothing for a share of the samples, and the more for the others (Huang et al. 2016)."""
        if not (self.training and self.drop):
            return added
        kept = torch.rand(added.shape[0], 1, 1, 1, device=added.device) >= self.drop
        return added * kept / (1 - self.drop)


class WindowAttention(nn.Module):
    """Multi-head attention within windows, with a bias for every displacement of key and query (Liu et al. 2021)."""

    def __init__(self, embedding: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(embedding, 3 * embedding)
        self.project = nn.Linear(embedding, embedding)
        self.bias = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        if not self.bias.is_meta:  # there it would draw nothing and import torch's compiler: a second
            nn.init.normal_(self.bias, std=0.02)
            for layer in (self.qkv, self.project):
                nn.init.normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, apart: Tensor, mask: Tensor | None) -> Tensor:
        """(batch, y, x, embedding) and, of shifted windows, (windows, pixels, pixels) to be added -> the same shape."""
        batch, height, width, embedding = x.shape
        side, pixels = self.window, self.window**2
        split = x.view(batch, height // side, side, width // side, side, embedding).transpose(2, 3)
        tokens = split.reshape(-1, pixels, embedding)  # (batch * windows, pixels, embedding)
        qkv = self.qkv(tokens).view(-1, pixels, 3, self.heads, embedding // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()  # each (batch * windows, heads, pixels, depth)
        scores = q @ k.transpose(-1, -2) * (embedding // self.heads) ** -0.5
        scores = scores + self.bias[apart].view(pixels, pixels, self.heads).permute(2, 0, 1)
        if mask is not None:
            scores = (scores.view(batch, -1, self.heads, pixels, pixels) + mask[:, None]).view_as(scores)
        mixed = (scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2).reshape(-1, pixels, embedding)
        joined = self.project(mixed).view(batch, height // side, width // side, side, side, embedding)
        return joined.transpose(2, 3).reshape(x.shape)


def displacements(window: int, device: torch.device) -> Tensor:
    """The number of the displacement of every query and every key of a window, (pixels * pixels,)."""
    at = torch.arange(window**2, device=device)
    y, x = at // window, at % window
    return ((y[:, None] - y + window - 1) * (2 * window - 1) + x[:, None] - x + window - 1).flatten()


def shift_mask(height: int, width: int, window: int, device: torch.device) -> Tensor:
    """(windows, pixels, pixels): ``FULL`` between pixels of a rolled image that were not neighbours before, else 0."""
    areas = [_areas(side, window, device) for side in (height, width)]
    area = areas[0][:, None] * 3 + areas[1]
    split = area.view(height // window, window, width // window, window).transpose(1, 2).reshape(-1, window**2)
    return (split[:, None] != split[:, :, None]).float() * FULL


def _areas(side: int, window: int, device: torch.device) -> Tensor:
    """0, 1 or 2 for each pixel of a side that half a window rolled past its end."""
    at = torch.arange(side, device=device)
    return (at >= side - window).long() + (at >= side - window // 2).long()


def mirrored_to(image: Tensor, multiple: int) -> Tensor:
    """(batch, channels, y, x) mirrored past its far ends (at its far pixels) until its sides are multiples."""
    for axis in (-2, -1):
        length = image.shape[axis]
        if more := -length % multiple:
            period = max(2 * (length - 1), 1)
            at = torch.arange(length + more, device=image.device) % period
            image = image.index_select(axis, torch.where(at < length, at, period - at))
    return image
