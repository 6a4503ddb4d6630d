"""Flow between sections, learned from synthetic warps of real ones, because no true flow exists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from emsr.layers.blocks import resize
from emsr.layers.flow import warp
from emsr.training import losses, warps
from emsr.training.data import Batch, Request, Series, generator
from emsr.training.objective import Losses, Turn
from emsr.training.objectives.context import HEALTH_PATCHES, VALIDATION_PATCHES, Context, unit


class Pair(NamedTuple):
    """``moved`` at p shows what ``fixed`` shows at p + truth(p), lr pixels; ``inside`` is 1 where that is in it."""

    moved: Tensor
    fixed: Tensor
    truth: Tensor
    inside: Tensor


class Part(NamedTuple):
    """Pairs that are one of ``of`` parts of a batch, of which ``inside`` is the whole."""

    pair: Pair
    inside: Tensor
    of: int


def make(context: Context) -> Flow:
    """The objective of ``context``, whose network is a ``layers.flow.SpyNet``."""
    return Flow(context)


class Flow:
    """Trains the flow network on shift, rotation, smooth deformation and contrast change of lr sections."""

    def __init__(self, context: Context) -> None:
        alone = replace(context, training=_alone(context.training), validation=_alone(context.validation))
        self.context, self.stage = alone, context.stage
        self.network: Any = context.network
        self.request = Request(self.stage.patch, 1, self.stage.batch, hr=False, augment=self.stage.augment)
        self.patches = alone.patches(self.request, "training")

    def state(self) -> nn.Module:
        """The network."""
        return nn.ModuleDict({"network": self.network})

    def turns(self) -> Sequence[Turn]:
        """One optimiser, the network's."""
        return (Turn(self.network, self.losses),)

    def batch(self, step: int) -> Batch:
        """Training patches of a step: lr (batch, 1, 1, y, x) uint8; all in each process, which draws all warps."""
        return self.patches.batch(step)

    def parts(self, batch: Batch, step: int, count: int) -> Sequence[Part]:
        """Pairs in equal parts, each with where flow counts in the whole batch."""
        pair, group = self.pair(batch, generator(self.context.seed, "flow warps", step)), self.context.group
        whole = count * group.size
        cuts = zip(*(tensor.chunk(whole) for tensor in pair), strict=True)
        return [Part(Pair(*tensors), pair.inside, whole) for tensors in cuts][group.share(whole)]

    def losses(self, part: Part, step: int) -> Losses:
        """Mean endpoint error, in lr pixels, of the levels so far: they join one by one, evenly over the steps, so that
        cheap coarse levels, on which the finer ones build, learn longest."""
        pair = part.pair
        levels = 1 + step * len(self.network.levels) // self.stage.steps
        moved, fixed = (resize(section, self.context.flow_scale) for section in (pair.moved, pair.fixed))
        flows = self.network.coarse_to_fine(moved, fixed, levels)
        return {"loss": torch.stack([_error(flow, part) for flow in flows]).mean()}

    def after(self, step: int) -> None:
        """Nothing follows a step."""

    def pair(self, batch: Batch, draw: np.random.Generator) -> Pair:
        """Two images of each patch, displaced against each other."""
        stage, device = self.stage, self.context.device
        assert batch.lr is not None
        field = [warps.displacement(draw, stage.patch, stage.displacement, stage.rotation) for _ in batch.lr]
        truth = torch.from_numpy(np.stack(field)).to(device)
        section = unit(batch.lr[:, 0], device)
        images = [image.cpu().numpy() for image in (warp(section, truth), section)]
        moved, fixed = (torch.from_numpy(warps.recontrast(i, draw, stage.contrast)).to(device) for i in images)
        return Pair(moved, fixed, truth, warps.inside(truth))

    def flow(self, network: Any, pair: Pair) -> Tensor:
        """The network's flow in lr pixels on the lr grid."""
        scale = self.context.flow_scale
        flow: Tensor = network(resize(pair.moved, scale), resize(pair.fixed, scale))
        return resize(flow, 1 / scale) / scale

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Endpoint error in lr pixels (its negative is the score) beside that of no flow at all."""
        return self.figures(network, self.context.fixed(self.request, VALIDATION_PATCHES))

    def health(self, network: nn.Module) -> dict[str, float]:
        """The same on more patches."""
        return self.figures(network, self.context.watched(self.context.fixed(self.request, HEALTH_PATCHES)))

    def figures(self, network: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """Mean endpoint errors in lr pixels over batches of lr (batch, 1, 1, y, x), warped always alike."""
        errors, still = [], []
        for number, batch in enumerate(batches):
            pair = self.pair(batch, generator(self.context.seed, "flow validation", number))
            errors.append(float(losses.endpoint_error(self.flow(network, pair), pair.truth, pair.inside)))
            still.append(float(losses.endpoint_error(torch.zeros_like(pair.truth), pair.truth, pair.inside)))
        error = float(np.mean(errors))
        return {"endpoint_error": error, "endpoint_error_without_flow": float(np.mean(still)), "score": -error}


def _error(flow: Tensor, part: Part) -> Tensor:
    """Endpoint error in lr pixels of a flow on a grid of another size, in that grid's pixels."""
    size, finer = flow.shape[-2:], flow.shape[-1] / part.pair.truth.shape[-1]
    known = (part.pair.truth, part.pair.inside, part.inside)
    truth, inside, whole = (functional.interpolate(tensor, size, mode="area") for tensor in known)
    return losses.endpoint_error(flow / finer, truth, inside, whole.sum().clamp(min=1) / part.of)


def _alone(series: Sequence[Series]) -> tuple[Series, ...]:
    """The same centres without neighbours."""
    return tuple(replace(one, table=tuple((one.centre(row),) for row in range(len(one.table)))) for one in series)
