"""``emsr import-weights``: published checkpoints become weights with a card."""

from __future__ import annotations

import logging
from pathlib import Path

log = logging.getLogger(__name__)


def import_weights(file: Path, *, stage: str, out: Path, scale: int | None = None) -> None:
    """Turn a published checkpoint (.pth, .pt) of a stage into weights (.safetensors) with their card beside them.

    ``file``: stage1.pth, stage2_x8.pth, stage3_x16.pth, ..., superhuman.pt, MALA.pt or a file of EDSR-PyTorch, its
    three channels made one; ``stage``: codebook, indexer, fusion, affinity, or image for EDSR; ``scale``: 8, 16, for
    the codebook also 4, for image 2, 3, 4, 8, 16, none for affinity. Raises ValueError naming what is missing or
    misshapen.
    """
    from emsr.models import checkpoint, published

    if out.suffix != ".safetensors":
        raise ValueError(f"{out} does not end in .safetensors: name the weights so, their card goes beside them")
    state, card = published.import_weights(file, stage, scale)
    checkpoint.save(out, state, card)
    log.info("wrote %s with %d tensors of stage %s", out, len(state), stage)
    if (channels := card.get("channels_made_one", 1)) > 1:
        log.info("its %d channels were made one: it sees and gives grey, the mean of what they gave", channels)
