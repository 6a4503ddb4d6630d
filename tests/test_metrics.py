"""Scores equal scikit-image's, from whole sections and from tiles."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from emsr.metrics.image import BORDER, Tally, psnr, squared_error, ssim, summary, tally_tile


def pair(shape: tuple[int, int], noise: float, dtype: type = np.uint8) -> tuple[np.ndarray, np.ndarray]:
    """A smooth random section and a noisy copy of it, in the same dtype, 0 to 255."""
    rng = np.random.default_rng(sum(shape))
    truth = np.add.outer(np.cumsum(rng.normal(0, 4, shape[0])), np.cumsum(rng.normal(0, 4, shape[1]))) + 128
    image = truth + rng.normal(0, noise, shape)
    return np.clip(truth, 0, 255).astype(dtype), np.clip(image, 0, 255).astype(dtype)


PAIRS = [
    ((64, 64), 8.0, np.uint8, "square"),
    ((40, 97), 30.0, np.uint8, "oblong, odd, noisy"),
    ((7, 7), 3.0, np.uint8, "one SSIM window"),
    ((50, 60), 5.0, np.float64, "float sections, same range"),
]


@pytest.mark.parametrize(("shape", "noise", "dtype", "reason"), PAIRS)
def test_equal_to_scikit_image(shape: tuple[int, int], noise: float, dtype: type, reason: str) -> None:
    truth, image = pair(shape, noise, dtype)
    assert psnr(truth, image) == pytest.approx(peak_signal_noise_ratio(truth, image, data_range=255), rel=1e-12)
    expected = structural_similarity(truth, image, data_range=255)
    assert ssim(truth, image) == pytest.approx(expected, rel=1e-12), reason


def in_tiles(truth: np.ndarray, image: np.ndarray, tile: int) -> Tally:
    """Score a section in tiles of ``tile`` pixels, each read with its halo."""
    total = Tally()
    for y in range(0, truth.shape[0], tile):
        for x in range(0, truth.shape[1], tile):
            y0, x0 = max(y - BORDER, 0), max(x - BORDER, 0)
            read = slice(y0, y + tile + BORDER), slice(x0, x + tile + BORDER)
            core = slice(y - y0, y - y0 + tile), slice(x - x0, x - x0 + tile)
            total += tally_tile(truth[read], image[read], core)
    return total


@settings(max_examples=30, deadline=None)
@given(st.integers(7, 40), st.integers(7, 40), st.integers(1, 45))
def test_tiles_give_the_score_of_the_section(y: int, x: int, tile: int) -> None:
    truth, image = pair((y, x), 10.0)
    tiles = in_tiles(truth, image, tile)
    assert tiles.pixels == truth.size
    assert tiles.ssim_pixels == (y - 2 * BORDER) * (x - 2 * BORDER)
    assert tiles.psnr() == pytest.approx(peak_signal_noise_ratio(truth, image, data_range=255), rel=1e-12)
    assert tiles.ssim() == pytest.approx(structural_similarity(truth, image, data_range=255), rel=1e-9)


def test_data_range_is_stated_and_not_taken_from_the_pixels() -> None:
    truth, image = pair((32, 32), 4.0)
    assert psnr(truth // 4, image // 4) == pytest.approx(
        peak_signal_noise_ratio(truth // 4, image // 4, data_range=255), rel=1e-12
    )
    assert psnr(truth, image, data_range=510) == pytest.approx(psnr(truth, image) + 20 * math.log10(2))


def test_squared_error_does_not_wrap_around() -> None:
    assert squared_error(np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8)) == 4 * 255**2


def test_summary_is_mean_of_sections_and_pooled() -> None:
    sections = [Tally(100.0, 100, 50.0, 100), Tally(400.0, 100, 90.0, 100)]
    result = summary(sections)
    assert result["psnr"] == pytest.approx((sections[0].psnr() + sections[1].psnr()) / 2)
    assert result["psnr_pooled"] == pytest.approx(10 * math.log10(255**2 / 2.5))
    assert result["ssim"] == pytest.approx(0.7)
    assert (result["sections"], result["identical"]) == (2, 0)


def test_section_equal_to_the_truth_is_counted_and_not_averaged() -> None:
    truth, image = pair((16, 16), 5.0)
    whole = slice(None), slice(None)
    same, other = tally_tile(truth, truth, whole), tally_tile(truth, image, whole)
    assert psnr(truth, truth) == math.inf
    assert same.ssim() == pytest.approx(1.0)
    assert summary([same, other])["psnr"] == pytest.approx(other.psnr())
    assert summary([same, other])["identical"] == 1
    assert summary([same])["psnr"] is None


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (((8, 8), (8, 9)), "one shape"),
        (((2, 8, 8), (2, 8, 8)), "sections"),
        (((6, 40), (6, 40)), "smaller than SSIM's window"),
    ],
)
def test_bad_input(shapes: tuple[tuple[int, ...], tuple[int, ...]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ssim(np.zeros(shapes[0], np.uint8), np.zeros(shapes[1], np.uint8))


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(ValueError, match="no SSIM window of 7 x 7"):
        Tally(1.0, 30).ssim()
    with pytest.raises(ValueError, match="no section to score"):
        summary([])
