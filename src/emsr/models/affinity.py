"""Affinity networks: image -> probability that neighbouring voxels are one object (spec F).

``superhuman`` (Lee et al. 2017, arXiv 1706.00120) and ``mala`` (Funke et al. 2018, TPAMI 41:1669) as GPEMSR publishes
them. An affinity at a voxel is of the edge to its lower neighbour along z, y and x, in this order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from emsr.layers.volumetric import LEAK, PaddedUp, ValidUp, VolumeBlock, flat_conv, initialise, valid_pair
from emsr.models import affinity_geometry
from emsr.models.affinity_geometry import Geometry
from emsr.models.stage import Stage

OUTPUT = "affinity"  # what the network gives; a model file that does not say gives sr
SCALES = (1,)  # affinities lie on the grid of the image
NEEDS: dict[str, tuple[str, ...]] = {"affinity": ()}
READS = {"affinity": ("labelled",)}
AFFINITIES = 3


@dataclass(frozen=True)
class Options:
    """What shapes an affinity network; the values are in PRESETS."""

    kind: str  # "superhuman", padded, or "mala", valid
    widths: tuple[int, ...]  # from fine to coarse, the last at the bottom; superhuman's first is of its embedding
    norm_momentum: float  # share of a batch in the running statistics; 0 for mala, which has none


PRESETS = {
    "superhuman": Options(kind="superhuman", widths=(28, 28, 36, 48, 64, 80), norm_momentum=0.001),
    "mala": Options(kind="mala", widths=(12, 60, 300, 1500), norm_momentum=0.0),
    # three levels; short trainings, whose statistics must follow in tens of steps, not thousands
    "small": Options(kind="superhuman", widths=(8, 8, 16, 32, 64), norm_momentum=0.02),
}

# z, y, x of a window at inference, halo included (spec E). With small's, PyTorch computes by oneDNN: for one float32
# image of at most 20,480 values along channels, z and y it does not, and is 3 to 10 times as slow
WINDOWS = {"superhuman": (18, 160, 160), "mala": (53, 268, 268), "small": (18, 160, 160)}

# of the training only the sorts of augmentation and the border are published (spec E): the numbers are ours
_LONG = Stage(
    "affinity",
    "affinity",
    steps=200_000,
    batch=2,
    patch=160,
    depth=18,
    learning_rate=1e-3,
    betas=(0.9, 0.999),
    warmup=1_000,
    minimum_rate=1e-6,
    validate_every=5_000,
    checkpoint_every=5_000,
    border=1,
    balance_limit=10.0,
    rotation_share=0.5,
    rotation=45.0,
    elastic_share=0.5,
    elastic=8.0,
    shift_share=0.2,
    shift=12,
    intensity_share=0.8,
    contrast=0.3,
    brightness=0.15,
    gamma=0.4,
    section_intensity=0.3,
    poor_share=0.2,
    poor=3,
    blur=3.0,
    faint=0.7,
    missing_share=0.2,
    missing=2,
)
RECIPES: dict[str, Stage] = {
    "superhuman": _LONG,
    "mala": replace(_LONG, steps=300_000, batch=1, patch=268, depth=53, learning_rate=1e-4, betas=(0.95, 0.999)),
    # little can be learned in minutes: mild changes, so that patches stay like what is segmented
    "small": replace(_LONG, steps=1_500, patch=96, learning_rate=3e-3, warmup=50, minimum_rate=1e-5, weight_ema=0.99,
                     precision="bfloat16", validate_every=250, checkpoint_every=250, clip=1.0, rotation_share=0.2,
                     elastic_share=0.2, shift_share=0.05, shift=4, intensity_share=0.5, poor_share=0.05, poor=1,
                     missing_share=0.05, missing=1),
}  # fmt: skip


def stages(preset: str, scale: int) -> tuple[Stage, ...]:
    """The training recipe of ``preset``: one stage; ``patch`` is the side y, x of an input, in voxels."""
    return (RECIPES[preset],)


def network(stage: str, scale: int, sections: int, options: Options) -> nn.Module:
    """The untrained network of stage "affinity"; it depends neither on the scale nor on the number of sections."""
    if stage not in NEEDS:
        raise ValueError(f"stage {stage!r} is unknown: use {', '.join(NEEDS)}")
    return build(options)


def build(options: Options) -> Superhuman | Mala:
    """The untrained network: ``forward``, ``logits`` and ``geometry``, which says what inputs it takes.

    Raises ValueError for options that no network has.
    """
    kinds: dict[str, type[Superhuman | Mala]] = {"superhuman": Superhuman, "mala": Mala}
    least = {"superhuman": 3, "mala": 2}
    if options.kind not in kinds:
        raise ValueError(f"kind {options.kind!r} of an affinity network is unknown: use {' or '.join(kinds)}")
    if len(options.widths) < least[options.kind] or min(options.widths) < 1:
        raise ValueError(
            f"widths {options.widths} make no {options.kind}: give at least {least[options.kind]}, all positive"
        )
    return kinds[options.kind](options)


class Superhuman(nn.Module):
    """Residual symmetric U-Net, padded: the output is as large as the input, whose y and x are multiples of 16."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        embedded, *levels, bottom = options.widths
        self.geometry: Geometry = affinity_geometry.superhuman(len(levels))
        momentum = options.norm_momentum
        self.first = flat_conv(1, embedded, 5, bias=True)
        self.downs = nn.ModuleList(VolumeBlock(*widths, momentum) for widths in pairwise([embedded, *levels]))
        self.bottom = VolumeBlock(levels[-1], bottom, momentum)
        self.ups = nn.ModuleList(PaddedUp(*widths, momentum) for widths in pairwise([bottom, *levels[::-1]]))
        self.smooth = flat_conv(levels[0], levels[0], 5, bias=True)
        self.last = nn.Conv3d(levels[0], AFFINITIES, 1)
        initialise(self, leak=0.0)

    def forward(self, image: Tensor) -> Tensor:
        """(batch, 1, z, y, x) in [0, 1] -> affinities (batch, 3, z, y, x) in [0, 1]; ValueError for other shapes."""
        return self.logits(image).sigmoid()

    def logits(self, image: Tensor) -> Tensor:
        """What ``forward`` takes the sigmoid of."""
        check(image, self.geometry)
        x, skips = F.elu(self.first(image), inplace=True), []
        for down in self.downs:
            x = down(x)
            skips.append(x)
            x = F.max_pool3d(x, (1, 2, 2))
        x = self.bottom(x)
        for up in self.ups:
            x = up(x, skips.pop())
        said: Tensor = self.last(F.elu(self.smooth(x), inplace=True))
        return said


