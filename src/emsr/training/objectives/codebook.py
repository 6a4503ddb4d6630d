"""Stage one: reconstruct hr sections through a codebook whose entries stay alive (spec A.6)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from emsr.layers.codebook import usage
from emsr.training import losses
from emsr.training.data import Batch, Patches, Request, cut
from emsr.training.objective import Losses, Turn
from emsr.training.objectives import rivals
from emsr.training.objectives.context import HEALTH_PATCHES, VALIDATION_PATCHES, Context, compare, grey, means, unit
from emsr.training.objectives.rivals import Part, judged


def make(context: Context) -> Codebook:
    """The objective of ``context``, whose network is a ``models.vqgan.Vqgan``."""
    return Codebook(context)


class Codebook:
    """Trains encoder, decoder and codebook, and a discriminator where the recipe wants one."""

    def __init__(self, context: Context) -> None:
        self.context, self.stage = context, context.stage
        self.network: Any = context.network
        self.discriminator = _discriminator(context)
        self.request = Request(self.stage.patch, 1, self.stage.batch, lr=False, augment=self.stage.augment)
        self.patches = context.patches(self.request, "training")
        self.seen: list[tuple[Tensor, Tensor]] = []  # latents and indices of the parts of a step
        self._validation: list[Batch] | None = None

    def state(self) -> nn.Module:
        """The network with its entries and their counts, and the discriminator if there is one."""
        return rivals.state(self.network, self.discriminator)

    def turns(self) -> Sequence[Turn]:
        """The network's optimiser, then the discriminator's from the step that the recipe names."""
        rival = self.discriminator, self.discriminator_losses
        return rivals.turns((self.network, self.generator_losses), rival, self.stage.adversarial_from)

    def batch(self, step: int) -> Batch:
        """Training patches of a step: hr (batch, 1, y, x) uint8."""
        return self.patches.batch(step, self.context.share)

    def parts(self, batch: Batch, step: int, count: int) -> Sequence[Part]:
        """The patches in equal parts; at the step that entries begin with, these are made first."""
        if step == self.first_quantised and self.stage.kmeans_vectors:
            self.initialise(step)
        self.seen = []
        return [Part(part) for part in cut(batch, count)]

    def generator_losses(self, part: Part, step: int) -> Losses:
        """Scalars of hr (batch, 1, y, x) in [0, 1]: reconstruction, quantisation, adversarial part, weighted sum."""
        stage, image = self.stage, unit(part.batch.hr, self.context.device)
        quantise = step >= self.first_quantised
        made = self.network(image, stage.commitment, quantise)
        if quantise:
            self.seen.append((made.latents.detach(), made.indices))
        part.made = made.image.detach()
        difference = (made.image.float() - image).abs().mean()
        named = {"image": difference, "quantisation": made.loss}
        total = stage.image_weight * difference + stage.codebook_weight * made.loss
        if self.discriminator is not None and step >= stage.adversarial_from:
            named["generator"] = losses.wasserstein_generator(judged(self.discriminator, made.image))
            total = total + stage.adversarial_weight * named["generator"]
        return {"loss": total, **named}

    def discriminator_losses(self, part: Part, step: int) -> Losses:
        """Scalars of real and reconstructed hr (batch, 1, y, x): the critic's loss, and the R1 penalty when due."""
        assert self.discriminator is not None
        stage, real = self.stage, unit(part.batch.hr, self.context.device)
        penalised = stage.penalty_weight > 0 and step % stage.penalty_every == 0
        real_logits = self.discriminator(real.requires_grad_(penalised))
        critic = losses.wasserstein_discriminator(real_logits.float(), self.discriminator(part.made).float())
        if not penalised:
            return {"critic": critic, "loss": critic}
        penalty = losses.gradient_penalty(real, real_logits)
        return {"critic": critic, "loss": critic + stage.penalty_weight / 2 * stage.penalty_every * penalty}

    def after(self, step: int) -> None:
        """Entries follow the latents that chose them; those long unused start anew from latents of this step."""
        stage, codebook, group = self.stage, self.network.codebook, self.context.group
        if not self.seen or not stage.entries_decay:
            return
        latents, indices = (group.gather(torch.cat(parts)) for parts in zip(*self.seen, strict=True))
        codebook.update(latents, indices, stage.entries_decay)
        if stage.restart_after and step < stage.restart_until * stage.steps:
            codebook.restart(latents, stage.restart_after, self._random(step))
        group.follow(codebook.buffers())

    @property
    def first_quantised(self) -> int:
        """The step from which the decoder sees entries; before it, latents as they are."""
        return round(self.stage.unquantised * self.stage.steps)

    @torch.no_grad()
    def initialise(self, step: int) -> None:
        """Entries by k-means over latents of fresh patches."""
        patches = self.context.patches(self.request, "training")
        extra = Patches(patches.series, self.request, self.context.seed, f"{self.stage.name} k-means")
        vectors: list[Tensor] = []
        while sum(map(len, vectors)) < self.stage.kmeans_vectors:
            latents = self.network.encoder(unit(extra.batch(len(vectors)).hr, self.context.device))
            vectors.append(latents.float().permute(0, 2, 3, 1).flatten(0, 2))
        self.network.codebook.initialise(torch.cat(vectors)[: self.stage.kmeans_vectors], self._random(step))
        self.context.group.follow([self.network.codebook.entries.detach(), *self.network.codebook.buffers()])

    def _random(self, step: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.context.seed * 1_000_003 + step)

    def validate(self, network: Any) -> dict[str, float]:
        """PSNR of the reconstruction, entries used, perplexity; nothing counts before the entries do."""
        if self._validation is None:
            self._validation = self.context.fixed(self.request, VALIDATION_PATCHES)
        return self.figures(network, self._validation)

    def health(self, network: Any) -> dict[str, float]:
        """The same on more patches."""
        return self.figures(network, self.context.watched(self.context.fixed(self.request, HEALTH_PATCHES)))

    def figures(self, network: Any, batches: Iterable[Batch]) -> dict[str, float]:
        """Mean measures of reconstructions, and use of the entries, over batches of hr (batch, 1, y, x)."""
        rows, counts = [], torch.zeros(len(network.codebook.entries), dtype=torch.int64)
        for batch in batches:
            made = network(unit(batch.hr, self.context.device))
            assert batch.hr is not None
            rows.append(compare(self.context.measures, batch.hr[:, 0], grey(made.image)))
            counts += torch.bincount(made.indices.flatten().cpu(), minlength=len(counts))
        used, perplexity = usage(counts)
        found = means(rows)
        codes = {"entries": len(counts), "entries_used": used, "perplexity": perplexity, "positions": int(counts.sum())}
        return {**found, **codes, "unigram_entropy": losses.entropy(counts), "score": found["psnr"]}


def _discriminator(context: Context) -> nn.Module | None:
    """The discriminator of a recipe that reaches it, or None."""
    if not context.stage.adversarial_weight or context.stage.adversarial_from >= context.stage.steps:
        return None
    return context.parts["discriminator"]
