"""A super-resolver with a head for each of several scales: the difference of its images from hr.

Each batch has one of the scales. At the training's own it is lr as it is; at others patches of hr are made coarse on
the fly, as the lr of their volume was.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from emsr.training.data import Batch, Request, generator
from emsr.training.losses import image_error
from emsr.training.objective import Losses, Turn
from emsr.training.objectives.context import Context, unit
from emsr.training.objectives.image import Image

MARGIN = 2  # lr pixels around a patch that its kernel looks at


def make(context: Context) -> Heads:
    """The objective of ``context``, whose network has ``heads`` and maps lr at one of them (``at``).

    Raises ValueError for volumes whose lr was acquired, which have no other scale than their own.
    """
    return Heads(context)


def acquired(volume: str, others: Iterable[int]) -> str:
    """What is wrong with a volume that has no lr at ``others``, the heads beside that of the training."""
    return (
        f"lr of volume {volume} was acquired, not made of hr, so there is none at "
        f"{', '.join(f'x{head}' for head in others)}: use option heads [], or volumes that state degradation"
    )


class Heads:
    """Trains what all scales share with every batch, and of the heads the one whose batch it is."""

    def __init__(self, context: Context) -> None:
        self.context, self.stage = context, context.stage
        network: Any = context.network
        self.network, self.heads = network, tuple(network.heads)
        self.own = Image(context)
        self.others = {
            head: context.patches(
                Request(self.stage.patch + 2 * MARGIN, head, self.stage.batch, lr=False, augment=self.stage.augment),
                "training",
            )
            for head in self.heads
            if head != context.scale
        }
        for series in context.training:
            if self.others and series.degradation is None:
                raise ValueError(acquired(series.name, self.others))

    def state(self) -> nn.Module:
        """The network."""
        return self.own.state()

    def turns(self) -> Sequence[Turn]:
        """One optimiser, the network's."""
        return (Turn(self.network, self.losses),)

    def head(self, step: int) -> int:
        """The scale of a step: any of the heads, each as often."""
        draw = generator(self.context.seed, f"{self.stage.name} heads", step)
        return int(draw.choice(self.heads))

    def batch(self, step: int) -> Batch:
        """Training patches of a step, uint8: lr (batch, sections, 1, y, x) and hr (batch, 1, head*y, head*x)."""
        head = self.head(step)
        if head not in self.others:
            return self.own.batch(step)
        share = self.context.share
        batch, numbers = self.others[head].batch(step, share), range(self.stage.batch)[share]
        assert batch.hr is not None
        found = zip(batch.places, batch.hr[:, 0], numbers, strict=True)
        lr = np.stack([self._coarse(place.series, hr, head, (step, number)) for place, hr, number in found])
        inner, margin = slice(MARGIN, -MARGIN), slice(MARGIN * head, -MARGIN * head)
        return replace(batch, lr=lr[:, None, None, inner, inner], hr=batch.hr[..., margin, margin])

    def _coarse(self, series: int, hr: np.ndarray[Any, Any], head: int, drawn: tuple[int, int]) -> np.ndarray[Any, Any]:
        """The lr of a patch of hr (y, x) at scale ``head``, its noise that of a step and a number of a patch."""
        made, (step, number) = self.context.training[series].degradation, drawn
        assert made is not None
        assert self.context.degrade is not None
        seed = int(generator(self.context.seed, f"{self.stage.name} noise {number}", step).integers(2**32))
        lr: np.ndarray[Any, Any] = self.context.degrade(hr, head, made, seed)  # type: ignore[arg-type]
        return lr

    def parts(self, batch: Batch, step: int, count: int) -> Sequence[Batch]:
        """The patches in equal parts, which need nothing of each other."""
        return self.own.parts(batch, step, count)

    def losses(self, batch: Batch, step: int) -> Losses:
        """Mean difference of sr and hr (batch, 1, head*y, head*x) in [0, 1], as the stage measures it; a scalar."""
        lr, hr = unit(batch.lr, self.context.device), unit(batch.hr, self.context.device)
        sr = self.network.at(lr[:, lr.shape[1] // 2], self.head(step))
        return {"loss": self.stage.image_weight * image_error(sr, hr, self.stage.image_error)}

    def after(self, step: int) -> None:
        """Nothing follows a step."""

    def validate(self, network: nn.Module) -> dict[str, float]:
        """PSNR (the score) and SSIM against hr, at the training's own scale."""
        return self.own.validate(network)

    def health(self, network: nn.Module) -> dict[str, float]:
        """The same on more patches, beside bicubic."""
        return self.own.health(network)
