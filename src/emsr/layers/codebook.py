"""The codebook: a table of latent vectors, nearest entry, and how its entries are learned (spec A.3)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Learning = Literal["gradient", "average", "frozen"]


class Quantised(NamedTuple):
    """Latents replaced by entries: ``latents`` (batch, width, y, x), ``indices`` (batch, y, x), ``loss`` a scalar."""

    latents: Tensor
    indices: Tensor
    loss: Tensor


class Codebook(nn.Module):
    """``count`` entries of ``width`` numbers.

    ``learning``: "gradient" makes the entries a parameter, as published; "average" keeps them as exponential moving
    averages of the latents that chose them (``update``); "frozen" only looks up.
    """

    entries: Tensor
    counts: Tensor  # (count,) moving average of how many latents chose an entry in a step
    sums: Tensor  # (count, width) moving average of their sum
    idle: Tensor  # (count,) steps since an entry was last chosen

    def __init__(self, count: int, width: int, learning: Learning = "gradient") -> None:
        super().__init__()
        if learning not in ("gradient", "average", "frozen"):
            raise ValueError(f"codebook_learning {learning!r} is unknown: use gradient or average")
        self.learning = learning
        entries = torch.empty(count, width).uniform_(-1 / count, 1 / count)
        if learning == "gradient":
            self.entries = nn.Parameter(entries)
            return
        self.register_buffer("entries", entries)
        if learning == "average":
            self.register_buffer("counts", torch.ones(count))
            self.register_buffer("sums", entries.clone())
            self.register_buffer("idle", torch.zeros(count, dtype=torch.int64))

    def nearest(self, latents: Tensor) -> Tensor:
        """(batch, width, y, x) -> index map (batch, y, x) int64 of the entry of least squared distance, in float32."""
        batch, _, y, x = latents.shape
        return closest(_vectors(latents), self.entries.detach().float()).view(batch, y, x)

    def lookup(self, indices: Tensor) -> Tensor:
        """Index map (batch, y, x) -> latents (batch, width, y, x)."""
        return F.embedding(indices, self.entries).permute(0, 3, 1, 2)

    def forward(self, latents: Tensor, commitment: float = 1.0) -> Quantised:
        """Nearest entries with a straight-through gradient (spec A.3).

        The loss is mean((entry - sg(latent))^2), present when entries learn by gradient, plus ``commitment`` times
        mean((sg(entry) - latent)^2), with sg the stopped gradient.
        """
        latents = latents.float()
        indices = self.nearest(latents)
        chosen = self.lookup(indices).float()  # (batch, width, y, x)
        loss = commitment * F.mse_loss(latents, chosen.detach())
        if self.learning == "gradient":
            loss = loss + F.mse_loss(chosen, latents.detach())
        return Quantised(latents + (chosen - latents).detach(), indices, loss)

    @torch.no_grad()
    def initialise(self, vectors: Tensor, generator: torch.Generator, rounds: int = 12) -> None:
        """Entries from k-means over ``vectors`` (n, width), n at least the number of entries; counts start at one."""
        self.entries.copy_(kmeans(vectors.float(), len(self.entries), generator, rounds))
        if self.learning == "average":
            self.counts.fill_(1.0)
            self.sums.copy_(self.entries)
            self.idle.zero_()

    @torch.no_grad()
    def update(self, latents: Tensor, indices: Tensor, decay: float) -> None:
        """Move the averages: ``latents`` (batch, width, y, x) chose ``indices`` (batch, y, x) in this step."""
        vectors, chosen = _vectors(latents), indices.reshape(-1)
        counts = torch.bincount(chosen, minlength=len(self.entries)).float()
        sums = torch.zeros_like(self.sums).index_add_(0, chosen, vectors)
        self.counts.lerp_(counts, 1 - decay)
        self.sums.lerp_(sums, 1 - decay)
        self.entries.copy_(self.sums / self.counts.clamp_min(1e-5)[:, None])
        self.idle.add_(1)[counts > 0] = 0

    @torch.no_grad()
    def restart(self, latents: Tensor, after: int, generator: torch.Generator) -> int:
        """Give each entry that no latent chose for ``after`` steps a random latent of this step; returns how many."""
        dead = torch.nonzero(self.idle >= after).flatten()
        if len(dead):
            vectors = _vectors(latents)
            drawn = torch.randint(len(vectors), (len(dead),), generator=generator).to(vectors.device)
            self.entries[dead] = vectors[drawn]
            self.sums[dead] = vectors[drawn]
            self.counts[dead] = 1.0
            self.idle[dead] = 0
        return len(dead)


def _vectors(latents: Tensor) -> Tensor:
    """(batch, width, y, x) -> (batch*y*x, width) float32, raster order."""
    return latents.detach().float().permute(0, 2, 3, 1).reshape(-1, latents.shape[1])


def closest(vectors: Tensor, entries: Tensor) -> Tensor:
    """For each of ``vectors`` (n, width) the index of the nearest of ``entries`` (count, width)."""
    with torch.autocast(vectors.device.type, enabled=False):
        norms = entries.square().sum(1)  # (count,)
        parts = [torch.addmm(norms, part, entries.T, alpha=-2.0).argmin(1) for part in vectors.split(16384)]
    return torch.cat(parts)


def kmeans(vectors: Tensor, count: int, generator: torch.Generator, rounds: int = 12) -> Tensor:
    """``count`` centres (count, width) of ``vectors`` (n, width): Lloyd's rounds from random vectors.

    A centre that loses all its vectors takes a random vector. Raises ValueError for fewer vectors than centres.
    """
    if len(vectors) < count:
        raise ValueError(
            f"{len(vectors)} latents cannot initialise {count} entries: use larger patches or fewer entries"
        )
    centres = vectors[_drawn(len(vectors), count, generator, vectors.device)]
    for _ in range(rounds):
        nearest = closest(vectors, centres)
        sizes = torch.bincount(nearest, minlength=count)
        sums = torch.zeros_like(centres).index_add_(0, nearest, vectors)
        centres = sums / sizes.clamp_min(1)[:, None]
        empty = torch.nonzero(sizes == 0).flatten()
        centres[empty] = vectors[_drawn(len(vectors), len(empty), generator, vectors.device)]
    return centres


def _drawn(population: int, count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    return torch.randperm(population, generator=generator)[:count].to(device)


def usage(counts: Tensor) -> tuple[float, float]:
    """(fraction of entries used, perplexity = exp(entropy) of their frequencies) from how often each was chosen."""
    share = counts.double() / counts.sum().clamp_min(1)
    entropy = -torch.xlogy(share, share).sum()
    return float((counts > 0).double().mean()), float(entropy.exp())
