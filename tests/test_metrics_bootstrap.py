"""The share of the gap by hand, and its interval against scipy's bootstrap and against all resamples there are."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from emsr.metrics.bootstrap import Draws, Rivals, closed, fixed, of_sums, share_of_gap
from emsr.metrics.image import Tally
from emsr.metrics.segmentation import Contingency, variation_of_information, weighted_sums


def ssims(*values: float) -> list[Tally]:
    """Sub-volumes of equal size with these means of SSIM."""
    return [Tally(ssim_sum=10 * value, ssim_pixels=10) for value in values]


def rivals(bicubic: list[float], sr: list[float], hr: float = 1.0) -> Rivals:
    return Rivals(of_sums(ssims(*bicubic), Tally.ssim), of_sums(ssims(*sr), Tally.ssim), fixed(hr), True)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


SHARES = [
    (0.5, 0.75, 1.0, True, 0.5, "half of the gap"),
    (4.0, 1.0, 2.0, False, 1.5, "better than hr, lower is better"),
    (0.5, 0.4, 1.0, True, -0.2, "worse than bicubic"),
    (0.5, 0.7, 0.5, True, None, "no gap"),
    (0.6, 0.7, 0.5, True, None, "hr worse than bicubic"),
    (2.0, 1.0, 3.0, False, None, "hr worse, lower is better"),
    (20.0, 22.0, math.inf, True, None, "PSNR of hr with itself"),
    (None, 1.0, 2.0, True, None, "undefined"),
]


@pytest.mark.parametrize(("bicubic", "sr", "hr", "higher", "expected", "reason"), SHARES)
def test_share_by_hand(
    bicubic: float | None, sr: float, hr: float, higher: bool, expected: float | None, reason: str
) -> None:
    share = closed(bicubic, sr, hr, higher)
    assert share == (None if expected is None else pytest.approx(expected)), reason


BICUBIC, SR = [0.50, 0.60, 0.55, 0.40, 0.62, 0.58], [0.70, 0.72, 0.80, 0.52, 0.71, 0.75]


def statistic(bicubic: np.ndarray, sr: np.ndarray, axis: int = -1) -> np.ndarray:
    return (sr.mean(axis) - bicubic.mean(axis)) / (1 - bicubic.mean(axis))


@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_interval_is_scipys(confidence: float) -> None:
    result = share_of_gap(rivals(BICUBIC, SR), 6, rng(), Draws(4000, confidence))
    settings = {"paired": True, "method": "percentile", "n_resamples": 4000, "confidence_level": confidence}
    expected = stats.bootstrap((BICUBIC, SR), statistic, rng=rng(7), **settings).confidence_interval
    assert result.share == pytest.approx(statistic(np.array(BICUBIC), np.array(SR)))
    assert (result.low, result.high) == pytest.approx((expected.low, expected.high), abs=0.01)
    assert (result.undefined, result.reason) == (0.0, None)


def test_interval_is_that_of_all_resamples() -> None:
    bicubic, sr = np.array([0.1, 0.5, 0.6]), np.array([0.4, 0.9, 0.6])
    every = [statistic(bicubic[list(taken)], sr[list(taken)]) for taken in itertools.product(range(3), repeat=3)]
    result = share_of_gap(rivals(list(bicubic), list(sr)), 3, rng(1), Draws(5000, 0.5))
    assert result.low is not None
    assert result.high is not None
    for end, rank in ((result.low, 0.25), (result.high, 0.75)):  # there are 10 different shares: allow for the steps
        low, high = np.quantile(every, [rank - 0.03, rank + 0.03], method="inverted_cdf")
        assert low - 1e-9 <= end <= high + 1e-9


def test_the_same_generator_gives_the_same_interval() -> None:
    results = [share_of_gap(rivals(BICUBIC, SR), 6, rng(seed), Draws(50)) for seed in (3, 3, 4)]
    assert results[0] == results[1] != results[2]


def test_one_resample_is_taken_for_all_rivals() -> None:
    """sr halfway between bicubic and hr in each sub-volume: every resample that is shared gives one half."""
    bicubic = [0.1, 0.9, 0.3, 0.5]
    result = share_of_gap(rivals(bicubic, [(1 + value) / 2 for value in bicubic]), 4, rng())
    assert (result.low, result.high) == pytest.approx((0.5, 0.5))


def tables(seed: int, wrong: float) -> list[Contingency]:
    """Five sub-volumes in which the segmentation mistakes some voxels."""
    generator = rng(seed)
    parts = []
    for _ in range(5):
        truth = generator.integers(1, 5, (2, 6, 6)).astype(np.uint64)
        other = generator.integers(1, 5, truth.shape).astype(np.uint64)
        parts.append(Contingency.of(truth, np.where(generator.random(truth.shape) < wrong, other, truth)))
    return parts


def voi(table: Contingency) -> float:
    return sum(variation_of_information(table))


def test_segmentation_by_tables_that_are_sorted_once_or_each_time() -> None:
    named = [tables(1, 0.6), tables(2, 0.3), tables(3, 0.05)]
    slow = Rivals(*(of_sums(parts, voi) for parts in named), higher_is_better=False)
    sums = [weighted_sums(parts) for parts in named]
    fast = Rivals(*(lambda times, taken=taken: voi(taken(times)) for taken in sums), higher_is_better=False)
    results = [share_of_gap(each, 5, rng(5), Draws(40)) for each in (slow, fast)]
    assert results[0] == results[1]
    figures = [voi(Contingency.sum(parts)) for parts in named]
    assert results[0].share == pytest.approx((figures[1] - figures[0]) / (figures[2] - figures[0]))
    low, high = results[0].low, results[0].high
    assert low is not None
    assert high is not None
    assert low < results[0].share < high


NO_SHARE = [
    (rivals([0.5, 0.6], [0.7, 0.7], 0.5), 2, r"hr \(0.5\) is not better than bicubic \(0.55\)", "no gap to close"),
    (rivals([0.5, 0.6], [0.7, 0.7], math.inf), 2, "the figure of hr is inf", "PSNR of equal images"),
    (Rivals(fixed(0.5), lambda times: None, fixed(1.0), True), 2, "the figure of sr is undefined", "no voxel counted"),
    (Rivals(fixed(0.5), fixed(0.5), fixed(0.4), True, "own"), 2, r"not better than own \(0.5\)", "not of bicubic"),
    (Rivals(lambda times: None, fixed(0.5), fixed(1.0), True, "own"), 2, "the figure of own is undefined", "nor here"),
]


@pytest.mark.parametrize(("of", "count", "words", "reason"), NO_SHARE)
def test_no_share_has_a_reason(of: Rivals, count: int, words: str, reason: str) -> None:
    result = share_of_gap(of, count, rng())
    assert (result.share, result.low, result.high) == (None, None, None), reason
    assert re.search(words, str(result.reason))


def test_a_gap_that_is_not_sure_has_no_interval() -> None:
    """hr is better on the whole, but not where the second sub-volume is drawn twice: a quarter of the resamples."""
    result = share_of_gap(replace(rivals([0.2, 0.9], [0.5, 0.8], hr=0.8), name="own"), 2, rng())
    assert result.share is not None
    assert (result.low, result.high) == (None, None)
    assert result.undefined == pytest.approx(0.25, abs=0.05)
    assert "of the resamples hr is not better than own" in str(result.reason)


def test_one_sub_volume_has_a_share_and_no_interval() -> None:
    result = share_of_gap(rivals([0.5], [0.6]), 1, rng())
    assert (result.share, result.low) == (pytest.approx(0.2), None)
    assert "one sub-volume" in str(result.reason)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="no sub-volume"):
        share_of_gap(rivals([0.5], [0.6]), 0, rng())
    with pytest.raises(ValueError, match="no sub-volume"):
        of_sums([], Tally.ssim)
    with pytest.raises(ValueError, match="0 resamples"):
        Draws(resamples=0)
    with pytest.raises(ValueError, match=r"confidence 1\.0"):
        Draws(confidence=1.0)
