"""Scores of a volume on disk: equal to scikit-image's on whole sections, of the right sections, and stated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from emsr.degradation import degrade, upsample
from emsr.fingerprints import hashed
from emsr.metrics.perceptual import lpips_distance
from emsr.metrics.spectrum import resolution, ring_correlation
from emsr.metrics.structure import ms_ssim
from emsr.models.published_lpips import load
from emsr.steps import measures, tiles
from emsr.steps.score import SAMPLE, score
from published_lpips import saved
from report_project import Finished, soft_tissue


def scored(finished: Finished, **changes: Any) -> dict[str, Any]:
    out = finished.folder / "scores.json"
    score(finished.score_settings() | changes, out)
    found: dict[str, Any] = json.loads(out.read_text())
    return found


@pytest.fixture
def finished(tmp_path: Path) -> Finished:
    """8 sections of 61 x 74 voxels, which scale 4 does not divide; 4 to 7 are for the test."""
    return Finished(tmp_path, soft_tissue((8, 61, 74))).write()


@pytest.mark.parametrize("tile", [8, 20, 1024])
def test_equal_to_scikit_image_on_whole_sections(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, tile: int
) -> None:
    """However small the tiles: bicubic comes from lr tile by tile, rounded to uint8."""
    monkeypatch.setattr(tiles, "TILE", tile)
    scores = scored(finished)
    images = {"bicubic": upsample(finished.lr, 4), "sr": finished.sr}
    for name, image in images.items():
        truth = finished.hr[:, :60, :72]
        pairs = [(truth[z], image[z]) for z in range(4, 8)]
        psnr = np.mean([peak_signal_noise_ratio(a, b, data_range=255) for a, b in pairs])
        ssim = np.mean([structural_similarity(a, b, data_range=255) for a, b in pairs])
        assert scores["image"][name]["psnr"] == pytest.approx(psnr, abs=1e-9)
        assert scores["image"][name]["ssim"] == pytest.approx(ssim, abs=1e-9)
    assert [row["z"] for row in scores["per_section"]] == [4, 5, 6, 7]


@pytest.mark.parametrize("tile", [8, 1024])
def test_consistency_is_that_of_the_whole_section(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, tile: int
) -> None:
    monkeypatch.setattr(tiles, "TILE", tile)
    rows = scored(finished)["per_section"]
    for row in rows:
        z = row["z"]
        coarse = degrade(finished.sr[z], 4)
        expected = peak_signal_noise_ratio(finished.lr[z], coarse, data_range=255)
        assert row["consistency"]["sr"] == pytest.approx(expected, abs=1e-9)


def images_of(finished: Finished, z: int) -> dict[str, np.ndarray]:
    """hr, bicubic and sr of a section, over the 60 x 72 voxels that all of them have."""
    assert finished.sr is not None
    return {"hr": finished.hr[z, :60, :72], "bicubic": upsample(finished.lr[z], 4), "sr": finished.sr[z]}


@pytest.mark.parametrize("tile", [8, 20, 1024])
def test_ms_ssim_is_that_of_whole_sections(finished: Finished, monkeypatch: pytest.MonkeyPatch, tile: int) -> None:
    """60 voxels hold a window of 11 at three scales; tiles start where the coarsest pixels do."""
    monkeypatch.setattr(tiles, "TILE", tile)
    scores = scored(finished)
    assert scores["settings"]["ms_ssim"]["scales_used"] == 3
    for name in ("bicubic", "sr"):
        values = [ms_ssim(images_of(finished, z)["hr"], images_of(finished, z)[name], 3) for z in range(4, 8)]
        assert [row[name]["ms_ssim"] for row in scores["per_section"]] == pytest.approx(values, abs=1e-12)
        assert scores["image"][name]["ms_ssim"] == pytest.approx(np.mean(values), abs=1e-12)


MIDDLES = [
    (1024, np.s_[:, :], [60, 72], "all of a section"),
    (32, np.s_[14:46, 20:52], [32, 32], "the middle of it"),
]


@pytest.mark.parametrize(("side", "cut", "size", "reason"), MIDDLES)
def test_frc_is_of_the_middle(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, side: int, cut: Any, size: list[int], reason: str
) -> None:
    monkeypatch.setattr(measures, "FRC_SIDE", side)
    scores = scored(finished)
    assert scores["settings"]["frc"]["middle_yx"] == size, reason
    assert scores["settings"]["frc"]["limit_nm"] == 8
    for name in ("bicubic", "sr"):
        pairs = [(images_of(finished, z)["hr"][cut], images_of(finished, z)[name][cut]) for z in range(4, 8)]
        for key, criterion in measures.CRITERIA.items():
            found = resolution(ring_correlation(pairs, (4.0, 4.0)), criterion)
            assert scores["image"][name][key] == found.nm, reason
            assert scores["image"][name]["reasons"].get(key) == found.reason, reason
        alone = resolution(ring_correlation(pairs[:1], (4.0, 4.0)))
        assert scores["per_section"][0][name]["frc_nm"] == alone.nm, reason
    assert scores["image"]["bicubic"]["frc_nm"] > 8, "lr holds no period under 32 nm, and noise hides the rest"


def test_lpips_is_of_the_middle(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "LPIPS_SIDE", 40)
    files = dict(zip(measures.FILES, saved(finished.root, "alex"), strict=True))
    weights = {name: hashed(str(path)) for name, path in files.items()}
    scores = scored(finished, lpips=weights)
    lpips = load(**files)
    maps = {name: measures.features(lpips, one[10:50, 16:56]) for name, one in images_of(finished, 4).items()}
    for name in ("bicubic", "sr"):
        expected = lpips_distance(maps["hr"], maps[name], lpips.weights)
        assert scores["per_section"][0][name]["lpips"] == pytest.approx(expected, rel=1e-6)
        rows = [row[name]["lpips"] for row in scores["per_section"]]
        assert scores["image"][name]["lpips"] == pytest.approx(np.mean(rows))
    stated = scores["settings"]["lpips"]
    assert (stated["network"], stated["middle_yx"]) == ("alex", [40, 40])
    assert stated["sha256"] == {name: file["sha256"] for name, file in weights.items() if file}


NULLS = [
    ((8, 8, 8), 4, "ms_ssim", "sections of 8 x 8 voxels are smaller than the window, 11 x 11"),
    ((8, 32, 32), 4, "lpips", "no weights are named (score.lpips)"),
    ((8, 7, 28), 7, "frc_nm", "sections of 7 x 28 voxels are smaller than 8 x 8"),
]


@pytest.mark.parametrize(("shape", "scale", "figure", "reason"), NULLS)
def test_what_cannot_be_said_is_null_with_its_reason(
    tmp_path: Path, shape: tuple[int, int, int], scale: int, figure: str, reason: str
) -> None:
    scores = scored(Finished(tmp_path, soft_tissue(shape), scale=scale).write())
    for name in ("bicubic", "sr"):
        assert scores["image"][name][figure] is None
        assert scores["image"][name]["reasons"][figure] == reason
        assert scores["per_section"][0][name][figure] is None


def test_small_sections_have_no_lpips(tmp_path: Path) -> None:
    finished = Finished(tmp_path, soft_tissue((8, 20, 40))).write()
    weights = {name: hashed(str(path)) for name, path in zip(measures.FILES, saved(tmp_path, "alex"), strict=True)}
    found = scored(finished, lpips=weights)["image"]["sr"]
    assert found["lpips"] is None
    assert found["reasons"]["lpips"] == "sections of 20 x 40 voxels are smaller than 31 x 31, which alex needs"


def test_weights_that_changed_are_refused(finished: Finished) -> None:
    files = dict(zip(measures.FILES, saved(finished.root, "alex"), strict=True))
    weights = {name: hashed(str(path)) for name, path in files.items()}
    files["linear"].write_bytes(b"other")
    with pytest.raises(ValueError, match=r"score.lpips.linear: .*linear.pth changed since the workflow was planned"):
        scored(finished, lpips=weights)
    assert not (finished.folder / "scores.json").exists()


def test_sections_constant_in_their_middle_are_in_no_spectrum(tmp_path: Path) -> None:
    hr = soft_tissue((8, 32, 32))
    hr[5] = 90  # and so are bicubic and sr
    finished = Finished(tmp_path, hr).write()
    scores = scored(finished)
    assert scores["per_section"][1]["sr"]["frc_nm"] is None
    assert [scores["image"][name]["frc_sections"] for name in ("bicubic", "sr")] == [3, 3]
    scores = scored(finished, test=[[5, 6]])
    assert scores["image"]["sr"]["reasons"]["frc_nm"] == "every test section is constant in its middle"


def test_settings_say_what_was_scored(finished: Finished) -> None:
    scores = scored(finished)
    stated = scores["settings"]
    assert stated["metrics"]["data_range"] == 255
    assert stated["region_yx"] == [60, 72]
    assert stated["sections"] == [4, 5, 6, 7]
    assert stated["left_out"] == {}
    assert stated["consistency"] == {**stated["consistency"], "kernel": "bicubic", "known": False}
    assert set(stated["sha256"]) == {"lr", "hr", "sr"}


EXCLUDED = [
    ({"lr": {"damaged": {"5": "black"}}}, [4, 6, 7], "damaged in lr"),
    ({"hr": {"damaged": {"5": "black"}}}, [4, 6, 7], "damaged in hr"),
    ({"hr": {"missing": {"7": "missing"}}}, [4, 5, 6], "no truth there"),
    ({"sr": {"invalid": [4]}}, [5, 6, 7], "no result there"),
    ({"lr": {"damaged": {"1": "black"}}}, [4, 5, 6, 7], "outside the test sections"),
]


@pytest.mark.parametrize(("cards", "sections", "reason"), EXCLUDED)
def test_damaged_and_missing_sections_are_left_out(
    tmp_path: Path, cards: dict[str, Any], sections: list[int], reason: str
) -> None:
    finished = Finished(tmp_path, soft_tissue((8, 32, 32)), cards=cards).write()
    scores = scored(finished)
    assert [row["z"] for row in scores["per_section"]] == sections, reason
    assert len(scores["settings"]["left_out"]) == 1


def test_only_test_sections_of_the_truth_are_read(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()
    original = tiles.read

    def spy(array: Any, z: int, area: Any) -> np.ndarray:
        seen.add(z)
        return original(array, z, area)

    monkeypatch.setattr(tiles, "read", spy)
    scored(finished)
    assert seen == {4, 5, 6, 7}


def test_sr_equal_to_the_truth_has_no_finite_psnr(tmp_path: Path) -> None:
    """JSON knows no infinity: null, and the count of identical sections."""
    hr = soft_tissue((8, 32, 32))
    scores = scored(Finished(tmp_path, hr, sr=hr.copy()).write())
    assert scores["image"]["sr"] == {**scores["image"]["sr"], "psnr": None, "identical": 4, "ssim": pytest.approx(1)}
    assert scores["per_section"][0]["sr"]["psnr"] is None


def test_without_truth_there_is_consistency_and_a_reason(tmp_path: Path) -> None:
    scores = scored(Finished(tmp_path, soft_tissue((8, 32, 32)), truth=False).write())
    assert scores["image"] is None
    assert scores["reason"] == "the volume has only low resolution"
    assert scores["consistency"]["sr"]["sections"] == 8
    assert "sr" not in scores["per_section"][0]


NO_IMAGE = [
    ({"test": None}, {}, "no test sections are named"),
    ({"test": [[4, 5]]}, {"lr": {"damaged": {"4": "black"}}}, "every test section is damaged"),
]


@pytest.mark.parametrize(("changes", "cards", "reason"), NO_IMAGE)
def test_nothing_held_out_is_no_score(
    tmp_path: Path, changes: dict[str, Any], cards: dict[str, Any], reason: str
) -> None:
    scores = scored(Finished(tmp_path, soft_tissue((8, 32, 32)), cards=cards).write(), **changes)
    assert scores["image"] is None
    assert reason in scores["reason"]


def test_consistency_samples_long_volumes(tmp_path: Path) -> None:
    finished = Finished(tmp_path, soft_tissue((3 * SAMPLE, 8, 8)), truth=False, shard=(192, 32, 32))
    finished.shard = (32, 32, 32)
    sections = [row["z"] for row in scored(finished.write())["per_section"]]
    assert len(sections) == SAMPLE
    assert sections[0] == 0
    assert sections[-1] >= 3 * SAMPLE - 4


BAD = [
    ({"test": [[4, 9]]}, ValueError, r"test range \[4, 9\] is not within the 8 sections"),
    ({"scale": 8}, ValueError, "as lr x8: run stitch again"),
    ({"lr": "nowhere/lr.json"}, FileNotFoundError, "nowhere/lr.json does not exist"),
]


@pytest.mark.parametrize(("changes", "error", "words"), BAD)
def test_bad_input(finished: Finished, changes: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        scored(finished, **changes)
    assert not (finished.folder / "scores.json").exists()


def test_hr_of_another_region_is_refused(tmp_path: Path) -> None:
    finished = Finished(tmp_path, soft_tissue((8, 32, 32))).write()
    other = Finished(tmp_path, soft_tissue((8, 24, 32)), volume="other").write()
    with pytest.raises(ValueError, match="state images of the same region"):
        scored(finished, hr=str(other.folder / "hr.json"))


def test_equal_input_gives_equal_bytes(finished: Finished) -> None:
    scored(finished)
    first = (finished.folder / "scores.json").read_bytes()
    (finished.folder / "scores.json").unlink()
    scored(finished)
    assert (finished.folder / "scores.json").read_bytes() == first
