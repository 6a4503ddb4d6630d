"""A network and its discriminator, which take turns: what objectives with both have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from emsr.models.stage import Stage
from emsr.training.data import Batch
from emsr.training.objective import Losses, Turn


@dataclass
class Part:
    """Patches that are a part of a batch, and the image ``made`` of them (batch, 1, y, x) once there is one."""

    batch: Batch
    made: Tensor = field(default_factory=lambda: torch.empty(0))


class Rivals:
    """The turns of ``network`` and, if there is one, of ``discriminator``, from the step on that the recipe names."""

    stage: Stage
    network: nn.Module
    discriminator: nn.Module | None

    def state(self) -> nn.Module:
        """The network with all that it holds, and the discriminator if there is one."""
        parts = {"network": self.network}
        return nn.ModuleDict(parts | ({"discriminator": self.discriminator} if self.discriminator else {}))

    def turns(self) -> Sequence[Turn]:
        """The network's optimiser, then the discriminator's from the step that the recipe names."""
        generator = Turn(self.network, self.generator_losses)
        if self.discriminator is None:
            return (generator,)
        return generator, Turn(self.discriminator, self.discriminator_losses, self.stage.adversarial_from)

    def generator_losses(self, part: Part, step: int) -> Losses:
        """Scalars of the network's turn."""
        raise NotImplementedError

    def discriminator_losses(self, part: Part, step: int) -> Losses:
        """Scalars of the discriminator's turn."""
        raise NotImplementedError

    def judged(self, image: Tensor) -> Tensor:
        """What the discriminator says of (batch, 1, y, x), float32; its weights take no gradient from it."""
        assert self.discriminator is not None
        self.discriminator.requires_grad_(False)
        logits: Tensor = self.discriminator(image)
        self.discriminator.requires_grad_(True)
        return logits.float()
