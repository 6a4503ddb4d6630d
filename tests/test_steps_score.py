"""Scores of a volume on disk: equal to scikit-image's on whole sections, of the right sections, and stated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from emsr.degradation import degrade, upsample
from emsr.steps import tiles
from emsr.steps.score import SAMPLE, score
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
