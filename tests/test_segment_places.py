"""Where segmentations go wrong, by hand; and what makes no sense, in one line each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emsr.durable import read_json, write_json
from emsr.metrics.bootstrap import Draws
from emsr.steps import segment_truth, segment_worth
from segment_scored import SHAPE, Scored, affinities


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_worth, "DRAWS", Draws(10))


def halves() -> np.ndarray:
    """Two cells, 4 and 9, that touch between rows 20 and 21."""
    labels = np.full(SHAPE, 4, np.uint64)
    labels[:, 21:] = 9
    return labels


def sharp(labels: np.ndarray) -> np.ndarray:
    """Affinities that say exactly where labels differ."""
    apart = np.stack([np.roll(labels, 1, axis) != labels for axis in range(3)])
    apart[0, 0] = apart[1, :, 0] = apart[2, :, :, 0] = False
    return np.where(apart, 0, 255).astype(np.uint8)


def project(folder: Path) -> Scored:
    """Three perfect segmentations of two cells."""
    made = Scored(folder, truth=halves())
    for name in made.segments:
        made.segments[name], made.near[name] = made.truth.copy(), sharp(made.truth)
    return made


@pytest.mark.parametrize("block", [(16, 512, 512), (2, 5, 7)])
def test_splits_and_merges_lie_where_they_were_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: Any
) -> None:
    monkeypatch.setattr(segment_truth, "BLOCK", block)
    made = project(tmp_path)
    sr = made.segments["sr"]
    sr[4:6, 2:6, 3:10] = 30  # 56 voxels cut off
    sr[7, 25:28, 30:33] = 4  # 9 voxels of cell 9 in the segment of cell 4
    sr[0] = 77  # not a test section
    found = made.write_all().score()["worst"]
    cut, wrong = found["splits"]
    assert (cut["truth"], cut["segment"], cut["voxels"], cut["main"]) == (4, 30, 56, 4)
    assert (cut["start"], cut["stop"]) == ([4, 2, 3], [6, 6, 10])
    assert cut["centre"] == [4.5, 3.5, 6.0]
    assert cut["centre_nm"] == [4.5 * 8 + 20, 3.5 * 4 + 2, 6 * 4 + 2]
    assert cut["nearest"] == [4, 3, 6]  # of four at the same distance the first
    (joined,) = found["merges"]
    assert (joined["truth"], joined["segment"], joined["voxels"], joined["main"]) == (9, 4, 9, 4)
    assert joined["start"] == wrong["start"] == [7, 25, 30]
    assert joined["nearest"] == [7, 26, 31]


def test_a_place_is_shown_where_the_piece_is(tmp_path: Path) -> None:
    """The centre of a ring is not part of it."""
    made = project(tmp_path)
    ring = np.hypot(*np.meshgrid(np.arange(-8, 9), np.arange(-8, 9))).round() == 7
    made.segments["sr"][5, 2:19, 10:27][ring] = 30
    (cut,) = made.write_all().score()["worst"]["splits"]
    assert cut["centre"] == [5, 10, 18]
    assert made.segments["sr"][tuple(cut["nearest"])] == 30


@pytest.mark.parametrize("block", [(16, 512, 512), (2, 5, 7)])
def test_windows_of_invented_and_lost_membrane_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: Any
) -> None:
    """Of a place the worst section alone is listed; windows have about 13 voxels a side."""
    monkeypatch.setattr(segment_truth, "BLOCK", block)
    made = project(tmp_path)
    made.near["sr"][:, 4, 28:31, 2:5] = 0
    made.near["sr"][:, 5, 28:30, 2:4] = 0
    made.near["sr"][:, 5, 5, 30] = 0
    made.near["hr"][:, 9, 35:37, 20:22] = 0
    found = made.write_all().score(membrane_nm=0.0)
    first, second = found["invented"]
    assert (first["start"], first["stop"]) == ([4, 27, 0], [5, 41, 12])
    assert (first["invented"], first["voxels"], first["share"]) == (9, 14 * 12, 9 / (14 * 12))
    assert first["share_of_membrane"] == 1.0
    assert first["centre_nm"] == [4 * 8 + 20, 33.5 * 4 + 2, 5.5 * 4 + 2]
    assert (second["start"], second["invented"]) == ([5, 0, 25], 1)
    (lost,) = found["lost"]
    assert (lost["start"], lost["lost"]) == ([9, 27, 12], 4)
    assert found["invented_lost_levels"].keys() == {"sr", "hr"}


def test_membrane_within_the_tolerance_is_not_invented(tmp_path: Path) -> None:
    made = project(tmp_path)
    made.near["sr"] = np.roll(made.near["hr"], 1, axis=2)  # one voxel further
    assert made.write_all().score(membrane_nm=4.0)["invented"] == []
    assert made.score(membrane_nm=3.0)["invented"]


@pytest.mark.parametrize(
    ("weights", "names", "reason"),
    [
        ("other", ("bicubic", "sr", "hr"), "predicted with different weights"),
        ("w", ("bicubic", "sr"), "no segmentation is named hr"),
        ("w", ("hr",), "no segmentation is named sr"),
    ],
)
def test_what_cannot_be_compared_is_said(tmp_path: Path, weights: str, names: tuple[str, ...], reason: str) -> None:
    made = project(tmp_path)
    made.labels(made.truth)
    for name in names:
        made.write(name, weights=weights if name == "sr" else "w")
    found = made.score()
    assert (found["invented"], found["lost"]) == (None, None)
    assert reason in found["invented_lost_reason"]
    assert (found["worth"] is None) == (len(names) < 3)
    assert (found["worst"] is None) == ("sr" not in names)
    assert found["segmentation"].keys() == set(names)


def test_organelles_go_into_their_cell(tmp_path: Path) -> None:
    """An organelle that a segmentation does not tell from its cell is no merge, where it may be absorbed."""
    made = project(tmp_path)
    made.truth[4:6, 30:34, 8:12] = 50
    made.write_all()
    apart, absorbed = made.score(), made.score(absorb=40)
    assert (absorbed["segmentation"]["hr"]["voi"], absorbed["membrane"]["hr"]["best_f1"]) == pytest.approx((0, 1))
    assert apart["segmentation"]["hr"]["voi_merge"] > 0.01
    assert absorbed["settings"]["organelles"] == {"max_voxels": 40, "absorbed": 1}
    assert absorbed["segmentation"]["hr"]["objects"] == 2
    assert apart["segmentation"]["hr"]["objects"] == 3


TRUTHS: list[tuple[str, Callable[[], np.ndarray], dict[str, Any], str]] = [
    ("without background", halves, {}, "without background and all is counted"),
    ("one object", lambda: np.full(SHAPE, 3, np.uint64), {"arand": 0.0}, "one object: merges cannot show"),
    ("none", lambda: np.zeros(SHAPE, np.uint64), {"voi": None, "arand": None}, "nothing can be scored"),
]


@pytest.mark.parametrize(("why", "truth", "figures", "remark"), TRUTHS, ids=[row[0] for row in TRUTHS])
def test_a_truth_that_says_little_is_stated(
    tmp_path: Path, why: str, truth: Callable[[], np.ndarray], figures: dict[str, Any], remark: str
) -> None:
    made = Scored(tmp_path, truth=truth())
    for name in made.segments:
        made.segments[name], made.near[name] = np.full(SHAPE, 8, np.uint64), affinities(halves(), 0, 0.1)
    found = made.write_all().score(validation=[[0, 3]])
    assert any(remark in line for line in found["segmentation"]["sr"]["remarks"])
    assert {name: found["segmentation"]["sr"][name] for name in figures} == figures
    for metric, share in found["worth"].items():
        assert share["share"] is None, metric
        assert share["reason"], metric
    if why != "without background":
        assert found["membrane"]["sr"]["best_f1"] is None
        assert found["membrane"]["sr"]["reason"] == "the truth holds no membrane voxel that is counted"
        assert "no membrane" in found["invented_lost_reason"]


def test_labels_too_large_to_search_for_organelles_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_truth, "MOST", 1000)
    made = project(tmp_path).write_all()
    with pytest.raises(ValueError, match="15580 voxels, and enclosed organelles are found in at most 1000"):
        made.score(absorb=5)
    assert made.score()["settings"]["organelles"]["absorbed"] == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"test": []}, "no test sections are named: state test as"),
        ({"test": None}, "no test sections are named"),
        ({"test": [[8, 11]]}, r"test range \[8, 11\] is not within the 10 sections"),
        ({"test": [[6, 7]]}, r"every one of the test sections \[6\] is damaged, missing or not made"),
        ({"validation": [[-1, 2]]}, r"validation range \[-1, 2\] is not within"),
        ({"segmentations": {}}, "no segmentation of tissue is named"),
        ({"windows": 0}, "windows of 0 voxels: give at least 1"),
        ({"membrane_nm": -2.0}, "tolerance of -2.0 nm"),
    ],
)
def test_settings_that_make_no_sense_are_one_line(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    made = project(tmp_path).write_all(damaged=(6,))
    with pytest.raises(ValueError, match=message) as error:
        made.score(**settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (np.ones(SHAPE, np.float32), "has labels of float32, but ids are whole numbers: convert it to uint64"),
        (np.ones((9, 41, 38), np.uint64), r"is \[9, 41, 38\] voxels and bicubic \[10, 41, 38\]: labels must have"),
        (np.ones((10, 40, 38), np.uint64), r"is \[10, 40, 38\] voxels and bicubic"),
    ],
)
def test_labels_that_do_not_fit_are_one_line(tmp_path: Path, truth: np.ndarray, message: str) -> None:
    made = project(tmp_path).write_all()
    made.labels(truth)
    with pytest.raises(ValueError, match=message):
        made.score()


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("threshold", {"threshold": 0.4}, "was made at threshold 0.5, .* says 0.4: run segment again"),
        ("affinities", {"image_sha256": "x"}, "are of different images: run the steps"),
        ("segments", {"voxel_size_nm": [8.0, 5.0, 4.0]}, r"sr has voxels of \[8.0, 5.0, 4.0\] nm and"),
        ("segments", {"shape": [9, 41, 38]}, "are of different images"),
    ],
)
def test_parts_of_different_segmentations_are_refused(
    tmp_path: Path, file: str, change: dict[str, Any], message: str
) -> None:
    made = project(tmp_path).write_all()
    path = tmp_path / "sr" / f"{file}.json"
    write_json(path, read_json(path) | change)
    with pytest.raises(ValueError, match=message):
        made.score()
