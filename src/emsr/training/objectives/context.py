"""What every objective is made from, and the few lines that all of them need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from emsr.models.stage import Stage
from emsr.progress import progress
from emsr.training.data import Batch, Patches, Request, Series
from emsr.training.group import ALONE, Group

VALIDATION_PATCHES = 24  # looked at often while training
HEALTH_PATCHES = 64  # looked at once, with the chosen weights
FEWEST = 4
LARGE = 128  # hr pixels, the side of a patch above which fewer are looked at
MOST = 100.0  # dB
Measure = Callable[[np.ndarray[Any, Any], np.ndarray[Any, Any]], float]


@dataclass(frozen=True)
class Context:
    """A stage about to be trained.

    ``parts`` are the frozen networks of earlier stages by name; ``measures`` compare two uint8 sections (truth, image);
    ``enlarge`` makes bicubic images, the floor of every table; ``degrade`` makes a patch of hr coarse, by (y, x), as
    the lr of its series was made, with the noise of a seed; ``perceptual`` gives features for the losses that compare
    them; ``flow_scale`` is how much lr sections are enlarged before flow; ``group`` trains together.
    """

    stage: Stage
    network: nn.Module
    scale: int
    training: tuple[Series, ...]
    validation: tuple[Series, ...]
    seed: int
    device: str = "cpu"
    parts: Mapping[str, nn.Module] = field(default_factory=dict)
    measures: Mapping[str, Measure] = field(default_factory=dict)
    enlarge: Callable[[np.ndarray[Any, Any], int], np.ndarray[Any, Any]] | None = None
    degrade: Callable[[np.ndarray[Any, Any], tuple[float, float], Mapping[str, Any], int], Any] | None = None
    perceptual: Callable[[Tensor], Tensor] | None = None
    flow_scale: int = 1
    group: Group = ALONE

    @property
    def share(self) -> slice:
        """Which patches of a batch this process sees."""
        return self.group.share(self.stage.batch)

    def patches(self, request: Request, purpose: str) -> Patches:
        """Patches for ``purpose`` "training" or another, which means the validation sections without orientations."""
        series = self.training if purpose == "training" else self.validation
        return Patches(series, request, self.seed, f"{self.stage.name} {purpose}")

    def fixed(self, request: Request, patches: int) -> list[Batch]:
        """At most ``patches`` patches of the validation sections, always the same; fewer if they are large."""
        request = replace(request, augment=False, lattice=0)
        count = min(patches, max(FEWEST, patches * LARGE**2 // (request.patch * request.scale) ** 2))
        return self.patches(request, "validation").fixed(count)

    def watched(self, batches: Sequence[Batch]) -> Iterator[Batch]:
        """The batches of a look at the stage's health, with progress."""
        with progress(len(batches), f"{self.stage.name} health", "batches") as bar:
            for batch in batches:
                yield batch
                bar.update()


def unit(voxels: np.ndarray[Any, Any] | None, device: str) -> Tensor:
    """uint8 patches as float32 in [0, 1] on ``device``; channels last when they are images."""
    assert voxels is not None
    images = torch.from_numpy(voxels).to(device).float() / 255
    return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images


def grey(images: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Images (batch, 1, y, x) in [0, 1] as the uint8 (batch, y, x) that they are written as."""
    levels = (images.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return levels[:, 0].cpu().numpy()


def compare(
    measures: Mapping[str, Measure], truths: Iterable[np.ndarray[Any, Any]], images: Iterable[np.ndarray[Any, Any]]
) -> dict[str, list[float]]:
    """Each measure of each pair of sections; one that is infinite, as PSNR of equal sections, counts as ``MOST``."""
    pairs = list(zip(truths, images, strict=True))
    return {name: [min(measure(*pair), MOST) for pair in pairs] for name, measure in measures.items()}


def means(rows: Iterable[Mapping[str, list[float]]]) -> dict[str, float]:
    """The mean of each name over all rows."""
    joined: dict[str, list[float]] = {}
    for row in rows:
        for name, values in row.items():
            joined.setdefault(name, []).extend(values)
    return {name: float(np.mean(values)) for name, values in joined.items()}


def frozen(network: nn.Module) -> nn.Module:
    """``network`` in evaluation mode and without gradients."""
    return network.eval().requires_grad_(False)


def recurring(context: Context, uses: int) -> Request:
    """The request of a stage with frozen parts, which look at ``uses`` sections in all.

    On a lattice a little finer than the patch, so that what they say of a section there can be kept, if the recipe asks
    for it and each would be used at least three times on average; else anywhere.
    """
    stage = context.stage
    free = Request(stage.patch, context.scale, stage.batch, augment=stage.augment)
    if not stage.cache:
        return free
    lattice = replace(free, lattice=max(4, stage.patch * 7 // 8 // 4 * 4))
    patches = context.patches(lattice, "training").count()
    return lattice if 3 * patches <= uses else free


def channels_last(network: nn.Module, device: str) -> nn.Module:
    """``network`` on ``device``, its convolutions' weights laid out as mixed precision is fastest with; those over z,
    y and x, which have no such layout, as they are."""
    moved: nn.Module = network.to(device)
    if any(parameter.ndim == 5 for parameter in moved.parameters()):
        return moved
    return moved.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
