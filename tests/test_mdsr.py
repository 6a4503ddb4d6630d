"""MDSR: heads of several scales over one trunk, trained by turns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import tiny_networks
from emsr import degradation
from emsr.models import mdsr
from emsr.models.stage import Stage
from emsr.steps.degraded import patch
from emsr.training.data import Series
from emsr.training.objectives.context import Context
from emsr.training.objectives.heads import Heads
from network_goldens import any_numbers
from reach import reach

TINY = replace(tiny_networks.options("mdsr"), heads=(2, 4))
STAGE = Stage("image", "heads", steps=10, batch=3, patch=8, learning_rate=1e-3)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(6)


def heads(made: Mapping[str, Any] | None, options: mdsr.Options = TINY, **changes: Any) -> Heads:
    """The objective on one volume whose lr at x4 was made by the area of hr's voxels, or by ``made``."""
    hr = np.random.default_rng(0).integers(0, 256, (4, 96, 80), dtype=np.uint8)
    lr = degradation.degrade(hr, 4, "area")
    series = Series("v", lr, hr, ((0, 0, 1), (0, 1, 2), (1, 2, 3)), made)
    network = mdsr.build(4, 3, options)
    return Heads(Context(replace(STAGE, **changes), network, 4, (series,), (series,), 1, degrade=patch))


def test_only_the_head_that_was_drawn_gets_gradients() -> None:
    objective = heads({"kernel": "area"}, replace(TINY, heads=(2, 3, 4)))
    assert objective.network.heads == (2, 3, 4)
    drawn = {step: objective.head(step) for step in range(60)}
    assert set(drawn.values()) == {2, 3, 4}
    for head in (2, 3, 4):
        step = next(step for step, found in drawn.items() if found == head)
        objective.network.zero_grad(set_to_none=True)
        objective.losses(objective.batch(step), step)["loss"].backward()
        moved = {name for name, each in objective.network.named_parameters() if each.grad is not None}
        named = {name for name, _ in objective.network.named_parameters()}
        others = [other for other in (2, 3, 4) if other != head]
        assert named - moved == {name for name in named if any(f".x{other}." in name for other in others)}


@pytest.mark.parametrize("augment", [True, False])
def test_batches_of_every_head_are_pairs(augment: bool) -> None:
    """Away from edges and by areas, lr is hr made coarse, whatever the head and the orientation."""
    objective = heads({"kernel": "area"}, augment=augment)
    for step in range(8):
        batch, head = objective.batch(step), objective.head(step)
        assert batch.lr is not None
        assert batch.hr is not None
        assert batch.hr.shape == (3, 1, 8 * head, 8 * head)
        centre = batch.lr[:, batch.lr.shape[1] // 2, 0]
        np.testing.assert_array_equal(centre, degradation.degrade(batch.hr[:, 0], head, "area"))
    again = heads({"kernel": "area"}, augment=augment).batch(7)
    assert np.array_equal(again.lr, batch.lr), "what is drawn depends on seed and step alone"


def test_kernels_see_what_lies_around_a_patch() -> None:
    objective = heads({"kernel": "bicubic"}, augment=False)
    step = next(step for step in range(20) if objective.head(step) == 2)
    batch = objective.batch(step)
    series = objective.context.training[0]
    assert batch.lr is not None
    for place, lr in zip(batch.places, batch.lr, strict=True):
        whole = degradation.degrade(np.asarray(series.hr)[series.centre(place.row)], 2)
        if place.y + 12 <= whole.shape[0] and place.x + 12 <= whole.shape[1]:
            expected = whole[place.y + 2 : place.y + 10, place.x + 2 : place.x + 10]
            assert np.abs(lr[0, 0].astype(int) - expected).max() <= 0


def test_noise_is_that_of_the_volume_and_another_for_each_patch() -> None:
    plain, noisy = heads({"kernel": "area"}), heads({"kernel": "area", "noise": {"dose": 20.0, "read": 2.0}})
    step = next(step for step in range(20) if plain.head(step) == 2)
    found = [objective.batch(step).lr for objective in (plain, noisy, noisy)]
    assert all(lr is not None for lr in found)
    assert np.array_equal(found[1], found[2])
    added = found[1].astype(int) - found[0]  # type: ignore[union-attr, operator]
    assert added.std() > 5
    assert not np.array_equal(added[0], added[1])


def test_acquired_lr_has_one_scale() -> None:
    with pytest.raises(ValueError, match=r"lr of volume v was acquired, .* none at x2: use option heads \[\]"):
        heads(None)
    objective = heads(None, replace(TINY, heads=()))
    assert {objective.head(step) for step in range(9)} == {4}
    assert objective.batch(0).lr.shape == (3, 3, 1, 8, 8)  # type: ignore[union-attr]


@torch.no_grad()
def test_every_head_is_edsr_with_two_wide_blocks_before_it() -> None:
    network, lr = any_numbers(mdsr.build(3, 1, replace(TINY, heads=(2, 4)))), torch.rand(2, 1, 6, 5)
    for head in (2, 3, 4):
        features = network.first(lr - 0.5)
        for block in network.before[f"x{head}"]:
            assert block.conv1.kernel_size == block.conv2.kernel_size == (5, 5)
            features = features + block.conv2(block.conv1(features).relu())
        expected = network.last(network.ups[f"x{head}"](features + network.join(network.blocks(features)))) + 0.5
        torch.testing.assert_close(network.at(lr, head), expected)
    assert torch.equal(network(lr[:, None]), network.at(lr, 3))


def test_it_sees_as_far_as_it_says() -> None:
    network = any_numbers(mdsr.build(4, 1, TINY)).double()
    assert max(reach(network.enlarge, network.halo, 4)) == network.halo == 14


@pytest.mark.parametrize(("change", "message"), [
    ({"heads": (2, 5)}, "scale 5 is not one of mdsr's: use one of 2, 3, 4, 8, 16"),
    ({"blocks": 0}, "blocks 0 makes no mdsr: use 1 or more"),
    ({"res_scale": -1.0}, r"res_scale -1\.0 is under 0"),
])  # fmt: skip
def test_what_it_cannot_be(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mdsr.build(4, 1, replace(TINY, **change))
