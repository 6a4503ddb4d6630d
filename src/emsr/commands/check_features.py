"""Whether what a perceptual loss compares is there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from emsr.slices import reads

if TYPE_CHECKING:
    from emsr.config import Training
    from emsr.models.stage import Stage


def check(training: Training, stage: Stage) -> None:
    """What a perceptual loss compares has weights, and the stage is one that looks at them."""
    from emsr.models import checkpoint, published
    from emsr.steps import networks

    if "perceptual" not in reads(training, stage.name) or stage.objective not in ("image", "adversarial"):
        raise ValueError(f"stage {stage.name} of {training.model.name} compares no features: use perceptual_weight 0")
    if not training.perceptual:
        raise ValueError(f"stage {stage.name}: {networks.NOTHING_COMPARES}")
    path = Path(training.perceptual)
    if not checkpoint.card_path(path).is_file():
        published.vgg_state(path, "conv5_4", normalise=True)
        return
    checkpoint.expect(card := checkpoint.load_card(path), path, "codebook")
    checkpoint.load_state(path, card)
