"""EDVR: super-resolution from a section and its neighbours, aligned by deformable convolution (Wang et al. 2019).

1905.02716. Alignment (PCD), attention (TSA) and the stages of enlargement are those that gpemsr is made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emsr.layers.alignment import LEVELS, Alignment
from emsr.layers.attention import SectionAttention
from emsr.layers.blocks import conv, leaky, resize, trunk
from emsr.layers.prior import Pyramid
from emsr.layers.upscale import upsampler
from emsr.models import recipe
from emsr.models.section import check_counts, check_scale, odd, states_of
from emsr.models.stage import Stage

SCALES = (2, 4, 8, 16)
NEEDS: dict[str, tuple[str, ...]] = {"image": ()}
READS = {"image": ("hr", "lr")}
ACCELERATED = {"image": ("deform",)}  # layers that accelerators may compute
MULTIPLE = 2 ** (LEVELS - 1)  # of the sides that the pyramid halves
State = tuple[Tensor, ...]


@dataclass(frozen=True)
class Options:
    """What shapes the network; the values are in PRESETS."""

    width: int  # channels
    front_blocks: int  # residual blocks before the alignment
    back_blocks: int  # and after it
    deformable_groups: int
    tail: int  # channels after the last enlargement
    attention: bool  # False: aligned sections are joined by one convolution, without attention (TSA)


PRESETS = {
    "published": Options(width=64, front_blocks=5, back_blocks=10, deformable_groups=8, tail=64, attention=True),
    "large": Options(width=128, front_blocks=5, back_blocks=40, deformable_groups=8, tail=64, attention=True),
    "small": Options(width=32, front_blocks=2, back_blocks=4, deformable_groups=4, tail=32, attention=True),
}

_PUBLISHED = Stage(
    "image",
    "image",
    steps=600_000,
    batch=32,
    patch=64,
    learning_rate=4e-4,
    schedule="restarts",
    restarts=(50_000, 150_000, 300_000, 450_000),
    periods=(50_000, 100_000, 150_000, 150_000, 150_000),
    weight_ema=0.999,
    image_error="charbonnier",
    validate_every=5_000,
    checkpoint_every=5_000,
)
_HR_256 = {2: 128, 4: 64, 8: 32, 16: 16}  # lr pixels
stages = recipe.stages(
    # small: a step takes about as long as one of edsr's small
    {"published": _PUBLISHED, "large": _PUBLISHED, "small": recipe.small(_PUBLISHED, image_error="absolute")},
    {"published": _HR_256, "large": _HR_256, "small": {2: 40, 4: 32, 8: 24, 16: 12}},
)


def build(scale: int, sections: int, options: Options) -> Edvr:
    """The untrained network of one channel; ``sections`` is odd, 1 makes the twin without neighbours.

    Raises ValueError for a scale, a number of sections or options that it cannot have.
    """
    check_scale("edvr", scale, SCALES)
    counts = ("width", "front_blocks", "back_blocks", "deformable_groups", "tail")
    check_counts("edvr", **{name: getattr(options, name) for name in counts})
    return Edvr(scale, odd(sections), options)


class Edvr(nn.Module):
    """What depends on one section (``section``), then alignment, attention and reconstruction (``centre``).

    How far sampling offsets reach has no bound, so sr depends on the window.
    """

    parts: ClassVar = {  # as costs are stated
        "features": ("first", "front"),
        "pyramid": ("pyramid",),
        "alignment": ("alignment",),
        "attention": ("attention", "join"),
        "reconstruction": ("back", "ups", "fine", "last"),
    }
    halo: int | None = None

    def __init__(self, scale: int, sections: int, options: Options, channels: int = 1) -> None:
        super().__init__()
        width, tail = options.width, options.tail
        self.scale, self.sections = scale, sections
        self.first = conv(channels, width)
        self.front = trunk(width, options.front_blocks)
        self.pyramid = Pyramid(width, LEVELS)
        self.alignment = Alignment(width, 0, options.deformable_groups)
        self.attention = SectionAttention(width, sections, mixes=False) if options.attention else None
        self.join = None if options.attention else conv(sections * width, width, kernel=1)
        self.back = trunk(width, options.back_blocks)
        self.ups = upsampler(width, scale, last=tail)
        self.fine = conv(tail, tail)
        self.last = conv(tail, channels)

    def forward(self, lr: Tensor) -> Tensor:
        """(batch, sections, 1, y, x) in [0, 1] -> (batch, 1, scale*y, scale*x) of the centre, not clamped."""
        return self.centre(states_of(self, lr))

    def section(self, lr: Tensor) -> State:
        """What depends on one section (batch, 1, y, x) alone: itself, and its feature pyramid of LEVELS sizes.

        Sides that are no multiples of 4 are made so by repeating their last pixels.
        """
        below, beside = (-side % MULTIPLE for side in lr.shape[-2:])
        whole = F.pad(lr, (0, beside, 0, below), mode="replicate") if below or beside else lr
        return (lr, *self.pyramid(self.front(leaky(self.first(whole)))))

    def centre(self, states: Sequence[State]) -> Tensor:
        """(batch, 1, scale*y, scale*x) of the centre, from the sections' states in order."""
        centre = states[len(states) // 2]
        features = self.back(self.fused(self.aligned(states)))
        for lift in self.ups:
            features = leaky(lift(features))
        detail = self.last(leaky(self.fine(features)))
        base = resize(centre[0], self.scale)
        return base + detail[..., : base.shape[-2], : base.shape[-1]]

    def aligned(self, states: Sequence[State]) -> tuple[Tensor, ...]:
        """Features of each section moved onto the centre, each (batch, width, y, x)."""
        sections, centre = len(states), states[len(states) // 2]
        each = [torch.cat(parts) for parts in zip(*(state[1:] for state in states), strict=True)]
        repeated = [part.expand(sections, *part.shape).flatten(0, 1) for part in centre[1:]]
        moved: Tensor = self.alignment(each, repeated)
        return moved.chunk(sections)

    def fused(self, aligned: Sequence[Tensor]) -> Tensor:
        """One (batch, width, y, x) of those of all sections."""
        if self.attention is not None:
            fused: Tensor = self.attention(aligned)
            return fused
        assert self.join is not None
        return leaky(self.join(torch.cat(list(aligned), 1)))
