"""The network of gpemsr: a section on its own, then alignment, attention and reconstruction (spec C)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from emsr import plugins
from emsr.layers.alignment import LEVELS, Alignment
from emsr.layers.attention import SectionAttention
from emsr.layers.blocks import conv, leaky, resize, trunk
from emsr.layers.correlation_flow import CorrelationFlow
from emsr.layers.flow import SpyNet
from emsr.layers.prior import PriorFusion, Pyramid
from emsr.layers.upscale import upsampler
from emsr.models import vqgan
from emsr.models.checkpoint import fill
from emsr.models.reference import Reference, References
from emsr.models.section import states_of

if TYPE_CHECKING:
    from emsr.models.gpemsr import Options

FLOWS = ("spynet", "correlation")
State = tuple[Tensor, ...]


def flow_network(options: Options) -> SpyNet | CorrelationFlow:
    """The flow network that the options describe; ValueError for one that is unknown."""
    if options.flow not in FLOWS:
        raise ValueError(plugins.unknown("option flow", options.flow, FLOWS))
    levels, widths = options.flow_levels, options.flow_widths
    if options.flow == "spynet":
        return SpyNet(levels, widths, options.flow_kernel, options.flow_channels)
    return CorrelationFlow(levels, options.flow_maps, options.flow_radius, widths, options.flow_scale)


class Gpemsr(nn.Module):
    """Spec C: what depends on one section (``section``), then alignment, fusion and reconstruction (``centre``)."""

    parts: ClassVar = {  # as costs are stated
        "features": ("first", "front"),
        "indexer": ("reference.indexer",),
        "decoder": ("reference.decoder",),
        "look": ("reference.look",),
        "prior fusion": ("prior",),
        "pyramid": ("pyramid",),
        "flow features": ("flow.features",),
        "flow": ("flow",),
        "alignment": ("alignment",),
        "attention": ("attention",),
        "reconstruction": ("back", "ups", "fine", "last"),
    }

    def __init__(self, scale: int, sections: int, options: Options) -> None:
        super().__init__()
        width, ups = options.width, scale.bit_length() - 1
        self.scale, self.sections, self.flow_scale = scale, sections, options.flow_scale
        # sides of lr must be multiples of this
        self.multiple = max(2 ** (LEVELS - 1), options.latent_stride // scale if options.reference else 1)
        self.first = conv(1, width)
        self.front = trunk(width, options.front_blocks)
        self.reference = Reference(scale, options) if options.reference else None
        references = vqgan.widths(options)[1 : ups + 1] if options.reference else ()
        self.prior = PriorFusion(width, references, options.prior_blocks) if options.reference else None
        self.pyramid = Pyramid(width, LEVELS)
        self.flow = flow_network(options)
        self.alignment = Alignment(width, options.flow_features, options.deformable_groups, options.flow_scale)
        self.attention = SectionAttention(width, sections)
        self.back = trunk(width, options.back_blocks)
        self.ups = upsampler(width, scale)
        self.fine = conv(width, width)
        self.last = conv(width, 1)
        for frozen in self.frozen():
            frozen.requires_grad_(False)

    def frozen(self) -> list[nn.Module]:
        """The parts that earlier stages trained."""
        return [part for part in (self.reference, self.flow) if part is not None]

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The parameters that stage ``fusion`` trains."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def adopt(self, stage: str, state: Mapping[str, Tensor]) -> None:
        """Take the weights of a trained earlier stage: flow, codebook or indexer; ValueError where they do not fit.

        A twin without prior needs flow alone and leaves the others.
        """
        if stage == "flow":
            fill(self.flow, state, "stage flow")
        elif self.reference is not None:
            self.reference.adopt(stage, state)

    def forward(self, lr: Tensor, references: References | None = None) -> Tensor:
        """(batch, sections, 1, y, x) in [0, 1] -> (batch, 1, scale*y, scale*x) of the centre, not clamped.

        ``references`` of the sections, batch*sections at the front, spare computing them. In evaluation mode sections
        go one by one, which is bit for bit what streaming does.
        """
        if references is None:
            return self.centre(states_of(self, lr))
        sections = lr.shape[1]
        states = self.section(lr.flatten(0, 1), references)
        folded = [state.unflatten(0, (-1, sections)) for state in states]
        return self.centre([tuple(state[:, i] for state in folded) for i in range(sections)])

    @torch.no_grad()
    def references(self, lr: Tensor) -> References:
        """What the frozen prior says of lr sections (batch, 1, y, x); ValueError for a twin without prior."""
        if self.reference is None:
            raise ValueError("option reference is False: a network without prior has no references")
        result: References = self.reference(lr)
        return result

    def section(self, lr: Tensor, references: References | None = None) -> State:
        """What depends on one section (batch, 1, y, x) alone (spec C.1-C.5).

        Itself, its feature pyramid of LEVELS sizes, and what each level of flow sees of it (an image, or features).
        """
        if lr.shape[-2] % self.multiple or lr.shape[-1] % self.multiple:
            size = f"{lr.shape[-2]} x {lr.shape[-1]}"
            raise ValueError(f"lr window {size} is not a multiple of {self.multiple}: pad it or choose another window")
        features = self.front(leaky(self.first(lr)))
        if self.prior is not None:
            known = references or self.references(lr)
            features = self.prior(features, known.features, known.similarity)
        return (lr, *self.pyramid(features), *self.seen_by_flow(lr))

    def centre(self, states: Sequence[State]) -> Tensor:
        """(batch, 1, scale*y, scale*x) of the centre, from the sections' states in order (spec C.6-C.8)."""
        sections, centre = len(states), states[len(states) // 2]
        each = tuple(torch.cat(parts) for parts in zip(*states, strict=True))  # (sections*batch, ...)
        repeated = tuple(part.expand(sections, *part.shape).flatten(0, 1) for part in centre)
        return self.reconstruct(self.attention(self.align(each, repeated).chunk(sections)), centre[0])

    def align(self, neighbour: State, centre: State) -> Tensor:
        """Features of ``neighbour`` moved onto ``centre``: (batch, width, y, x)."""
        images, features = torch.cat([neighbour[0], centre[0]], 1), slice(1, 1 + LEVELS)
        moved: Tensor = self.alignment(
            neighbour[features], centre[features], images, self.flow_between(neighbour, centre)
        )
        return moved

    @torch.no_grad()
    def seen_by_flow(self, lr: Tensor) -> State:
        """What each level of flow sees of lr sections (batch, 1, y, x), coarsest first."""
        seen: State = self.flow.pyramid(resize(lr, self.flow_scale))
        return seen

    @torch.no_grad()
    def flow_between(self, neighbour: State, centre: State) -> Tensor:
        """Flow of two sections on a grid enlarged by flow_scale: (batch, 2, ...), channels (dx, dy)."""
        height, width = (side * self.flow_scale for side in centre[0].shape[-2:])
        flow: Tensor = self.flow.between(neighbour[1 + LEVELS :], centre[1 + LEVELS :], (height, width))
        return flow

    @torch.no_grad()
    def displacement(self, neighbour: Tensor, centre: Tensor) -> Tensor:
        """``flow_between`` of lr sections (batch, 1, y, x)."""
        flow: Tensor = self.flow(resize(neighbour, self.flow_scale), resize(centre, self.flow_scale))
        return flow

    def reconstruct(self, fused: Tensor, centre: Tensor) -> Tensor:
        """Fused features (batch, width, y, x) and the centre lr section -> sr (spec C.8)."""
        features = self.back(fused)
        for lift in self.ups:
            features = leaky(lift(features))
        detail = self.last(leaky(self.fine(features)))
        return resize(centre, self.scale) + detail
