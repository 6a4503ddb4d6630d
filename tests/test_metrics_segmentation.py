"""VOI and adapted Rand error equal hand-computed numbers and scikit-image's, of whole volumes and of shards."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.measure import label
from skimage.metrics import adapted_rand_error
from skimage.metrics import variation_of_information as skimage_voi

from emsr.metrics.segmentation import (
    MEANS,
    Contingency,
    adapted_rand,
    contributions,
    section_summary,
    section_tables,
    summary,
    variation_of_information,
    weighted_sums,
)


def ids(*values: int) -> np.ndarray:
    """Labels of one row of voxels, uint64 (1, 1, x)."""
    return np.array([[values]], np.uint64)


BY_HAND = [
    # truth, segments, split, merge, error, precision, recall, reason
    ((1, 1, 1, 1), (1, 1, 2, 2), 1.0, 0.0, 0.5, 1.0, 1 / 3, "halves: 1 bit; 4 of 12 ordered pairs are kept"),
    ((1, 1, 2, 2), (7, 7, 7, 7), 0.0, 1.0, 0.5, 1 / 3, 1.0, "the same the other way round is a merge"),
    ((1, 1, 2, 2), (1, 2, 1, 2), 1.0, 1.0, 1.0, 0.0, 0.0, "nothing that belongs together is together"),
    ((5, 5, 9, 9), (2, 2, 3, 3), 0.0, 0.0, 0.0, 1.0, 1.0, "other ids of the same objects"),
    ((0, 0, 1, 1), (5, 6, 5, 5), 0.0, 0.0, 0.0, 1.0, 1.0, "truth 0 is not counted, not even the merge with it"),
    ((1, 1, 1, 1), (0, 0, 0, 2), 0.8112781244591328, 0.0, 1 / 3, 1.0, 0.5, "segment 0 is a segment: H(1/4)"),
    ((1, 1, 1, 1), (3, 3, 3, 3), 0.0, 0.0, 0.0, 1.0, 1.0, "one object, found"),
]


@pytest.mark.parametrize(("truth", "segments", "split", "merge", "error", "precision", "recall", "reason"), BY_HAND)
def test_by_hand(
    truth: tuple[int, ...],
    segments: tuple[int, ...],
    split: float,
    merge: float,
    error: float,
    precision: float,
    recall: float,
    reason: str,
) -> None:
    figures = summary(Contingency.of(ids(*truth), ids(*segments)))
    expected = (split, merge, split + merge, error, precision, recall)
    assert [figures[name] for name in MEANS] == pytest.approx(expected, abs=1e-12), reason


def volumes(seed: int, shape: tuple[int, int, int], objects: int) -> tuple[np.ndarray, np.ndarray]:
    """Blobby random truth with background and a segmentation that shares some of it, ids below 2 * objects."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, objects, shape).repeat(2, axis=2).astype(np.uint64)
    other = rng.integers(0, 2 * objects, truth.shape)
    return truth, np.where(rng.random(truth.shape) < 0.3, other, truth).astype(np.uint64)


@pytest.mark.parametrize("ignored", [(), (0,), (0, 3)])
@pytest.mark.parametrize("seed", range(5))
def test_equal_to_scikit_image(seed: int, ignored: tuple[int, ...]) -> None:
    truth, segments = volumes(seed, (4, 9, 7), 6 + seed)
    table = Contingency.of(truth, segments).without(ignored)
    expected = skimage_voi(truth.astype(int), segments.astype(int), ignore_labels=ignored)
    assert variation_of_information(table) == pytest.approx(tuple(expected), rel=1e-12)
    rand = adapted_rand(table)
    # scikit-image gives precision and recall in the other order (scikit-image#6485)
    error, recall, precision = adapted_rand_error(truth.astype(int), segments.astype(int), ignore_labels=ignored)
    assert (rand.error, rand.precision, rand.recall) == pytest.approx((error, precision, recall), rel=1e-12)


