"""What IRN and SNADN have in common: one network that makes hr coarser and, run backwards, lr finer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emsr.layers.blocks import conv
from emsr.layers.invertible import LEAK, Module, Transform
from emsr.layers.pyramids import Haar, Laplacian
from emsr.layers.sparse_attention import SparseAttention
from emsr.layers.upscale import steps
from emsr.models.section import SingleSection

PYRAMIDS: dict[str, type[Haar] | type[Laplacian]] = {"haar": Haar, "laplacian": Laplacian}
POSITIONS = ("lr", "hr")
UNIT = 2.0**-5  # what a latent of 1 is inside: differences of neighbouring voxels are about as large; exact in floats
Latents = Sequence[Tensor]


class Dual(SingleSection):
    """A super-resolver of single sections with a second direction, ``down``, in which the same parameters run.

    What lr cannot hold, ``down`` gives beside it: the latents, in units of UNIT, so that normal numbers of variance 1,
    which training draws for them, are from the first step on of the size of what they stand for. ``up`` takes them
    again; where they are not known they are zero, the mean, so that sr is one image and not a sample.
    """

    def enlarge(self, lr: Tensor) -> Tensor:
        """(batch, channels, y, x) in [0, 1] -> (batch, channels, scale*y, scale*x) of latents zero, not clamped."""
        return self.up(lr)

    def down(self, hr: Tensor) -> tuple[Tensor, Latents]:
        """(batch, channels, y, x) -> lr (batch, channels, y/scale, x/scale), rounded up, and the latents.

        Where ``scale`` does not divide a side, what lies beyond the edge is its reflection.
        """
        short = [-side % self.scale for side in hr.shape[:-3:-1]]  # x, y
        reflects = all(more < side for more, side in zip(short, hr.shape[:-3:-1], strict=True))
        if any(short):
            hr = F.pad(hr, (0, short[0], 0, short[1]), mode="reflect" if reflects else "replicate")
        lr, latents = self._down(hr)
        return lr, [part / UNIT for part in latents]

    def up(self, lr: Tensor, latents: Latents | None = None, size: Sequence[int] | None = None) -> Tensor:
        """What ``down`` made lr and latents of: (batch, channels, scale*y, scale*x), or its first ``size`` (y, x).

        Raises ValueError for latents that are not those of such an lr.
        """
        shapes = [(len(lr), *shape) for shape in self.latent_shapes(*lr.shape[-2:])]
        latents = [lr.new_zeros(shape) for shape in shapes] if latents is None else latents
        if (found := [tuple(part.shape) for part in latents]) != shapes:
            raise ValueError(f"latents {found} are not {shapes}, those of lr {tuple(lr.shape)}: give what down gave")
        hr = self._up(lr, [part * UNIT for part in latents])
        return hr if size is None else hr[..., : size[0], : size[1]]

    @abstractmethod
    def latent_shapes(self, y: int, x: int) -> list[tuple[int, int, int]]:
        """(channels, y, x) of each of the latents of lr (y, x)."""

    @abstractmethod
    def _down(self, hr: Tensor) -> tuple[Tensor, Latents]:
        """lr and the latents as they are inside."""

    @abstractmethod
    def _up(self, lr: Tensor, latents: Latents) -> Tensor:
        """hr of lr and the latents as they are inside."""


@dataclass(frozen=True)
class Lift:
    """Attention that adds to the high channels what the low ones say: its width, rounds of hashing and chunk, and where
    it stands, at the "lr" end of a level or at its "hr" end."""

    width: int
    hashes: int
    chunk: int
    position: str


class Lifting(nn.Module):
    """T: what is added to ``high`` channels of what ``low`` channels show; begins as zero."""

    def __init__(self, low: int, high: int, lift: Lift) -> None:
        super().__init__()
        self.first = conv(low, lift.width)
        self.attention = SparseAttention(lift.width, lift.hashes, lift.chunk)
        self.last = conv(lift.width, high)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(torch.as_tensor(self.last.bias))

    def forward(self, low: Tensor) -> Tensor:
        """(batch, low, y, x) -> (batch, high, y, x), float32 (float64 of float64)."""
        with torch.autocast(low.device.type, enabled=False):
            added: Tensor = self.last(self.attention(F.leaky_relu(self.first(low), LEAK)))
            return added


class Level(nn.Module):
    """A factor of 2: pyramid, couplings of the image with all other channels, and attention if there is any."""

    def __init__(
        self, channels: int, image: int, blocks: int, pyramid: str, module: Module, most: int, lift: Lift | None
    ) -> None:
        """Of ``channels`` the first ``image`` are the image; ``most`` others are coupled, all of them if it is 0."""
        super().__init__()
        self.pyramid: Haar | Laplacian = PYRAMIDS[pyramid](channels)
        self.channels, self.image = self.pyramid.channels, image
        high = self.channels - image
        high = min(high, most) if most else high
        self.coupled = image + high
        self.transform = Transform(image, high, blocks, module)
        self.lifting = Lifting(image, high, lift) if lift else None
        self.position = lift.position if lift else None

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, 2*y, 2*x) -> (batch, more channels, y, x)."""
        x = self._lifted(self.pyramid(x), "hr", 1)
        return self._lifted(self.transform(x), "lr", 1)

    def inverse(self, x: Tensor) -> Tensor:
        """What ``forward`` made ``x`` of."""
        x = self.transform.inverse(self._lifted(x, "lr", -1))
        made: Tensor = self.pyramid.inverse(self._lifted(x, "hr", -1))
        return made

    def _lifted(self, x: Tensor, position: str, sign: int) -> Tensor:
        """High channels with what the low ones add, or without it again."""
        if self.lifting is None or self.position != position:
            return x
        low, high, rest = x[:, : self.image], x[:, self.image : self.coupled], x[:, self.coupled :]
        return torch.cat([low, torch.add(high, self.lifting(low), alpha=sign), rest], 1)


