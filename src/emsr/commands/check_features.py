"""Whether a stage has what its recipe weighs: terms of its kind, and what losses compare images with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsr import plugins
from emsr.slices import reads

if TYPE_CHECKING:
    from emsr.config import Training
    from emsr.models.stage import Stage

ENTRIES = ("unquantised", "kmeans_vectors", "entries_decay", "restart_after", "restart_until")
DEFORMATIONS = (
    *("border", "balance_limit", "rotation_share", "elastic_share", "elastic", "shift_share", "shift"),
    *("intensity_share", "brightness", "gamma", "section_intensity", "poor_share", "poor", "blur", "faint"),
    *("missing_share", "missing", "elastic_spacing", "affinity_error"),
)
TERMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # for what: the objectives that read these, and no other
    "networks of two directions": (
        ("dual",),
        ("guide_weight", "latent_weight", "cycle_weight", "alternate", "protocol"),
    ),
    "trainings at random scales": (("scales",), ("scales", "scales_drawn", "anisotropy", "samples")),
    "networks of several images on the way": (("image",), ("early_weight", "early_until")),
    "clips": (("image",), ("depth_overlap",)),
    "clips and affinities": (("image", "affinity", "none"), ("depth",)),
    "stages fusion": (("fusion",), ("contextual_weight",)),
    "stages codebook": (
        ("codebook",),
        ("codebook_weight", "commitment", "penalty_weight", "penalty_every", *ENTRIES),
    ),
    "stages that compare images": (
        ("image", "heads", "dual", "adversarial", "codebook", "fusion"),
        ("image_weight",),
    ),
    "super-resolvers": (("image", "heads", "dual", "adversarial", "scales"), ("image_error",)),
    "stages that compare features": (("image", "adversarial"), ("perceptual_error",)),
    "a discriminator": (("codebook", "adversarial"), ("adversarial_from",)),
    "super-resolvers with a discriminator": (("adversarial",), ("adversarial_image",)),
    "stages flow": (("flow",), ("displacement",)),
    "stages flow and affinities": (("flow", "affinity"), ("rotation", "contrast")),
    "affinities": (("affinity",), DEFORMATIONS),
}


def check(training: Training, options: Any, stage: Stage) -> None:
    """What a stage weighs besides the difference of images, it can have."""
    check_terms(training, stage)
    if stage.objective == "flow" and stage.steps and getattr(options, "flow", "") == "none":
        raise ValueError(
            f"stage {stage.name}: {stage.steps} steps for a network that flow 'none' leaves out; use steps 0"
        )
    if stage.perceptual_weight:
        _check_features(training, stage)
    if stage.adversarial_weight:
        _check_discriminator(training.model.name, options, stage)


def check_terms(training: Training, stage: Stage) -> None:
    """No recipe asks for what its stage would never look at, above all for another protocol."""
    from emsr.models.stage import Stage as Recipe

    for whose, (objectives, names) in TERMS.items():
        for name in names if stage.objective not in objectives else ():
            if (value := getattr(stage, name)) != Recipe.__dataclass_fields__[name].default:
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
        if stage.adversarial_from >= stage.steps > 0:
            raise ValueError(
                f"stage {stage.name} of {model} never meets its discriminator: adversarial_from "
                f"{stage.adversarial_from} is not reached in steps {stage.steps}; lower it, or use adversarial_weight 0"
            )
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
