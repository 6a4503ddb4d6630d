"""What the recipes of super-resolvers have in common that one stage trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from emsr.models.stage import Stage

PUBLISHED = Stage(
    "image",
    "image",
    steps=300_000,
    batch=16,
    patch=48,
    learning_rate=1e-4,
    betas=(0.9, 0.999),
    schedule="halvings",
    halvings=(150_000, 225_000, 270_000, 285_000),
    validate_every=5_000,
    checkpoint_every=5_000,
)
PATCHES = {2: 48, 3: 48, 4: 48, 8: 32, 16: 32}  # lr pixels


def descent(side: int, **changes: Any) -> Stage:
    """The published recipe of deep columns over the enlarged section (Kim et al. 2016, VDSR): plain descent at a high
    rate, by changes that are limited. Its loss is half the sum over a patch of ``side`` x ``side`` voxels, to which the
    learning rate belongs."""
    steep: dict[str, Any] = {
        **{"optimiser": "sgd", "betas": (0.9, 0.0), "weight_decay": 1e-4, "learning_rate": 0.1, "clip_change": 0.01},
        **{"image_error": "squared", "image_weight": side**2 / 2},
    }
    return replace(PUBLISHED, **{**steep, **changes})


def small(published: Stage, **changes: Any) -> Stage:
    """What of a paper's recipe is left on one core: its loss; the rest is what trains small networks fast."""
    short: dict[str, Any] = {
        **{"steps": 6_000, "batch": 4, "validate_every": 500, "checkpoint_every": 250},
        **{"optimiser": "adam", "betas": (0.9, 0.99), "weight_decay": 0.0, "clip": 1.0, "clip_change": 0.0},
        **{"learning_rate": 1e-3, "schedule": "cosine", "minimum_rate": 1e-5, "warmup": 100},
        **{"halvings": (), "halving": 0.5, "restarts": (), "periods": ()},
        **{"weight_ema": 0.995, "precision": "bfloat16", "image_weight": 1.0, "slow": ()},
    }
    return replace(published, **{**short, **changes})


def stages(
    recipes: Mapping[str, Stage], patches: Mapping[str, Mapping[int, int]]
) -> Callable[[str, int], tuple[Stage, ...]]:
    """``stages`` of a model that one stage trains: ``recipes`` by preset, with patches of so many lr pixels at each
    scale as ``patches`` says by preset, else as PATCHES."""

    def stages(preset: str, scale: int) -> tuple[Stage, ...]:
        """The training recipe of ``preset`` at ``scale``: one stage."""
        return (replace(recipes[preset], patch=patches.get(preset, PATCHES)[scale]),)

    return stages
