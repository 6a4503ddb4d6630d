"""ISTE: super-resolution of single sections by any real scale, with texture that is alike elsewhere in them (Duan et
al. 2024, 2401.15613)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from emsr.layers.blocks import conv
from emsr.layers.encoders import encoder
from emsr.layers.implicit import Corner, Perceptron, Points, bilinear, centres, every, rows
from emsr.layers.texture import LocalAttention, SelfTexture, Texture
from emsr.models import real_scale, recipe
from emsr.models.real_scale import RealScale, Rows, check
from emsr.models.section import check_counts
from emsr.scales import Scale

SCALES = (2, 4, 8, 16)  # among those of SCALE_RANGE
SCALE_RANGE = (1.0, 16.0)
NEEDS: dict[str, tuple[str, ...]] = {"image": ()}
READS = {"image": ("hr", "lr")}


@dataclass(frozen=True)
class Options:
    """What shapes the network; the values are in PRESETS."""

    encoder: str  # edsr or swinir
    width: int  # channels of features
    blocks: int  # edsr: residual blocks
    embedding: int  # swinir: channels inside
    groups: int  # swinir
    layers: int  # swinir: of each group
    heads: int  # swinir
    window: int  # swinir: lr pixels
    mlp_ratio: int  # swinir
    drop_path: float  # swinir: share of samples that skip the last layer in training; fewer skip earlier ones
    attention_heads: int  # of the attention within 3 x 3 pixels
    texture: int  # channels of texture
    hidden: tuple[int, ...]  # sizes of the layers of both decoders
    key_stride: int  # sr voxels along y and x between textures that are compared with; 1: all of the window
    bilinear_skip: bool  # add bilinear lr to what the decoders say
    largest_scale: float  # the decoders see voxels as large as at this scale at least; 0: as they are


_PAPER = Options(
    encoder="swinir",
    **real_scale.ENCODERS,
    attention_heads=8,
    texture=256,
    hidden=(256, 256, 256),
    key_stride=1,
    bilinear_skip=False,
    largest_scale=0.0,
)
PRESETS = {
    "published": _PAPER,
    "edsr": replace(_PAPER, encoder="edsr"),
    "em": replace(_PAPER, key_stride=4, bilinear_skip=True),  # for scales to 16
    "small": replace(
        _PAPER,
        encoder="edsr",
        width=48,
        blocks=8,
        texture=96,
        hidden=(96, 96, 96),
        key_stride=4,
        bilinear_skip=True,
    ),
}

_PUBLISHED = replace(
    real_scale.PUBLISHED,
    steps=2_300_000,
    batch=4,
    learning_rate=2e-4,
    halvings=(1_150_000, 1_840_000, 2_070_000, 2_185_000),
    validate_every=20_000,
)
stages = real_scale.stages(
    {
        "published": _PUBLISHED,
        "edsr": _PUBLISHED,
        "em": replace(
            _PUBLISHED,
            steps=300_000,
            batch=16,
            schedule="cosine",
            halvings=(),
            scales=(1.0, 16.0),
            scales_drawn="logarithmic",
            validate_every=5_000,
        ),
        # about as much arithmetic as edsr's
        "small": recipe.small(_PUBLISHED, patch=32, samples=1024),
    }
)


def build(scale: Scale, sections: int, options: Options) -> Iste:
    """The untrained network; of ``sections`` it reads the centre alone.

    Raises ValueError for a scale or options that it cannot have.
    """
    check("iste", scale, SCALE_RANGE, options)
    check_counts("iste", texture=options.texture, key_stride=options.key_stride)
    if not 0 <= options.largest_scale < float("inf"):
        raise ValueError(f"largest_scale {options.largest_scale} is no scale: use the largest trained, or 0 for none")
    return Iste(scale, sections, options)


class Iste(RealScale):
    """Two decoders: of the texture around a point, and of the most similar texture elsewhere in the window."""

    def __init__(self, scale: Scale, sections: int, options: Options, channels: int = 1) -> None:
        super().__init__(scale, sections, channels)
        self.options = options
        self.encoder = encoder(options, channels)
        self.local = LocalAttention(options.width, options.attention_heads)
        self.widen = conv(options.width, options.texture)
        self.texture = Texture(options.width, options.texture)
        self.similar = SelfTexture(options.texture)
        self.pixel = Perceptron(options.texture, 4, options.hidden, channels)
        self.detail = Perceptron(options.texture, 0, options.hidden, channels)

    def lattice(self, lr: Tensor, scale: tuple[float, float]) -> Points:
        """Every ``key_stride``-th voxel of sr of all of lr, counted from its corner, along y and x."""
        step = self.options.key_stride
        y, x = (centres(side, s, lr.device)[::step] for side, s in zip(lr.shape[-2:], scale, strict=True))
        return every(y, x, lr.shape[0], (lr.shape[-2], lr.shape[-1]))

    def prepare(self, lr: Tensor, cell: Tensor, keys: Points | None) -> Rows:
        """Of each pixel what the first decoder's first layer makes of its features at each of four corners; waves of
        its texture; and the phases, and lr."""
        assert keys is not None
        features = self.encoder(lr)
        with torch.autocast(lr.device.type, enabled=False):  # what is alike is seen in the last bits
            features = features.float()
            waves, phases = self.texture.waves(features), self.texture.phases(cell)
            queries = rows(self.widen(self.local(features)))
            mixed = self.similar(queries, partial(self.texture, waves, phases), keys)
        return *(self.pixel.on_grid(part) for part in mixed), waves, phases, lr

    def decode(self, known: Rows, points: Points, cell: Tensor) -> Tensor:
        """(batch * points, channels): what both decoders say of the pixels around a point, each as near as it is."""
        *grids, waves, phases, lr = known
        skip = bilinear(lr, points) if self.options.bilinear_skip else torch.zeros((), device=lr.device)
        return skip + sum(
            corner.weight * self._said(grid, self.texture(waves, phases, corner), corner, cell)
            for corner, grid in zip(points.corners(), grids, strict=True)
        )

    def _said(self, grid: Tensor, texture: Tensor, corner: Corner, cell: Tensor) -> Tensor:
        beside = torch.cat([corner.apart, cell.expand_as(corner.apart)], 1)
        pixel: Tensor = self.pixel(corner.take(grid), beside)
        return pixel.float() + self.detail(self.detail.on_grid(texture)).float()

    def cell(self, scale: tuple[float, float], device: torch.device) -> Tensor:
        """Sides of a voxel in half lr pixels, (2,); as at ``largest_scale`` where they would be smaller."""
        cell = super().cell(scale, device)
        largest = self.options.largest_scale
        return cell.clamp(min=2 / largest) if largest else cell
