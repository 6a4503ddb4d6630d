"""Stage three: sr from lr, its neighbours and the frozen prior (spec C.9, C.10)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from emsr.models.reference import References
from emsr.training import losses
from emsr.training.data import Batch, cut
from emsr.training.objective import Losses, Turn
from emsr.training.objectives import image
from emsr.training.objectives.context import VALIDATION_PATCHES, Context, compare, grey, means, recurring, unit

KEPT_BYTES = 2 * 2**30
Key = tuple[int, int, int, int, int]


class Part(NamedTuple):
    """Patches that are a part of a batch, with their references, these' features and the centre of all features."""

    batch: Batch
    references: References | None
    wanted: Tensor | None = None
    centre: Tensor | None = None


def make(context: Context) -> Fusion:
    """The objective of ``context``, whose network is a ``models.gpemsr.Gpemsr`` with the frozen parts adopted."""
    return Fusion(context)


class Fusion:
    """Trains what is not frozen; what the frozen prior says of a patch that recurs is kept."""

    def __init__(self, context: Context) -> None:
        self.context, self.stage = context, context.stage
        self.network: Any = context.network
        # counted as for three sections whatever their number, so that twins draw the same patches
        self.request = recurring(context, self.stage.steps * self.stage.batch * 3)
        self.patches = context.patches(self.request, "training")
        self.kept: dict[Key, References] = {}
        self.kept_bytes = 0
        self._validation: list[tuple[Batch, References | None]] | None = None

    def state(self) -> nn.Module:
        """The network."""
        return nn.ModuleDict({"network": self.network})

    def turns(self) -> Sequence[Turn]:
        """One optimiser, the network's."""
        return (Turn(self.network, self.losses),)

    def batch(self, step: int) -> Batch:
        """Training patches of a step, uint8: lr (batch, sections, 1, y, x) and hr (batch, 1, scale*y, scale*x)."""
        return self.patches.batch(step, self.context.share)

    def parts(self, batch: Batch, step: int, count: int) -> Sequence[Part]:
        """The patches in equal parts with their references and what the contextual loss compares sr with, whose centre
        is that of the whole batch."""
        found = [Part(part, self.references(part)) for part in cut(batch, count)]
        if not self.stage.contextual_weight or self.network.reference is None:
            return found
        wanted = [self.wanted(part.references) for part in found if part.references is not None]
        centre = torch.stack([features.mean(dim=(0, 2, 3), keepdim=True) for features in wanted]).mean(0)
        self.context.group.add([centre])
        centre = centre / self.context.group.size
        return [part._replace(wanted=features, centre=centre) for part, features in zip(found, wanted, strict=True)]

    def losses(self, part: Part, step: int) -> Losses:
        """Scalars: mean absolute difference of sr and hr in [0, 1], contextual loss if asked for, weighted sum."""
        sr = self.network(unit(part.batch.lr, self.context.device), part.references)
        difference = (sr.float() - unit(part.batch.hr, self.context.device)).abs().mean()
        total, named = self.stage.image_weight * difference, {"image": difference}
        if part.wanted is not None:
            named["contextual"] = self.contextual(sr, part.wanted, part.centre)
            total = total + self.stage.contextual_weight * named["contextual"]
        return {"loss": total, **named}

    def after(self, step: int) -> None:
        """Nothing follows a step."""

    def wanted(self, references: References) -> Tensor:
        """Features (batch*sections, channels, y', x') of the references, which sr is to have."""
        assert self.context.perceptual is not None
        with torch.inference_mode():
            return self.context.perceptual(references.image).float()

    def contextual(self, sr: Tensor, wanted: Tensor, centre: Tensor | None) -> Tensor:
        """Contextual loss of sr (batch, 1, y, x), looked at once, against the features of the references of all
        sections; ``centre`` as in ``contextual_loss``."""
        assert self.context.perceptual is not None
        found = self.context.perceptual(sr).float()
        found = found.repeat_interleave(len(wanted) // len(found), dim=0)
        return losses.contextual_loss(found, wanted, centre=centre)

    @torch.no_grad()
    def references(self, batch: Batch) -> References | None:
        """What the frozen prior says of each section of each patch, (batch*sections, ...); None for a twin without it.

        One section at a time, so that a kept one equals a new one bit for bit.
        """
        if self.network.reference is None:
            return None
        assert batch.lr is not None
        found = [self._reference(batch, i, j) for i in range(len(batch.lr)) for j in range(batch.lr.shape[1])]
        maps = [torch.cat(maps) for maps in zip(*(one.features for one in found), strict=True)]
        joined = (torch.cat(parts) for parts in zip(*((r.image, r.logits, r.similarity) for r in found), strict=True))
        return References(maps, *joined)

    def _reference(self, batch: Batch, i: int, j: int) -> References:
        assert batch.lr is not None
        place = batch.places[i]
        section = self.patches.series[place.series].table[place.row][j]
        key = (place.series, section, place.y, place.x, place.orientation)
        keeps = self.request.lattice > 0 and self.network.training
        if keeps and key in self.kept:
            return self.kept[key]
        with torch.inference_mode():
            made = without_logits(self.network.references(unit(batch.lr[i : i + 1, j], self.context.device)))
        size = sum(t.nbytes for t in (*made.features, made.image, made.similarity))
        if keeps and self.kept_bytes + size <= KEPT_BYTES:
            self.kept[key] = made
            self.kept_bytes += size
        return made

    def validate(self, network: Any) -> dict[str, float]:
        """PSNR (the score) and SSIM of sr against hr."""
        if self._validation is None:
            batches = self.context.fixed(self.request, VALIDATION_PATCHES)
            self._validation = [(batch, self.validation_references(batch)) for batch in batches]
        rows = []
        for batch, references in self._validation:
            sr = network(unit(batch.lr, self.context.device), references)
            assert batch.hr is not None
            rows.append(compare(self.context.measures, batch.hr[:, 0], grey(sr)))
        found = means(rows)
        return {**found, "score": found["psnr"]}

    def validation_references(self, batch: Batch) -> References | None:
        """References of a validation patch, which are made once."""
        if self.network.reference is None:
            return None
        lr = unit(batch.lr, self.context.device).flatten(0, 1)
        made: References = self.network.references(lr)
        return without_logits(made)

    def health(self, network: nn.Module) -> dict[str, float]:
        """PSNR and SSIM of sr and of bicubic on more patches."""
        return image.health(self.context, network, self.request)


def without_logits(references: References) -> References:
    """The same without the largest part, which training does not look at."""
    return references._replace(logits=references.logits[:, :0].clone())
