"""Super-resolution at real and anisotropic scales: geometry, blending, the steps, and the same voxels in memory."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import emsr
from emsr import scales
from emsr.cli import main
from emsr.degradation import upsample
from emsr.geometry import Box
from emsr.inference.blend import LARGEST, axis_weights, plan_weights, total_weights, weights_at
from emsr.inference.extent import Placed, mask_grid
from emsr.inference.stream import positions
from emsr.plan import Plan
from sr_project import SrProject, tissue_like, write_weights
from test_real_scales import SCALES

GRIDS = st.tuples(SCALES, st.integers(3, 20), st.integers(3, 20), st.integers(4, 12), st.integers(0, 8))
few = settings(max_examples=25)


def planned(grid: tuple[Any, int, int, int, int], shard: tuple[int, int, int] = (2, 37, 53)) -> Plan:
    scale, y, x, window, overlap = grid
    return Plan((3, y, x), scale, window, min(overlap, window - 1), shard, ((0,), (1,), (2,)))


# geometry


@few
@given(GRIDS)
def test_a_window_has_the_voxels_whose_centres_it_holds(grid: Any) -> None:
    plan = planned(grid)
    for axis in (1, 2):
        few, many = plan.lr_shape[axis], plan.shape[axis]
        centres = [Fraction(2 * j + 1, 2) * Fraction(few, many) for j in range(many)]
        held = dict.fromkeys(range(many), 0)
        for start in plan.starts(axis):
            first, last = plan.span(axis, start)
            inside = [j for j, centre in enumerate(centres) if start <= centre < start + plan.window]
            assert list(range(first, min(last, many))) == inside
            for j in inside:
                held[j] += 1
        assert min(held.values()) >= 1, "each voxel lies in a window"


@few
@given(GRIDS)
def test_shards_are_touched_by_the_windows_that_share_a_voxel(grid: Any) -> None:
    plan = planned(grid)
    for box in plan.grid.boxes():
        expected = [
            (y, x)
            for y in plan.starts(1)
            for x in plan.starts(2)
            if Box(
                (0, plan.span(1, y)[0], plan.span(2, x)[0]),
                (3, plan.span(1, y)[1], plan.span(2, x)[1]),
            ).intersect(box).size
        ]  # fmt: skip
        assert list(plan.columns(box)) == expected


@few
@given(GRIDS)
def test_positions_are_centres_and_do_not_depend_on_the_volume(grid: Any) -> None:
    plan = planned(grid)
    for corner in ((y, x) for y in plan.starts(1) for x in plan.starts(2)):
        at = positions(plan, corner)
        if scales.whole(plan.scale):
            assert at is None
            continue
        assert at is not None
        for axis, line in zip((1, 2), at, strict=True):
            assert len(line) == np.subtract(*plan.span(axis, corner[axis - 1])[::-1])
            assert (line >= 0).all()
            assert (line < plan.window).all()
            voxel = np.arange(*plan.span(axis, corner[axis - 1]))
            wanted = (voxel + 0.5) * plan.lr_shape[axis] / plan.shape[axis] - corner[axis - 1]
            np.testing.assert_allclose(line, wanted, atol=1e-9)


# blending


@few
@given(GRIDS)
def test_weights_are_positive_bounded_and_cover(grid: Any) -> None:
    plan = planned(grid)
    for axis in (1, 2):
        for start in plan.starts(axis):
            weights = plan_weights(plan, axis, start)
            assert (weights.dtype, len(weights)) == (np.int32, np.subtract(*plan.span(axis, start)[::-1]))
            assert weights.min() >= 1
        whole = total_weights(plan, axis, 0, plan.shape[axis])
        assert whole.min() >= 1
        assert whole.max() <= LARGEST
        middle = plan.shape[axis] // 2
        parts = [total_weights(plan, axis, 0, middle), total_weights(plan, axis, middle, plan.shape[axis])]
        assert np.array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize(("scale", "window", "overlap"), [(4, 16, 4), (3, 12, 0), (2, 8, 7)])
def test_weights_at_a_whole_ratio_are_the_whole_ones(scale: int, window: int, overlap: int) -> None:
    """By the way of real scales: a pair whose numbers are whole."""
    plan = Plan((1, 40, 40), (scale, scale + 1), window, overlap, (1, 64, 64), ((0,),))
    for start in plan.starts(1):
        assert np.array_equal(weights_at(plan, 1, start), axis_weights(window, overlap, scale))


# the steps

REAL = [3.7, (3.5, 2)]
SHAPE = (3, 37, 29)


def project(folder: Path, of: scales.Scale, card_scale: Any = None, **changed: Any) -> SrProject:
    folder.mkdir(parents=True, exist_ok=True)
    made = SrProject(folder, write_weights(folder, "bicubic", card_scale or scales.stated(of)))
    made.settings |= {"shard": [2, 48, 40], "chunk": [1, 16, 8]} | changed
    made.write_lr(tissue_like(SHAPE))
    return made


def voxels(folder: Path) -> np.ndarray:
    from emsr.stores.zarr import open_array

    found: np.ndarray = open_array(folder / "sr.zarr").read().result()
    return found


@pytest.fixture(scope="module", params=REAL, ids=scales.name)
def made(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[scales.Scale, SrProject, dict[str, Any]]:
    one = project(tmp_path_factory.mktemp("real"), request.param)
    return request.param, one, one.all(1)


def test_sizes_voxel_sizes_and_translation(made: Any) -> None:
    scale, _, card = made
    height, width = scales.fine_plane(SHAPE[1:], scale)
    assert card["shape"] == [3, height, width]
    assert card["scale"] == scales.stated(scale)
    np.testing.assert_allclose(card["voxel_size_nm"], [40, 32 * 37 / height, 32 * 29 / width], rtol=1e-12)
    size, centre = np.array(card["voxel_size_nm"]), np.array(card["translation_nm"])
    np.testing.assert_allclose(centre - size / 2, [-20, -16, -16], atol=1e-9)
    far = centre + size * (np.array(card["shape"]) - 0.5)
    np.testing.assert_allclose(far, [-20 + 3 * 40, -16 + 37 * 32, -16 + 29 * 32], atol=1e-9)


def test_interpolation_of_the_whole_is_that_of_the_windows(made: Any) -> None:
    """Windows see no pixel beyond them, so their outermost lr pixels alone may differ, by little."""
    scale, one, _ = made
    sr, whole = voxels(one.folder).astype(int), upsample(tissue_like(SHAPE), scale).astype(int)
    plan = Plan(SHAPE, scale, 16, 4, (2, 48, 40), ((0,),) * 3)
    near = np.zeros(whole.shape, bool)
    for axis in (1, 2):
        edges = {edge for start in plan.starts(axis) for edge in (start, start + 16)} - {0, SHAPE[axis]}
        pixel = np.array([plan.axis(axis).pixel(j) for j in range(plan.shape[axis])])
        touched = np.isin(pixel, [edge + by for edge in edges for by in (-2, -1, 0, 1)])
        near |= touched[:, None] if axis == 1 else touched
    difference = np.abs(sr - whole)
    assert (~near).sum() > near.size // 5
    assert difference[~near].max() <= 1
    assert (difference[~near] == 0).mean() > 0.98, "both round, one to 1/128 of a grey level first"
    assert difference.max() <= 24


def test_any_chunking_gives_the_same_bytes(made: Any, tmp_path: Path) -> None:
    scale, one, _ = made
    expected = voxels(one.folder)
    for n, shard, workers in ((3, [1, 24, 24], 2), (2, [3, 200, 200], 1)):
        other = project(tmp_path / str(n), scale, shard=shard, chunk=[1, 8, 8])
        other.all(n, workers)
        assert np.array_equal(voxels(other.folder), expected), (n, shard)


def test_memory_gives_the_voxels_of_the_steps(made: Any) -> None:
    _, one, _ = made
    weights = one.card.with_suffix(".safetensors")
    assert np.array_equal(emsr.superresolve(tissue_like(SHAPE), weights, overlap=4), voxels(one.folder))


def test_one_training_serves_other_scales(made: Any, tmp_path: Path) -> None:
    scale, one, _ = made
    other = project(tmp_path, scale, card_scale=4, scale=scales.stated(scale))
    other.all(2)
    assert np.array_equal(voxels(other.folder), voxels(one.folder))
    weights = other.card.with_suffix(".safetensors")
    found = emsr.superresolve(tissue_like(SHAPE), weights, overlap=4, scale=scale)
    assert np.array_equal(found, voxels(one.folder))


def test_validity_lies_on_lr(made: Any) -> None:
    from emsr.durable import read_json
    from emsr.stores.zarr import open_array

    _, one, _ = made
    valid = open_array(one.folder / "valid.zarr").read().result()
    assert valid.shape == SHAPE
    assert [int(value) for value in valid[:, 5, 7]] == [1, 2, 1], "the end sections stand for those past them"
    group = read_json(one.folder / "valid.zarr" / "zarr.json")["attributes"]["ome"]["multiscales"][0]
    size, first = group["datasets"][0]["coordinateTransformations"]
    np.testing.assert_allclose(size["scale"], [40, 32, 32], rtol=1e-12)
    np.testing.assert_allclose(first["translation"], [0, 0, 0], atol=1e-9)


def test_a_pilot_makes_what_it_would_be_in_the_whole(made: Any, tmp_path: Path) -> None:
    from emsr.stores.zarr import open_array

    scale, one, _ = made
    part = project(tmp_path, scale, pilot=[[1, 2], [20, 28], [3, 9]])
    card = part.all(2)
    whole, some = voxels(one.folder), voxels(part.folder)
    assert card["skipped"]["shards"] > 0
    assert some.any()
    made_here = some != 0
    assert np.array_equal(some[made_here], whole[made_here])
    plan = Plan(SHAPE, scale, 16, 4, (2, 48, 40), ((0,),) * 3)
    wanted = plan.grids.finer(Box((1, 20, 3), (2, 28, 9)))
    assert np.array_equal(some[wanted.slices], whole[wanted.slices])
    valid = open_array(part.folder / "valid.zarr").read().result()
    assert (valid[1, 20:28, 3:9] == 2).all()
    assert (valid == 0).any()
    for y, x in np.argwhere(valid[1] == 2):
        fine = plan.grids.finer(Box((1, y, x), (2, y + 1, x + 1)))
        assert np.array_equal(some[fine.slices], whole[fine.slices])


@given(SCALES, st.integers(4, 60), st.integers(1, 3))
@few
def test_masks_on_lr_touch_what_they_cover(scale: scales.Scale, side: int, coarser: int) -> None:
    lr = (2, side, side)
    fine = (2, *scales.fine_plane(lr[1:], scale))
    sr = Placed(fine, (40, 32 * side / fine[1], 32 * side / fine[2]), [0.0] * 3)
    sr = Placed(fine, sr.voxel_size_nm, [size / 2 for size in sr.voxel_size_nm])
    across = -(-side // coarser)
    size = (40.0, 32.0 * coarser, 32.0 * coarser)
    mask = Placed((2, across, across), size, [one / 2 for one in size])
    grid = mask_grid("mask", mask, sr, lr)
    for first, last in ((0, 1), (0, fine[1]), (fine[1] // 2, fine[1] // 2 + 1)):
        box = grid.box(Box((0, first, 0), (1, last, fine[2])))
        low, high = Fraction(first * side, fine[1] * coarser), Fraction(last * side, fine[1] * coarser)
        assert box.start[1] == int(low)
        assert box.stop[1] == min(-(-high.numerator // high.denominator), across)


# bad input


@pytest.mark.parametrize(("card_scale", "settings", "words"), [
    (4, {"scale": 17.5}, "scale 17.5 is not one that model bicubic has: 1 to 16"),
    (4, {"scale": 0.5}, "scale 0.5 is none: write a number of at least 1"),
    (4, {"scale": [2, 3, 4]}, "scale [2, 3, 4] has 3 numbers"),
    (4, {"scale": float("nan")}, "scale nan is none"),
])  # fmt: skip
def test_scales_that_weights_do_not_have(tmp_path: Path, card_scale: Any, settings: Any, words: str) -> None:
    one = project(tmp_path, 4, card_scale, **settings)
    with pytest.raises(ValueError, match="scale") as caught:
        one.allocate()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("sr-*"))


def test_weights_of_one_scale_serve_no_other(tmp_path: Path) -> None:
    one = SrProject(tmp_path, write_weights(tmp_path, "gpemsr", 4))
    one.settings |= {"scale": 8}
    one.write_lr(tissue_like((2, 20, 20)))
    with pytest.raises(ValueError, match=r"holds weights of scale 4, 8 is asked for: .* or leave scale out"):
        one.allocate()


def test_plans_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    words = "plan --shape 4 100 90 --preset small --model bicubic --scale 3.5x2 --sections 1 --window 32 --overlap 4"
    main([*words.split(), "--shard", "4", "64", "64", "--jobs", "2"])
    said = capsys.readouterr().out
    assert "lr 4 x 100 x 90, sr 4 x 350 x 180 voxels, x3.5x2" in said
