"""What networks have in common that see one section at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from emsr.layers.ensemble import Ensemble
from emsr.layers.upscale import bicubic
from emsr.scales import Scale


class SingleSection(nn.Module):
    """A super-resolver of single sections; of neighbours it makes nothing.

    ``halo`` is how far away, in lr pixels along y and x, a voxel of lr can be and still change one of sr; None where
    there is no bound, so that sr depends on the window.
    """

    halo: int | None = None

    def __init__(self, scale: Scale, sections: int) -> None:
        super().__init__()
        self.scale: Any = scale  # an int but for networks of real scales
        self.sections = odd(sections)

    @abstractmethod
    def enlarge(self, lr: Tensor) -> Tensor:
        """(batch, 1, y, x) in [0, 1] -> (batch, 1, scale*y, scale*x), not clamped."""

    def forward(self, lr: Tensor) -> Tensor:
        """(batch, sections, 1, y, x) in [0, 1] -> (batch, 1, scale*y, scale*x) of the centre, not clamped."""
        return self.centre([self.section(lr[:, i]) for i in range(lr.shape[1])])

    def section(self, lr: Tensor) -> tuple[Tensor]:
        """What is kept of a section (batch, 1, y, x): itself, for no other section needs more of it."""
        return (lr,)

    def centre(self, states: Sequence[tuple[Tensor, ...]]) -> Tensor:
        """(batch, 1, scale*y, scale*x) from the states of the sections in order."""
        return self.enlarge(states[len(states) // 2][0])


class Refiner(SingleSection):
    """A super-resolver that enlarges first, by bicubic interpolation, and works on sr's own grid from then on.

    A voxel of what it makes depends on those of the enlarged section that are at most ``reach`` away in y and in x.
    """

    def __init__(self, scale: int, sections: int, reach: int) -> None:
        super().__init__(scale, sections)
        self.reach = reach
        self.halo = -(-reach // scale) + 2  # two lr pixels on each side make a pixel between them

    @abstractmethod
    def refine(self, large: Tensor) -> Tensor:
        """The enlarged section (batch, 1, y, x) -> a better one."""

    def enlarge(self, lr: Tensor) -> Tensor:
        """(batch, 1, y, x) in [0, 1] -> (batch, 1, scale*y, scale*x), not clamped."""
        return self.refine(bicubic(lr, self.scale))


class EnsembleRefiner(Refiner):
    """A refiner that makes several images on its way; sr is their mean by weights that are learned, ``mean``."""

    mean: Ensemble

    @abstractmethod
    def each(self, large: Tensor) -> list[Tensor]:
        """The enlarged section (batch, 1, y, x) -> the images in order, each of its size."""

    def refine(self, large: Tensor) -> Tensor:
        """The enlarged section (batch, 1, y, x) -> a better one, not clamped."""
        sr: Tensor = self.mean(self.each(large))
        return sr

    def images(self, lr: Tensor) -> list[Tensor]:
        """(batch, sections, 1, y, x) -> the images in order, then sr; each (batch, 1, scale*y, scale*x)."""
        each = self.each(bicubic(lr[:, lr.shape[1] // 2], self.scale))
        return [*each, self.mean(each)]


def check_scale(model: str, scale: int, legal: Sequence[int]) -> None:
    """Raise ValueError for a scale that ``model`` does not have."""
    if scale not in legal:
        raise ValueError(f"scale {scale} is not one of {model}'s: use one of {', '.join(map(str, legal))}")


def check_counts(model: str, **counts: int) -> None:
    """Raise ValueError for an option, given by its name, that is under 1."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} {count} makes no {model}: use 1 or more")


def states_of(network: Any, lr: Tensor) -> list[tuple[Tensor, ...]]:
    """What ``network`` keeps of each section of lr (batch, sections, 1, y, x), in order.

    In training all at once; otherwise one by one, which is bit for bit what streaming does.
    """
    sections = lr.shape[1]
    if not network.training:
        return [network.section(lr[:, i]) for i in range(sections)]
    folded = [state.unflatten(0, (-1, sections)) for state in network.section(lr.flatten(0, 1))]
    return [tuple(state[:, i] for state in folded) for i in range(sections)]


def odd(sections: int) -> int:
    """``sections``; ValueError where they have no centre."""
    if sections < 1 or sections % 2 == 0:
        raise ValueError(f"sections {sections} have no centre: use an odd number")
    return sections