class Mala(nn.Module):
    """U-Net of valid convolutions: an output voxel never depends on padding, and 14, 106, 106 are lost on each side."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        *levels, bottom = options.widths
        self.geometry: Geometry = affinity_geometry.mala(len(levels))
        self.downs = nn.ModuleList(valid_pair(*widths) for widths in pairwise([1, *levels]))
        self.bottom = valid_pair(levels[-1], bottom)
        self.ups = nn.ModuleList(ValidUp(*widths) for widths in pairwise([bottom, *levels[::-1]]))
        self.last = nn.Conv3d(levels[0], AFFINITIES, 1)
        initialise(self, LEAK)

    def forward(self, image: Tensor) -> Tensor:
        """(batch, 1, z, y, x) in [0, 1] -> affinities (batch, 3, z - 28, y - 212, x - 212) in [0, 1].

        Raises ValueError for shapes that ``geometry`` does not allow: pooling would drop voxels silently.
        """
        return self.logits(image).sigmoid()

    def logits(self, image: Tensor) -> Tensor:
        """What ``forward`` takes the sigmoid of."""
        check(image, self.geometry)
        x, skips = image, []
        for down in self.downs:
            x = down(x)
            skips.append(x)
            x = F.max_pool3d(x, (1, 3, 3))
        x = self.bottom(x)
        for up in self.ups:
            x = up(x, skips.pop())
        said: Tensor = self.last(x)
        return said


def check(image: Tensor, geometry: Geometry) -> None:
    """Raise a one-line ValueError for what is no (batch, 1, z, y, x) of a shape that ``geometry`` allows."""
    if image.ndim != 5 or image.shape[1] != 1:
        raise ValueError(f"an image of shape {tuple(image.shape)} is not (batch, 1, z, y, x): give one channel")
    geometry.check(image.shape[2:])