@given(
    st.integers(0, 2**31),
    st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 5)),
    st.integers(1, 5),
    st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)),
)
def test_shards_add_up_to_the_volume(
    seed: int, shape: tuple[int, int, int], objects: int, shard: tuple[int, int, int]
) -> None:
    truth, segments = volumes(seed, shape, objects)
    counted = np.random.default_rng(seed).random(truth.shape) < 0.8
    parts = [
        Contingency.of(truth[part], segments[part], counted[part])
        for z in range(0, truth.shape[0], shard[0])
        for y in range(0, truth.shape[1], shard[1])
        for x in range(0, truth.shape[2], shard[2])
        for part in [np.s_[z : z + shard[0], y : y + shard[1], x : x + shard[2]]]
    ]
    whole = Contingency.of(truth, segments, counted)
    assert Contingency.sum(parts) == whole
    assert sum(parts[1:], parts[0]) == whole
    assert Contingency.sum(parts[::-1]) == whole
    assert whole.total == np.count_nonzero(counted)


def test_table_counts_each_pair_and_cannot_be_changed() -> None:
    large = 2**63 + 5
    table = Contingency.of(ids(large, 3, large, 3, 3), ids(1, 2**40, 1, 2**40, 0))
    assert table.truth.tolist() == [3, 3, large]
    assert table.segment.tolist() == [0, 2**40, 1]
    assert table.voxels.tolist() == [1, 2, 2]
    with pytest.raises(ValueError, match="read-only"):
        table.voxels[0] = 9
    assert table != Contingency.of(ids(3), ids(0))
    assert table + Contingency.sum([]) == table


def test_table_does_not_freeze_or_follow_the_arrays_it_was_made_from() -> None:
    voxels = np.array([4])
    table = Contingency(np.array([1]), np.array([1]), voxels)
    voxels[0] = 5
    assert table.total == 4


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64])
def test_any_integers_are_labels(dtype: type) -> None:
    truth, segments = volumes(1, (2, 5, 4), 4)
    assert Contingency.of(truth.astype(dtype), segments.astype(np.int64)) == Contingency.of(truth, segments)


def test_weighted_sums_are_sums_of_repeated_tables() -> None:
    tables = [Contingency.of(*volumes(seed, (2, 4, 4), 5)) for seed in range(4)]
    taken = weighted_sums(tables)
    expected = Contingency.sum([tables[0], tables[2], tables[2], tables[2]])
    assert taken(np.array([1, 0, 3, 0])) == expected
    assert taken(np.ones(4, int)) == Contingency.sum(tables)


def test_contributions_add_up_to_voi() -> None:
    table = Contingency.of(*volumes(3, (3, 8, 8), 7)).without((0,))
    split, merge = contributions(table)
    assert (split.sum(), merge.sum()) == variation_of_information(table)
    assert min(split.min(), merge.min()) >= 0


def test_pairs_of_many_voxels_do_not_overflow() -> None:
    many = 2**40
    table = Contingency(np.array([1, 1]), np.array([1, 2]), np.array([many, many]))
    rand = adapted_rand(table)
    assert rand.recall == pytest.approx(0.5)
    assert rand.precision == 1.0


REMARKS = [
    ((0, 0, 0), (1, 2, 3), None, "nothing can be scored", "truth is all background"),
    ((1, 1, 1), (1, 1, 2), 0.0, "one object", "merges cannot show"),
    ((1, 1, 2), (1, 1, 2), 0.0, "without background", "all voxels are counted"),
]


@pytest.mark.parametrize(("truth", "segments", "merge", "words", "reason"), REMARKS)
def test_a_poor_truth_is_stated(
    truth: tuple[int, ...], segments: tuple[int, ...], merge: float | None, words: str, reason: str
) -> None:
    figures = summary(Contingency.of(ids(*truth), ids(*segments)))
    assert figures["voi_merge"] == merge, reason
    assert words in " ".join(figures["remarks"])  # type: ignore[arg-type]


def test_summary_says_what_was_counted() -> None:
    figures = summary(Contingency.of(ids(0, 1, 1, 2, 4), ids(9, 9, 8, 8, 8)), ignored=(4, 0))
    counts = {name: figures[name] for name in ("voxels", "ignored_voxels", "ignored", "objects", "segments", "remarks")}
    assert counts == {
        "voxels": 3,
        "ignored_voxels": 2,
        "ignored": [0, 4],
        "objects": 2,
        "segments": 2,
        "remarks": [],
    }


