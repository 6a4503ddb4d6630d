"""How IRN and SNADN are trained: the published recipe of IRN and what is made of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from emsr.models import recipe
from emsr.models.dual import UNIT
from emsr.models.stage import Stage

PUBLISHED = Stage(
    "image",
    "dual",
    steps=500_000,
    batch=16,
    patch=36,
    learning_rate=2e-4,
    betas=(0.9, 0.999),
    schedule="halvings",
    halvings=(100_000, 200_000, 300_000, 400_000),
    weight_decay=1e-5,
    clip=10.0,
    image_error="charbonnier",
    latent_weight=UNIT**2,  # 1 of what latents are inside
    validate_every=5_000,
    checkpoint_every=5_000,
)
_SMALL_PATCHES = {2: 102, 4: 40, 8: 18, 16: 8}  # lr pixels: a step takes about what one of edsr's small takes


def stages(published: Stage, hr_side: int) -> Callable[[str, int], tuple[Stage, ...]]:
    """``stages`` of a model with presets whose patches are ``hr_side`` hr pixels, and small."""

    def stages(preset: str, scale: int) -> tuple[Stage, ...]:
        """The training recipe of ``preset`` at ``scale``: one stage."""
        if preset == "small":  # in float32, since less does not come back
            return (recipe.small(published, patch=_SMALL_PATCHES[scale], precision="float32"),)
        return (_per_voxel(replace(published, patch=hr_side // scale), scale),)

    return stages


def _per_voxel(stage: Stage, scale: int) -> Stage:
    """A published recipe, whose losses are sums over an image, for losses that are means over hr voxels: what is
    compared with gradients becomes smaller with them."""
    voxels = (stage.patch * scale) ** 2
    return replace(stage, clip=stage.clip / voxels, weight_decay=stage.weight_decay / voxels)
