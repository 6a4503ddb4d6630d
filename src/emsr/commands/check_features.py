"""Whether what perceptual and adversarial losses compare images with is there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsr import plugins
from emsr.slices import reads

if TYPE_CHECKING:
    from emsr.config import Training
    from emsr.models.stage import Stage


def check(training: Training, options: Any, stage: Stage) -> None:
    """What a stage weighs besides the difference of images, it can have."""
    if stage.perceptual_weight:
        _check_features(training, stage)
    if stage.adversarial_weight:
        _check_discriminator(training.model.name, options, stage)


def _check_discriminator(model: str, options: Any, stage: Stage) -> None:
    """The stage trains a discriminator, and one can be built of the options."""
    import torch

    if stage.objective not in ("codebook", "adversarial"):
        raise ValueError(f"stage {stage.name} of {model} trains no discriminator: use adversarial_weight 0")
    if stage.objective == "adversarial":
        with torch.device("meta"):
            plugins.load("models", model).discriminator(options)


def _check_features(training: Training, stage: Stage) -> None:
    """What is compared has weights, and the stage is one that looks at them."""
    from emsr.models import checkpoint, published
    from emsr.models.stage import NOTHING_COMPARES

    if "perceptual" not in reads(training, stage.name) or stage.objective not in ("image", "adversarial"):
        raise ValueError(f"stage {stage.name} of {training.model.name} compares no features: use perceptual_weight 0")
    if not training.perceptual:
        raise ValueError(f"stage {stage.name}: {NOTHING_COMPARES}")
    path = Path(training.perceptual)
    if not checkpoint.card_path(path).is_file():
        published.vgg_state(path, "conv5_4", normalise=True)
        return
    checkpoint.expect(card := checkpoint.load_card(path), path, "codebook")
    checkpoint.load_state(path, card)
