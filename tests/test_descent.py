"""Optimisers, and losses of networks that make several images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from emsr.models.stage import Stage
from emsr.training import schedule
from emsr.training.data import Batch, Series
from emsr.training.descent import Descent
from emsr.training.group import ALONE
from emsr.training.objective import Turn
from emsr.training.objectives.context import Context, unit
from emsr.training.objectives.image import Image

STAGE = Stage(
    "s", "image", steps=10, batch=2, patch=8, learning_rate=0.1, schedule="halvings", halvings=(2,), halving=0.1
)


class Pair(nn.Module):
    """Two numbers, whose sum times the input is the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.fast, self.late = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        for layer in (self.fast, self.late):
            nn.init.ones_(layer.weight)


def descended(slopes: list[float], **changes: Any) -> tuple[list[float], list[float]]:
    """The two numbers after each step, whose gradient is ``slopes``."""
    network = Pair()

    def losses(slope: float, step: int) -> dict[str, Tensor]:
        return {"loss": slope * (network.fast.weight + network.late.weight).sum()}

    descent = Descent(Turn(network, losses), replace(STAGE, **changes), "cpu", ALONE, 1)
    rows = []
    for step, slope in enumerate(slopes):
        descent.descend([slope], step)
        rows.append((network.fast.weight.item(), network.late.weight.item()))
    fast, late = zip(*rows, strict=True)
    return list(fast), list(late)


def test_descent_with_momentum_and_decay_is_its_formula() -> None:
    found, _ = descended([0.5, -0.2, 0.3], optimiser="sgd", betas=(0.9, 0.0), weight_decay=0.01)
    weight, velocity, expected = 1.0, 0.0, []
    for step, slope in enumerate((0.5, -0.2, 0.3)):
        velocity = 0.9 * velocity + slope + 0.01 * weight
        weight -= (0.1 if step < 2 else 0.01) * velocity
        expected.append(weight)
    assert found == pytest.approx(expected, abs=1e-6)


def test_slow_parts_move_less() -> None:
    fast, late = descended([0.5, 0.5], optimiser="sgd", betas=(0.0, 0.0), slow=("late",), slow_factor=0.25)
    assert fast == pytest.approx([0.95, 0.9])
    assert late == pytest.approx([0.9875, 0.975])
    fast, late = descended([0.5], slow=("late",), slow_factor=0.25)
    assert 1 - late[0] == pytest.approx((1 - fast[0]) / 4, rel=1e-3), "of Adam too"


def test_weights_never_change_by_more_than_is_allowed_at_any_rate() -> None:
    """The gradient of the two numbers is as long as the diagonal of a square."""
    found, _ = descended([0.05, 9.0, -9.0], optimiser="sgd", betas=(0.0, 0.0), clip_change=0.01)
    assert found == pytest.approx([0.995, 0.995 - 0.01 / 2**0.5, 0.995], abs=1e-6)


def test_a_part_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="stage s: slow 'last' is no part of the network: use of fast, late"):
        descended([], slow=("last",))


# several images


class Two(nn.Module):
    """An image that is too dark, and one that is too bright."""

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor([-0.1, 0.3]))

    def forward(self, lr: Tensor) -> Tensor:
        return self.images(lr)[-1]

    def images(self, lr: Tensor) -> list[Tensor]:
        return [lr[:, 0] + level for level in self.level]


def of_images(network: nn.Module, step: int, **changes: Any) -> dict[str, float]:
    grey = np.full((4, 16, 16), 100, np.uint8)
    series = Series("v", grey, grey, ((0,), (1,), (2,)))
    stage = replace(STAGE, **changes)
    objective = Image(Context(stage, network, 1, (series,), (series,), 0))
    batch = objective.batch(step)
    assert isinstance(batch, Batch)
    assert unit(batch.lr, "cpu").ndim == 5
    return {name: value.item() for name, value in objective.losses(batch, step).items()}


@pytest.mark.parametrize(("step", "share"), [(0, 0.8), (2, 0.4), (3, 0.2)])
def test_early_images_share_the_loss_and_then_leave_it_to_sr(step: int, share: float) -> None:
    found = of_images(Two(), step, early_weight=0.8, early_until=0.4, image_weight=3)
    assert found == pytest.approx({"loss": 3 * (share * 0.1 + (1 - share) * 0.3), "early": 0.1, "image": 0.3})
    assert of_images(Two(), 4, early_weight=0.8, early_until=0.4) == pytest.approx({"loss": 0.3})
    assert of_images(Two(), 9, early_weight=0.8)["loss"] == pytest.approx(0.8 * 0.1 + 0.2 * 0.3), "or never leave it"


def test_networks_of_one_image_know_no_early_ones() -> None:
    with pytest.raises(ValueError, match=r"early_weight 0\.5 of a network that makes no image but sr: use 0"):
        of_images(Pair(), 0, early_weight=0.5)


def test_the_share_of_early_images_falls_evenly() -> None:
    stage = replace(STAGE, early_weight=1.0, early_until=0.5)
    assert [schedule.early(stage, step) for step in range(7)] == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0, 0])
