"""From merges to numbered segments, and what a wrong table is told."""

from __future__ import annotations

import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emsr.geometry import Box, ShardGrid, Triple
from emsr.segmentation.history import MERGE, History
from emsr.segmentation.lookup import FIRST, Lookup, first_voxels, lookup, merged_first_voxels, relabelled, roots

IDS = np.array([3, 5, 8, 9, 20], np.uint64)
MERGES = np.array([(8, 9, 8, 0.1, 0.1), (5, 8, 5, 0.2, 0.2), (3, 20, 3, 0.15, 0.3)], MERGE)
HISTORY = History(MERGES, 0.6)
FIRSTS = np.array([(3, 100), (5, 40), (8, 7), (9, 50), (20, 0)], FIRST)

ROOTS = [
    (0.0, [3, 5, 8, 9, 20]),  # nothing is below 0
    (0.1, [3, 5, 8, 9, 20]),  # a score equal to the threshold is not below it
    (0.11, [3, 5, 8, 8, 20]),
    (0.25, [3, 5, 5, 5, 20]),  # 9 follows 8 to 5; the level of the third counts, not its score
    (0.6, [3, 5, 5, 5, 3]),
]


@pytest.mark.parametrize(("threshold", "expected"), ROOTS)
def test_roots_at_a_threshold(threshold: float, expected: list[int]) -> None:
    assert roots(HISTORY, IDS, threshold).tolist() == expected


def test_segments_are_numbered_by_first_voxel() -> None:
    """20 comes first in the volume, then 8, which is in the segment of 5."""
    table = lookup(HISTORY, FIRSTS, 0.6)
    assert table.fragment.tolist() == [0, 3, 5, 8, 9, 20]
    assert table.segment.tolist() == [0, 1, 2, 2, 2, 1]
    assert lookup(HISTORY, FIRSTS, 0.0).segment.tolist() == [0, 5, 3, 2, 4, 1]


def test_relabelling_keeps_background() -> None:
    fragments = np.array([[[0, 3, 5]], [[20, 9, 0]]], np.uint64)
    assert relabelled(fragments, lookup(HISTORY, FIRSTS, 0.6)).tolist() == [[[0, 1, 2]], [[1, 2, 0]]]
    empty = lookup(History(np.empty(0, MERGE), 0.6), np.empty(0, FIRST), 0.6)
    assert relabelled(np.zeros((1, 2, 2), np.uint64), empty).tolist() == [[[0, 0], [0, 0]]]


def test_relabelling_copies_no_table() -> None:
    """Every shard and worker would hold one."""
    table = Lookup(*np.tile(np.arange(10**6, dtype=np.uint64), (2, 1)))
    tracemalloc.start()
    try:
        relabelled(np.full((1, 2, 2), 5, np.uint64), table)
        assert tracemalloc.get_traced_memory()[1] < 10**5
    finally:
        tracemalloc.stop()


@settings(max_examples=30)
@given(st.integers(0, 999), st.tuples(*[st.integers(1, 5)] * 3))
def test_first_voxels_of_shards_are_those_of_the_volume(seed: int, shard: Triple) -> None:
    shape = (3, 6, 7)
    fragments = np.random.default_rng(seed).integers(0, 12, shape).astype(np.uint64) * np.uint64(2**59)
    boxes = list(ShardGrid(shape, shard).boxes())
    random.Random(seed).shuffle(boxes)
    found = merged_first_voxels(first_voxels(fragments[box.slices], box, shape) for box in boxes)
    ids, place = np.unique(fragments, return_index=True)
    assert found.tolist() == [pair for pair in zip(ids.tolist(), place.tolist(), strict=True) if pair[0]]


def test_a_volume_without_fragments_has_an_empty_table() -> None:
    shape = (2, 3, 3)
    first = first_voxels(np.zeros(shape, np.uint64), Box((0, 0, 0), shape), shape)
    assert lookup(History(np.empty(0, MERGE), 0.5), first, 0.5).fragment.tolist() == [0]


@pytest.mark.parametrize("threshold", [-0.1, 1.01, np.nan])
def test_a_threshold_outside_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
        roots(HISTORY, IDS, threshold)


def test_a_threshold_beyond_the_history_is_refused() -> None:
    """It would leave out merges without a word."""
    with pytest.raises(ValueError, match=r"0\.7 lies above 0\.6, where agglomeration stopped"):
        roots(HISTORY, IDS, 0.7)


def test_tables_that_lack_a_fragment_are_refused() -> None:
    for missing in (IDS[1:], IDS[:-1]):
        with pytest.raises(ValueError, match="not in the table of fragments"):
            roots(HISTORY, missing, 0.6)
    with pytest.raises(ValueError, match="fragment 4 is not in the lookup table"):
        relabelled(np.array([[[4]]], np.uint64), lookup(HISTORY, FIRSTS, 0.6))
    with pytest.raises(ValueError, match="fragment 21 is not in the lookup table"):
        relabelled(np.array([[[21]]], np.uint64), lookup(HISTORY, FIRSTS, 0.6))


def test_fragments_of_another_box_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fill a box"):
        first_voxels(np.zeros((2, 2, 2), np.uint64), Box((0, 0, 0), (2, 2, 3)), (4, 4, 4))
