"""Bicubic interpolation as a model: the floor of every table and the pipeline's test double."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from emsr.layers.upscale import bicubic
from emsr.models.section import SingleSection
from emsr.models.stage import Stage

SCALES = (2, 4, 8, 16)
NEEDS: dict[str, tuple[str, ...]] = {"untrained": ()}
READS: dict[str, tuple[str, ...]] = {"untrained": ()}


@dataclass(frozen=True)
class Options:
    """Bicubic interpolation has none."""


PRESETS = {"published": Options(), "small": Options()}
_UNTRAINED = Stage("untrained", "none", steps=0, batch=1, patch=64, learning_rate=0.0)
RECIPES: dict[str, tuple[Stage, ...]] = {"published": (_UNTRAINED,), "small": (_UNTRAINED,)}


def stages(preset: str, scale: int) -> tuple[Stage, ...]:
    """One stage, which trains nothing."""
    return RECIPES[preset]


def build(scale: int, sections: int, options: Options) -> Bicubic:
    """The interpolation by ``scale``; of ``sections`` it reads the centre alone."""
    return Bicubic(scale, sections)


class Bicubic(SingleSection):
    """Keys' cubic, a = -0.5, pixel centres at halves, edge pixels repeated: ``degradation.upsample`` in torch."""

    halo = 2

    def enlarge(self, lr: Tensor) -> Tensor:
        """(batch, 1, y, x) -> (batch, 1, scale*y, scale*x), not clamped."""
        return bicubic(lr, self.scale)
