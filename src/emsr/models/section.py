"""What networks have in common that see one section at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from emsr.scales import Scale


class SingleSection(nn.Module):
    """A super-resolver of single sections; of neighbours it makes nothing.

    ``halo`` is how far away, in lr pixels along y and x, a voxel of lr can be and still change one of sr; None where
    there is no bound, so that sr depends on the window.
    """

    halo: int | None = None

    def __init__(self, scale: Scale, sections: int) -> None:
        super().__init__()
        self.scale: Scale = scale
        self.sections = sections

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
