"""Membrane precision and recall against distance transforms threshold by threshold, and sklearn's worked example."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from emsr.metrics.membrane import Difference, curve, difference, levels, ranked, roc_area, summary, tally
from emsr.metrics.tolerance import Tolerance

SIZE = (40.0, 4.0, 4.0)
NONE = Tolerance(0, SIZE)
GREYS = np.array([0, 1, 40, 90, 91, 200, 255], np.uint8)


def sample(seed: int, shape: tuple[int, int, int] = (3, 9, 11)) -> tuple[np.ndarray, np.ndarray]:
    """A random prediction in few grey levels and a random sparse truth."""
    rng = np.random.default_rng(seed)
    truth = rng.random(shape) < 0.2
    truth.flat[0] = True
    return rng.choice(GREYS, shape), truth


def near(marked: np.ndarray, nm: float) -> np.ndarray:
    """Within ``nm`` of a marked voxel, by scipy's distance transform."""
    return distance_transform_edt(~marked, sampling=SIZE) <= nm if marked.any() else np.zeros(marked.shape, bool)


@pytest.mark.parametrize("nm", [0.0, 4.0, 9.0, 41.0])
@pytest.mark.parametrize("seed", range(3))
def test_equal_to_distance_transforms_at_every_threshold(seed: int, nm: float) -> None:
    grey, truth = sample(seed)
    line = curve(tally(grey, truth, Tolerance(nm, SIZE)))
    for level in range(256):
        predicted = grey >= level
        recall = (truth & near(predicted, nm)).sum() / truth.sum()
        precision = (predicted & near(truth, nm)).sum() / predicted.sum() if predicted.any() else 1.0
        assert (line.precision[level], line.recall[level]) == pytest.approx((precision, recall), abs=1e-12)
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        assert line.f1[level] == pytest.approx(f1, abs=1e-12)


