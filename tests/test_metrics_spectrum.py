"""Fourier ring correlation of images whose answer is known, and against a ring-by-ring computation."""

from __future__ import annotations

import numpy as np
import pytest

from emsr.metrics.spectrum import (
    Curve,
    Rings,
    bands,
    correlation,
    resolution,
    ring_correlation,
    rings,
    thresholds,
)


def noise(seed: int, shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape)


def below(image: np.ndarray, size: tuple[float, float], edge: float) -> np.ndarray:
    """Only what an image holds below ``edge`` periods per nm."""
    y, x = (np.fft.fftfreq(length, step) for length, step in zip(image.shape, size, strict=True))
    return np.fft.ifft2(np.fft.fft2(image) * (np.hypot(y[:, None], x) < edge)).real


def agreeing(seed: int, shape: tuple[int, int], size: tuple[float, float], edge: float) -> list[np.ndarray]:
    """Two images that are one noise below ``edge`` and independent noises above."""
    common = below(noise(seed, shape), size, edge)
    own = [noise(seed + 100 * (1 + i), shape) for i in range(2)]
    return [common + image - below(image, size, edge) for image in own]


BAND_EDGES = [
    ((256, 256), (4.0, 4.0), 40.0, "square"),
    ((192, 320), (4.0, 4.0), 25.0, "oblong"),
    ((256, 256), (4.0, 8.0), 32.0, "rows closer than columns"),
    ((255, 200), (10.0, 10.0), 50.0, "odd"),
]


@pytest.mark.parametrize("criterion", ["1/7", "half-bit"])
@pytest.mark.parametrize(("shape", "size", "period", "reason"), BAND_EDGES)
def test_resolution_is_the_edge_of_the_common_band(
    shape: tuple[int, int], size: tuple[float, float], period: float, reason: str, criterion: str
) -> None:
    curve = ring_correlation([agreeing(seed, shape, size, 1 / period) for seed in range(4)], size)  # type: ignore[misc]
    found = resolution(curve, criterion)  # type: ignore[arg-type]
    width = curve.of.frequency[0]
    assert found.nm is not None
    assert abs(1 / found.nm - 1 / period) < 2 * width, reason  # the Hann window spreads over a ring to each side
    assert found.limit_nm == 2 * max(size)
    inside = curve.mean[curve.of.frequency < 1 / period - 2 * width]
    outside = curve.mean[curve.of.frequency > 1 / period + 2 * width]
    assert inside.min() > 0.99
    assert abs(outside.mean()) < 0.05


def test_signal_as_strong_as_noise_correlates_by_a_half() -> None:
    pairs = [[noise(seed, (128, 128)) + noise(9 * seed + k, (128, 128)) for k in (50, 51)] for seed in range(1, 9)]
    curve = ring_correlation(pairs, (4.0, 4.0))  # type: ignore[arg-type]
    assert np.average(curve.mean, weights=curve.of.samples) == pytest.approx(0.5, abs=0.02)


def naive(a: np.ndarray, b: np.ndarray, size: tuple[float, float]) -> list[float]:
    """One ring after the other, each by a mask of its frequencies."""
    window = np.multiply.outer(*(np.sin(np.pi * np.arange(n) / n) ** 2 for n in a.shape))
    left, right = (np.fft.fft2((image - image.mean()) * window) for image in (a, b))
    y, x = (np.fft.fftfreq(n, step) for n, step in zip(a.shape, size, strict=True))
    radius = np.sqrt(y[:, None] ** 2 + x[None, :] ** 2) * min(n * step for n, step in zip(a.shape, size, strict=True))
    values = []
    for k in range(1, int(min(n * step for n, step in zip(a.shape, size, strict=True)) / (2 * max(size))) + 1):
        ring = np.abs(radius - k) < 0.5
        power = np.linalg.norm(left[ring]) * np.linalg.norm(right[ring])
        values.append(float(np.vdot(right[ring], left[ring]).real / power))
    return values


@pytest.mark.parametrize(("shape", "size"), [((16, 16), (1.0, 1.0)), ((20, 33), (4.0, 4.0)), ((24, 17), (4.0, 9.0))])
def test_equal_to_one_ring_after_the_other(shape: tuple[int, int], size: tuple[float, float]) -> None:
    a, b = noise(1, shape), noise(1, shape) + noise(2, shape)
    assert correlation(a, b, rings(shape, size)) == pytest.approx(naive(a, b, size), abs=1e-12)


