"""A super-resolver against a discriminator: pixels first, then features and what the discriminator takes for hr.

No figure of an image says which of these weights are best, for PSNR falls when texture is invented: the last are kept.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from emsr.training import losses
from emsr.training.data import Batch, cut
from emsr.training.objective import Losses, Turn
from emsr.training.objectives import rivals
from emsr.training.objectives.context import Context, unit
from emsr.training.objectives.image import Image
from emsr.training.objectives.rivals import Part, judged


def make(context: Context) -> Adversarial:
    """The objective of ``context``, whose network maps lr (batch, sections, 1, y, x) to sr (batch, 1, s*y, s*x)."""
    return Adversarial(context)


class Adversarial(Image):
    """Trains the network and, from the step that the recipe names, a discriminator after it."""

    keeps_last = True

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        reached = self.stage.adversarial_weight and self.stage.adversarial_from < self.stage.steps
        self.discriminator = context.parts["discriminator"] if reached else None

    def state(self) -> nn.Module:
        """The network, and the discriminator if there is one."""
        return rivals.state(self.network, self.discriminator)

    def turns(self) -> Sequence[Turn]:
        """The network's optimiser, then the discriminator's from the step that the recipe names."""
        rival = self.discriminator, self.discriminator_losses
        return rivals.turns((self.network, self.generator_losses), rival, self.stage.adversarial_from)

    def parts(self, batch: Batch, step: int, count: int) -> Sequence[Part]:  # type: ignore[override]
        """The patches in equal parts, which need nothing of each other."""
        return [Part(part) for part in cut(batch, count)]

    def generator_losses(self, part: Part, step: int) -> Losses:
        """Scalars: difference of sr and hr, and from the recipe's step on of their features, adversarial part, sum."""
        stage, hr = self.stage, unit(part.batch.hr, self.context.device)
        sr = self.network(unit(part.batch.lr, self.context.device))
        part.made = sr.detach()
        difference = losses.image_error(sr, hr, stage.image_error)
        named = {"image": difference}
        if self.discriminator is None or step < stage.adversarial_from:
            return {"loss": stage.image_weight * difference, **named}
        total = stage.image_weight * stage.adversarial_image * difference
        if stage.perceptual_weight:
            named["perceptual"] = self.perceptual(sr, hr)
            total = total + stage.perceptual_weight * named["perceptual"]
        named["generator"] = losses.logistic_generator(judged(self.discriminator, sr))
        return {"loss": total + stage.adversarial_weight * named["generator"], **named}

    def discriminator_losses(self, part: Part, step: int) -> Losses:
        """A scalar of hr and of what was made (batch, 1, y, x) in this step."""
        assert self.discriminator is not None
        real = self.discriminator(unit(part.batch.hr, self.context.device))
        critic = losses.logistic_discriminator(real.float(), self.discriminator(part.made).float())
        return {"critic": critic, "loss": critic}
