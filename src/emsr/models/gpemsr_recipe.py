"""How gpemsr is trained: the published recipe (spec A.6, B, C.9, C.10) and the one for preset ``small``."""

from __future__ import annotations

from dataclasses import replace

from emsr.models.stage import Stage

# spec A.6, B, C.10: 480,000 steps of Adam; the indexer's second restart at 80k cuts its 80k period, as released
_PUBLISHED = Stage(
    "codebook",
    "codebook",
    steps=480_000,
    batch=8,
    patch=512,
    learning_rate=4e-4,
    schedule="restarts",
    restarts=(40_000, 120_000, 240_000, 360_000),
    periods=(40_000, 80_000, 120_000, 120_000, 120_000),
    validate_every=5_000,
    checkpoint_every=5_000,
)
_SMALL = Stage(
    "codebook",
    "codebook",
    steps=1_500,
    batch=8,
    patch=128,
    learning_rate=1e-3,
    warmup=50,
    minimum_rate=1e-5,
    weight_ema=0.995,
    precision="bfloat16",
    validate_every=250,
    checkpoint_every=250,
    clip=1.0,
)

# sides of the patches of indexer and fusion in lr pixels: published 1024 and 256 hr pixels (spec B, C.10)
_PATCHES = {
    "published": {"indexer": {4: 256, 8: 128, 16: 64}, "fusion": {4: 64, 8: 32, 16: 16}},
    "small": {"indexer": {4: 64, 8: 64, 16: 32}, "fusion": {4: 32, 8: 24, 16: 12}},
}
# patches and contextual weights here are those of x8; stages() gives those of the scale
RECIPES: dict[str, tuple[Stage, ...]] = {
    "published": (
        # ours, for those without the published SpyNet
        replace(_PUBLISHED, name="flow", objective="flow", steps=100_000, patch=64, schedule="cosine", restarts=(),
                periods=(), displacement=16.0, rotation=5.0, contrast=0.3),
        replace(_PUBLISHED, codebook_weight=10.0, commitment=1.0, adversarial_weight=0.05, adversarial_from=40_000,
                penalty_weight=1e-4, penalty_every=16),
        replace(_PUBLISHED, name="indexer", objective="indexer", patch=128,
                restarts=(40_000, 80_000, 240_000, 360_000)),
        replace(_PUBLISHED, name="fusion", objective="fusion", patch=32, contextual_weight=0.001),
    ),
    "small": (
        replace(_SMALL, name="flow", objective="flow", steps=400, patch=64, precision="float32",
                displacement=16.0, rotation=5.0, contrast=0.3),
        replace(_SMALL, learning_rate=2e-3, codebook_weight=1.0, commitment=0.03, unquantised=0.1,
                kmeans_vectors=20_000, entries_decay=0.98, restart_after=64, restart_until=0.8),
        replace(_SMALL, name="indexer", objective="indexer", steps=800, batch=4, patch=64, cache=True),
        replace(_SMALL, name="fusion", objective="fusion", batch=4, patch=24, cache=True),
    ),
}  # fmt: skip


def stages(preset: str, scale: int) -> tuple[Stage, ...]:
    """The training recipe of ``preset`` at ``scale``: four stages in order."""
    patches = _PATCHES[preset]
    recipe = []
    for stage in RECIPES[preset]:
        if stage.name in patches:
            stage = replace(stage, patch=patches[stage.name][scale])
        if stage.contextual_weight and scale == 16:  # spec C.9
            stage = replace(stage, contextual_weight=10 * stage.contextual_weight)
        recipe.append(stage)
    return tuple(recipe)
