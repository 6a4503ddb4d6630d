"""Real and anisotropic scales: sizes, what belongs to what, and interpolation against others' programs."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.transform import resize

import tiny_networks
from emsr import plugins, resampling, scales
from emsr.degradation import degrade, upsample
from emsr.layers.upscale import bicubic_at, positions
from emsr.models import bicubic
from network_goldens import any_numbers

SCALES = st.one_of(
    st.floats(1, 16),
    st.integers(1, 16),
    st.tuples(st.floats(1, 16), st.floats(1, 16)),
).map(scales.of)
few = settings(max_examples=25)
SIDES = st.tuples(st.integers(1, 300), st.integers(1, 300))


@given(SCALES, SIDES)
def test_sizes_are_the_rounded_ones_and_go_back(scale: scales.Scale, coarse: tuple[int, int]) -> None:
    fine = scales.fine_plane(coarse, scale)
    for few, many, one in zip(coarse, fine, scales.pair(scale), strict=True):
        assert abs(many - one * few) <= 0.5
    again = scales.coarse_plane(fine, scale)
    assert scales.fine_plane(again, scale) == fine
    assert all(a >= b for a, b in zip(again, coarse, strict=True))
    more = scales.coarse_plane([side + 1 for side in fine], scale)
    assert all(a <= b for a, b in zip(again, more, strict=True))


@given(st.integers(1, 60), st.integers(1, 400), st.integers(-5, 70))
def test_voxels_belong_to_the_pixel_that_holds_their_centre(coarse: int, fine: int, pixel: int) -> None:
    axis = scales.Axis(coarse, fine)
    centres = [Fraction(2 * j + 1, 2) * Fraction(coarse, fine) for j in range(fine)]
    assert [axis.pixel(j) for j in range(fine)] == [int(centre) for centre in centres]
    held = [j for j, centre in enumerate(centres) if pixel <= centre < pixel + 1]
    if held:
        assert axis.finer(pixel, pixel + 1) == (held[0], held[-1] + 1)
        assert axis.coarser(held[0], held[-1] + 1) == (pixel, pixel + 1)
    assert axis.finer(0, coarse) == (0, fine)


@given(st.integers(1, 40), st.integers(1, 16), st.integers(0, 700))
def test_whole_scales_are_products(coarse: int, scale: int, voxel: int) -> None:
    axis = scales.Axis(coarse, coarse * scale)
    assert (axis.edge(voxel), axis.pixel(voxel), axis.step) == (voxel * scale, voxel // scale, scale)
    assert axis.coarser(0, voxel) == (0, -(-voxel // scale))


@pytest.mark.parametrize(("value", "scale", "name"), [
    (4, 4, "4"), (4.0, 4, "4"), (3.7, 3.7, "3.7"), ([3.5, 2], (3.5, 2), "3.5x2"), ((2, 2.0), 2, "2"),
    ([3.7, 3.7], 3.7, "3.7"),
])  # fmt: skip
def test_scales_as_they_are_written(value: object, scale: object, name: str) -> None:
    found = scales.of(value)
    assert found == scale
    assert type(found) is type(scale)
    assert scales.name(found) == name
    assert scales.of_name(name) == found
    assert scales.of(scales.stated(found)) == found


@pytest.mark.parametrize("value", [
    0, 0.5, -3, True, "4", None, float("nan"), float("inf"), [4], [2, 3, 4], [], [2, 0.9], [2, "3"], [2, float("nan")],
    1e9, {"y": 2},
])  # fmt: skip
def test_what_is_no_scale(value: object) -> None:
    with pytest.raises(ValueError, match=r"write a number of at least 1, as 4 or 3\.7, or two for y and x"):
        scales.of(value)


# interpolation

REAL = [3.7, (3.5, 2), 1.3, (1, 2.6)]


def smooth(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 255, shape).astype(np.float32)


@pytest.mark.parametrize("scale", REAL)
def test_enlarging_is_pils_away_from_the_border(scale: scales.Scale) -> None:
    """PIL renormalises at the border where we replicate the edge."""
    lr = smooth((31, 23))
    found = upsample(lr, scale)
    theirs = np.asarray(Image.fromarray(lr).resize(found.shape[::-1], Image.Resampling.BICUBIC))
    y, x = (slice(3 * one.step, -3 * one.step) for one in scales.axes(lr.shape, found.shape))
    np.testing.assert_allclose(found[y, x], theirs[y, x], atol=1e-3)


@pytest.mark.parametrize("scale", REAL)
def test_degrading_is_pils_away_from_the_border(scale: scales.Scale) -> None:
    plane = scales.fine_plane((31, 23), scale)
    hr = smooth(plane)
    found = degrade(hr, scale)
    size = scales.coarse_plane(plane, scale)
    assert found.shape == size
    theirs = np.asarray(Image.fromarray(hr).resize(size[::-1], Image.Resampling.BICUBIC))
    np.testing.assert_allclose(found[3:-3, 3:-3], theirs[3:-3, 3:-3], atol=1e-3)


@pytest.mark.parametrize("scale", REAL)
def test_half_pixel_centres_are_scikit_images(scale: scales.Scale) -> None:
    """scikit-image's bilinear resizing of a ramp is the ramp itself, and so is ours, inside."""
    y, x = np.mgrid[:40, :30].astype(float)
    lr = 2 * y + 3 * x
    found = upsample(lr, scale)
    theirs = resize(lr, found.shape, order=1, mode="edge", anti_aliasing=False, preserve_range=True)
    inner = tuple(slice(3 * one.step, -3 * one.step) for one in scales.axes(lr.shape, found.shape))
    np.testing.assert_allclose(found[inner], theirs[inner], atol=1e-9)