@given(
    st.integers(0, 2**31),
    st.tuples(st.integers(1, 4), st.integers(1, 12), st.integers(1, 12)),
    st.tuples(st.integers(1, 3), st.integers(1, 8), st.integers(1, 8)),
    st.sampled_from([0.0, 4.0, 12.0, 45.0]),
)
def test_shards_with_a_halo_add_up(
    seed: int, shape: tuple[int, int, int], shard: tuple[int, int, int], nm: float
) -> None:
    grey, truth = sample(seed, shape)
    counted = np.random.default_rng(seed + 1).random(shape) < 0.9
    tolerance = Tolerance(nm, SIZE)
    parts = []
    for corner in np.ndindex(*(-(-length // step) for length, step in zip(shape, shard, strict=True))):
        start = [index * step for index, step in zip(corner, shard, strict=True)]
        low = [max(first - halo, 0) for first, halo in zip(start, tolerance.reach, strict=True)]
        stop = [first + step for first, step in zip(start, shard, strict=True)]
        read = tuple(slice(a, b + halo) for a, b, halo in zip(low, stop, tolerance.reach, strict=True))
        core = tuple(slice(first - a, last - a) for first, last, a in zip(start, stop, low, strict=True))
        parts.append(tally(grey[read], truth[read], tolerance, core, counted[read]))
    total, whole = sum(parts[1:], parts[0]), tally(grey, truth, tolerance, counted=counted)
    for name in ("predicted", "right", "true", "found"):
        np.testing.assert_array_equal(getattr(total, name), getattr(whole, name))
    assert whole.predicted.sum() == counted.sum()


def test_average_precision_and_auc_are_those_of_the_worked_example() -> None:
    """scikit-learn's documentation: truths 0 0 1 1, scores 0.1 0.4 0.35 0.8: AP 0.8333, ROC AUC 0.75."""
    scores = np.array([[[0.1, 0.4, 0.35, 0.8]]])
    truth = np.array([[[False, False, True, True]]])
    figures = summary(tally(scores, truth, NONE))
    assert figures["average_precision"] == pytest.approx(5 / 6)
    assert figures["auc"] == pytest.approx(0.75)
    assert (figures["best_f1"], figures["best_threshold"]) == pytest.approx((0.8, 27 / 255))  # above 0.1, 3 of 4


@pytest.mark.parametrize("seed", range(3))
def test_areas_equal_naive_ones(seed: int) -> None:
    grey, truth = sample(seed)
    total = tally(grey, truth, NONE)
    inside, outside = grey[truth].astype(int), grey[~truth].astype(int)
    wins = np.sign(inside[:, None] - outside[None, :])
    assert roc_area(total) == pytest.approx((wins + 1).mean() / 2, rel=1e-12)
    steps, average = sorted(set(grey[truth].tolist()), reverse=True), 0.0
    for level, above in zip(steps, [999, *steps], strict=False):
        gained = ((inside >= level).sum() - (inside >= above).sum()) / len(inside)
        average += gained * (inside >= level).sum() / (grey >= level).sum()
    assert summary(total)["average_precision"] == pytest.approx(average, rel=1e-12)


def test_a_line_one_voxel_beside_is_right_only_with_tolerance() -> None:
    truth, grey = np.zeros((1, 8, 8), bool), np.zeros((1, 8, 8), np.uint8)
    truth[0, 3], grey[0, 4] = True, 200
    assert summary(tally(grey, truth, NONE), chosen=200)["f1"] == 0.0
    figures = summary(tally(grey, truth, Tolerance(4, SIZE)), chosen=100)
    assert (figures["f1"], figures["precision"], figures["recall"]) == (1.0, 1.0, 1.0)
    assert figures["threshold"] == pytest.approx(100 / 255)
    assert figures["best_threshold"] == pytest.approx(1 / 255)  # the lowest of equals


def test_what_is_not_counted_may_still_be_what_others_find() -> None:
    truth, grey = np.zeros((1, 1, 4), bool), np.zeros((1, 1, 4), np.uint8)
    truth[..., 1], grey[..., 2] = True, 255
    counted = np.array([[[True, True, False, True]]])
    figures = summary(tally(grey, truth, Tolerance(4, SIZE), counted=counted), chosen=1)
    assert (figures["recall"], figures["voxels"]) == (1.0, 3)


def test_undefined_figures_are_none_with_a_reason() -> None:
    grey, truth = sample(0)
    figures = summary(tally(grey, np.zeros_like(truth), NONE))
    assert figures["best_f1"] is figures["average_precision"] is figures["auc"] is None
    assert "no membrane" in str(figures["reason"])
    everything = summary(tally(grey, np.ones_like(truth), NONE))
    assert (everything["auc"], everything["best_f1"]) == (None, 1.0)
    with pytest.raises(ValueError, match="recall is undefined"):
        curve(tally(grey, np.zeros_like(truth), NONE))


def test_levels_round_to_what_is_on_disk() -> None:
    assert levels(np.array([0.0, 0.4999 / 255, 0.5, 1.0], np.float32)).tolist() == [0, 0, 128, 255]
    assert levels(GREYS) is GREYS


grey, truth = sample(1)
BAD = [
    (grey.astype(int), truth, None, "int64: give uint8"),
    (grey.astype(float), truth, None, r"from 0.0 to 255.0 is not in \[0, 1\]"),
    (np.full(grey.shape, np.nan), truth, None, "from nan"),
    (grey, truth.astype(np.uint8), None, "truth is uint8"),
    (grey, truth[:1], None, r"truth is bool \(1, 9, 11\)"),
    (grey[0], truth[0], None, "z, y, x"),
    (grey, truth, truth[:1], r"counted is bool \(1, 9, 11\)"),
]


@pytest.mark.parametrize(("grey", "truth", "counted", "words"), BAD)
def test_bad_input(grey: np.ndarray, truth: np.ndarray, counted: np.ndarray | None, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        tally(grey, truth, NONE, counted=counted)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("level", [-1, 256])
def test_thresholds_out_of_range(level: int) -> None:
    with pytest.raises(ValueError, match="from 0 to 255"):
        summary(tally(grey, truth, NONE), chosen=level)
    with pytest.raises(ValueError, match="from 0 to 255"):
        difference(grey, grey, (100, level), NONE)


def test_invented_and_lost_by_hand() -> None:
    hr, sr = np.zeros((1, 12, 10), np.uint8), np.zeros((1, 12, 10), np.uint8)
    hr[0, 2], sr[0, 3] = 255, 130  # one membrane, one voxel beside
    hr[0, 7, :4] = 255  # lost
    sr[0, 11, :6] = 130  # invented
    sr[0, 9] = 120  # below the threshold
    result = difference(sr, hr, (128, 200), Tolerance(4, SIZE))
    assert result == Difference(voxels=120, sr=16, invented=6, hr=14, lost=4)
    assert (result.invented_share, result.lost_share) == (6 / 16, 4 / 14)
    assert (Difference(9).invented_share, Difference(9).lost_share) == (None, None)


def test_differences_of_windows_add_up() -> None:
    sr, hr = sample(5)[0], sample(6)[0]
    tolerance = Tolerance(8, SIZE)
    left = difference(sr[:, :, :7], hr[:, :, :7], (90, 90), tolerance, np.s_[:, :, :5])
    right = difference(sr[:, :, 3:], hr[:, :, 3:], (90, 90), tolerance, np.s_[:, :, 2:])
    assert left + right == difference(sr, hr, (90, 90), tolerance)


def test_windows_are_ranked_by_their_share_of_voxels() -> None:
    windows = {
        "speck": Difference(100, sr=1, invented=1, hr=0, lost=0),
        "sheet": Difference(100, sr=50, invented=20, hr=60, lost=30),
        "small": Difference(10, sr=5, invented=3, hr=2, lost=0),
        "clean": Difference(100, sr=40, invented=0, hr=40, lost=0),
    }
    assert [name for name, _ in ranked(windows, "invented")] == ["small", "sheet", "speck"]
    assert [name for name, _ in ranked(windows, "lost")] == ["sheet"]
    assert [name for name, _ in ranked(windows, "invented", count=1)] == ["small"]
    with pytest.raises(ValueError, match="'wrong'"):
        ranked(windows, "wrong")  # type: ignore[arg-type]


def test_sr_and_hr_of_one_window() -> None:
    with pytest.raises(ValueError, match="compare one window"):
        difference(grey, grey[:1], (1, 1), NONE)
