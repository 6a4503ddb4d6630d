"""Stage two: predict the index map of hr from lr alone, by cross entropy against the frozen encoder's (spec B)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from emsr.training import losses
from emsr.training.data import Batch, Place, cut
from emsr.training.objective import Losses, Turn
from emsr.training.objectives.context import (
    HEALTH_PATCHES,
    VALIDATION_PATCHES,
    Context,
    compare,
    frozen,
    grey,
    means,
    recurring,
    unit,
)

KEPT = 20_000  # index maps of recurring patches


def make(context: Context) -> Indexer:
    """The objective of ``context``, whose network is a ``models.indexer.Indexer`` and whose parts hold the codebook."""
    return Indexer(context)


class Indexer:
    """Trains the indexer; what the frozen encoder says of a patch that recurs is kept."""

    def __init__(self, context: Context) -> None:
        self.context, self.stage, self.network = context, context.stage, context.network
        self.codebook: Any = frozen(context.parts["codebook"])
        self.request = recurring(context, self.stage.steps * self.stage.batch)
        self.patches = context.patches(self.request, "training")
        self.kept: dict[Place, Tensor] = {}
        self._validation: list[tuple[Batch, Tensor]] | None = None

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
        """Mean cross entropy, nat, of logits (batch, y', x', entries) and true index maps (batch, y', x'); a scalar."""
        logits = self.network(centre(batch, self.context.device))
        return {"loss": cross_entropy(logits, self.targets(batch))}

    def after(self, step: int) -> None:
        """Nothing follows a step."""

    @torch.no_grad()
    def targets(self, batch: Batch) -> Tensor:
        """True index maps (batch, y, x) of training patches, as they were kept or as ``truth`` gives them."""
        return torch.stack([self._target(batch, i) for i in range(len(batch.places))])

    def _target(self, batch: Batch, i: int) -> Tensor:
        place = batch.places[i]
        if place in self.kept:
            return self.kept[place].long()
        indices = self._truth(batch, i)
        if self.request.lattice and len(self.kept) < KEPT:
            self.kept[place] = indices.to(torch.int32)
        return indices

    @torch.no_grad()
    def truth(self, batch: Batch) -> Tensor:
        """True index maps (batch, y, x); one patch at a time, so that a kept one equals a new one bit for bit."""
        return torch.stack([self._truth(batch, i) for i in range(len(batch.places))])

    @torch.inference_mode()
    def _truth(self, batch: Batch, i: int) -> Tensor:
        assert batch.hr is not None
        indices: Tensor = self.codebook.indices(unit(batch.hr[i : i + 1], self.context.device))[0]
        return indices

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Cross entropy (its negative is the score) and top-1 on the validation sections."""
        if self._validation is None:
            batches = self.context.fixed(self.request, VALIDATION_PATCHES)
            self._validation = [(batch, self.truth(batch)) for batch in batches]
        found = [agreement(network(centre(batch, self.context.device)), truth) for batch, truth in self._validation]
        mean = {name: float(np.mean([row[name] for row in found])) for name in found[0]}
        return {**mean, "score": -mean["cross_entropy"]}

    def health(self, network: nn.Module) -> dict[str, float]:
        """Whether it is alive: top-1 beside the majority class, cross entropy beside the entropy of the codes, decoded
        reference of predicted indices beside that of true ones."""
        batches = self.context.fixed(self.request, HEALTH_PATCHES)
        rows, counts, found = [], torch.zeros(len(self.codebook.codebook.entries), dtype=torch.int64), []
        predicted = torch.zeros_like(counts)
        for batch in self.context.watched(batches):
            truth = self.truth(batch)
            logits = network(centre(batch, self.context.device))
            found.append(agreement(logits, truth))
            counts += torch.bincount(truth.flatten().cpu(), minlength=len(counts))
            predicted += torch.bincount(logits.argmax(-1).flatten().cpu(), minlength=len(counts))
            rows.append(self._references(batch, truth, logits.argmax(-1)))
        mean = {name: float(np.mean([row[name] for row in found])) for name in found[0]}
        share = float(counts.max() / counts.sum())
        codes = {"majority_share": share, "unigram_entropy": losses.entropy(counts), "positions": int(counts.sum())}
        return {**mean, **codes, "entries_predicted": int((predicted > 0).sum()), **means(rows)}

    def _references(self, batch: Batch, truth: Tensor, predicted: Tensor) -> dict[str, list[float]]:
        assert batch.hr is not None
        found: dict[str, list[float]] = {}
        for name, indices in (("predicted", predicted), ("true", truth)):
            images = grey(self.codebook.decode(indices))
            measured = compare(self.context.measures, batch.hr[:, 0], images)
            found |= {f"reference_{measure}_{name}": values for measure, values in measured.items()}
        return found


def centre(batch: Batch, device: str) -> Tensor:
    """The centre section of each patch, (batch, 1, y, x) in [0, 1]."""
    assert batch.lr is not None
    return unit(batch.lr[:, batch.lr.shape[1] // 2], device)


def cross_entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """Mean cross entropy in nat of ``logits`` (batch, y, x, entries) against index maps (batch, y, x)."""
    return functional.cross_entropy(logits.float().flatten(0, 2), truth.flatten())


def agreement(logits: Tensor, truth: Tensor) -> dict[str, float]:
    """Cross entropy and share of positions where the best logit is the true index."""
    top = (logits.argmax(-1) == truth).float().mean()
    return {"cross_entropy": float(cross_entropy(logits, truth)), "top1": float(top)}