@pytest.mark.parametrize("plane", [(37, 26), (16, 9), (5, 40)])
def test_area_is_the_mean_of_what_a_pixel_covers(plane: tuple[int, int]) -> None:
    """By pixels cut into as many pieces as there are coarse ones, of which whole ones are averaged."""
    hr, scale = smooth(plane).astype(float), (2.3, 1.7)
    coarse = scales.coarse_plane(plane, scale)
    hr = hr[: scales.fine_plane(coarse, scale)[0], : scales.fine_plane(coarse, scale)[1]]
    cut = np.repeat(np.repeat(hr, coarse[0], 0), coarse[1], 1)
    mean = cut.reshape(coarse[0], hr.shape[0], coarse[1], hr.shape[1]).mean((1, 3))
    np.testing.assert_allclose(degrade(hr, scale, "area"), mean, atol=1e-9)


@few
@given(SCALES, SIDES, st.data())
def test_parts_are_cut_from_the_whole_bit_for_bit(
    scale: scales.Scale, coarse: tuple[int, int], data: st.DataObject
) -> None:
    coarse = (min(coarse[0], 40), min(coarse[1], 40))
    fine = scales.fine_plane(coarse, scale)
    axes = scales.axes(coarse, fine)
    lr, hr = smooth(coarse), smooth(fine)

    def span(length: int) -> tuple[int, int]:
        first = data.draw(st.integers(0, length - 1))
        return first, data.draw(st.integers(first + 1, length))

    wanted = span(fine[0]), span(fine[1])
    (y0, y1), (x0, x1) = (resampling.seen_by_fine(*line) for line in zip(axes, wanted, strict=True))
    part = resampling.enlarge(lr[y0:y1, x0:x1], axes, (y0, x0), wanted)
    whole = resampling.enlarge(lr, axes, (0, 0), ((0, fine[0]), (0, fine[1])))
    assert np.array_equal(part, whole[slice(*wanted[0]), slice(*wanted[1])])
    wanted = span(coarse[0]), span(coarse[1])
    for kernel in ("bicubic", "area"):
        spans = (resampling.seen_by_coarse(*line, kernel) for line in zip(axes, wanted, strict=True))
        (y0, y1), (x0, x1) = spans
        part = resampling.shrink(hr[y0:y1, x0:x1], axes, kernel, (y0, x0), wanted)
        whole = resampling.shrink(hr, axes, kernel, (0, 0), ((0, coarse[0]), (0, coarse[1])))
        assert np.array_equal(part, whole[slice(*wanted[0]), slice(*wanted[1])])


