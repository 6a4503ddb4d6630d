"""Bicubic interpolation as a model: the floor of every table and the pipeline's test double, at real scales too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from emsr.layers.upscale import bicubic, bicubic_at, positions
from emsr.models.section import SingleSection
from emsr.models.stage import Stage
from emsr.scales import Scale

SCALES = (2, 4, 8, 16)
SCALE_RANGE = (1.0, 16.0)
NEEDS: dict[str, tuple[str, ...]] = {"untrained": ()}
READS: dict[str, tuple[str, ...]] = {"untrained": ()}


@dataclass(frozen=True)
class Options:
    """Bicubic interpolation has none."""


PRESETS = {"published": Options(), "small": Options()}
_UNTRAINED = Stage("untrained", "none", steps=0, batch=1, patch=64, learning_rate=0.0)
RECIPES: dict[str, tuple[Stage, ...]] = {"published": (_UNTRAINED,), "small": (_UNTRAINED,)}


def stages(preset: str, scale: Scale) -> tuple[Stage, ...]:
    """One stage, which trains nothing."""
    return RECIPES[preset]


def build(scale: Scale, sections: int, options: Options) -> Bicubic:
    """The interpolation by ``scale``; of ``sections`` it reads the centre alone."""
    return Bicubic(scale, sections)


class Bicubic(SingleSection):
    """Keys' cubic, a = -0.5, pixel centres at halves, edge pixels repeated: ``degradation.upsample`` in torch."""

    halo = 2

    def centre(self, states: Sequence[tuple[Tensor, ...]], at: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """(batch, 1, len(y), len(x)) at positions (y, x) in lr pixels from the window's corner, or of all of it."""
        lr = states[len(states) // 2][0]
        return self.enlarge(lr) if at is None else bicubic_at(lr, at)

    def enlarge(self, lr: Tensor) -> Tensor:
        """(batch, 1, y, x) -> (batch, 1, scale*y, scale*x), sides rounded, not clamped."""
        if isinstance(self.scale, int):
            return bicubic(lr, self.scale)
        return bicubic_at(lr, positions((lr.shape[-2], lr.shape[-1]), self.scale))
