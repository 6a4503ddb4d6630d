"""Scores of segmentations on disk: equal to scikit-image's on whole sections, whatever the boxes, and stated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage.measure import label
from skimage.metrics import adapted_rand_error, variation_of_information

from emsr.metrics.bootstrap import Draws
from emsr.steps import segment_tallies, segment_truth, segment_worth
from segment_scored import SHAPE, Scored, counted, edges, parts, seen, within

STRETCHES = [[3, 6], [7, 10]]  # the test sections but for section 6, which is damaged
BLOCKS = [(16, 512, 512), (2, 9, 11)]


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_worth, "DRAWS", Draws(40))


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    return Scored(tmp_path_factory.mktemp("scored")).write_all(damaged=(1, 6))


def truth_of(scored: Scored, border_nm: float, in_plane: bool) -> np.ndarray:
    return np.concatenate([counted(one, border_nm, in_plane) for one in parts(scored.truth, STRETCHES)]).astype(int)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(("border_nm", "in_plane"), [(0.0, True), (4.0, True), (4.0, False), (8.0, False)])
def test_objects_equal_to_scikit_image(
    scored: Scored, monkeypatch: pytest.MonkeyPatch, block: Any, border_nm: float, in_plane: bool
) -> None:
    monkeypatch.setattr(segment_truth, "BLOCK", block)
    found = scored.score(border_nm=border_nm, in_plane=in_plane)
    truth = truth_of(scored, border_nm, in_plane)
    assert np.count_nonzero(truth) > 500
    for name, voxels in scored.segments.items():
        segments = np.concatenate(parts(voxels, STRETCHES)).astype(int)
        figures = found["segmentation"][name]
        split, merge = variation_of_information(truth, segments, ignore_labels=[0])
        assert (figures["voi_split"], figures["voi_merge"]) == pytest.approx((split, merge), abs=1e-9)
        assert figures["voi"] == pytest.approx(split + merge, abs=1e-9)
        assert figures["arand"] == pytest.approx(adapted_rand_error(truth, segments, ignore_labels=[0])[0], abs=1e-9)
        assert figures["voxels"] == np.count_nonzero(truth)
        assert (figures["threshold"], figures["threshold_source"], figures["image"]) == (0.5, "config", name)


@pytest.mark.parametrize("tile", [8192, 20])
def test_sections_equal_to_scikit_image(scored: Scored, monkeypatch: pytest.MonkeyPatch, tile: int) -> None:
    """Objects are the connected pieces of a section, or of a tile where sections are too large."""
    monkeypatch.setattr(segment_tallies, "SECTION", tile)
    found = scored.score()["sections"]
    cuts = (
        [(0, 41, 0, 38)]
        if tile > 41
        else [(y, b, x, r) for y, b in ((0, 20), (20, 41)) for x, r in ((0, 19), (19, 38))]
    )
    for name, voxels in scored.segments.items():
        expected = []
        for z in (3, 4, 5, 7, 8, 9):
            for top, bottom, left, right in cuts:
                truth, segments = (one[z, top:bottom, left:right].astype(int) for one in (scored.truth, voxels))
                pieces = [label(one, background=0, connectivity=1) for one in (truth, segments)]
                expected.append(sum(variation_of_information(*pieces, ignore_labels=[0])))
        assert found[name]["voi"] == pytest.approx(np.mean(expected), abs=1e-9)
        assert (found[name]["sections"], found[name]["unlabelled"]) == (len(expected), 0)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(("nm", "in_plane"), [(0.0, True), (5.0, True), (6.0, False), (9.0, False)])
def test_membrane_equal_to_distance_transforms(
    scored: Scored, monkeypatch: pytest.MonkeyPatch, block: Any, nm: float, in_plane: bool
) -> None:
    """Validation sections choose the level, the figures are those of test sections."""
    monkeypatch.setattr(segment_truth, "BLOCK", block)
    found = scored.score(membrane_nm=nm, in_plane=in_plane, validation=[[0, 3]])["membrane"]
    for name, near in scored.near.items():
        f1, _, _ = by_distance(scored, near, [[0, 1], [2, 3]], nm, in_plane)  # section 1 is damaged
        level = max(f1, key=lambda one: (f1[one], -one))
        assert found[name]["threshold"] * 255 == pytest.approx(level)
        tested, precision, recall = by_distance(scored, near, STRETCHES, nm, in_plane)
        assert found[name]["f1"] == pytest.approx(tested[level], abs=1e-12)
        assert (found[name]["precision"], found[name]["recall"]) == pytest.approx((precision[level], recall[level]))
        assert found[name]["best_f1"] == pytest.approx(max(tested.values()), abs=1e-12)
        assert found[name]["threshold_source"] == "validation"


def by_distance(scored: Scored, near: np.ndarray, stretches: Any, nm: float, in_plane: bool) -> list[dict[int, float]]:
    """F1, precision and recall by level, at the lowest of each stretch of levels that are all the same."""
    volumes = [
        (one, seen(part, in_plane))
        for one, part in zip(parts(scored.truth, stretches), parts(near, stretches), strict=True)
    ]
    levels = {int(one) + 1 for _, grey in volumes for one in np.unique(grey) if one < 255} | {0}
    f1, precisions, recalls = {}, {}, {}
    for level in levels:
        sums = np.zeros(4)
        for labels, grey in volumes:
            predicted, true, known = grey >= level, edges(labels, in_plane), labels > 0
            right, found = predicted & within(true, nm, in_plane), true & within(predicted, nm, in_plane)
            sums += [np.count_nonzero(one & known) for one in (predicted, right, true, found)]
        precision, recall = sums[1] / sums[0] if sums[0] else 1.0, sums[3] / sums[2]
        precisions[level], recalls[level] = precision, recall
        f1[level] = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return [f1, precisions, recalls]


@pytest.mark.parametrize(("block", "workers"), [((1, 7, 38), 1), ((4, 64, 5), 3)])
def test_boxes_and_workers_change_nothing(
    scored: Scored, monkeypatch: pytest.MonkeyPatch, block: Any, workers: int
) -> None:
    expected = scored.score(border_nm=4.0, validation=[[0, 3]])
    monkeypatch.setattr(segment_truth, "BLOCK", block)
    assert scored.score(workers, border_nm=4.0, validation=[[0, 3]]) == expected


def test_worth_is_the_share_of_the_gap_and_its_interval_contains_it(scored: Scored) -> None:
    found = scored.score(validation=[[0, 3]])
    keys = {"voi": ("segmentation", "voi"), "arand": ("segmentation", "arand")}
    keys |= {"membrane_best_f1": ("membrane", "best_f1"), "membrane_f1": ("membrane", "f1")}
    assert found["worth"].keys() == keys.keys()
    for metric, (table, name) in keys.items():
        bicubic, sr, hr = (found[table][image][name] for image in ("bicubic", "sr", "hr"))
        share = found["worth"][metric]
        assert share["share"] == pytest.approx((sr - bicubic) / (hr - bicubic), abs=1e-9)
        assert share["low"] <= share["share"] <= share["high"]
        assert share["low"] < share["high"]
        assert (share["bicubic"], share["sr"], share["hr"]) == pytest.approx((bicubic, sr, hr))
        assert share["sub_volumes"] == 9
    assert scored.score(seed=1)["worth"]["voi"]["low"] != found["worth"]["voi"]["low"]
    assert "membrane_f1" not in scored.score()["worth"]


def test_a_rival_trained_on_the_upsampled_image_is_compared_too(tmp_path: Path) -> None:
    scored = Scored(tmp_path)
    scored.segments["own"], scored.near["own"] = scored.segments["sr"], scored.near["sr"]
    scored.segments["best"], scored.near["best"] = scored.truth, scored.near["sr"]
    scored.write_all().write("own", kind="bicubic")
    scored.write("best", kind="bicubic")
    found = scored.score()
    assert found["worth_against"].keys() == {"own", "best"}
    assert {metric: one["share"] for metric, one in found["worth_against"]["own"].items()} == dict.fromkeys(
        ("voi", "arand", "membrane_best_f1"), 0.0
    )
    assert "is not better than best (" in found["worth_against"]["best"]["voi"]["reason"], "the rival, not bicubic"


def test_perfect_segments_are_without_fault(tmp_path: Path) -> None:
    scored = Scored(tmp_path)
    scored.segments |= dict.fromkeys(("sr", "hr"), scored.truth * np.uint64(3) + np.uint64(5))
    found = scored.write_all().score(border_nm=4.0)
    for table in ("segmentation", "sections"):
        assert (found[table]["sr"]["voi"], found[table]["sr"]["arand"]) == pytest.approx((0, 0), abs=1e-12)
    assert found["worst"] == {"splits": [], "merges": []}
    assert found["worth"]["voi"]["share"] == pytest.approx(1)
    assert found["segmentation"]["bicubic"]["voi"] > 0.1


def larger(voxels: np.ndarray, by: int) -> np.ndarray:
    """Some more rows and columns at the far ends."""
    return np.pad(voxels, [(0, 0)] * (voxels.ndim - 2) + [(0, by), (0, 2)], constant_values=3)


def test_what_lies_beyond_the_smallest_image_is_not_scored(scored: Scored, tmp_path: Path) -> None:
    """hr and labels may be a little larger than what was made from lr."""
    other = Scored(tmp_path)
    other.segments["hr"], other.near["hr"] = larger(other.segments["hr"], 1), larger(other.near["hr"], 1)
    other.write_all(damaged=(1, 6)).labels(larger(other.truth, 3))
    found, expected = other.score(border_nm=4.0), scored.score(border_nm=4.0)
    for key in ("sha256", "labels"):
        assert found["settings"].pop(key) != expected["settings"].pop(key)
    assert found == expected
    assert found["settings"]["region_yx"] == [41, 38]


def test_settings_say_what_was_scored(scored: Scored) -> None:
    stated = scored.score()["settings"]
    assert stated["sections"] == [3, 4, 5, 7, 8, 9]
    assert stated["stretches"] == STRETCHES
    assert stated["left_out"] == {"6": "damaged in sr: black"}
    assert stated["region_yx"] == [*SHAPE[1:]]
    assert stated["organelles"] == {"max_voxels": 0, "absorbed": 0}
    assert stated["thresholds"] == dict.fromkeys(("bicubic", "sr", "hr"), "config")
    assert stated["ignored"] == [0]
    assert {"voi", "arand", "ignored"} <= stated["metrics"]["segmentation"].keys()
    assert {"border_tolerance"} <= stated["metrics"]["truth"].keys()
