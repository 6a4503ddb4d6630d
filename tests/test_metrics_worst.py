"""The worst splits and merges by hand, and their places from whole volumes and from shards."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsr.metrics.segmentation import Contingency, contributions
from emsr.metrics.worst import Mistake, Place, places, worst


def table() -> Contingency:
    """Object 1 (8 voxels) in segments 10 (5), 11 (2) and 12 (1); object 2 (8 voxels) in segment 12."""
    return Contingency(np.array([1, 1, 1, 2]), np.array([10, 11, 12, 12]), np.array([5, 2, 1, 8]))


def test_splits_by_hand() -> None:
    assert worst(table(), "split") == [
        Mistake("split", 1, 11, 2, 8, 10, 2 / 16 * 2),  # log2(8 / 2) = 2
        Mistake("split", 1, 12, 1, 8, 10, 1 / 16 * 3),  # log2(8 / 1) = 3
    ]
    assert [mistake.segment for mistake in worst(table(), "split", count=1)] == [11]


def test_merges_by_hand() -> None:
    (mistake,) = worst(table(), "merge")
    assert (mistake.truth, mistake.segment, mistake.voxels, mistake.whole, mistake.main) == (1, 12, 1, 9, 2)
    assert mistake.bits == pytest.approx(np.log2(9) / 16)


def test_equal_mistakes_come_by_id_and_of_equal_pieces_the_first_is_kept() -> None:
    halves = Contingency(np.array([1, 1, 2, 2]), np.array([4, 5, 6, 7]), np.array([3, 3, 3, 3]))
    assert [(one.truth, one.segment, one.main) for one in worst(halves, "split")] == [(1, 5, 4), (2, 7, 6)]
    assert worst(halves, "merge") == []


def test_mistakes_are_all_pairs_but_the_largest_of_each_object() -> None:
    rng = np.random.default_rng(0)
    truth, segments = (rng.integers(0, 12, (6, 20, 20)).astype(np.uint64) for _ in range(2))
    random = Contingency.of(truth, segments)
    listed = worst(random, "split", count=10_000)
    assert len(listed) == len(random.voxels) - 12
    bits = [one.bits for one in listed]
    assert bits == sorted(bits, reverse=True)
    kept = sum(bits) + sum(contributions(random)[0][random.truth == one][_first(random, one)] for one in range(12))
    assert kept == pytest.approx(contributions(random)[0].sum())


def _first(of: Contingency, truth: int) -> int:
    return int(of.voxels[of.truth == truth].argmax())


def test_nothing_to_list() -> None:
    assert worst(Contingency.sum([]), "split") == []
    with pytest.raises(ValueError, match="'both' must be split or merge"):
        worst(table(), "both")  # type: ignore[arg-type]


@given(
    st.integers(0, 2**31),
    st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(1, 7)),
    st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)),
)
def test_places_of_shards_add_up_to_those_of_the_voxels(
    seed: int, shape: tuple[int, int, int], shard: tuple[int, int, int]
) -> None:
    rng = np.random.default_rng(seed)
    truth, segments = (rng.integers(0, 3, shape).astype(np.uint32) for _ in range(2))
    pairs = [(1, 2), (2, 0), (7, 1)]
    found: dict[tuple[int, int], Place] = {}
    for z in range(0, shape[0], shard[0]):
        for y in range(0, shape[1], shard[1]):
            for x in range(0, shape[2], shard[2]):
                part = np.s_[z : z + shard[0], y : y + shard[1], x : x + shard[2]]
                for pair, place in places(truth[part], segments[part], pairs, (z, y, x)).items():
                    found[pair] = found[pair] + place if pair in found else place
    for pair in pairs:
        voxels = np.argwhere((truth == pair[0]) & (segments == pair[1]))
        assert (pair in found) == bool(len(voxels))
        if len(voxels):
            place = found[pair]
            assert place.voxels == len(voxels)
            assert place.centre == pytest.approx(tuple(voxels.mean(axis=0)))
            assert place.start == tuple(voxels.min(axis=0))
            assert place.stop == tuple(voxels.max(axis=0) + 1)


def test_places_are_in_coordinates_of_the_volume() -> None:
    labels = np.zeros((2, 2, 2), np.uint64)
    labels[1, 0, 1] = 2**63 + 1
    pair = (2**63 + 1, 2**63 + 1)
    place = places(labels, labels, [pair], (100, 200, 300))[pair]
    assert place == Place(1, (101, 200, 301), (101, 200, 301), (102, 201, 302))
