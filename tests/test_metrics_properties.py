"""What must hold of metrics whatever the volumes: names of labels, sides, flips and tolerances."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsr.metrics.membrane import curve, roc_area, tally
from emsr.metrics.segmentation import (
    Contingency,
    adapted_rand,
    section_summary,
    section_tables,
    summary,
    variation_of_information,
)
from emsr.metrics.tolerance import Tolerance

SEEDS = st.integers(0, 2**31)
SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(2, 7))
Shape = tuple[int, int, int]


def labellings(seed: int, shape: Shape, count: int = 2) -> list[np.ndarray]:
    """Unlike labellings of one shape, in runs along x, ids 0 to 4."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 5, shape).repeat(3, axis=2).astype(np.uint64) for _ in range(count)]


def renamed(labels: np.ndarray, seed: int) -> np.ndarray:
    """The same objects under other ids, beyond 2**63 too; 0 stays 0."""
    ids = np.random.default_rng(seed).permutation(np.array([3, 12, 2**40, 2**63 + 7], np.uint64))
    return np.concatenate([np.zeros(1, np.uint64), ids])[labels.astype(int)]


@given(SEEDS, SHAPES)
def test_sides_change_splits_for_merges_and_nothing_else(seed: int, shape: Shape) -> None:
    one, other = labellings(seed, shape)
    table, turned = Contingency.of(one, other), Contingency.of(other, one)
    assert variation_of_information(table) == pytest.approx(variation_of_information(turned)[::-1], abs=1e-12)
    rand, back = adapted_rand(table), adapted_rand(turned)
    assert (rand.error, rand.precision, rand.recall) == pytest.approx((back.error, back.recall, back.precision))


@given(SEEDS, SHAPES)
def test_names_of_labels_do_not_count(seed: int, shape: Shape) -> None:
    truth, segments = labellings(seed, shape)
    other_truth, other_segments = renamed(truth, seed), renamed(segments, seed + 1)
    tables = Contingency.of(truth, segments), Contingency.of(other_truth, other_segments)
    found, expected = (summary(table) for table in tables)
    assert (found.pop("remarks"), found.pop("ignored")) == (expected.pop("remarks"), expected.pop("ignored"))
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)
    sections = [section_tables(*pair) for pair in ((truth, segments), (other_truth, other_segments))]
    assert section_summary(sections[0]) == pytest.approx(section_summary(sections[1]), rel=1e-12, abs=1e-12)


@given(SEEDS, SHAPES)
def test_voi_is_a_distance(seed: int, shape: Shape) -> None:
    """Meila 2007: 0 only between the same objects, and no way round is shorter."""
    one, other, third = labellings(seed, shape, 3)

    def voi(a: np.ndarray, b: np.ndarray) -> float:
        return sum(variation_of_information(Contingency.of(a, b)))

    assert voi(one, renamed(one, seed)) == pytest.approx(0, abs=1e-12)
    assert voi(one, third) <= voi(one, other) + voi(other, third) + 1e-9
    table = Contingency.of(one, other)
    same = len(table.voxels) == len(np.unique(one)) == len(np.unique(other))
    assert (voi(one, other) < 1e-12) == same


@given(SEEDS, SHAPES)
def test_finer_segments_only_split_more_and_merge_less(seed: int, shape: Shape) -> None:
    truth, segments, cut = labellings(seed, shape, 3)
    coarse, fine = (Contingency.of(truth, part) for part in (segments, segments * np.uint64(5) + cut))
    (split, merge), (more, less) = variation_of_information(coarse), variation_of_information(fine)
    assert more >= split - 1e-12
    assert less <= merge + 1e-12


def membranes(seed: int, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """A prediction in few levels and a truth with and without membrane."""
    rng = np.random.default_rng(seed)
    truth = rng.random(shape) < 0.4
    truth.flat[:2] = True, False
    return rng.choice(np.array([0, 60, 61, 200, 255], np.uint8), shape), truth


@given(SEEDS, SHAPES)
def test_a_larger_tolerance_never_finds_less(seed: int, shape: Shape) -> None:
    grey, truth = membranes(seed, shape)
    lines = [curve(tally(grey, truth, Tolerance(nm, (40.0, 4.0, 4.0)))) for nm in (0.0, 4.0, 9.0, 45.0)]
    for near, far in pairwise(lines):
        assert (far.precision >= near.precision).all()
        assert (far.recall >= near.recall).all()
        assert far.f1.max() >= near.f1.max()


@given(SEEDS, SHAPES)
def test_a_negative_has_the_other_part_of_the_area(seed: int, shape: Shape) -> None:
    grey, truth = membranes(seed, shape)
    none = Tolerance(0, (40.0, 4.0, 4.0))
    areas = [roc_area(tally(part, truth, none)) for part in (grey, 255 - grey)]
    assert areas[0] is not None
    assert areas[1] == pytest.approx(1 - areas[0])
    assert roc_area(tally((truth * 255).astype(np.uint8), truth, none)) == 1.0