@pytest.mark.parametrize("kernel", ["bicubic", "area"])
@pytest.mark.parametrize("scale", [2, 4, 5])
def test_real_weights_at_a_whole_scale_are_the_whole_ones(scale: int, kernel: str) -> None:
    hr, lr = smooth((8 * scale, 6 * scale)).astype(float), smooth((8, 6)).astype(float)
    axes, whole = scales.axes((8, 6), hr.shape), ((0, 8), (0, 6))
    np.testing.assert_allclose(
        resampling.shrink(hr, axes, kernel, (0, 0), whole), degrade(hr, scale, kernel), atol=1e-9
    )
    fine = ((0, hr.shape[0]), (0, hr.shape[1]))
    np.testing.assert_allclose(resampling.enlarge(lr, axes, (0, 0), fine), upsample(lr, scale), atol=1e-9)


@pytest.mark.parametrize("scale", REAL)
def test_sections_that_no_rounding_gives_are_refused(scale: scales.Scale) -> None:
    wrong = next(n for n in range(20, 40) if scales.fine_plane(scales.coarse_plane((n, n), scale), scale) != (n, n))
    with pytest.raises(ValueError, match=r"not a rounded multiple of scale .*; crop it first"):
        degrade(smooth((wrong, wrong)), scale)


# the networks

RANGED = [name for name in tiny_networks.NAMES if plugins.has(plugins.file_of("models", name), "SCALE_RANGE")]


def ranged(name: str, scale: scales.Scale) -> Any:
    torch.manual_seed(5)
    return any_numbers(tiny_networks.build(name, scale)).eval()


def test_models_of_real_scales_are_found() -> None:
    assert "bicubic" in RANGED
    assert "edsr" not in RANGED


@pytest.mark.parametrize("scale", [3.7, (3.5, 2)], ids=scales.name)
@pytest.mark.parametrize("name", RANGED)
@torch.no_grad()
def test_any_positions_are_those_of_the_whole_window(name: str, scale: scales.Scale) -> None:
    """A window at all its voxels, at some of them, and as ``forward`` gives it."""
    network, lr = ranged(name, scale), torch.rand(1, 1, 16, 12)
    state, (y, x) = network.section(lr), positions((16, 12), scale)
    whole = network.centre([state])
    assert whole.shape == (1, 1, *scales.fine_plane((16, 12), scale))
    torch.testing.assert_close(network.centre([state], at=(y, x)), whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(network(lr[:, None]), whole, atol=1e-5, rtol=0)
    some = network.centre([state], at=(y[3:9], x[7:8]))
    torch.testing.assert_close(some, whole[..., 3:9, 7:8], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", RANGED)
@torch.no_grad()
def test_weights_do_not_depend_on_the_scale(name: str) -> None:
    shapes = [
        {key: tensor.shape for key, tensor in ranged(name, scale).state_dict().items()} for scale in (2, 3.7, (3.5, 2))
    ]
    assert shapes[0] == shapes[1] == shapes[2]


@pytest.mark.parametrize("scale", REAL)
def test_the_network_interpolates_as_the_imaging_model(scale: scales.Scale) -> None:
    lr = torch.rand(2, 3, 1, 9, 7, dtype=torch.float64)
    network = bicubic.build(scale, 3, bicubic.Options())
    np.testing.assert_allclose(network(lr)[1, 0].numpy(), upsample(lr[1, 1, 0].numpy(), scale), atol=1e-12)


def test_the_network_gives_any_positions() -> None:
    lr = torch.rand(1, 1, 9, 7, dtype=torch.float64)
    whole = bicubic_at(lr, positions((9, 7), 4.0))
    assert torch.allclose(whole, bicubic.bicubic(lr, 4), atol=1e-12)
    y, x = positions((9, 7), 4.0)
    some = bicubic.build(4, 1, bicubic.Options()).centre([(lr,)], (y[3:20], x[5:6]))
    assert torch.equal(some, whole[..., 3:20, 5:6])
    centres = torch.arange(7, dtype=torch.float64) + 0.5
    assert torch.equal(bicubic_at(lr, (torch.arange(9) + 0.5, centres)), lr)
