"""IRN: invertible rescaling (Xiao et al. 2020, 2005.05650), trained here to enlarge lr that is given."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from emsr.layers.invertible import Dense
from emsr.models.dual import Invertible, check
from emsr.models.stage import Stage

SCALES = (2, 4, 8, 16)
NEEDS: dict[str, tuple[str, ...]] = {"image": ()}
READS = {"image": ("hr", "lr")}
LATENTS = True


@dataclass(frozen=True)
class Options:
    """What shapes the network; the values are in PRESETS."""

    blocks: int  # couplings of each level
    layers: int  # dense convolutions of a module, before the one that joins them
    growth: int  # channels of each
    max_h: int  # channels beside the image that a level couples; others pass through; 0: all


PRESETS = {
    "published": Options(blocks=8, layers=4, growth=32, max_h=0),
    "small": Options(blocks=3, layers=3, growth=16, max_h=15),
}

_PUBLISHED = Stage(
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
    latent_weight=1.0,
    validate_every=5_000,
    checkpoint_every=5_000,
)
_HR_SIDE = 144  # of a published patch


def stages(preset: str, scale: int) -> tuple[Stage, ...]:
    """The training recipe of ``preset`` at ``scale``: one stage."""
    if preset == "small":
        return (small(_PUBLISHED, scale),)
    return (per_voxel(replace(_PUBLISHED, patch=_HR_SIDE // scale), scale),)


def per_voxel(stage: Stage, scale: int) -> Stage:
    """A published recipe, whose losses are sums over an image, for losses that are means over hr voxels: what is
    compared with gradients becomes smaller with them."""
    voxels = (stage.patch * scale) ** 2
    return replace(stage, clip=stage.clip / voxels, weight_decay=stage.weight_decay / voxels)


def small(stage: Stage, scale: int) -> Stage:
    """A recipe whose step takes about what one of edsr's small takes; float32, since less does not come back."""
    stage = replace(stage, steps=6_000, batch=4, learning_rate=1e-3, betas=(0.9, 0.99), schedule="cosine", halvings=())
    stage = replace(stage, warmup=100, minimum_rate=1e-5, weight_ema=0.995, clip=1.0, weight_decay=0.0)
    return replace(stage, patch=_SMALL_PATCHES[scale], validate_every=500, checkpoint_every=250)


_SMALL_PATCHES = {2: 102, 4: 40, 8: 18, 16: 8}  # lr pixels


def build(scale: int, sections: int, options: Options, channels: int = 1) -> Invertible:
    """The untrained network of images with ``channels``; of ``sections`` it reads the centre alone.

    Raises ValueError for a scale or options that it cannot have.
    """
    numbers = {"blocks": options.blocks, "layers": options.layers, "growth": options.growth, "max_h": 1}
    check("irn", scale, SCALES, numbers | ({"max_h": options.max_h} if options.max_h else {}))
    module = partial(Dense, growth=options.growth, layers=options.layers)
    return Invertible(scale, sections, options.blocks, "haar", module, options.max_h, channels=channels)
