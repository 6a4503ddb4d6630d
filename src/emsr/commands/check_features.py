"""Whether a stage has what its recipe weighs: terms of its kind, and what losses compare images with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsr import plugins
from emsr.slices import reads

if TYPE_CHECKING:
    from emsr.config import Training
    from emsr.models.stage import Stage

TERMS = {  # what only stages of one objective read
    "dual": ("guide_weight", "latent_weight", "cycle_weight", "alternate", "protocol"),
    "scales": ("scales", "scales_drawn", "anisotropy", "samples"),
}


def check(training: Training, options: Any, stage: Stage) -> None:
    """What a stage weighs besides the difference of images, it can have."""
    _check_terms(training, stage)
    if stage.objective == "flow" and stage.steps and getattr(options, "flow", "") == "none":
        raise ValueError(
            f"stage {stage.name}: {stage.steps} steps for a network that flow 'none' leaves out; use steps 0"
        )
    if stage.perceptual_weight:
        _check_features(training, stage)
    if stage.adversarial_weight:
        _check_discriminator(training.model.name, options, stage)


def _check_terms(training: Training, stage: Stage) -> None:
    """No recipe asks for what its stage would never look at, above all for another protocol."""
    from emsr.models.stage import Stage as Recipe

    for objective, names in TERMS.items():
        for name in names if stage.objective != objective else ():
            if (value := getattr(stage, name)) != Recipe.__dataclass_fields__[name].default:
                whose = "networks of two directions" if objective == "dual" else "trainings at random scales"
                raise ValueError(
                    f"stage {stage.name} of {training.model.name} knows no {name} ({value!a}), which is for {whose}: "
                    "remove it"
                )


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