class Invertible(Dual):
    """IRN's skeleton: a level for each factor of 2, the deeper ones on all channels of those before."""

    def __init__(
        self,
        scale: int,
        sections: int,
        blocks: int,
        pyramid: str,
        module: Module,
        most: int = 0,
        lift: Lift | None = None,
        channels: int = 1,
    ) -> None:
        super().__init__(scale, sections)
        self.image = channels
        levels: list[Level] = []
        for _ in steps(scale):
            inside = levels[-1].channels if levels else channels
            levels.append(Level(inside, self.image, blocks, pyramid, module, most, lift))
        self.levels = nn.ModuleList(levels)
        self.latent_channels = levels[-1].channels - self.image
        self.halo = None if lift else _halo(levels)

    def latent_shapes(self, y: int, x: int) -> list[tuple[int, int, int]]:
        """One of all channels but the image."""
        return [(self.latent_channels, y, x)]

    def _down(self, hr: Tensor) -> tuple[Tensor, Latents]:
        x = hr if hr.dtype == torch.float64 else hr.float()
        with torch.autocast(x.device.type, enabled=False):
            for level in self.levels:
                x = level(x)
        return x[:, : self.image], [x[:, self.image :]]

    def _up(self, lr: Tensor, latents: Latents) -> Tensor:
        x = torch.cat([lr, *latents], 1)
        x = x if x.dtype == torch.float64 else x.float()
        with torch.autocast(x.device.type, enabled=False):
            for level in reversed(self.levels):
                x = level.inverse(x)  # type: ignore[operator]
        return x


def _halo(levels: Sequence[Level]) -> int:
    """How far ``up`` sees, in lr pixels: every block twice its modules' radius at the resolution of its level."""
    halo = 0
    for level in levels:  # from hr on
        blocks: Any = level.transform.blocks
        halo = -(-halo // 2) + level.pyramid.reach
        halo += sum(block.phi.radius + max(block.rho.radius, block.eta.radius) for block in blocks)
    return halo