def test_no_pair_of_voxels_is_no_rand_error() -> None:
    figures = summary(Contingency.of(ids(1, 2), ids(1, 2)))
    assert (figures["voi"], figures["arand"], figures["precision"], figures["recall"]) == (0.0, None, None, None)
    assert summary(Contingency.of(ids(1, 1), ids(1, 2)))["precision"] is None


def test_nothing_counted_is_an_error_where_a_number_is_asked_for() -> None:
    for figure in (variation_of_information, adapted_rand, contributions):
        with pytest.raises(ValueError, match="no voxel is counted"):
            figure(Contingency.sum([]))


def test_sections_are_scored_by_their_own_objects() -> None:
    # one neuron comes into the section twice, over the background; the third piece touches only at a corner
    truth = np.array([[[1, 1, 0, 1], [0, 0, 1, 0]]], np.uint64)
    assert section_summary(section_tables(truth, truth))["voi"] == 0.0
    joined = np.array([[[1, 1, 1, 1], [1, 1, 1, 1]]], np.uint64)  # one piece over three objects of 2, 1 and 1 voxels
    assert section_summary(section_tables(truth, joined))["voi_merge"] == pytest.approx(1.5)
    assert summary(Contingency.of(truth, joined))["voi_merge"] == 0.0  # in the volume it is one object


def test_sections_equal_scikit_image_and_their_mean() -> None:
    truth, segments = volumes(4, (5, 12, 12), 3)
    truth[3] = 0  # an unlabelled section has no figures
    per_section = []
    for z in (0, 1, 2, 4):
        pair = [label(part[z].astype(int), background=0, connectivity=1) for part in (truth, segments)]
        per_section.append([*skimage_voi(*pair, ignore_labels=(0,)), adapted_rand_error(*pair)[0]])
    result = section_summary(section_tables(truth, segments))
    expected = np.mean(per_section, axis=0)
    assert [result[name] for name in ("voi_split", "voi_merge", "arand")] == pytest.approx(expected, rel=1e-12)
    assert (result["sections"], result["unlabelled"]) == (4, 1)


def test_sections_know_ignored_labels_and_masks() -> None:
    truth = np.array([[[7, 7, 2, 2]]], np.uint8)
    segments = np.array([[[1, 1, 1, 3]]], np.uint8)
    assert section_summary(section_tables(truth, segments, ignored=(0, 7, 300)))["voi_split"] == 1.0
    counted = np.array([[[True, True, False, True]]])
    assert section_summary(section_tables(truth, segments, counted))["voi"] == 0.0
    assert section_summary([])["voi"] is None


good = ids(1, 2, 3)
BAD = [
    (good.astype(np.float32), good, None, "truth has labels of float32.*convert it to uint64"),
    (good, good.astype(np.float64), None, "segmentation has labels of float64"),
    (good.astype(np.int64) - 2, good, None, "truth holds label -1"),
    (good, good > 1, None, "segmentation is a mask"),
    (good, good[..., :2], None, r"truth is \(1, 1, 3\) and segmentation \(1, 1, 2\)"),
    (good, good, good, "counted is uint64"),
    (good, good, good[0] > 1, r"counted is bool \(1, 3\)"),
]


@pytest.mark.parametrize(("truth", "segments", "counted", "words"), BAD)
def test_bad_input(truth: np.ndarray, segments: np.ndarray, counted: np.ndarray | None, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        Contingency.of(truth, segments, counted)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("truth", "segment", "voxels", "words"),
    [
        ([2, 1], [1, 1], [1, 1], "ascend"),
        ([1, 1], [1, 1], [1, 1], "ascend"),
        ([1], [1], [0], "have voxels"),
        ([1, 2], [1], [1], "equal numbers"),
    ],
)
def test_a_table_is_checked(truth: list[int], segment: list[int], voxels: list[int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Contingency(np.array(truth), np.array(segment), np.array(voxels))
