"""Boxes and grids: every voxel in one shard, every voxel under a window, whatever the sizes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsr.geometry import Box, ShardGrid, scaled, touching, triple, windows_at_most, windows_on_axis

lengths = st.integers(1, 60)
corners = st.tuples(*[st.integers(-20, 20)] * 3)
shapes = st.tuples(*[st.integers(0, 12)] * 3)
boxes = st.builds(lambda start, shape: Box((0, 0, 0), shape).shifted(start), corners, shapes)


@pytest.mark.parametrize(
    ("length", "window", "overlap", "starts", "reason"),
    [
        (64, 64, 16, (0,), "exactly one window"),
        (5, 64, 16, (0,), "a volume smaller than the window has one, which reaches past its end"),
        (112, 64, 16, (0, 48), "the regular grid ends flush by itself"),
        (113, 64, 16, (0, 48, 49), "one pixel more: a third window, flush with the end, over two others"),
        (65, 64, 16, (0, 1), "the last window moves back from 48 to be flush"),
        (128, 64, 0, (0, 64), "no overlap"),
        (10, 4, 3, (0, 1, 2, 3, 4, 5, 6), "the largest overlap steps by one"),
    ],
)
def test_windows_on_axis(length: int, window: int, overlap: int, starts: tuple[int, ...], reason: str) -> None:
    assert windows_on_axis(length, window, overlap) == starts, reason


@pytest.mark.parametrize("overlap", [-1, 16, 17])
def test_an_overlap_without_a_step_is_refused(overlap: int) -> None:
    with pytest.raises(ValueError, match=f"overlap {overlap} leaves no step for window 16"):
        windows_on_axis(40, 16, overlap)


@given(lengths, st.integers(1, 20), st.data())
def test_windows_cover_an_axis_and_stay_on_one_grid(length: int, window: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, window - 1))
    starts = windows_on_axis(length, window, overlap)
    covered = np.zeros(max(length, window), int)
    for start in starts:
        covered[start : start + window] += 1
    assert covered.min() >= 1
    assert covered.max() <= windows_at_most(window, overlap)
    assert len(covered) == max(length, window), "no window reaches past the end of a volume that holds one"
    assert all(start == i * (window - overlap) for i, start in enumerate(starts[:-1]))
    assert starts[-1] == max(length - window, 0)


@given(lengths, st.integers(2, 20), st.integers(0, 59), st.integers(1, 20))
def test_touching_finds_exactly_the_windows_that_share_a_voxel(length: int, window: int, first: int, size: int) -> None:
    starts = windows_on_axis(length, window, window // 2)
    shared = [s for s in starts if set(range(s, s + window)) & set(range(first, first + size))]
    assert list(touching(starts, window, first, first + size)) == shared


@given(boxes, boxes)
def test_intersect_and_contains_are_those_of_sets_of_voxels(a: Box, b: Box) -> None:
    voxels = set(a.indices()) & set(b.indices())
    assert set(a.intersect(b).indices()) == voxels
    assert a.intersect(b).size == len(voxels)
    assert a.contains(b) == (set(b.indices()) <= set(a.indices()))


@given(boxes, st.integers(1, 16))
def test_scaling_changes_the_plane_only(box: Box, scale: int) -> None:
    assert box.scaled(scale).shape == scaled(box.shape, scale)
    assert box.scaled(scale).size == box.size * scale**2
    assert box.scaled(scale).start[0] == box.start[0]


def test_a_box_indexes_an_array() -> None:
    array = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    assert array[Box((1, 2, 3), (3, 3, 6)).slices].tolist() == [[[45, 46, 47]], [[75, 76, 77]]]


def test_a_box_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(ValueError, match="behind its stop"):
        Box((0, 3, 0), (1, 2, 1))


@given(st.tuples(lengths, lengths, lengths), st.tuples(*[st.integers(1, 40)] * 3))
def test_every_voxel_is_in_exactly_one_shard(shape: tuple[int, int, int], shard: tuple[int, int, int]) -> None:
    grid = ShardGrid(shape, shard)
    times = np.zeros(shape, np.uint8)
    for box in grid.boxes():
        assert all(start % edge == 0 for start, edge in zip(box.start, shard, strict=True))
        times[box.slices] += 1
    assert (times == 1).all()
    assert len(grid.indices) == grid.counts[0] * grid.counts[1] * grid.counts[2]


@pytest.mark.parametrize("value", [[1, 2], "abc", [1, 2, 3.0], [1, 2, True], None])
def test_triple_refuses_what_is_not_three_integers(value: object) -> None:
    with pytest.raises(ValueError, match="is not three integers"):
        triple(value)
