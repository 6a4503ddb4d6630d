"""The imaging model against PIL, figures measured on real sections, and its own geometry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.io import imread
from skimage.metrics import peak_signal_noise_ratio

from emsr.degradation import degrade, expected, reach, upsample


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (128, 192)).astype(np.float32)


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_bicubic_equals_pil_away_from_the_border(image: np.ndarray, scale: int) -> None:
    """PIL renormalises at the border where we replicate the edge; inside both are Keys' cubic with a = -0.5."""
    size = (image.shape[1] // scale, image.shape[0] // scale)
    theirs = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    inside = slice(2, -2)
    np.testing.assert_allclose(degrade(image, scale)[inside, inside], theirs[inside, inside], atol=1e-3)
    theirs = np.asarray(Image.fromarray(image).resize((192 * scale, 128 * scale), Image.Resampling.BICUBIC))
    inside = slice(2 * scale, -2 * scale)
    np.testing.assert_allclose(upsample(image, scale)[inside, inside], theirs[inside, inside], atol=1e-3)


@pytest.mark.parametrize("kernel", ["bicubic", "area"])
def test_constant_stays_constant_and_types_are_kept(kernel: str) -> None:
    fine = np.full((3, 32, 48), 250, np.uint8)
    coarse = degrade(fine, 8, kernel)
    assert coarse.dtype == np.uint8
    assert coarse.shape == (3, 4, 6)
    assert (coarse == 250).all()
    assert (upsample(coarse, 8) == 250).all()


@pytest.mark.parametrize("kernel", ["bicubic", "area"])
def test_reach_is_all_that_a_coarse_pixel_sees(kernel: str) -> None:
    scale, rng = 4, np.random.default_rng(1)
    fine = rng.uniform(0, 1, (96, 96))
    halo = reach(scale, kernel)
    halo += -halo % scale
    part = fine[32 - halo : 64 + halo, 32 - halo : 64 + halo]
    inner = slice(halo // scale, halo // scale + 8)
    np.testing.assert_allclose(degrade(part, scale, kernel)[inner, inner], degrade(fine, scale, kernel)[8:16, 8:16])


def test_centre_of_mass_stays_where_it_is() -> None:
    """In units of coarse pixels, corner to corner: (fine + 1/2) / scale = coarse + 1/2."""
    y, x = np.mgrid[:128, :128]
    blob = np.exp(-((y - 70.3) ** 2 + (x - 50.8) ** 2) / 200)
    coarse = degrade(blob, 8)
    centre = (np.indices(coarse.shape) * coarse).sum(axis=(1, 2)) / coarse.sum()
    np.testing.assert_allclose((centre + 0.5) * 8 - 0.5, [70.3, 50.8], atol=0.01)


@pytest.mark.parametrize(
    ("shape", "kernel", "words"),
    [((30, 32), "bicubic", "not a multiple of scale 8"), ((32, 32), "lanczos", "'lanczos' is unknown")],
)
def test_bad_input(shape: tuple[int, int], kernel: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        degrade(np.zeros(shape, np.uint8), 8, kernel)


@pytest.mark.parametrize(("scale", "decibel"), [(4, 20.45), (8, 17.61), (16, 15.78)])
def test_known_bicubic_figures_of_real_sections(shared: Path, scale: int, decibel: float) -> None:
    files = sorted((shared / "data" / "vnc_sstem" / "sections").glob("*.tif"))[::4]
    every = []
    for file in files:
        section = imread(file)
        every.append(peak_signal_noise_ratio(section, upsample(degrade(section, scale), scale)))
    assert np.mean(every) == pytest.approx(decibel, abs=0.25)


@pytest.mark.parametrize("kernel", ["bicubic", "area"])
@pytest.mark.parametrize("scale", [2, 4])
def test_a_real_scale_that_is_whole_gives_the_same(kernel: str, scale: int) -> None:
    hr = np.random.default_rng(1).integers(0, 256, (24, 32), np.uint8)
    for real in (float(scale), (float(scale), float(scale))):
        np.testing.assert_allclose(expected(hr, real, kernel), expected(hr, scale, kernel), atol=1e-9)


@pytest.mark.parametrize("kernel", ["bicubic", "area"])
def test_a_real_scale_keeps_ramps_and_means(kernel: str) -> None:
    """48 of 178 voxels, 3.7 to one: means are kept, and coarse pixel i shows the ramp at (i + 1/2) * 178 / 48."""
    y, x = np.mgrid[:178, :60]
    ramp = expected((y + 0.5) * 1.0 + 0 * x, (3.7, 2.5), kernel)
    assert ramp.shape == (48, 24)
    np.testing.assert_allclose(
        ramp[3:-3, 3:-3], ((np.arange(48) + 0.5) * 178 / 48)[3:-3, None] + np.zeros(18), atol=0.03
    )
