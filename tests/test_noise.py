"""Noise of a detector: what is added has the stated moments, depends on the place alone, and is found again."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from emsr import degradation
from emsr.noise import TILE, Noise, add, estimate
from emsr.steps.data import degrade, ingest
from emsr.stores.card import read_card
from test_steps_data import all_of, coarse, cremi, settings, tissue_like


def smooth(seed: int = 0, side: int = 256) -> np.ndarray:
    """Grey levels 40 to 215 without noise (y, x)."""
    field = gaussian_filter(np.random.default_rng(seed).normal(size=(side, side)), 6)
    return np.clip(128 + 40 * field / field.std(), 40, 215)


def noisy(noise: Noise, sections: int = 3) -> list[np.ndarray]:
    return [degradation.restore(add(smooth(z), noise, 0, z), np.dtype(np.uint8)) for z in range(sections)]


@pytest.mark.parametrize(("dose", "read"), [(50.0, 0.0), (None, 6.0), (400.0, 3.0)])
@pytest.mark.parametrize("level", [60.0, 180.0])
def test_mean_and_variance_are_those_of_the_photon_transfer_curve(dose, read, level):
    added = add(np.full((256, 256), level), Noise(dose, read), 1, 0)
    assert added.mean() == pytest.approx(level, abs=0.2)
    assert added.var() == pytest.approx((255 / dose * level if dose else 0) + read**2, rel=0.03)


def test_noise_depends_on_seed_section_and_place_and_on_nothing_else():
    image, noise = smooth(), Noise(80.0, 4.0)
    whole = add(image, noise, 3, 5)
    np.testing.assert_array_equal(add(image, noise, 3, 5), whole)
    np.testing.assert_array_equal(
        add(image[TILE:, 2 * TILE :], noise, 3, 5, (TILE, 2 * TILE)), whole[TILE:, 2 * TILE :]
    )
    for seed, section in ((4, 5), (3, 6)):
        other = add(image, noise, seed, section) - image
        assert abs(np.corrcoef(other.ravel(), (whole - image).ravel())[0, 1]) < 0.02
    squares = (whole - image)[: 2 * TILE, :TILE].reshape(2, -1)
    assert abs(np.corrcoef(squares)[0, 1]) < 0.05, "squares are not copies of one another"
    with pytest.raises(ValueError, match=r"corner .* is not a multiple of 64"):
        add(image, noise, 3, 5, (10, 0))


@pytest.mark.parametrize(
    ("dose", "read", "tolerance"),
    [(50.0, 2.0, 0.1), (200.0, 4.0, 0.15), (800.0, 3.0, 0.25)],
    ids=["strong", "usual", "weak"],
)
def test_dose_and_read_noise_are_found_again(dose, read, tolerance):
    found = estimate(noisy(Noise(dose, read)))
    assert found.dose == pytest.approx(dose, rel=tolerance)
    for level in (80, 128, 180):  # dose and read stand in for one another, what they add up to does not
        truth, seen = (255 / each.dose * level + each.read**2 for each in (Noise(dose, read), found) if each.dose)
        assert seen == pytest.approx(truth, rel=0.08)


def test_read_noise_alone_is_no_dose():
    found = estimate(noisy(Noise(None, 8.0)))
    assert found.read == pytest.approx(8.0, rel=0.05)
    assert found.dose is None or found.dose > 20_000


def test_black_padding_changes_an_estimate_little():
    padded = noisy(Noise(100.0, 0.0))
    for section in padded:
        section[:, :100] = 0
    assert estimate(padded).dose == pytest.approx(100, rel=0.15)


@pytest.mark.parametrize(
    "sections", [[], [np.zeros((200, 200), np.uint8)], [np.zeros((4, 4), np.uint8)], [noisy(Noise(50.0, 0.0))[0][:20]]]
)
def test_too_little_to_see_is_one_line(sections):
    with pytest.raises(ValueError, match="state dose and read") as refusal:
        estimate(sections)
    assert "\n" not in str(refusal.value)


# the step


def with_noise(noise: dict, **layout) -> dict:
    made = coarse(4)
    return {**made, "degradation": {"kernel": "bicubic", "noise": {"estimate": None, **noise}}, **layout}


GIVEN = {"dose": 60.0, "read": 3.0, "seed": 7}


def test_shards_chunks_and_workers_change_no_noise(tmp_path):
    raw = tissue_like((5, 420, 460))
    ingest(settings(cremi(tmp_path / "x.h5", raw)), tmp_path / "hr.json")
    expected = degradation.expected(raw, 4, "bicubic")
    whole = np.stack([add(section, Noise(60.0, 3.0), 7, z) for z, section in enumerate(expected)])
    for name, workers, layout in (
        ("a", 1, {}),
        ("b", 2, {"shard": [4, 64, 64], "chunk": [1, 64, 64]}),
        ("c", 2, {"shard": [3, 60, 100], "chunk": [3, 20, 50]}),
    ):
        degrade(with_noise(GIVEN, **layout), tmp_path / "hr.json", tmp_path / name / "lr.json", workers=workers)
        np.testing.assert_array_equal(all_of(tmp_path / name / "lr.json"), degradation.restore(whole, raw.dtype))
    assert read_card(tmp_path / "a/lr.json")["degradation"] == {"scale": 4, "kernel": "bicubic", "noise": GIVEN}


def test_noise_is_estimated_from_a_real_lr_and_the_card_says_so(tmp_path):
    lr = np.stack(noisy(Noise(100.0, 0.0), 4))
    ingest(settings(cremi(tmp_path / "lr.h5", lr), "lr"), tmp_path / "real/lr.json")
    ingest(settings(cremi(tmp_path / "hr.h5", tissue_like((3, 160, 160)))), tmp_path / "hr.json")
    asked = with_noise({"dose": None, "read": None, "seed": 0, "estimate": str(tmp_path / "real/lr.json")})
    degrade(asked, tmp_path / "hr.json", tmp_path / "made.json")
    noise = read_card(tmp_path / "made.json")["degradation"]["noise"]
    assert noise["dose"] == pytest.approx(100, rel=0.15)
    assert noise["estimated_from"] == {"image": "lr.json", "sha256": read_card(tmp_path / "real/lr.json")["sha256"]}
    ingest(settings(cremi(tmp_path / "black.h5", np.zeros((3, 90, 90), np.uint8)), "lr"), tmp_path / "black/lr.json")
    asked["degradation"]["noise"]["estimate"] = str(tmp_path / "black/lr.json")
    with pytest.raises(ValueError, match=r"noise of .*black/lr.json.*state dose and read"):
        degrade(asked, tmp_path / "hr.json", tmp_path / "out/made.json")
    assert not (tmp_path / "out").exists()
