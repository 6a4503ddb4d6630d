"""Learning rate and weight averaging as functions of the step: nothing to store, nothing to get out of step."""

from __future__ import annotations

import math
from collections.abc import Sequence

from emsr.models.stage import Stage


def rate(stage: Stage, step: int) -> float:
    """Learning rate of ``stage`` at ``step``: its schedule, risen to over ``stage.warmup`` steps."""
    rise = min(1.0, (step + 1) / stage.warmup) if stage.warmup else 1.0
    if stage.schedule == "halvings":
        return rise * stage.learning_rate * stage.halving ** sum(step >= halving for halving in stage.halvings)
    if stage.schedule == "restarts":
        start, period = segment(step, stage.restarts, stage.periods)
    else:
        start, period = 0, max(1, stage.steps)
    wave = (1 + math.cos(math.pi * (step - start) / period)) / 2
    return rise * (stage.minimum_rate + (stage.learning_rate - stage.minimum_rate) * wave)


def segment(step: int, restarts: Sequence[int], periods: Sequence[int]) -> tuple[int, int]:
    """Start and period of the cosine that ``step`` lies on (spec A.6, B); one longer than its period climbs again.

    Raises ValueError unless there is one period more than restarts.
    """
    if len(periods) != len(restarts) + 1:
        raise ValueError(
            f"{len(periods)} periods for {len(restarts)} restarts: one period more than restarts is needed"
        )
    passed = sum(step >= restart for restart in restarts)
    return (restarts[passed - 1] if passed else 0), periods[passed]


def averaging(step: int, decay: float) -> float:
    """Share that averaged weights keep at ``step``: ``decay`` in the long run, less at first to forget the start."""
    return min(decay, (1 + step) / (10 + step))


def early(stage: Stage, step: int) -> float:
    """Share of the loss, at ``step``, that is of images made on the way to sr: falling evenly, or the same always."""
    if not stage.early_until:
        return stage.early_weight
    return stage.early_weight * max(0.0, 1 - step / (stage.early_until * stage.steps))
