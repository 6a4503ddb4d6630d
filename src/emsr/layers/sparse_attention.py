"""Non-local sparse attention: every position attends to those whose features hash alike (Mei et al. 2021, NLSN).

What the hashes group depends on all of the window, so that no halo makes parts equal the whole.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emsr.layers.blocks import conv

MOST_BUCKETS = 128
SHORTEST = 5e-5  # length below which a key is not made longer


class SparseAttention(nn.Module):
    """x + scale * attention(x), each position over the positions of its chunk and of the two beside it.

    In each of ``rounds`` the positions are sorted by the bucket that a random rotation of their features falls into
    (spherical LSH) and cut into chunks of ``chunk``; where there are no more than three chunks that is attention over
    all positions. The rotations are drawn once, from ``seed``, and kept with the weights. Always computed in float32.
    """

    rotations: Tensor

    def __init__(
        self, width: int, rounds: int = 4, chunk: int = 144, scale: float = 1.0, reduction: int = 4, seed: int = 0
    ) -> None:
        """Raises ValueError for a width that ``reduction`` does not divide, and rounds or chunks of none."""
        super().__init__()
        if min(rounds, chunk) < 1 or width < reduction or width % reduction:
            raise ValueError(
                f"sparse attention of width {width}, hashes {rounds} and chunk {chunk} cannot be: use a width that is "
                f"a multiple of {reduction}, and 1 or more of each"
            )
        self.rounds, self.chunk, self.scale = rounds, chunk, scale
        self.match = conv(width, width // reduction)
        self.value = conv(width, width, kernel=1)
        rotations = torch.empty(rounds, width // reduction, MOST_BUCKETS // 2)
        if not rotations.is_meta:
            drawn = np.random.Generator(np.random.PCG64(seed)).standard_normal(rotations.shape, np.float32)
            rotations.copy_(torch.from_numpy(drawn))
        self.register_buffer("rotations", rotations)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width, y, x) -> the same shape, float32 (float64 of float64)."""
        with torch.autocast(x.device.type, enabled=False):
            x = x if x.dtype == torch.float64 else x.float()
            query, value = _tokens(self.match(x)), _tokens(self.value(x))  # (b, n, c/4), (b, n, c)
            made = self.attend(query, value).transpose(1, 2).reshape(x.shape)
            return torch.add(x, made, alpha=self.scale)

    def attend(self, query: Tensor, value: Tensor) -> Tensor:
        """Queries (batch, positions, c) and values (batch, positions, width) -> (batch, positions, width).

        Rounds weigh by the sum of exponentials that each found.
        """
        key = F.normalize(query, dim=-1, eps=SHORTEST)
        rounds = [self._round(codes, query, key, value) for codes in self.codes(query)]
        share = torch.stack([total for _, total in rounds]).softmax(0)  # (rounds, b, n)
        return sum((part * weight[..., None] for (part, _), weight in zip(rounds, share, strict=True)), torch.zeros(()))

    @torch.no_grad()
    def codes(self, query: Tensor) -> list[Tensor]:
        """The bucket of each position in each round, (batch, positions) each: the largest of the rotated features and
        their negatives."""
        pairs = buckets(query.shape[1], self.chunk) // 2
        turned = [query @ rotation[:, :pairs].to(query.dtype) for rotation in self.rotations]
        return [torch.cat([each, -each], -1).argmax(-1) for each in turned]

    def _round(self, codes: Tensor, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """One round's values (batch, positions, width) and logarithms of sums of exponentials (batch, positions)."""
        positions = query.shape[1]
        chunk = min(self.chunk, positions)
        chunks = -(-positions // chunk)
        order = codes.sort(dim=1, stable=True).indices  # (b, n)
        padded = F.pad(order, (0, chunks * chunk - positions))
        query, key, value = (_taken(part, padded).unflatten(1, (chunks, chunk)) for part in (query, key, value))
        beyond = torch.arange(chunks * chunk, device=query.device).view(chunks, chunk) >= positions
        beside = {1: (0,), 2: (0, 1)}.get(chunks, (0, 1, -1))  # of two chunks the next is the previous
        scores = torch.cat(
            [
                (query @ key.roll(by, 1).transpose(2, 3)).masked_fill(beyond.roll(by, 0)[:, None], float("-inf"))
                for by in beside
            ],
            -1,
        )  # (b, chunks, chunk, beside*chunk)
        total = scores.logsumexp(-1, keepdim=True)
        weights = (scores - total).exp().split(chunk, -1)
        parts = [part @ value.roll(by, 1) for part, by in zip(weights, beside, strict=True)]
        back = order.argsort(1)
        made = _taken(torch.stack(parts).sum(0).flatten(1, 2), back)
        return made, total.flatten(1).gather(1, back)


def buckets(positions: int, chunk: int) -> int:
    """How many buckets so many positions fall into: as many as chunks, even, 2 to 128."""
    whole = positions // chunk
    return max(2, min(whole + whole % 2, MOST_BUCKETS))


def _tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def _taken(x: Tensor, positions: Tensor) -> Tensor:
    """``x`` (batch, n, channels) at ``positions`` (batch, m): (batch, m, channels)."""
    return x.gather(1, positions[..., None].expand(-1, -1, x.shape[-1]))
