"""What the training loop asks of a stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

Losses = Mapping[str, Tensor]


@dataclass(frozen=True)
class Turn:
    """One optimiser's share of a step: ``losses(part, step)`` gives named losses whose entry "loss" is descended.

    A loss of the whole batch is the mean of the losses of its parts. Before ``first_step`` the turn is skipped, and its
    learning rate starts there.
    """

    network: nn.Module
    losses: Callable[[Any, int], Losses]
    first_step: int = 0


class Objective(Protocol):
    """What a stage learns. ``network`` is what is trained, averaged and kept.

    The weights of the best score are kept, or the last ones where an attribute ``keeps_last`` is true.
    """

    network: nn.Module

    def state(self) -> nn.Module:
        """Everything the training continues from: the network, and a discriminator or counters if there are any."""

    def turns(self) -> Sequence[Turn]:
        """The optimisers' shares of a step, in order."""

    def batch(self, step: int) -> Any:
        """The patches of a step, of which a process reads its share; called from another thread."""

    def parts(self, batch: Any, step: int, count: int) -> Sequence[Any]:
        """This process's share of a batch in ``count`` equal parts, each with what its losses need of the others."""

    def after(self, step: int) -> None:
        """What happens to the state after a step's descent."""

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Named figures on the validation sections; "score" chooses the best weights, higher is better."""
