"""MS-SSIM against scikit-image at one scale, loops over windows at two, and tiles against whole sections."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from emsr.metrics.structure import HALO, WEIGHTS, Tally, ms_ssim, scales_that_fit, similarity, tally_tile


def pair(shape: tuple[int, int], noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A smooth random uint8 section and a noisy copy of it."""
    rng = np.random.default_rng(seed)
    truth = np.add.outer(np.cumsum(rng.normal(0, 4, shape[0])), np.cumsum(rng.normal(0, 4, shape[1]))) + 128
    image = truth + rng.normal(0, noise, shape)
    return np.clip(truth, 0, 255).astype(np.uint8), np.clip(image, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("shape", [(11, 11), (40, 33), (64, 100)])
def test_one_scale_is_scikit_images_ssim(shape: tuple[int, int]) -> None:
    truth, image = pair(shape, 12.0)
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = structural_similarity(truth, image, data_range=255, **settings)
    assert ms_ssim(truth, image, scales=1) == pytest.approx(expected, rel=1e-10)


def windows(truth: np.ndarray, image: np.ndarray) -> tuple[list[float], list[float]]:
    """Contrast-structure and its product with luminance, window after window, as the paper writes them."""
    line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weight = np.outer(line, line) / np.outer(line, line).sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    structures, products = [], []
    for y in range(truth.shape[0] - 10):
        for x in range(truth.shape[1] - 10):
            a, b = truth[y : y + 11, x : x + 11], image[y : y + 11, x : x + 11]
            mean_a, mean_b = (weight * a).sum(), (weight * b).sum()
            var_a, var_b = (weight * (a - mean_a) ** 2).sum(), (weight * (b - mean_b) ** 2).sum()
            both = (weight * (a - mean_a) * (b - mean_b)).sum()
            contrast = (2 * np.sqrt(var_a * var_b) + c2) / (var_a + var_b + c2)
            structure = (both + c2 / 2) / (np.sqrt(var_a * var_b) + c2 / 2)
            structures.append(contrast * structure)
            products.append(contrast * structure * (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1))
    return structures, products


def test_two_scales_by_loops_over_windows() -> None:
    truth, image = (part.astype(float) for part in pair((25, 30), 20.0))
    fine, _ = windows(truth, image)
    halves = [part[:24].reshape(12, 2, 15, 2).mean(axis=(1, 3)) for part in (truth, image)]
    _, coarse = windows(*halves)
    first, second = (weight / (WEIGHTS[0] + WEIGHTS[1]) for weight in WEIGHTS[:2])
    assert ms_ssim(truth, image, scales=2) == pytest.approx(np.mean(fine) ** first * np.mean(coarse) ** second)


def test_contrast_structure_by_hand() -> None:
    """Half the contrast: covariance v / 2, variances v and v / 4."""
    truth = np.zeros((11, 11))
    truth[:, 5:] = 100.0
    line = np.exp(-(np.arange(-5, 6) ** 2) / 4.5)
    part = (line / line.sum())[5:].sum()  # weight of the bright side
    v, mean, c1, c2 = 100.0**2 * part * (1 - part), 100 * part, 2.55**2, 7.65**2
    structure, luminance = similarity(truth, truth / 2)
    assert structure == pytest.approx(np.array([[(v + c2) / (1.25 * v + c2)]]))
    assert luminance == pytest.approx(np.array([[(mean**2 + c1) / (1.25 * mean**2 + c1)]]))


def test_one_for_equal_sections_and_less_with_more_noise() -> None:
    truth, _ = pair((200, 180), 0.0)
    assert ms_ssim(truth, truth) == pytest.approx(1.0, abs=1e-12)
    scores = [ms_ssim(*pair((200, 180), noise)) for noise in (2.0, 8.0, 30.0, 90.0)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.99 > 0.7 > scores[-1]


def test_a_negative_counts_as_nothing() -> None:
    truth, _ = pair((180, 180), 0.0)
    assert ms_ssim(truth, 255 - truth) == 0.0


@pytest.mark.parametrize(("shape", "tile"), [((400, 352), 160), ((391, 365), 192), ((200, 190), 176)])
def test_tiles_give_the_score_of_the_section(shape: tuple[int, int], tile: int) -> None:
    truth, image = pair(shape, 25.0)
    total = None
    for y in range(0, shape[0], tile):
        for x in range(0, shape[1], tile):
            y0, x0 = max(y - HALO, 0), max(x - HALO, 0)
            read = np.s_[y0 : y + tile + HALO, x0 : x + tile + HALO]
            core = (slice(y - y0, y - y0 + tile), slice(x - x0, x - x0 + tile))
            part = tally_tile(truth[read], image[read], core)
            total = part if total is None else total + part
    assert total is not None
    assert total.pixels[0] == (shape[0] - 10) * (shape[1] - 10)
    assert total.score() == pytest.approx(ms_ssim(truth, image), rel=1e-10)


def test_the_range_is_stated_and_not_taken_from_the_pixels() -> None:
    truth, image = (part.astype(float) for part in pair((180, 180), 20.0))
    assert ms_ssim(truth / 255, image / 255, data_range=1.0) == pytest.approx(ms_ssim(truth, image))


def test_smaller_sections_have_fewer_scales_only_if_asked() -> None:
    truth, image = pair((175, 300), 9.0)
    with pytest.raises(ValueError, match="smaller than 176 x 176, which 5 scales need"):
        ms_ssim(truth, image)
    assert [scales_that_fit(shape) for shape in ((176, 300), (175, 300), (21, 50), (10, 10))] == [5, 4, 1, 0]
    assert 0 < ms_ssim(truth, image, scales=4) < 1


def test_weights_are_the_published_ones() -> None:
    assert Tally((0.5,) * 5, (1,) * 5).score() == pytest.approx(0.5**1.0001, rel=1e-12)
    assert Tally((0.5,) * 4, (1,) * 4).score() == pytest.approx(0.5, rel=1e-12)
    assert Tally((1.0, 1.0, 0.5, 1.0, 1.0), (1,) * 5).score() == pytest.approx(0.5**0.3001)
    assert Tally((1.0, 0.25), (1, 1)).score() == pytest.approx(0.25 ** (0.2856 / 0.3304))


def test_bad_input() -> None:
    truth, image = pair((180, 180), 9.0)
    with pytest.raises(ValueError, match=r"sections \(y, x\) of one shape"):
        ms_ssim(truth, image[:-1])
    with pytest.raises(ValueError, match="6 scales: MS-SSIM has 1 to 5"):
        ms_ssim(truth, image, scales=6)
    with pytest.raises(ValueError, match="multiples of 16"):
        tally_tile(truth, image, np.s_[8:176, 0:180])
    with pytest.raises(ValueError, match="do not add up"):
        Tally((1.0,), (1,)) + Tally((1.0, 1.0), (1, 1))
    with pytest.raises(ValueError, match="too small"):
        Tally((1.0, 0.0), (4, 0)).score()
