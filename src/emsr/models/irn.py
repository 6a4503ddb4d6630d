"""IRN: invertible rescaling (Xiao et al. 2020, 2005.05650), trained here to enlarge lr that is given."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from emsr.layers.invertible import Dense
from emsr.models import dual_recipe
from emsr.models.dual import Invertible
from emsr.models.section import check_counts, check_scale

SCALES = (2, 4, 8, 16)
NEEDS: dict[str, tuple[str, ...]] = {"image": ()}
READS = {"image": ("hr", "lr")}
LATENTS = True
RESULT = 2  # latents in units of their own, zero for half of the patches


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

stages = dual_recipe.stages(dual_recipe.PUBLISHED, hr_side=144)


def build(scale: int, sections: int, options: Options, channels: int = 1) -> Invertible:
    """The untrained network of images with ``channels``; of ``sections`` it reads the centre alone.

    Raises ValueError for a scale or options that it cannot have.
    """
    check_scale("irn", scale, SCALES)
    check_counts("irn", blocks=options.blocks, layers=options.layers, growth=options.growth)
    if options.max_h:
        check_counts("irn", max_h=options.max_h)
    module = partial(Dense, growth=options.growth, layers=options.layers)
    return Invertible(scale, sections, options.blocks, "haar", module, options.max_h, channels=channels)
