"""BasicVSR: super-resolution of clips, recurrent over z in both directions (Chan et al. 2021, 2012.02181)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from emsr import plugins
from emsr.layers.blocks import conv, leaky, resize, trunk
from emsr.layers.flow import SpyNet, warp
from emsr.layers.upscale import upsampler
from emsr.models import recipe
from emsr.models.checkpoint import fill
from emsr.models.section import check_counts, check_scale, states_of
from emsr.models.stage import Stage

SCALES = (2, 4, 8, 16)
NEEDS: dict[str, tuple[str, ...]] = {"flow": (), "image": ("flow",)}
READS = {"flow": ("lr", "spynet"), "image": ("hr", "lr")}
STAGE_OPTIONS = {"flow": ("flow_",)}  # what names of options that stage flow depends on begin with
FLOWS = ("spynet", "none")
State = tuple[Tensor, ...]


@dataclass(frozen=True)
class Options:
    """What shapes the network; the values are in PRESETS."""

    width: int  # channels
    blocks: int  # residual blocks of each direction
    tail: int  # channels after the last enlargement
    flow: str  # "spynet"; or "none": features are carried along z without being moved
    flow_levels: int
    flow_widths: tuple[int, ...]
    flow_kernel: int
    flow_channels: int  # 3 for published weights, 1 otherwise


PRESETS = {
    "published": Options(
        width=64,
        blocks=30,
        tail=64,
        flow="spynet",
        flow_levels=6,
        flow_widths=(32, 64, 32, 16),
        flow_kernel=7,
        flow_channels=3,
    ),
    "small": Options(
        width=32,
        blocks=5,
        tail=24,
        flow="spynet",
        flow_levels=3,
        flow_widths=(16, 16),
        flow_kernel=5,
        flow_channels=1,
    ),
}

_FLOW = Stage(
    "flow",
    "flow",
    steps=100_000,
    batch=8,
    patch=64,
    learning_rate=4e-4,
    validate_every=5_000,
    checkpoint_every=5_000,
    displacement=16.0,
    rotation=5.0,
    contrast=0.3,
)
_IMAGE = Stage(
    "image",
    "image",
    steps=300_000,
    batch=8,
    patch=64,
    learning_rate=2e-4,
    weight_ema=0.999,
    image_error="charbonnier",
    slow=("flow",),
    slow_factor=0.125,
    slow_from=5_000,
    depth=15,
    depth_overlap=6,
    validate_every=5_000,
    checkpoint_every=5_000,
)
RECIPES: dict[str, tuple[Stage, ...]] = {
    "published": (_FLOW, _IMAGE),
    "small": (
        replace(_FLOW, steps=400, learning_rate=1e-3, warmup=50, minimum_rate=1e-5, weight_ema=0.995, clip=1.0,
                validate_every=100, checkpoint_every=100),
        recipe.small(_IMAGE, batch=2, image_error="absolute", slow=("flow",), slow_from=500, depth=7, depth_overlap=2),
    ),
}  # fmt: skip
_PATCHES = {  # lr pixels: 256 of hr; small: so that a step takes about as long as one of edsr's small
    "published": {2: 128, 4: 64, 8: 32, 16: 16},
    "small": {2: 40, 4: 28, 8: 16, 16: 8},
}


def stages(preset: str, scale: int) -> tuple[Stage, ...]:
    """The training recipe of ``preset`` at ``scale``: the flow network on synthetic warps, then all of the network."""
    flow, image = RECIPES[preset]
    return (flow, replace(image, patch=_PATCHES[preset][scale]))


def network(stage: str, scale: int, sections: int, options: Options) -> nn.Module:
    """The untrained network of ``stage``: flow or image."""
    if stage == "flow":
        return flow_network(options)
    if stage == "image":
        return build(scale, sections, options)
    raise ValueError(plugins.unknown("stage", stage, NEEDS))


def flow_network(options: Options) -> SpyNet:
    """The flow network that the options describe."""
    return SpyNet(options.flow_levels, options.flow_widths, options.flow_kernel, options.flow_channels)


def build(scale: int, sections: int, options: Options) -> BasicVsr:
    """The untrained network of one channel, for clips of any number of sections.

    Raises ValueError for a scale or options that it cannot have.
    """
    check_scale("basicvsr", scale, SCALES)
    if options.flow not in FLOWS:
        raise ValueError(plugins.unknown("option flow", options.flow, FLOWS))
    counts = ("width", "blocks", "tail", "flow_levels")
    check_counts("basicvsr", **{name: getattr(options, name) for name in counts})
    return BasicVsr(scale, sections, options)


class BasicVsr(nn.Module):
    """Features are carried up and down z, moved by flow from section to section, and both make each section's sr.

    Every section of a clip depends on all others, so sr depends on where clips begin and end, and on the window.
    """

    parts: ClassVar = {  # as costs are stated
        "flow": ("flow",),
        "recurrence": ("backward_pass", "forward_pass"),
        "reconstruction": ("fuse", "ups", "fine", "last"),
    }
    halo: int | None = None

    def __init__(self, scale: int, sections: int, options: Options) -> None:
        super().__init__()
        width, tail = options.width, options.tail
        self.scale, self.sections = scale, sections
        self.flow = flow_network(options) if options.flow == "spynet" else None
        self.backward_pass = Recurrence(width, options.blocks)
        self.forward_pass = Recurrence(width, options.blocks)
        self.fuse = conv(2 * width, width, kernel=1)
        self.ups = upsampler(width, scale, last=tail)
        self.fine = conv(tail, tail)
        self.last = conv(tail, 1)

    def adopt(self, stage: str, state: Mapping[str, Tensor]) -> None:
        """Take the weights of stage flow; a network without flow leaves them. ValueError where they do not fit."""
        if self.flow is not None:
            fill(self.flow, state, f"stage {stage}")

    def forward(self, lr: Tensor) -> Tensor:
        """(batch, sections, 1, y, x) in [0, 1] -> (batch, 1, scale*y, scale*x) of the centre, not clamped."""
        return self.centre(states_of(self, lr))

    def clip(self, lr: Tensor) -> Tensor:
        """(batch, 1, z, y, x) in [0, 1] -> (batch, 1, z, scale*y, scale*x) of all sections, not clamped."""
        states = states_of(self, lr.transpose(1, 2))
        made = zip(self.carried(states), states, strict=True)
        return torch.stack([self.reconstruct(features, state[0]) for features, state in made], 2)

    def section(self, lr: Tensor) -> State:
        """What depends on one section (batch, 1, y, x) alone: itself, and what each level of flow sees of it."""
        return (lr, *(self.flow.pyramid(lr) if self.flow is not None else ()))

    def centre(self, states: Sequence[State]) -> Tensor:
        """(batch, 1, scale*y, scale*x) of the middle section of a clip, from the sections' states in order."""
        middle = len(states) // 2
        return self.reconstruct(self.carried(states)[middle], states[middle][0])

    def carried(self, states: Sequence[State]) -> list[Tensor]:
        """What reaches each section from both sides, (batch, 2*width, y, x): from above first."""
        images, last = [state[0] for state in states], len(states) - 1
        down, up = self.flows(states)
        above, below = [self.backward_pass(images[last])], [self.forward_pass(images[0])]
        for z in range(last):
            here = last - 1 - z
            above.append(self.backward_pass(images[here], moved(above[-1], down[here])))
            below.append(self.forward_pass(images[z + 1], moved(below[-1], up[z])))
        return [torch.cat(pair, 1) for pair in zip(above[::-1], below, strict=True)]

    def flows(self, states: Sequence[State]) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """Flow that moves section z + 1 onto z, and z onto z + 1, for each z but the last: (batch, 2, y, x) or None."""
        pairs = len(states) - 1
        if self.flow is None or not pairs:
            return [None] * pairs, [None] * pairs
        seen = [state[1:] for state in states]
        lower, upper = ([torch.cat(level) for level in zip(*part, strict=True)] for part in (seen[:-1], seen[1:]))
        size = (states[0][0].shape[-2], states[0][0].shape[-1])
        return (
            list(self.flow.between(lower, upper, size).chunk(pairs)),
            list(self.flow.between(upper, lower, size).chunk(pairs)),
        )

    def reconstruct(self, carried: Tensor, lr: Tensor) -> Tensor:
        """What reaches a section, and itself (batch, 1, y, x), -> its sr."""
        features = leaky(self.fuse(carried))
        for lift in self.ups:
            features = leaky(lift(features))
        detail = self.last(leaky(self.fine(features)))
        return resize(lr, self.scale) + detail


def moved(features: Tensor, flow: Tensor | None) -> Tensor:
    """Features (batch, width, y, x) of another section where this one shows the same; as they are without flow."""
    return features if flow is None else warp(features.float(), flow).to(features.dtype)


class Recurrence(nn.Module):
    """One step along z: a section and what was carried to it become what is carried on."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.first = conv(1 + width, width)
        self.blocks = trunk(width, blocks)
        self.width = width

    def forward(self, lr: Tensor, carried: Tensor | None = None) -> Tensor:
        """(batch, 1, y, x), and (batch, width, y, x) but for the first section of a clip -> (batch, width, y, x)."""
        if carried is None:
            carried = lr.new_zeros(lr.shape[0], self.width, *lr.shape[-2:])
        features: Tensor = self.blocks(leaky(self.first(torch.cat([lr, carried], 1))))
        return features
