"""What networks have in common that enlarge by any real scale: a function of coordinates over features of lr."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from emsr.layers.implicit import Points, centres, every
from emsr.models import recipe
from emsr.models.section import SingleSection
from emsr.models.stage import Stage
from emsr.scales import Scale, pair

PUBLISHED = replace(
    recipe.PUBLISHED,
    objective="scales",
    steps=1_000_000,
    halvings=(200_000, 400_000, 600_000, 800_000),
    validate_every=10_000,
)
ENCODERS: dict[str, Any] = {  # options of layers.encoders as published
    **{"width": 64, "blocks": 16},
    **{"embedding": 180, "groups": 6, "layers": 6, "heads": 6, "window": 8, "mlp_ratio": 2, "drop_path": 0.1},
}
BLOCK = 2**14  # points that are decoded at once
Rows = tuple[Tensor, ...]


class RealScale(SingleSection):
    """A super-resolver of single sections whose ``scale`` is a number, or a pair (y, x) of them."""

    def __init__(self, scale: Scale, sections: int, channels: int = 1) -> None:
        super().__init__(scale, sections)
        self.channels = channels

    @abstractmethod
    def prepare(self, lr: Tensor, cell: Tensor, keys: Points | None) -> Rows:
        """What all points share: of lr (batch, channels, y, x) in [-1, 1], for voxels of sides ``cell`` (2,).

        ``cell`` is in half lr pixels; ``keys`` are the points to compare with, where a network does.
        """

    @abstractmethod
    def decode(self, known: Rows, points: Points, cell: Tensor) -> Tensor:
        """Grey levels in [-1, 1] of ``points`` from what was prepared: (batch * points, channels)."""

    def lattice(self, lr: Tensor, scale: tuple[float, float]) -> Points | None:
        """The points to compare with in a window, whichever of it are asked for; None where nothing is compared."""
        return None

    def enlarge(self, lr: Tensor) -> Tensor:
        """(batch, 1, y, x) in [0, 1] -> (batch, 1, round(scale*y), round(scale*x)), not clamped."""
        return self.centre([(lr,)])

    def centre(self, states: Sequence[tuple[Tensor, ...]], at: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """sr of the centre at rows and columns ``at``, (batch, 1, len(y), len(x)), not clamped.

        ``at`` (y, x) are float64 lr coordinates of voxel centres, relative to the window's corner; None is all of the
        window. Points are decoded in blocks of whole rows, which bounds memory and changes nothing.
        """
        lr = 2 * states[len(states) // 2][0] - 1
        scale, size = pair(self.scale), (lr.shape[-2], lr.shape[-1])
        y, x = (part.to(lr.device) for part in at or [centres(side, s) for side, s in zip(size, scale, strict=True)])
        cell = self.cell(scale, lr.device)
        known, found = self.prepare(lr, cell, self.lattice(lr, scale)), []
        for part in y.split(max(1, BLOCK // max(1, len(x)))):
            values = self.decode(known, every(part, x, lr.shape[0], size), cell)
            found.append(values.view(lr.shape[0], len(part), len(x), self.channels))
        return torch.cat(found, 1).permute(0, 3, 1, 2) / 2 + 0.5

    def sample(self, lr: Tensor, y: Tensor, x: Tensor, scale: tuple[float, float]) -> Tensor:
        """Grey levels at points ``y`` and ``x``, each (batch, points), as of sr of ``scale``: (batch, points, 1).

        lr is (batch, 1, y, x) in [0, 1]. What a network compares with are these points.
        """
        points, cell = Points(y, x, (lr.shape[-2], lr.shape[-1])), self.cell(scale, lr.device)
        known = self.prepare(2 * lr - 1, cell, points)
        return self.decode(known, points, cell).view(*y.shape, self.channels) / 2 + 0.5

    def cell(self, scale: tuple[float, float], device: torch.device) -> Tensor:
        """Sides (y, x) of a voxel in half lr pixels, (2,)."""
        return torch.tensor([2 / s for s in scale], device=device)


def check(model: str, scale: Scale, limits: tuple[float, float], options: Any) -> None:
    """Raise ValueError, in one line, for a scale or options that none of these networks can have."""
    low, high = limits
    if not all(math.isfinite(s) and low <= s <= high for s in pair(scale)):
        raise ValueError(
            f"scale {scale} is not one of {model}'s: use a number from {low:g} to {high:g}, or two of them, [y, x]"
        )
    if min(options.hidden, default=0) < 1:
        raise ValueError(f"hidden {list(options.hidden)} makes no decoder: use one or more layers of 1 or more")


def stages(recipes: Mapping[str, Stage]) -> Callable[[str, Scale], tuple[Stage, ...]]:
    """``stages`` of a model that one stage trains at random scales: ``recipes`` by preset.

    A recipe that names no scales, for weights that are wanted at a scale, is trained from 1 to 4, as published, or to
    that scale if it is more, then with as many steps in each octave.
    """

    def stages(preset: str, scale: Scale) -> tuple[Stage, ...]:
        """The training recipe of ``preset`` for ``scale``: one stage, at random scales."""
        stage = recipes[preset]
        if stage.scales:
            return (stage,)
        largest = max(4.0, *pair(scale))
        drawn: Literal["uniform", "logarithmic"] = "uniform" if largest == 4 else "logarithmic"
        return (replace(stage, scales=(1.0, largest), scales_drawn=drawn),)

    return stages