def test_brightness_and_contrast_do_not_count() -> None:
    a, b = noise(1, (32, 32)), noise(1, (32, 32)) + noise(2, (32, 32))
    of = rings((32, 32), (4.0, 4.0))
    np.testing.assert_allclose(correlation(a, 100 + 7 * b, of), correlation(a, b, of), atol=1e-12)
    np.testing.assert_allclose(correlation(a, -a, of), -1.0, atol=1e-12)
    np.testing.assert_allclose(correlation((a * 30).astype(np.uint8), (a * 30).astype(np.uint8), of), 1.0, atol=1e-12)


def test_a_ring_without_signal_correlates_with_nothing() -> None:
    y = np.arange(32)
    wave = np.cos(2 * np.pi * 8 * y / 32)[:, None] * np.ones(32)
    of = rings((32, 32), (1.0, 1.0))
    values = correlation(wave, wave, of)
    assert values[7] == pytest.approx(1.0)
    assert np.isfinite(values).all()


def flat(values: list[float], samples: list[int]) -> Curve:
    """A curve with given correlations on rings at 0.01, 0.02, ... periods per nm, sampled up to the last."""
    frequency = np.arange(1, len(values) + 1) / 100
    of = Rings(np.zeros((8, 8), int), frequency, np.array(samples), float(frequency[-1]))
    return Curve(of, np.array(values), 1)


CROSSINGS = [
    ([0.9, 0.5, 1 / 7 - 0.1, 0.6], 1 / (0.02 + 0.01 * (0.5 - 1 / 7) / (0.5 - 1 / 7 + 0.1)), "first fall, not the last"),
    ([0.9, 0.8, 0.7, 0.2], None, "stays above"),
    ([0.1, 0.8, 0.7, 0.2], None, "from the first ring on"),
]


@pytest.mark.parametrize(("values", "nm", "reason"), CROSSINGS)
def test_resolution_by_hand(values: list[float], nm: float | None, reason: str) -> None:
    found = resolution(flat(values, [8] * 4))
    assert found.nm == (pytest.approx(nm) if nm else None)
    assert found.limit_nm == pytest.approx(25)
    if nm is None:
        assert reason in str(found.reason)


def test_half_bit_by_hand() -> None:
    of = flat([1.0, 1.0, 1.0], [2, 50, 2 * 10**12]).of
    assert thresholds(of, "half-bit") == pytest.approx([1.0, (0.2071 + 0.38204) / (1.2071 + 0.18204), 0.1716], abs=1e-4)
    with pytest.raises(ValueError, match=r"criterion '0\.5'"):
        thresholds(of, "0.5")  # type: ignore[arg-type]


def test_bands_are_means_over_samples() -> None:
    curve = flat([1.0, 0.5, 0.25, 0.0], [10, 20, 30, 40])
    assert bands(curve, (0, 0.5, 1)) == pytest.approx([(10 + 10) / 30, 7.5 / 70])
    assert bands(curve, (0, 0.1, 0.25)) == [None, 1.0]


@pytest.mark.parametrize("edges", [(0.5,), (0, 0), (0.5, 0.2), (-0.1, 1), (0, 1.5)])
def test_bad_bands(edges: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must rise within 0 to 1"):
        bands(flat([1.0], [8]), edges)


def test_curves_of_sections_add_up_to_their_mean() -> None:
    pairs = [(noise(seed, (24, 24)), noise(seed, (24, 24)) + noise(seed + 50, (24, 24))) for seed in range(3)]
    one = [ring_correlation([pair], (4.0, 4.0)) for pair in pairs]
    total = one[0] + one[1] + one[2]
    np.testing.assert_allclose(total.mean, np.mean([curve.mean for curve in one], axis=0))
    np.testing.assert_allclose(ring_correlation(pairs, (4.0, 4.0)).mean, total.mean)
    with pytest.raises(ValueError, match="do not add up"):
        one[0] + ring_correlation([(noise(0, (32, 32)), noise(1, (32, 32)))], (4.0, 4.0))


def test_bad_sections() -> None:
    of, image = rings((16, 16), (4.0, 4.0)), noise(0, (16, 16))
    with pytest.raises(ValueError, match="section is 7 everywhere"):
        correlation(image, np.full((16, 16), 7, np.uint8), of)
    with pytest.raises(ValueError, match=r"must both be \(16, 16\)"):
        correlation(image, image[:8], of)
    with pytest.raises(ValueError, match="voxel size"):
        rings((16, 16), (4.0, 0.0))
    with pytest.raises(ValueError, match="at least 8 x 8"):
        rings((16, 4), (4.0, 4.0))
    with pytest.raises(ValueError, match="no section to correlate"):
        ring_correlation([], (4.0, 4.0))
