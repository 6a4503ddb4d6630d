"""GPEMSR: super-resolution with a generative prior (CVPR 2024; spec C). x4, x8 and x16 by loops over levels."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from emsr.models import indexer, vqgan
from emsr.models.gpemsr_network import FLOWS, Gpemsr, flow_network
from emsr.models.gpemsr_recipe import stages
from emsr.models.section import check_scale, odd

SCALES = (4, 8, 16)
NEEDS = {"flow": (), "codebook": (), "indexer": ("codebook",), "fusion": ("flow", "codebook", "indexer")}
# of hr, lr, perceptual and spynet what each stage reads; a stage that is not named reads all
READS = {"flow": ("lr", "spynet"), "codebook": ("hr",), "indexer": ("hr", "lr"), "fusion": ("hr", "lr", "perceptual")}
ACCELERATED = {"flow": ("correlation",), "fusion": ("deform", "correlation")}  # layers that accelerators may compute
# what names of options that an earlier stage depends on begin with ("=" ends a name); others leave its weights alone
STAGE_OPTIONS = {
    "flow": (
        "flow=",
        "flow_levels",
        "flow_widths",
        "flow_kernel",
        "flow_channels",
        "flow_scale",
        "flow_maps",
        "flow_radius",
    ),
    "codebook": (
        "latent",
        "channels",
        "entries",
        "norm",
        "tail_",
        "attention",
        "codebook_",
        "decoder_",
        "discriminator_",
    ),
    "indexer": ("latent", "channels", "entries", "norm", "tail_", "attention", "codebook_", "indexer_"),
}
__all__ = ["FLOWS", "NEEDS", "PRESETS", "SCALES", "Gpemsr", "Options", "build", "flow_network", "network", "stages"]


@dataclass(frozen=True)
class Options:
    """Everything that shapes the four networks; the values are in PRESETS."""

    # codebook
    latent_stride: int  # hr pixels under one code; a power of two, at least the scale
    channels: tuple[int, ...]  # from full resolution down; the first log2(latent_stride) + 1 are used
    latent: int  # width of an entry
    entries: int
    norm_groups: int  # groups of every GroupNorm, or 0
    norm_group_channels: int  # then channels of each group
    tail_blocks: int  # residual blocks on the latent grid, on either side of the codebook
    attention: bool  # non-local block on the latent grid
    normalise_latents: bool  # unit root mean square at each position
    codebook_learning: str  # "gradient" or "average"
    decoder_bias: float  # added to the decoder's last bias at the start
    discriminator_channels: tuple[int, ...]
    # indexer
    indexer_channels: tuple[int, ...]  # one transition between two widths
    # fusion
    width: int
    front_blocks: int
    back_blocks: int
    prior_blocks: int
    deformable_groups: int
    flow_features: int
    reference: bool  # False: the twin without prior
    mask_features: str  # "vgg" or "encoder"
    # flow
    flow_scale: int  # lr sections are enlarged by it before flow
    flow_levels: int
    flow_widths: tuple[int, ...]
    flow_kernel: int  # of spynet; correlation has 3x3 convolutions
    flow_channels: int  # of spynet: 3 for published weights, 1 otherwise
    # cards that were written without them mean these
    flow: str = "spynet"  # or "correlation"
    flow_maps: int = 16  # of correlation: width of the features at every level
    flow_radius: int = 4  # of correlation: the largest displacement that a level corrects, in its pixels


PRESETS = {
    "published": Options(
        latent_stride=16,
        channels=(64, 64, 128, 256, 512),
        latent=512,
        entries=1024,
        norm_groups=32,
        norm_group_channels=0,
        tail_blocks=3,
        attention=True,
        normalise_latents=False,
        codebook_learning="gradient",
        decoder_bias=0.0,
        discriminator_channels=(64, 128, 256, 512),
        indexer_channels=(64, 64, 128, 256, 512),
        width=64,
        front_blocks=5,
        back_blocks=10,
        prior_blocks=1,
        deformable_groups=8,
        flow_features=16,
        reference=True,
        mask_features="vgg",
        flow_scale=4,
        flow_levels=6,
        flow_widths=(32, 64, 32, 16),
        flow_kernel=7,
        flow_channels=3,
        flow_maps=32,
    ),
    "small": Options(
        latent_stride=16,
        channels=(32, 32, 64, 96, 128),
        latent=128,
        entries=512,
        norm_groups=0,
        norm_group_channels=8,
        tail_blocks=2,
        attention=True,
        normalise_latents=True,
        codebook_learning="average",
        decoder_bias=0.5,
        discriminator_channels=(32, 64, 96, 128),
        indexer_channels=(32, 32, 64, 96, 128),
        width=32,
        front_blocks=5,
        back_blocks=10,
        prior_blocks=1,
        deformable_groups=4,
        flow_features=16,
        reference=True,
        mask_features="encoder",
        flow_scale=1,
        flow_levels=3,
        flow_widths=(32, 32, 32),
        flow_kernel=5,
        flow_channels=1,
    ),
}


def network(stage: str, scale: int, sections: int, options: Options) -> nn.Module:
    """The untrained network of ``stage``: flow, codebook, indexer or fusion."""
    if stage == "flow":
        return flow_network(options)
    if stage == "codebook":
        return vqgan.build(options)
    if stage == "indexer":
        return indexer.build(scale, options)
    if stage == "fusion":
        return build(scale, sections, options)
    raise ValueError(f"stage {stage!r} is unknown: use one of {', '.join(NEEDS)}")


def build(scale: int, sections: int, options: Options) -> Gpemsr:
    """The whole network, untrained; ``sections`` is odd, 1 makes the twin without neighbours.

    Raises ValueError for a scale, a number of sections or options that it cannot have.
    """
    check_scale("gpemsr", scale, SCALES)
    return Gpemsr(scale, odd(sections), options)
