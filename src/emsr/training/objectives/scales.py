"""A super-resolver of any real scale: the difference between its grey levels and hr at voxels that are drawn.

Each batch has a scale of its own. Its patches of hr are made coarse on the fly, as the lr of their volume was made, so
hr needs no lr of every scale; patches may lie anywhere in hr, also between the pixels of lr. A training that stays at
its own whole scale sees its lr as it is, acquired or made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from emsr.models.stage import own_scale
from emsr.training.data import Batch, Request, Series, cut, generator
from emsr.training.losses import image_error
from emsr.training.objective import Losses, Turn
from emsr.training.objectives import image
from emsr.training.objectives.context import HEALTH_PATCHES, VALIDATION_PATCHES, Context, unit

MARGIN = 2  # lr pixels around a patch that its kernel looks at
Pair = tuple[float, float]


def make(context: Context) -> Scales:
    """The objective of ``context``, whose network offers ``sample(lr, y, x, scale)``.

    Raises ValueError, in one line, for volumes whose lr was acquired and has no other scale than its own.
    """
    return Scales(context)


@dataclass(frozen=True)
class Drawn:
    """Patches of one step: ``lr`` uint8 (batch, 1, y, x), grey levels ``hr`` uint8 (batch, points) at lr coordinates
    ``y`` and ``x`` (batch, points) of ``scale`` (batch, 2), and ``seeds`` (batch,) of what is random in the network."""

    lr: np.ndarray[Any, np.dtype[np.uint8]]
    hr: np.ndarray[Any, np.dtype[np.uint8]]
    y: np.ndarray[Any, np.dtype[np.float64]]
    x: np.ndarray[Any, np.dtype[np.float64]]
    scale: np.ndarray[Any, np.dtype[np.float64]]
    seeds: np.ndarray[Any, np.dtype[np.int64]]


class Scales:
    """Trains all of the network."""

    def __init__(self, context: Context) -> None:
        self.context, self.stage, self.network = context, context.stage, context.network
        own = context.scale if isinstance(context.scale, Sequence) else (context.scale, context.scale)
        self.own: Pair = (float(own[0]), float(own[1]))
        self.whole = isinstance(context.scale, int)
        self.stays = own_scale(self.stage, context.scale)
        self.as_it_is = self.whole and self.stays
        for series in (*context.training, *context.validation):
            if series.degradation is None and not self.as_it_is:
                raise ValueError(_acquired(series, context.scale, self.whole, self.stage.name))
        self.request = Request(self.stage.patch, context.scale, self.stage.batch, augment=self.stage.augment)
        self._validation: list[Batch] | None = None

    def state(self) -> nn.Module:
        """The network."""
        return nn.ModuleDict({"network": self.network})

    def turns(self) -> Sequence[Turn]:
        """One optimiser, the network's."""
        return (Turn(self.network, self.losses),)

    # patches

    def batch(self, step: int) -> Drawn:
        """Training patches of a step."""
        share = self.context.share
        scale = self.scale(step)
        patches = self.context.patches(self._seen(scale), "training").batch(step, share)
        size = range(self.stage.batch)[share]
        draws = [generator(self.context.seed, f"{self.stage.name} points {number}", step) for number in size]
        parts = [self._patch(patches, number, scale, draw) for number, draw in enumerate(draws)]
        return Drawn(*(np.stack(column) for column in zip(*parts, strict=True)))

    def scale(self, step: int) -> Pair:
        """The scale of a step, along y and x; as a fraction of whole numbers, for hr has whole voxels."""
        if self.as_it_is:
            return self.own
        draw = generator(self.context.seed, f"{self.stage.name} scales", step)
        low, high = self.stage.scales or (1.0, 1.0)
        first, second = (_between(low, high, self.stage.scales_drawn, draw.random()) for _ in range(2))
        drawn = (first, second if draw.random() < self.stage.anisotropy else first)
        return self._fraction(self.own if self.stays else drawn, self.stage.patch + 2 * MARGIN)

    def _fraction(self, scale: Pair, side: int) -> Pair:
        """The nearest scale at which ``side`` lr pixels are whole voxels of hr."""
        y, x = (max(side, round(s * side)) / side for s in scale)
        return y, x

    def _seen(self, scale: Pair) -> Request:
        if self.as_it_is:
            return self.request
        side = self.stage.patch + 2 * MARGIN
        return replace(self.request, patch=max(round(s * side) for s in scale), scale=1, lr=False)

    def _patch(self, patches: Batch, number: int, scale: Pair, draw: np.random.Generator) -> tuple[Any, ...]:
        """The fields of ``Drawn`` of one patch."""
        assert patches.hr is not None
        if self.as_it_is:
            assert patches.lr is not None
            lr, hr, margin = patches.lr[number, patches.lr.shape[1] // 2, 0], patches.hr[number, 0], 0
        else:
            margin = MARGIN
            hr, lr = self._coarse(patches, number, scale, self.stage.patch + 2 * margin, int(draw.integers(2**32)))
            lr = lr[margin:-margin, margin:-margin]
        rows, columns = (_inner(s, self.stage.patch, margin) for s in scale)
        count = min(self.stage.samples, len(rows) * len(columns))
        row, column = np.divmod(draw.choice(len(rows) * len(columns), count, replace=False), len(columns))
        row, column = rows[row], columns[column]
        y, x = ((at + 0.5) / s - margin for at, s in zip((row, column), scale, strict=True))
        return lr[None], hr[row, column], y, x, np.array(scale), draw.integers(2**62)

    def _coarse(
        self, patches: Batch, number: int, scale: Pair, side: int, seed: int, training: bool = True
    ) -> tuple[Any, Any]:
        """A patch of hr cut to ``side`` lr pixels at ``scale``, and the lr that is made of it."""
        series = self.context.training if training else self.context.validation
        made = series[patches.places[number].series].degradation
        assert patches.hr is not None
        assert self.context.degrade is not None
        assert made is not None
        height, width = (round(s * side) for s in scale)
        hr = patches.hr[number, 0, :height, :width]
        return hr, self.context.degrade(hr, scale, made, seed)

    def parts(self, batch: Drawn, step: int, count: int) -> Sequence[Drawn]:
        """The patches in equal parts, which need nothing of each other."""
        return cut(batch, count)

    # learning

    def losses(self, batch: Drawn, step: int) -> Losses:
        """Mean difference from hr in [0, 1] at the points, as the stage measures it; a scalar."""
        device, network = self.context.device, self.network
        y, x = (torch.from_numpy(part).to(device) for part in (batch.y, batch.x))
        scale = (float(batch.scale[0, 0]), float(batch.scale[0, 1]))
        with _seeded(int(batch.seeds[0]), device):
            sr = network.sample(unit(batch.lr, device), y, x, scale)  # type: ignore[operator]
        hr = torch.from_numpy(batch.hr).to(device).float()[..., None] / 255
        return {"loss": image_error(sr, hr, self.stage.image_error)}

    def after(self, step: int) -> None:
        """Nothing follows a step."""

    # looking

    def validate(self, network: nn.Module) -> dict[str, float]:
        """PSNR (the score) and SSIM against hr, at the training's own scale."""
        if self._validation is None:
            self._validation = self.fixed(VALIDATION_PATCHES)
        return image.score(self.context, network, self._validation)

    def health(self, network: nn.Module) -> dict[str, float]:
        """The same on more patches, beside bicubic."""
        return image.beside_bicubic(self.context, network, self.fixed(HEALTH_PATCHES))

    def fixed(self, count: int) -> list[Batch]:
        """Patches of the validation sections at the training's own scale: lr as it is, made here where it is real."""
        if self.whole:
            return self.context.fixed(self.request, count)
        side = self.stage.patch
        scale = self._fraction(self.own, side)
        voxels = max(round(s * side) for s in scale)
        found = self.context.fixed(replace(self.request, patch=voxels, scale=1, lr=False), count)
        return [self._made(batch, scale, side) for batch in found]

    def _made(self, batch: Batch, scale: Pair, side: int) -> Batch:
        pairs = [self._coarse(batch, number, scale, side, number, False) for number in range(len(batch.places))]
        hr, lr = (np.stack(column)[:, None] for column in zip(*pairs, strict=True))
        return replace(batch, lr=lr[:, None], hr=hr)


def _between(low: float, high: float, drawn: str, share: float) -> float:
    """What lies ``share`` of the way from ``low`` to ``high``, in equal steps or equal ratios."""
    if drawn == "logarithmic":
        return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
    return low + share * (high - low)


def _inner(scale: float, patch: int, margin: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The voxels of hr whose centres lie in the ``patch`` pixels after ``margin``."""
    at = np.arange(round(scale * (patch + 2 * margin)))
    place = (at + 0.5) / scale - margin
    return at[(place >= 0) & (place < patch)]


@contextmanager
def _seeded(seed: int, device: str) -> Iterator[None]:
    """torch's random numbers are those of ``seed``, so that a training which is resumed sees the same."""
    with torch.random.fork_rng(devices=[torch.device(device)] if device.startswith("cuda") else []):
        torch.manual_seed(seed)
        yield


def _acquired(series: Series, scale: Any, whole: bool, stage: str) -> str:
    said = f"lr of volume {series.name} was acquired, not made of hr, so there is none at other scales than its own"
    if whole:
        return f"{said}: set scales [{scale}, {scale}] in stage {stage}, or train on volumes that state degradation"
    return f"{said}, and none at scale {scale}: train on volumes that state degradation"
