"""Affinities of training patches are made after all movement, and nothing but movement changes them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from emsr.training import deformations
from emsr.training.data import orient
from emsr.training.volumes import LabelledSeries, Spot, VolumePatches, VolumeRequest, affinities, widened
from labelled import ROUGH, STAGE, series, tissue

SIDE, DEPTH = 10, 4
SHAPE = (DEPTH, SIDE, SIDE)
SPOT = Spot(0, 0, 4, 10, 8)  # in the middle, where all is known
MOVED = replace(
    STAGE,
    **{"rotation_share": 1.0, "rotation": 180.0, "elastic_share": 1.0, "elastic": 3.0, "elastic_spacing": 8.0},
    **{"shift_share": 1.0, "shift": 2},
)
LARGE = 2**63 + 5


def patches(stage: object, of: LabelledSeries | None = None) -> VolumePatches:
    return VolumePatches([of or series()], VolumeRequest(SHAPE, SHAPE, stage), 0, "x")  # type: ignore[arg-type]


@pytest.mark.parametrize("border", [0, 1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_labels_are_moved_then_widened_and_then_compared(seed: int, border: int) -> None:
    """Rotated, bent and shifted by SciPy, from whole sections, with ids that no float can tell apart."""
    stage, (image, labels) = replace(MOVED, border=border), tissue()
    one = LabelledSeries("a", image, labels + np.uint64(LARGE), ((0, 12),))
    made = patches(stage, one).read([(SPOT, np.random.default_rng(seed))])
    rim = (1, border + 1, border + 1)
    outer = [side + 2 * more for side, more in zip(SHAPE, rim, strict=True)]
    field = deformations.displacement(stage, tuple(outer), np.random.default_rng(seed))  # type: ignore[arg-type]
    assert field is not None
    first = [at - more for at, more in zip((SPOT.z, SPOT.y, SPOT.x), rim, strict=True)]
    z, y, x = (part + start for part, start in zip(np.indices(outer), first, strict=True))
    moved = map_coordinates(labels.astype(np.int64), [z, y + field[0], x + field[1]], order=0, mode="mirror")
    expected, _ = affinities(widened(moved.astype(np.uint64) + np.uint64(LARGE), border))
    inner = tuple(slice(more, more + side) for more, side in zip(rim, SHAPE, strict=True))
    assert made.known.mean() > 0.05
    np.testing.assert_array_equal(made.target[0], expected[:, *inner] & made.known[0])
    unmoved = patches(replace(STAGE, border=border), one).read([(SPOT, None)]).target
    assert not np.array_equal(made.target, unmoved)


def test_all_sixteen_orientations_occur() -> None:
    plain = patches(STAGE).read([(SPOT, None)]).image[0, 0]
    whole = [orient(plain, turn)[::step] for turn in range(8) for step in (1, -1)]
    assert len({one.tobytes() for one in whole}) == 16
    drawn = patches(replace(STAGE, augment=True))
    seen = {drawn.read([(SPOT, np.random.default_rng(seed))]).image.tobytes() for seed in range(200)}
    assert seen == {np.ascontiguousarray(one).tobytes() for one in whole}


@pytest.mark.parametrize("change", ["intensity", "poor", "missing"])
def test_grey_levels_change_and_what_is_true_of_them_does_not(change: str) -> None:
    """The network must say of missing sections what their labels say."""
    idle = {f"{name}_share": 0.0 for name in ("rotation", "elastic", "shift", "intensity", "poor", "missing")}
    stage = replace(ROUGH, augment=False, **{**idle, f"{change}_share": 1.0})  # type: ignore[arg-type]
    places = [(SPOT, np.random.default_rng(seed)) for seed in range(8)]
    made, plain = patches(stage).read(places), patches(stage).read([(SPOT, None)] * 8)
    np.testing.assert_array_equal(made.target, plain.target)
    np.testing.assert_array_equal(made.known, plain.known)
    assert not np.array_equal(made.image, plain.image)
