"""A network of two directions: hr made coarser is to be lr, and lr made finer hr (Xiao et al. 2020, section 3.3).

Its losses are sums over an image divided by the image's hr voxels, so that their weights are those of the paper and
their size that of a mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from emsr.training.data import Batch, Place, Request, cut
from emsr.training.losses import image_error
from emsr.training.objective import Losses, Turn
from emsr.training.objectives import image
from emsr.training.objectives.context import HEALTH_PATCHES, VALIDATION_PATCHES, Context, compare, grey, means, unit


def make(context: Context) -> Dual:
    """The objective of ``context``, whose network is a ``models.dual.Dual``."""
    return Dual(context)


class Both(NamedTuple):
    """A patch's hr (batch, 1, scale*y, scale*x) and lr (batch, 1, y, x) in [0, 1], and what ``down`` makes of hr."""

    hr: Tensor
    lr: Tensor
    made: Tensor
    latents: Sequence[Tensor]


class Dual:
    """Trains all of the network in both directions, at once or, if the stage says so, one after the other.

    What ``up`` enlarges is the lr that is given, with latents drawn anew for each patch and step, because nobody knows
    them later; of protocol "rescaling" it is the network's own lr in 8 bits. Their standard deviation is drawn too: in
    many dimensions normal numbers all lie far from zero, and sr is made of zero. So every other patch, by chance, has
    latents zero, and the others a standard deviation between 0 and 1.
    """

    def __init__(self, context: Context) -> None:
        self.context, self.stage, self.network = context, context.stage, context.network
        self.request = Request(self.stage.patch, context.scale, self.stage.batch, augment=self.stage.augment)
        self.patches = context.patches(self.request, "training")
        self._validation: list[Batch] | None = None

    def state(self) -> nn.Module:
        """The network."""
        return nn.ModuleDict({"network": self.network})

    def turns(self) -> Sequence[Turn]:
        """One optimiser for both directions, or one for each."""
        if self.stage.alternate:
            return (Turn(self.network, self.coarser), Turn(self.network, self.finer))
        return (Turn(self.network, self.losses),)

    def batch(self, step: int) -> Batch:
        """Training patches of a step, uint8: lr (batch, sections, 1, y, x) and hr (batch, 1, scale*y, scale*x)."""
        return self.patches.batch(step, self.context.share)

    def parts(self, batch: Batch, step: int, count: int) -> Sequence[Batch]:
        """The patches in equal parts, which need nothing of each other."""
        return cut(batch, count)

    def losses(self, batch: Batch, step: int) -> Losses:
        """Both directions, of one pass through ``down``."""
        both = self._both(batch)
        coarser, finer = self._coarser(both), self._finer(both, batch, step)
        return {**coarser, **finer, "loss": coarser["loss"] + finer["loss"]}

    def coarser(self, batch: Batch, step: int) -> Losses:
        """``down`` alone."""
        return self._coarser(self._both(batch))

    def finer(self, batch: Batch, step: int) -> Losses:
        """``up`` alone, through ``down`` only where it enlarges what that made."""
        return self._finer(self._both(batch), batch, step)

    def _both(self, batch: Batch) -> Both:
        assert batch.lr is not None
        hr, lr = (unit(part, self.context.device) for part in (batch.hr, batch.lr[:, batch.lr.shape[1] // 2]))
        return Both(hr, lr, *self.network.down(hr))  # type: ignore[operator]

    def _coarser(self, both: Both) -> dict[str, Tensor]:
        """Squared difference of the two lr, and squares of the latents, which keeps them like normal numbers."""
        weight = self.stage.guide_weight or float(self.context.scale**2)
        voxels = both.hr.numel()
        guide = (both.made - both.lr).square().sum() / voxels
        latent = sum((part.square().sum() for part in both.latents), torch.zeros((), device=guide.device)) / voxels
        return {"loss": weight * guide + self.stage.latent_weight * latent, "guide": guide, "latent": latent}

    def _finer(self, both: Both, batch: Batch, step: int) -> dict[str, Tensor]:
        """Difference of sr and hr, and of hr that went down and up again, if the stage weighs it."""
        own = quantised(both.made)
        lr = own if self.stage.protocol == "rescaling" else both.lr
        sr = self.network.up(lr, self._drawn(both, batch, step))  # type: ignore[operator]
        named = {"image": image_error(sr, both.hr, self.stage.image_error)}
        loss = self.stage.image_weight * named["image"]
        if self.stage.cycle_weight:
            again = self.network.up(own, both.latents)  # type: ignore[operator]
            named["cycle"] = image_error(again, both.hr, self.stage.image_error)
            loss = loss + self.stage.cycle_weight * named["cycle"]
        return {"loss": loss, **named}

    def _drawn(self, both: Both, batch: Batch, step: int) -> list[Tensor]:
        """Normal latents that depend on seed, step and each patch's place alone, and so on no part or process; a patch
        has one standard deviation."""
        seeds = [seed(self.context.seed, step, place) for place in batch.places]
        spreads = [np.float32(max(0.0, np.random.default_rng(one).uniform(-1, 1))) for one in seeds]
        drawn = []
        for level, part in enumerate(both.latents):
            each = [np.random.default_rng([*one, level]).standard_normal(part.shape[1:], np.float32) for one in seeds]
            drawn.append(
                torch.from_numpy(np.stack([a * b for a, b in zip(spreads, each, strict=True)])).to(part.device)
            )
        return drawn

    def after(self, step: int) -> None:
        """Nothing follows a step."""

    def validate(self, network: nn.Module) -> dict[str, float]:
        """PSNR (the score) and SSIM of what the protocol enlarges against hr, latents zero."""
        if self._validation is None:
            self._validation = self.context.fixed(self.request, VALIDATION_PATCHES)
        if self.stage.protocol == "rescaling":
            return self._rescaled(network, self._validation)
        return image.score(self.context, network, self._validation)

    def health(self, network: nn.Module) -> dict[str, float]:
        """The same on more patches, beside bicubic; of protocol "rescaling", which bicubic has no part in, by names of
        their own."""
        if self.stage.protocol == "rescaling":
            found = self._rescaled(network, self.context.fixed(self.request, HEALTH_PATCHES))
            return {f"rescaled_{name}": value for name, value in found.items() if name != "score"}
        return image.health(self.context, network, self.request)

    def _rescaled(self, network: Any, batches: Sequence[Batch]) -> dict[str, float]:
        rows = []
        for batch in batches:
            assert batch.hr is not None
            again = network.up(quantised(network.down(unit(batch.hr, self.context.device))[0]))
            rows.append(compare(self.context.measures, batch.hr[:, 0], grey(again)))
        found = means(rows)
        return {**found, "score": found["psnr"]}


def seed(number: int, step: int, place: Place) -> list[int]:
    """What the latents of a patch are drawn from."""
    return [number, step, place.series, place.row, place.y, place.x, place.orientation]


def quantised(lr: Tensor) -> Tensor:
    """lr as the 8 bits that it is kept in; its gradient passes as if nothing had happened."""
    return lr + ((lr.clamp(0, 1) * 255).round() / 255 - lr).detach()
