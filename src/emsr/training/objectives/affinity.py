"""Affinities between neighbouring voxels, learned from labels: one network for all that is segmented."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from emsr.training import deformations, losses
from emsr.training.data import cut
from emsr.training.objective import Losses, Turn
from emsr.training.objectives.context import FEWEST, HEALTH_PATCHES, VALIDATION_PATCHES, Context, unit
from emsr.training.volumes import LabelledSeries, Shape, VolumeBatch, VolumePatches, VolumeRequest

AXES = ("z", "y", "x")
AXES_OF_VOXELS = (2, 3, 4)
LEVELS = 256  # affinities are judged as the uint8 that they are written as
SURE = 1e-7  # affinities nearer than this to 0 or 1 are taken for it: float32 has no finer step below 1
LARGE = 2**17  # voxels of a window above which fewer are looked at
FIRST = 100  # training batches, of which one must hold both kinds of affinities
Array = np.ndarray[Any, Any]


class Part(NamedTuple):
    """Patches that are a part of a batch; ``share`` divides their summed errors, None if they are all of it."""

    batch: VolumeBatch
    share: Tensor | None


def make(context: Context) -> Affinity:
    """The objective of ``context``, whose series are ``LabelledSeries`` and whose network maps images (batch, 1, z, y,
    x) in [0, 1] to affinities (batch, 3, z', y', x') in [0, 1] of the same voxels or of those in the middle."""
    return Affinity(context)


class Affinity:
    """Trains all of the network that is not frozen on patches of ``stage.depth`` sections of ``stage.patch`` pixels."""

    def __init__(self, context: Context) -> None:
        self.context, self.stage, self.network = context, context.stage, context.network
        _check(context)
        window = (self.stage.depth, self.stage.patch, self.stage.patch)
        self.request = VolumeRequest(window, output_shape(self.network, window), self.stage)
        self.patches = self._patches("training")
        self.validation = self._fixed(VALIDATION_PATCHES)
        _check_kinds(self.validation, f"validation labels of stage {self.stage.name}", "validate")
        first = (self.patches.batch(step) for step in range(FIRST))
        _check_kinds(first, f"training labels of stage {self.stage.name}", "train")

    def state(self) -> nn.Module:
        return nn.ModuleDict({"network": self.network})

    def turns(self) -> Sequence[Turn]:
        return (Turn(self.network, self.losses),)

    def batch(self, step: int) -> Any:
        return self.patches.batch(step, self.context.share)

    def parts(self, batch: VolumeBatch, step: int, count: int) -> Sequence[Part]:
        """The patches in equal parts, each with a part of the number of channels that the whole batch learns from."""
        weighs = torch.from_numpy(batch.known.any(axis=AXES_OF_VOXELS)).sum().double()
        self.context.group.add([weighs])
        whole = count * self.context.group.size
        share = None if whole == 1 else weighs.clamp(min=1) / whole
        return [Part(part, share) for part in cut(batch, count)]

    def losses(self, part: Part, step: int) -> Losses:
        return {"loss": self._error(self._logits(self.network, part.batch), part.batch, part.share)}

    def after(self, step: int) -> None:
        """Nothing follows a step."""

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Loss, and the score: best F1 of cut affinities, the mean over z, y and x.

        F1 and not the loss chooses weights, because what follows only compares affinities with each other and with
        thresholds that are chosen by validation too, while the loss grows when a network becomes too sure of itself.
        It is of the cut ones, because most are connected, and calling all of them so would look good.
        """
        loss, counts = self._judged(network, self.validation)
        f1 = float(np.mean([each["f1"] for each in by_axis(counts).values()]))
        return {"loss": loss, "f1": f1, "score": f1}

    def health(self, network: nn.Module) -> dict[str, float]:
        """On more patches and for each axis: best F1 of cut affinities and its threshold, AUC, share of connected.

        Where truth knows one kind alone, as along z of labels of single sections, there is only that share, 0 or 1.
        """
        loss, counts = self._judged(network, self.context.watched(self._fixed(HEALTH_PATCHES)))  # type: ignore[arg-type]
        found = {f"{name}_{axis}": value for axis, each in by_axis(counts).items() for name, value in each.items()}
        one_kind = {f"connected_{axis}": share for axis, share in only(counts).items()}
        return {"loss": loss, **found, **one_kind}

    def _judged(self, network: nn.Module, batches: Iterable[Any]) -> tuple[float, Array]:
        """Mean loss over patches, and counts (3, 2, LEVELS) of affinities by axis, truth and level."""
        counts, rows, weights = np.zeros((len(AXES), 2, LEVELS), np.int64), [], []
        for batch in batches:
            logits = self._logits(network, batch)
            rows.append(float(self._error(logits, batch)))
            weights.append(len(batch.image))
            counts += counted(logits.sigmoid(), batch)
        return float(np.average(rows, weights=weights)), counts

    def _logits(self, network: Any, batch: VolumeBatch) -> Tensor:
        """Logits of the affinities, from the network's ``logits`` if it has them: in them nothing is lost to rounding,
        so that a network which is sure and wrong still learns."""
        image = unit(batch.image, self.context.device)
        if hasattr(network, "logits"):
            return network.logits(image).float()
        return network(image).float().logit(SURE)

    def _error(self, logits: Tensor, batch: VolumeBatch, share: Tensor | None = None) -> Tensor:
        target, known = (torch.from_numpy(part).to(self.context.device) for part in (batch.target, batch.known))
        weight = losses.class_balance(target, known, self.stage.balance_limit)
        return losses.affinity_error(logits, target, weight, self.stage.affinity_error, share)

    def _patches(self, purpose: str) -> VolumePatches:
        series: Any = self.context.training if purpose == "training" else self.context.validation
        return VolumePatches(series, self.request, self.context.seed, f"{self.stage.name} {purpose}")

    def _fixed(self, most: int) -> list[VolumeBatch]:
        """At most ``most`` patches of the validation sections, always the same; fewer if they are large."""
        count = min(most, max(FEWEST, most * LARGE // math.prod(self.request.window)))
        return self._patches("validation").fixed(count)


def _check(context: Context) -> None:
    """Raise ValueError, in one line, for a recipe or series that nothing can be learned from."""
    stage = context.stage
    deformations.check(stage)
    if stage.depth < 1:
        raise ValueError(f"depth {stage.depth} of stage {stage.name} leaves patches without sections: state 1 or more")
    if stage.balance_limit and stage.balance_limit < 1:
        raise ValueError(f"balance_limit {stage.balance_limit} of stage {stage.name} is below 1: state 1 or more, or 0")
    for one in (*context.training, *context.validation):
        if not isinstance(one, LabelledSeries):
            raise ValueError(f"volume {one.name} comes without labels, which stage {stage.name} learns from: name them")


def _check_kinds(batches: Iterable[VolumeBatch], labels: str, verb: str) -> None:
    """Raise ValueError unless truth holds cut and connected affinities of one axis; reads no more than it takes."""
    truth, patches = np.zeros((len(AXES), 2), np.int64), 0
    for batch in batches:
        truth += counted(torch.from_numpy(batch.target), batch).sum(-1)
        patches += len(batch.image)
        if truth.all(axis=1).any():
            return
    raise ValueError(
        f"{labels} hold {_of(truth, 0)} cut and {_of(truth, 1)} connected affinities (z, y, x) in {patches} patches: "
        f"{verb} on sections with at least two objects"
    )


def output_shape(network: nn.Module, window: Shape) -> Shape:
    """The shape z, y, x that ``network`` makes of ``window``, found without computing anything.

    Raises ValueError if it does not make three channels.
    """
    tensors = [*network.named_parameters(), *network.named_buffers()]
    without_data = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors}
    with torch.no_grad():
        made = functional_call(network, without_data, (torch.empty((1, 1, *window), device="meta"),))
    if made.ndim != 5 or made.shape[1] != len(AXES):
        raise ValueError(f"network makes {list(made.shape)} of window {list(window)}, not (1, 3, z, y, x) affinities")
    z, y, x = made.shape[2:]
    return z, y, x


def counted(predicted: Tensor, batch: VolumeBatch) -> Array:
    """Counts (3, 2, LEVELS) of known affinities by axis, truth (0 = cut, 1 = connected) and level of ``predicted``."""
    levels = losses.eight_bits(predicted).to(torch.int64).cpu().numpy()
    numbers = (np.arange(len(AXES)).reshape(1, -1, 1, 1, 1) * 2 + batch.target) * LEVELS + levels
    counts = np.bincount(numbers[batch.known], minlength=len(AXES) * 2 * LEVELS)
    return counts.reshape(len(AXES), 2, LEVELS)


def by_axis(counts: Array) -> dict[str, dict[str, float]]:
    """``separation`` of each axis of ``counts`` (3, 2, LEVELS) on which truth knows both kinds."""
    return {axis: separation(each) for axis, each in zip(AXES, counts, strict=True) if each.sum(1).all()}


def only(counts: Array) -> dict[str, float]:
    """Share of connected affinities, 0.0 or 1.0, of each axis of ``counts`` on which truth knows one kind alone."""
    kinds = {axis: each.sum(1) > 0 for axis, each in zip(AXES, counts, strict=True)}
    return {axis: float(connected) for axis, (cut, connected) in kinds.items() if cut != connected}


def separation(counts: Array) -> dict[str, float]:
    """How well levels tell cut from connected, from ``counts`` (2, LEVELS) by truth and level; neither may be empty.

    f1: the best F1 of cut affinities over all thresholds; threshold in [0, 1]: affinities below it are taken for cut
    (the lowest that is best); auc: the probability that a connected affinity lies above a cut one, half if they are
    equal; connected: the share of connected ones.
    """
    cut, connected = counts.astype(np.float64)
    hits, wrong = np.cumsum(cut), np.cumsum(connected)  # [k]: at or below level k
    f1 = 2 * hits / (hits + wrong + cut.sum())
    best = int(f1.argmax())
    above = (connected * (hits - cut / 2)).sum() / (cut.sum() * connected.sum())
    return {
        "f1": float(f1[best]),
        "threshold": (best + 0.5) / (LEVELS - 1),
        "auc": float(above),
        "connected": float(connected.sum() / counts.sum()),
    }


def _of(truth: Array, kind: int) -> str:
    return ", ".join(str(int(number)) for number in truth[:, kind])
