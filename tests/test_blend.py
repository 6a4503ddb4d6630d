"""Blending is exact: any order, any shards, no overflow, no step where windows agree."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emsr.geometry import ShardGrid, Triple, windows_at_most
from emsr.inference.blend import LARGEST, PER_GREY, STEPS, Blend, axis_weights, total_weights
from emsr.plan import Plan

sides = st.integers(1, 12)


def windows_of(plan: Plan, seed: int, low: int = 0, high: int = STEPS) -> dict[tuple[int, int, int], np.ndarray]:
    """Random output of every window, by section and corner in sr voxels."""
    rng = np.random.default_rng(seed)
    side = plan.window * plan.scale
    places = [(z, y, x) for z in range(plan.shape[0]) for y in plan.starts(1) for x in plan.starts(2)]
    return {
        (z, y * plan.scale, x * plan.scale): rng.integers(low, high, (side, side), np.int16, endpoint=True)
        for z, y, x in places
    }


def blended(plan: Plan, windows: dict[tuple[int, int, int], np.ndarray], order: int = 0) -> np.ndarray:
    """The volume by shards, windows added in a shuffled order."""
    shards = plan.grid.indices
    blend = Blend(plan, dict.fromkeys(shards, 1))
    items = list(windows.items())
    random.Random(order).shuffle(items)
    for (z, *corner), steps in items:
        blend.add(z, (corner[0], corner[1]), steps, shards)
    assert blend.done(shards) == list(shards)
    volume = np.empty(plan.shape, np.uint8)
    for index in shards:
        volume[plan.grid.box(index).slices] = blend.take(index)
    return volume


def naive(plan: Plan, windows: dict[tuple[int, int, int], np.ndarray]) -> np.ndarray:
    """The definition, in Python's integers of any size."""
    line = [int(weight) for weight in axis_weights(plan.window, plan.overlap, plan.scale)]
    total, weight = np.zeros(plan.shape, object), np.zeros(plan.shape, object)
    for (z, y0, x0), steps in windows.items():
        for (dy, dx), value in np.ndenumerate(steps):
            if y0 + dy < plan.shape[1] and x0 + dx < plan.shape[2]:
                total[z, y0 + dy, x0 + dx] += line[dy] * line[dx] * int(value)
                weight[z, y0 + dy, x0 + dx] += line[dy] * line[dx]
    return ((total + weight * (PER_GREY // 2)) // (weight * PER_GREY)).astype(np.uint8)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    window = draw(st.integers(2, 6))
    lr_shape: Triple = (draw(st.integers(1, 2)), draw(sides), draw(sides))
    shard = (draw(st.integers(1, 2)), draw(st.integers(1, 14)), draw(st.integers(1, 14)))
    return Plan(lr_shape, draw(st.integers(1, 3)), window, draw(st.integers(0, window - 1)), shard, ((0,),) * 2)


@settings(max_examples=40)
@given(plans(), st.integers(0, 9))
def test_blending_is_its_definition_whatever_the_shards_and_the_order(plan: Plan, seed: int) -> None:
    windows = windows_of(plan, seed)
    assert np.array_equal(blended(plan, windows, order=seed), naive(plan, windows))


@pytest.mark.parametrize(("window", "overlap"), [(16, 0), (16, 4), (16, 8), (16, 15), (128, 8), (128, 127)])
@pytest.mark.parametrize("length", [16, 17, 29, 40, 128, 129, 260])
def test_sums_fit_int32(window: int, overlap: int, length: int) -> None:
    plan = Plan((1, length, length), 2, window, overlap, (1, 64, 64), ((0,),))
    assert axis_weights(window, overlap, 2).min() >= 1
    most = int(total_weights(plan, 1, 0, length * 2).max())
    assert most <= LARGEST
    assert most**2 * (STEPS + PER_GREY // 2) < 2**31


def test_white_under_many_windows_stays_white() -> None:
    plan = Plan((1, 9, 9), 1, 5, 4, (1, 9, 9), ((0,),))
    assert windows_at_most(5, 4) == 6
    assert (blended(plan, windows_of(plan, 0, STEPS, STEPS)) == 255).all()


@pytest.mark.parametrize("grey", [0, 1, 127, 254, 255])
def test_windows_that_agree_leave_no_trace(grey: int) -> None:
    plan = Plan((1, 23, 19), 2, 8, 3, (1, 16, 16), ((0,),))
    assert (blended(plan, windows_of(plan, 0, grey * PER_GREY, grey * PER_GREY)) == grey).all()


def test_values_between_greys_are_rounded_once_and_half_up() -> None:
    plan = Plan((1, 4, 4), 1, 4, 0, (1, 4, 4), ((0,),))
    for steps, grey in ((63, 0), (64, 1), (191, 1), (192, 2)):
        assert (blended(plan, windows_of(plan, 0, steps, steps)) == grey).all()


def test_weights_rise_over_the_overlap_and_are_constant_between() -> None:
    weights = axis_weights(16, 4, 4)
    assert np.array_equal(weights, weights[::-1])
    assert (np.diff(weights[:16]) > 0).all()
    assert (weights[16:48] == weights.max()).all()
    assert weights[0] == 1, "the outermost pixel of a window counts least"


def test_an_overlap_that_would_overflow_is_refused() -> None:
    with pytest.raises(ValueError, match="overlap 399 puts more than 256 windows of 400 over a voxel"):
        axis_weights(400, 399, 1)


def test_a_shard_is_done_with_its_last_task() -> None:
    plan = Plan((1, 8, 8), 1, 8, 0, (1, 4, 8), ((0,),))
    first, second = ShardGrid((1, 8, 8), (1, 4, 8)).indices
    blend = Blend(plan, {first: 2, second: 1})
    assert blend.done([first, second]) == [second]
    assert blend.done([first]) == [first]
