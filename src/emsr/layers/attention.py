"""Attention over positions (non-local block, spec A.1), neighbours (TSA, Wang et al. 2019; 3DA, spec C.7) and channels
(Zhang et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emsr.layers.blocks import Norm, conv, leaky, resize


class NonLocal(nn.Module):
    """x + proj(softmax(q k / sqrt(c)) v): one head over all positions (spec A.1, NL); memory linear in positions."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.q = conv(channels, channels, kernel=1)
        self.k = conv(channels, channels, kernel=1)
        self.v = conv(channels, channels, kernel=1)
        self.project = conv(channels, channels, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, y, x) -> the same shape."""
        normal = self.norm(x)
        q, k, v = (_tokens(layer(normal)) for layer in (self.q, self.k, self.v))  # (batch, 1, y*x, channels)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return x + self.project(mixed.squeeze(1).transpose(1, 2).reshape(x.shape))


def _tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2).unsqueeze(1).contiguous()


class ChannelAttention(nn.Module):
    """Each channel times a number in (0, 1) that two layers make of the means of all channels (RCAN, eq. 10)."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.reduce = conv(width, width // reduction, kernel=1)
        self.restore = conv(width // reduction, width, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width, y, x) -> the same shape."""
        return x * self.gate(x.mean((2, 3), keepdim=True))

    def gate(self, pooled: Tensor) -> Tensor:
        """One number a channel, (batch, width, 1, 1), however it was pooled -> its factor in (0, 1)."""
        return torch.sigmoid(self.restore(F.relu(self.reduce(pooled))))


class PeakAttention(ChannelAttention):
    """Each channel times a number in (0, 2): the same layers see the means and the maxima, and both factors are added.

    WASA's form, the sum of two sigmoids; that of CBAM is the sigmoid of a sum.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width, y, x) -> the same shape."""
        return x * (self.gate(x.mean((2, 3), keepdim=True)) + self.gate(x.amax((2, 3), keepdim=True)))


class SelfAttention(nn.Module):
    """x + gain * softmax(q k) v over all positions, gain 0 at the start (Zhang et al. 2019, SAGAN, 1805.08318).

    ``scaled`` divides q k by the root of their channels, an eighth of ``width``. Fused kernels, which hold no map of
    all pairs, want q and k as wide as v: zeros fill them up and change nothing.
    """

    def __init__(self, width: int, scaled: bool) -> None:
        super().__init__()
        narrow = max(1, width // 8)
        self.q = conv(width, narrow, kernel=1)
        self.k = conv(width, narrow, kernel=1)
        self.v = conv(width, width, kernel=1)
        self.gain = nn.Parameter(torch.zeros(1))
        self.factor, self.wider = narrow**-0.5 if scaled else 1.0, width - narrow

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width, y, x) -> the same shape."""
        q, k, v = (_tokens(layer(x)) for layer in (self.q, self.k, self.v))  # (batch, 1, y*x, channels)
        q, k = (F.pad(part, (0, self.wider)) for part in (q, k))
        mixed = F.scaled_dot_product_attention(q, k, v, scale=self.factor)
        return x + self.gain * mixed.squeeze(1).transpose(1, 2).reshape(x.shape)


class SectionAttention(nn.Module):
    """Fuses ``sections`` aligned feature maps into one: 3DA (spec C.7), or TSA, which does not mix sections."""

    def __init__(self, width: int, sections: int, mixes: bool = True) -> None:
        super().__init__()
        self.mixes = mixes
        joined = width * sections
        self.embed_centre = conv(width, width)
        self.embed = conv(width, width)
        self.fuse = conv(joined, width, kernel=1)
        if mixes:
            self.mix = nn.ModuleList(conv(sections, sections, kernel=1) for _ in range(2))  # sections are its channels
            self.mix_fuse = nn.ModuleList(conv(joined, width, kernel=1) for _ in range(2))
            self.refine = conv(width, width, kernel=1)
        self.spatial = SpatialAttention(width, joined)

    def forward(self, aligned: Sequence[Tensor]) -> Tensor:
        """One (batch, width, y, x) a section, in order, y and x multiples of 4 -> (batch, width, y, x)."""
        sections, shape = len(aligned), aligned[0].shape
        weighted = zip(aligned, self.likeness(aligned), strict=True)
        joined = torch.cat([own * like.to(own.dtype) for own, like in weighted], 1)
        if not self.mixes:
            features = leaky(self.fuse(joined))
            attention, bias = self.spatial(joined)
            return features * attention * 2 + bias
        flat = joined.reshape(shape[0], sections, -1, shape[-1])  # (batch, sections, width*y, x)
        pairs = zip(self.mix, self.mix_fuse, strict=True)
        g1, g2 = (leaky(fuse(leaky(mix(flat)).reshape(joined.shape))) for mix, fuse in pairs)
        features = leaky(self.fuse(joined)) + g1
        attention, bias = self.spatial(joined)
        return features * attention * 2 + bias + g2 + self.refine(features)

    def likeness(self, aligned: Sequence[Tensor]) -> list[Tensor]:
        """How like the centre each section is, in (0, 1): one (batch, 1, y, x) a section, float32."""
        centre = self.embed_centre(aligned[len(aligned) // 2]).float()  # (batch, width, y, x)
        each = self.embed(torch.cat(list(aligned))).float().chunk(len(aligned))
        return [torch.sigmoid((own * centre).sum(1, keepdim=True)) for own in each]


class SpatialAttention(nn.Module):
    """The pyramid of 3DA that says where to attend (spec C.7, step 4)."""

    def __init__(self, width: int, joined: int) -> None:
        super().__init__()
        self.reduce = conv(joined, width, kernel=1)
        self.half1 = conv(2 * width, width, kernel=1)
        self.deep1 = conv(width, width, kernel=1)
        self.deep2 = conv(2 * width, width)
        self.deep3 = conv(width, width)
        self.half2 = conv(width, width)
        self.half3 = conv(width, width, kernel=1)
        self.whole = conv(width, width)
        self.bias1 = conv(width, width, kernel=1)
        self.bias2 = conv(width, width, kernel=1)

    def forward(self, joined: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, joined, y, x) -> attention in (0, 1) and additive bias, each (batch, width, y, x)."""
        half = leaky(self.half1(_pooled(leaky(self.reduce(joined)))))  # y/2
        deep = leaky(self.deep2(_pooled(leaky(self.deep1(half)))))  # y/4
        deep = resize(leaky(self.deep3(deep)), 2)  # y/2
        half = leaky(self.half2(half)) + deep
        whole = self.whole(resize(leaky(self.half3(half)), 2))
        return torch.sigmoid(whole), self.bias2(leaky(self.bias1(whole)))


def _pooled(x: Tensor) -> Tensor:
    """Maximum and mean over 3x3 with stride 2, side by side."""
    return torch.cat([F.max_pool2d(x, 3, 2, 1), F.avg_pool2d(x, 3, 2, 1)], 1)
