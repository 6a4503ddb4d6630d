"""A network and its discriminator, which take turns: what objectives with both have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from emsr.training.data import Batch
from emsr.training.objective import Losses, Turn


@dataclass
class Part:
    """Patches that are a part of a batch, and the image ``made`` of them (batch, 1, y, x) once there is one."""

    batch: Batch
    made: Tensor = field(default_factory=lambda: torch.empty(0))


Loss = Callable[[Part, int], Losses]


def state(network: nn.Module, discriminator: nn.Module | None) -> nn.Module:
    """The network with all that it holds, and the discriminator if there is one."""
    parts = {"network": network}
    return nn.ModuleDict(parts | ({"discriminator": discriminator} if discriminator else {}))


def turns(network: tuple[nn.Module, Loss], discriminator: tuple[nn.Module | None, Loss], begins: int) -> Sequence[Turn]:
    """The network's optimiser, then the discriminator's, if there is one, from step ``begins`` on."""
    judge, judges = discriminator
    return (Turn(*network), *([Turn(judge, judges, begins)] if judge else []))


def judged(discriminator: nn.Module, image: Tensor) -> Tensor:
    """What the discriminator says of (batch, 1, y, x), float32; its weights take no gradient from it."""
    discriminator.requires_grad_(False)
    logits: Tensor = discriminator(image)
    discriminator.requires_grad_(True)
    return logits.float()
