"""Bicubic interpolation as a model: the floor of every table and the pipeline's test double."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

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


def build(scale: int, sections: int, options: Options) -> nn.Module:
    """The interpolation by ``scale``; of ``sections`` it reads the centre alone."""
    return Bicubic(scale, sections)


class Bicubic(nn.Module):
    """Keys' cubic, a = -0.5, pixel centres at halves, edge pixels repeated: ``degradation.upsample`` in torch."""

    def __init__(self, scale: int, sections: int) -> None:
        super().__init__()
        self.scale, self.sections = scale, sections

    def forward(self, lr: Tensor) -> Tensor:
        """(batch, sections, 1, y, x) -> (batch, 1, scale*y, scale*x) of the centre; not clamped."""
        return self.centre([self.section(lr[:, i]) for i in range(lr.shape[1])])

    def section(self, lr: Tensor) -> tuple[Tensor]:
        """What depends on one section (batch, 1, y, x) alone: the section itself."""
        return (lr,)

    def centre(self, states: Sequence[tuple[Tensor, ...]]) -> Tensor:
        """(batch, 1, scale*y, scale*x) from the states of the sections in order."""
        lr = F.pad(states[len(states) // 2][0], (2, 2, 2, 2), mode="replicate")
        # antialias chooses a = -0.5; it changes nothing else when enlarging
        sr = F.interpolate(lr, scale_factor=self.scale, mode="bicubic", align_corners=False, antialias=True)
        border = 2 * self.scale
        return sr[..., border:-border, border:-border]
