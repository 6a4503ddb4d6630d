"""What happens to training patches: movement against geometry and SciPy, grey levels against what was promised."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy.ndimage import map_coordinates

from emsr.models.stage import Stage
from emsr.training import deformations

PLAIN = Stage("affinity", "affinity", steps=1, batch=1, patch=16, learning_rate=0.1)
ALL = replace(
    PLAIN,
    **{"rotation_share": 1.0, "rotation": 180.0, "elastic_share": 1.0, "elastic": 4.0, "elastic_spacing": 8.0},
    **{"shift_share": 1.0, "shift": 3, "intensity_share": 1.0, "contrast": 0.2, "brightness": 0.1, "gamma": 0.3},
    **{"section_intensity": 0.2, "poor_share": 1.0, "poor": 2, "blur": 2.0, "faint": 0.9},
    **{"missing_share": 1.0, "missing": 2},
)
SHAPE = (6, 24, 20)


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def positions(field: np.ndarray) -> np.ndarray:
    """Where a displacement (2, z, y, x) reads from."""
    y, x = np.meshgrid(*map(np.arange, field.shape[2:]), indexing="ij")
    return field + np.stack([y, x])[:, None].astype(np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rotation_share": 1.5}, "rotation_share 1.5 of stage affinity is no share: state 0 to 1"),
        ({"missing_share": -0.1}, "missing_share -0.1 of stage affinity is no share"),
        ({"faint": 2.0}, "faint 2.0 of stage affinity is no share"),
        ({"shift": -1}, "shift -1 of stage affinity is negative: state 0 or more"),
        ({"border": -1}, "border -1 of stage affinity is negative"),
        ({"elastic_spacing": 0.0}, "elastic_spacing 0.0 of stage affinity is no smooth grid: state 4 up"),
    ],
)
def test_recipes_that_cannot_be_are_one_line(changes: dict[str, Any], message: str) -> None:
    deformations.check(ALL)
    with pytest.raises(ValueError, match=message) as caught:
        deformations.check(replace(ALL, **changes))
    assert "\n" not in str(caught.value)


def test_a_recipe_without_shares_changes_nothing() -> None:
    image = draw().integers(0, 256, SHAPE, dtype=np.uint8)
    idle = replace(ALL, **{f"{n}_share": 0.0 for n in ("rotation", "elastic", "shift", "intensity", "poor", "missing")})
    assert deformations.displacement(idle, SHAPE, draw()) is None
    np.testing.assert_array_equal(deformations.recoloured(idle, image, draw()), image)


def test_the_same_generator_does_the_same_and_the_next_something_else() -> None:
    image = draw().integers(0, 256, SHAPE, dtype=np.uint8)

    def done(seed: int) -> tuple[bytes, bytes]:
        numbers = draw(seed)
        field = deformations.displacement(ALL, SHAPE, numbers)
        assert field is not None
        assert field.shape == (2, *SHAPE)
        return field.tobytes(), deformations.recoloured(ALL, image, numbers).tobytes()

    assert done(1) == done(1)
    assert done(1)[0] != done(2)[0]
    assert done(1)[1] != done(2)[1]


def test_a_movement_is_the_sum_of_its_parts() -> None:
    """Each part comes alone from a generator that has gone as far."""
    numbers = draw(3)
    whole, again = deformations.displacement(ALL, SHAPE, draw(3)), np.zeros((2, *SHAPE), np.float32)
    parts = (
        lambda: deformations.rotation(numbers, SHAPE, 180.0),
        lambda: deformations.elastic(numbers, SHAPE, 4.0, 8.0),
        lambda: deformations.shifted(numbers, SHAPE[0], 3),
    )
    for part in parts:
        numbers.random()
        again = again + part()
    np.testing.assert_allclose(whole, again, atol=1e-5)


@pytest.mark.parametrize("degrees", [10.0, 180.0])
def test_a_rotation_keeps_distances_and_its_limit(degrees: float) -> None:
    middle = np.array([11.5, 9.5]).reshape(2, 1, 1, 1)
    angles = []
    for seed in range(30):
        field = deformations.rotation(draw(seed), SHAPE, degrees)
        before, after = positions(np.zeros((2, 1, *SHAPE[1:]))) - middle, positions(field) - middle
        np.testing.assert_allclose(np.hypot(*after), np.hypot(*before), rtol=1e-4)
        turn = np.angle((after[0] + 1j * after[1]) * (before[0] - 1j * before[1]), deg=True)
        assert np.ptp(turn) < 1e-2 or abs(turn).min() > 179, "all by one angle"
        angles.append(turn[0, 0, 0])
    assert max(np.abs(angles)) <= degrees + 1e-3
    assert max(angles) > degrees / 2
    assert min(angles) < -degrees / 2


@settings(max_examples=40)
@given(
    seed=st.integers(0, 999),
    shape=st.tuples(st.integers(1, 20), st.integers(2, 40), st.integers(2, 40)),
    pixels=st.floats(0, 30),
    spacing=st.floats(4, 50),
)
def test_elastic_deformations_are_bounded_and_nothing_folds(
    seed: int, shape: tuple[int, int, int], pixels: float, spacing: float
) -> None:
    field = deformations.elastic(draw(seed), shape, pixels, spacing)
    assert field.shape == (2, *shape)
    assert np.hypot(*field).max() <= pixels * 1.001
    for axis in (2, 3):
        assert np.abs(np.diff(field, axis=axis)).max() <= deformations.STEEPEST * 1.001


def test_elastic_deformations_reach_far_and_are_smooth_at_the_scale_of_their_spacing() -> None:
    fields = [deformations.elastic(draw(seed), (12, 64, 64), 8.0, 32.0) for seed in range(20)]
    assert max(np.hypot(*field).max() for field in fields) > 6
    for field in fields:
        bend = np.abs(np.diff(field, n=2, axis=3)).max()
        assert bend < 8.0 * 12 / 32**2, "curvature of a B-spline falls with the square of the spacing"
        assert np.ptp(field, axis=1).max() > 0, "sections differ"


def test_shifts_are_of_one_section_or_of_all_that_follow() -> None:
    seen = set()
    for seed in range(60):
        field = deformations.shifted(draw(seed), 5, 3)[:, :, 0, 0]
        assert np.array_equal(field, np.rint(field))
        assert np.abs(field).max() <= 3
        moved = np.flatnonzero(np.abs(field).sum(0))
        if len(moved):
            assert moved[0] > 0
            assert len(moved) == 1 or list(moved) == list(range(moved[0], 5))
            assert np.ptp(field[:, moved], axis=1).max() == 0, "as one"
            seen.add((int(moved[0]), len(moved)))
    assert {(1, 1), (1, 4), (2, 1), (2, 3), (3, 1), (3, 2), (4, 1)} == seen
    assert not deformations.shifted(draw(), 1, 3).any(), "one section cannot lie displaced against itself"


@settings(max_examples=25)
@given(seed=st.integers(0, 9999))
def test_image_and_labels_move_alike(seed: int) -> None:
    """The nearest voxel has at least a quarter of the bilinear weight, so the image of an object says where it is."""
    numbers = draw(seed)
    block = np.kron(numbers.integers(1, 4, (4, 9, 9)), np.ones((1, 4, 4))).astype(np.uint64)
    field = deformations.displacement(ALL, (4, 12, 12), numbers)
    assert field is not None
    at = np.clip(positions(field) + 12, 0, 35)
    labels = deformations.nearest(block, at)
    for label in range(1, 4):
        shown = deformations.bilinear(((block == label) * 255).astype(np.uint8), at)
        assert (labels[shown > 0.76 * 255] == label).all()
        assert (labels[shown < 0.24 * 255] != label).all()


def test_interpolation_equals_scipy_and_keeps_large_ids() -> None:
    numbers = draw(5)
    image, labels = numbers.integers(0, 256, (3, 9, 8), dtype=np.uint8), numbers.integers(0, 9, (3, 9, 8))
    at = numbers.uniform(0, 7, (2, 3, 5, 6)).astype(np.float32)
    sections = np.broadcast_to(np.arange(3.0)[:, None, None], (3, 5, 6))
    where = np.stack([sections, *at.astype(float)])
    smooth = map_coordinates(image.astype(float), where, order=1)
    assert np.abs(deformations.bilinear(image, at) - smooth).max() <= 0.501
    np.testing.assert_array_equal(deformations.nearest(labels, at), map_coordinates(labels, where, order=0))
    large = labels.astype(np.uint64) + np.uint64(2**64 - 10)
    np.testing.assert_array_equal(
        deformations.nearest(large, at) - np.uint64(2**64 - 10), deformations.nearest(labels, at)
    )


def test_intensity_by_hand() -> None:
    grey = np.linspace(0, 1, 3 * 4 * 5, dtype=np.float32).reshape(3, 4, 5)
    np.testing.assert_allclose(deformations.intensity(draw(), grey, (0, 0, 0), 1.0), grey, atol=1e-6)
    contrast = deformations.intensity(draw(1), grey, (0.5, 0, 0), 0.0)
    np.testing.assert_allclose(contrast, np.clip((grey - 0.5) * (0.5 + draw(1).uniform(0, 1)) + 0.5, 0, 1), atol=1e-6)
    seen = [deformations.intensity(draw(seed), grey, (0, 0, 1.0), 0.0) for seed in range(30)]
    power = np.array([np.log(one[1, 1, 1]) / np.log(grey[1, 1, 1]) for one in seen])
    assert 0.5 <= power.min() < 0.6, "the exponent reaches 1 / (1 + gamma)"
    assert 1.8 < power.max() <= 2.0, "and 1 + gamma"
    for own, least, most in ((0.0, 0.0, 1e-6), (1.0, 1e-3, 0.4)):
        lifted = deformations.intensity(draw(2), np.full((3, 2, 2), 0.5, np.float32), (0, 0.1, 0), own)
        assert least <= np.ptp(lifted[:, 0, 0]) <= most, "sections differ only if they are to"
        assert np.ptp(lifted, axis=(1, 2)).max() == 0


def test_poor_sections_lose_contrast_and_keep_their_mean() -> None:
    grey = draw().uniform(0.2, 0.8, (6, 40, 40)).astype(np.float32)
    counts = set()
    for seed in range(40):
        made = deformations.poor(draw(seed), grey, 3, 3.0, 0.9)
        changed = [z for z in range(6) if not np.array_equal(made[z], grey[z])]
        counts.add(len(changed))
        for z in changed:
            assert made[z].std() < grey[z].std()
            assert made[z].mean() == pytest.approx(grey[z].mean(), abs=0.01)
    assert {1, 2, 3} <= counts <= {0, 1, 2, 3}, "a Gaussian of almost no width changes nothing"
    assert np.array_equal(deformations.poor(draw(), grey, 0, 3.0, 0.9), grey)


def test_missing_sections_are_black_or_noise() -> None:
    grey = np.full((6, 8, 8), 0.5, np.float32)
    kinds = []
    for seed in range(40):
        made = deformations.missing(draw(seed), grey, 2)
        changed = [z for z in range(6) if not np.array_equal(made[z], grey[z])]
        assert 1 <= len(changed) <= 2
        kinds += ["black" if not made[z].any() else "noise" for z in changed]
        assert made.min() >= 0
        assert made.max() <= 1
    assert set(kinds) == {"black", "noise"}
    assert not grey.std(), "what was given is not written to"
