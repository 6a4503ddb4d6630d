"""LPIPS' distance by hand; the network that makes the features is not its concern."""

from __future__ import annotations

import numpy as np
import pytest

from emsr.metrics.perceptual import lpips_distance


def layer(*pixels: tuple[float, ...]) -> np.ndarray:
    """Features (c, 1, x) from the vectors of the pixels."""
    return np.array(pixels, np.float32).T[:, None, :]


TWO = np.array([1.0, 0.5])
BY_HAND = [
    ([layer((3, 4))], [layer((3, 4))], [TWO], 0.0, "equal"),
    ([layer((3, 4))], [layer((30, 40))], [TWO], 0.0, "only the direction counts"),
    ([layer((1, 0))], [layer((0, 1))], [TWO], 1.5, "1 of weight 1 and 1 of weight 0.5"),
    ([layer((3, 4))], [layer((4, 3))], [TWO], 0.2**2 * 1.5, "0.6 and 0.8 against 0.8 and 0.6"),
    ([layer((1, 0), (1, 0))], [layer((0, 1), (1, 0))], [TWO], 0.75, "mean over pixels"),
    ([layer((1, 0))] * 2, [layer((0, 1)), layer((1, 0))], [TWO, TWO], 1.5, "sum over layers"),
    ([layer((0, 0))], [layer((0, 5))], [TWO], 0.5, "a pixel without features stays 0"),
]


@pytest.mark.parametrize(("a", "b", "weights", "expected", "reason"), BY_HAND)
def test_by_hand(
    a: list[np.ndarray], b: list[np.ndarray], weights: list[np.ndarray], expected: float, reason: str
) -> None:
    assert lpips_distance(a, b, weights) == pytest.approx(expected, abs=1e-7), reason
    assert lpips_distance(b, a, weights) == lpips_distance(a, b, weights)


def test_equal_to_cosine_distance_for_equal_weights() -> None:
    """Unit vectors differ by |u - v|^2 = 2 - 2 cos."""
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 5, 3, 4))
    cosine = (a * b).sum(axis=0) / np.linalg.norm(a, axis=0) / np.linalg.norm(b, axis=0)
    assert lpips_distance([a], [b], [np.ones(5)]) == pytest.approx((2 - 2 * cosine).mean())


one = layer((1, 0))
BAD = [
    ([one], [one], [], "1 and 1 layers for 0 weights"),
    ([], [], [], "0 and 0 layers"),
    ([one], [one[:1]], [TWO], r"features \(2, 1, 1\) and \(1, 1, 1\)"),
    ([one], [one], [np.ones(3)], r"weights \(3,\)"),
    ([one], [one], [-TWO], "weight -1.0 is negative"),
]


@pytest.mark.parametrize(("a", "b", "weights", "words"), BAD)
def test_bad_input(a: list[np.ndarray], b: list[np.ndarray], weights: list[np.ndarray], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        lpips_distance(a, b, weights)
