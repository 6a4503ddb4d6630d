"""WASA: residual blocks among wavelet bands with channel attention, then self-attention (no paper or code was found
under the name; after the code in the source paper)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emsr.layers.attention import SelfAttention
from emsr.layers.blocks import conv
from emsr.layers.sparse_attention import SparseAttention
from emsr.layers.upscale import bicubic, upsampler
from emsr.layers.wavelet import WaveletBlock
from emsr.models import recipe
from emsr.models.section import SingleSection, check_counts, check_scale

SCALES = (2, 4, 8, 16)
NEEDS: dict[str, tuple[str, ...]] = {"image": ()}
READS = {"image": ("hr", "lr", "perceptual")}
SKIPS = ("identity", "seed")
ATTENTIONS = ("full", "sparse")


@dataclass(frozen=True)
class Options:
    """What shapes the network; the values are in PRESETS."""

    width: int  # channels
    blocks: int  # wavelet blocks
    reduction: int  # by which the channel attention has fewer channels than the four bands
    attention: str  # over positions: "full", each to all, or "sparse", to those that hash alike
    sa_scale: bool  # full: divide by the root of the channels, as the paper says and its code does not
    skip: str  # how the convolutions over the bicubic section begin: "identity", so that sr is that, or "seed", drawn


PRESETS = {
    "published": Options(width=64, blocks=16, reduction=16, attention="full", sa_scale=True, skip="identity"),
    "published_perceptual": Options(
        width=64, blocks=16, reduction=16, attention="full", sa_scale=True, skip="identity"
    ),
    "small": Options(width=24, blocks=8, reduction=16, attention="full", sa_scale=True, skip="identity"),
}

_PUBLISHED = replace(recipe.PUBLISHED, halvings=(60_000, 120_000, 180_000, 240_000))
_HALF = dict.fromkeys(SCALES, 32)
stages = recipe.stages(
    {
        "published": _PUBLISHED,
        "published_perceptual": replace(_PUBLISHED, perceptual_weight=0.1),
        "small": recipe.small(_PUBLISHED),
    },
    {"published": _HALF, "published_perceptual": _HALF, "small": {2: 54, 4: 46, 8: 32, 16: 16}},
)


def build(scale: int, sections: int, options: Options) -> Wasa:
    """The untrained network; of ``sections`` it reads the centre alone.

    Raises ValueError for a scale or options that it cannot have.
    """
    check_scale("wasa", scale, SCALES)
    check_counts("wasa", width=options.width, blocks=options.blocks, reduction=options.reduction)
    if 4 * options.width < options.reduction:
        raise ValueError(
            f"reduction {options.reduction} leaves nothing of four bands of width {options.width}: "
            f"use at most {4 * options.width}"
        )
    for name, value, legal in (("skip", options.skip, SKIPS), ("attention", options.attention, ATTENTIONS)):
        if value not in legal:
            raise ValueError(f"{name} {value!r} is unknown: use one of {', '.join(legal)}")
    return Wasa(scale, sections, options)


class Wasa(SingleSection):
    """Enlarged deep features, and three convolutions over the bicubic section. Both attentions see the whole window, so
    sr depends on it."""

    def __init__(self, scale: int, sections: int, options: Options, channels: int = 1) -> None:
        super().__init__(scale, sections)
        width = options.width
        self.first = conv(channels, width)
        self.blocks = nn.Sequential(*(WaveletBlock(width, options.reduction) for _ in range(options.blocks)))
        self.attend = SelfAttention(width, options.sa_scale) if options.attention == "full" else SparseAttention(width)
        self.ups = upsampler(width, scale)
        self.last = conv(width, channels)
        over = [conv(channels, width, kernel=5), conv(width, width), conv(width, channels)]
        self.skip = nn.Sequential(*over)
        if options.skip == "identity":
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(torch.as_tensor(self.last.bias))
            identity(over)

    def enlarge(self, lr: Tensor) -> Tensor:
        """(batch, 1, y, x) in [0, 1] -> (batch, 1, scale*y, scale*x), not clamped."""
        y, x = lr.shape[-2:]
        features = self.first(even(lr))
        deep = features + self.attend(self.blocks(features))
        main: Tensor = self.last(self.ups(deep))
        return main[..., : self.scale * y, : self.scale * x] + self.skip(bicubic(lr, self.scale))


def even(image: Tensor) -> Tensor:
    """(batch, channels, y, x) with a last row and column, mirrored, where y or x is odd; of a side of 1 repeated."""
    y, x = image.shape[-2:]
    return F.pad(image, (0, x % 2, 0, y % 2), mode="reflect" if min(y, x) > 1 else "replicate")


@torch.no_grad()
def identity(layers: Sequence[nn.Conv2d]) -> None:
    """Set convolutions, of which the first widens and the last narrows, to what changes nothing together.

    Only centre taps are left. Those of the first stay in the directions that were drawn, orthonormal, so that its
    channels do not learn alike; those between are 1 for each channel, those of the last the first's.
    """
    if layers[0].weight.is_meta:  # there it would compute nothing and import torch's compiler: a second
        return
    for layer in layers:
        nn.init.zeros_(torch.as_tensor(layer.bias))
    first, *between, last = (layer.weight for layer in layers)
    taps = first[:, :, first.shape[2] // 2, first.shape[3] // 2]  # (width, channels)
    taps = torch.linalg.qr(taps)[0]
    for weight in (first, *between, last):
        weight.zero_()
    first[:, :, first.shape[2] // 2, first.shape[3] // 2] = taps
    for weight in between:
        weight[:, :, 1, 1] = torch.eye(len(weight))
    last[:, :, 1, 1] = taps.T
