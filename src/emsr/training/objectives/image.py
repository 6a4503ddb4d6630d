"""Any super-resolver: the difference between its image and hr."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from emsr.models.stage import Stage
from emsr.training import schedule
from emsr.training.data import Batch, Request, cut
from emsr.training.losses import image_error
from emsr.training.objective import Losses, Turn
from emsr.training.objectives.context import HEALTH_PATCHES, VALIDATION_PATCHES, Context, compare, grey, means, unit


def make(context: Context) -> Image:
    """The objective of ``context``, whose network maps lr (batch, sections, 1, y, x) to sr (batch, 1, s*y, s*x)."""
    return Image(context)


class Image:
    """Trains all of the network that is not frozen."""

    def __init__(self, context: Context) -> None:
        self.context, self.stage, self.network = context, context.stage, context.network
        check(self.network, self.stage)
        shape = self.stage.patch, context.scale, self.stage.batch
        self.request = Request(*shape, augment=self.stage.augment, clip=self.stage.depth > 0)
        self.patches = context.patches(self.request, "training")
        self._validation: list[Batch] | None = None

    def state(self) -> nn.Module:
        """The network."""
        return nn.ModuleDict({"network": self.network})

    def turns(self) -> Sequence[Turn]:
        """One optimiser, the network's."""
        return (Turn(self.network, self.losses),)

    def batch(self, step: int) -> Batch:
        """Training patches of a step, uint8: lr (batch, sections, 1, y, x) and hr (batch, 1, scale*y, scale*x)."""
        return self.patches.batch(step, self.context.share)

    def parts(self, batch: Batch, step: int, count: int) -> Sequence[Batch]:
        """The patches in equal parts, which need nothing of each other."""
        return cut(batch, count)

    def losses(self, batch: Batch, step: int) -> Losses:
        """Mean difference of sr and hr (batch, 1, scale*y, scale*x) in [0, 1], as the stage measures it; a scalar.

        A network with a method ``images`` makes several on the way (each of them as sr, which is the last); their mean
        difference has the share of the loss that the stage says. With ``perceptual_weight`` features are compared too.
        Of clips all sections count.
        """
        lr, hr = unit(batch.lr, self.context.device), unit(batch.hr, self.context.device)
        stage, share = self.stage, schedule.early(self.stage, step)
        network: Any = self.network
        *way, sr = network.images(lr) if share else [self.whole(lr)]
        loss = image_error(sr, hr, stage.image_error)
        named = {"image": loss}
        if share:
            named["early"] = torch.stack([image_error(image, hr, stage.image_error) for image in way]).mean()
            loss = share * named["early"] + (1 - share) * loss
        total = stage.image_weight * loss
        if stage.perceptual_weight:
            named["perceptual"] = self.perceptual(sr, hr)
            total = total + stage.perceptual_weight * named["perceptual"]
        return {"loss": total, **(named if len(named) > 1 else {})}

    def whole(self, lr: Tensor) -> Tensor:
        """sr of a batch: of the centre, or of all sections of clips."""
        network: Any = self.network
        sr: Tensor = network.clip(lr.transpose(1, 2)).transpose(1, 2) if self.stage.depth else network(lr)
        return sr

    def perceptual(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Mean difference of the features of sr and hr (batch, 1, y, x), as the stage measures it; a scalar."""
        assert self.context.perceptual is not None
        with torch.no_grad():
            wanted = self.context.perceptual(hr)
        return image_error(self.context.perceptual(sr), wanted, self.stage.perceptual_error)

    def after(self, step: int) -> None:
        """Nothing follows a step."""

    def validate(self, network: nn.Module) -> dict[str, float]:
        """PSNR (the score) and SSIM against hr."""
        if self._validation is None:
            self._validation = self.context.fixed(_of_centres(self.request), VALIDATION_PATCHES)
        return score(self.context, network, self._validation)

    def health(self, network: nn.Module) -> dict[str, float]:
        """The same on more patches, beside bicubic."""
        return health(self.context, network, _of_centres(self.request))


def _of_centres(request: Request) -> Request:
    """What is compared with hr: of clips the centre."""
    return replace(request, clip=False)


def check(network: Any, stage: Stage) -> None:
    """Raise ValueError for a loss of images that the network does not make, and for clips that it does not see.

    Clips have a centre, which validation looks at, and at inference they leave a step.
    """
    if stage.early_weight and not hasattr(network, "images"):
        raise ValueError(f"early_weight {stage.early_weight} of a network that makes no image but sr: use 0")
    if bool(stage.depth) != hasattr(network, "clip"):
        wanted = "an odd number" if hasattr(network, "clip") else "0, for the network sees no clips"
        raise ValueError(f"depth {stage.depth} is no number of sections for {type(network).__name__}: use {wanted}")
    if stage.depth and stage.depth % 2 == 0:
        raise ValueError(f"depth {stage.depth} leaves clips without a centre: use an odd number")
    if stage.depth_overlap >= max(stage.depth, 1):
        least = f"use 0 to {max(stage.depth - 1, 0)}"
        raise ValueError(f"depth_overlap {stage.depth_overlap} leaves no step for clips of {stage.depth}: {least}")


def score(context: Context, network: Any, batches: Iterable[Batch]) -> dict[str, float]:
    """Mean measures of sr against hr over patches."""
    rows = [compare(context.measures, _hr(batch), grey(network(unit(batch.lr, context.device)))) for batch in batches]
    found = means(rows)
    return {**found, "score": found["psnr"]}


def health(context: Context, network: Any, request: Request) -> dict[str, float]:
    """Mean measures of sr and of bicubic (names with the prefix ``bicubic_``) over many patches."""
    return beside_bicubic(context, network, context.fixed(request, HEALTH_PATCHES))


def beside_bicubic(context: Context, network: Any, batches: Sequence[Batch]) -> dict[str, float]:
    """The same of these batches."""
    found = score(context, network, context.watched(batches))
    assert context.enlarge is not None
    floor = means(
        compare(context.measures, _hr(batch), context.enlarge(_centre(batch), context.scale)) for batch in batches
    )
    return {**found, **{f"bicubic_{name}": value for name, value in floor.items()}}


def _hr(batch: Batch) -> np.ndarray[Any, Any]:
    assert batch.hr is not None
    return batch.hr[:, 0]


def _centre(batch: Batch) -> np.ndarray[Any, Any]:
    assert batch.lr is not None
    return batch.lr[:, batch.lr.shape[1] // 2, 0]
