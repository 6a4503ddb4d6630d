"""Damage is local: voxels of a damaged part are in no figure, all others are, and it is said how many that are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import structural_similarity, variation_of_information

from emsr.damage import block_side
from emsr.degradation import degrade, reach, upsample
from emsr.durable import read_json
from emsr.metrics.structure import WEIGHTS, similarity
from emsr.steps import parts, segment_worth, tiles
from emsr.steps.score import report, score
from emsr.stores.card import read_card
from report_project import Finished, soft_tissue
from segment_project import Chain, image, weights
from segment_scored import Scored
from sr_project import SrProject, tissue_like, write_weights
from test_registration import SCALE, WARPS, images, ingested, registered, truth

BOX = [[16, 30], [33, 47]]  # of hr, (y, x)
GROWN = np.s_[14:32, 31:49]  # a block of 2 voxels more on every side


def scored(finished: Finished, **changes: Any) -> dict[str, Any]:
    out = finished.folder / "scores.json"
    score(finished.score_settings() | changes, out)
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def damaged(folder: Path, **cards: Any) -> Finished:
    """8 sections of 80 x 100 voxels; what cards name as damaged is black in hr."""
    hr = soft_tissue((8, 80, 100))
    for z, boxes in cards.get("hr", {}).items():
        for y, x in boxes:
            hr[int(z), slice(*y), slice(*x)] = 0
    stated = {name: {"damaged_parts": of} for name, of in cards.items()}
    return Finished(folder, hr, cards=stated, sr=np.rint(upsample(degrade(hr, 4), 4)).astype(np.uint8)).write()


def touched(left_out: np.ndarray, size: int) -> np.ndarray:
    """Windows, by their first pixel, that hold a pixel that is left out."""
    return np.lib.stride_tricks.sliding_window_view(left_out, (size, size)).any((2, 3))  # type: ignore[no-any-return]


def expected(hr: np.ndarray, image: np.ndarray, left_out: np.ndarray) -> dict[str, float]:
    """PSNR, SSIM and MS-SSIM (three scales) of what is not left out, whole sections at once."""
    error = ((hr.astype(float) - image) ** 2)[~left_out].mean()
    values = structural_similarity(hr, image, data_range=255, full=True)[1][3:-3, 3:-3]
    found = {"psnr": 10 * np.log10(255**2 / error), "ssim": values[~touched(left_out, 7)].mean(), "ms_ssim": 1.0}
    weights, pair = np.array(WEIGHTS[:3]) / sum(WEIGHTS[:3]), (hr.astype(float), image.astype(float))
    for scale in range(3):
        if scale:
            y, x = (side // 2 * 2 for side in left_out.shape)
            quarters = [np.s_[a:y:2, b:x:2] for a in (0, 1) for b in (0, 1)]
            pair = tuple(sum(one[at] for at in quarters) / 4 for one in pair)  # type: ignore[assignment]
            left_out = np.any([left_out[at] for at in quarters], axis=0)
        structure, luminance = similarity(*pair)
        kept = (structure * luminance if scale == 2 else structure)[~touched(left_out, 11)]
        found["ms_ssim"] *= kept.mean() ** weights[scale]
    return found


@pytest.mark.parametrize("tile", [16, 36, 1024])
def test_figures_are_those_of_the_rest_of_the_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tile: int
) -> None:
    monkeypatch.setattr(tiles, "TILE", tile)
    finished = damaged(tmp_path, hr={"5": [BOX]})
    found = scored(finished)
    left_out = np.zeros((80, 100), bool)
    left_out[GROWN] = True
    assert found["settings"]["damaged_parts"] == {
        **{"what": parts.STATED, "voxels": 18 * 18},
        "sections": {"5": {"voxels": 18 * 18, "boxes": [[[14, 32], [31, 49]]]}},
    }
    assert finished.sr is not None
    for name, rival in (("sr", finished.sr), ("bicubic", upsample(finished.lr, 4))):
        rows = {row["z"]: row[name] for row in found["per_section"]}
        for z in (4, 5):
            wanted = expected(finished.hr[z], rival[z], left_out & (z == 5))
            assert {key: rows[z][key] for key in wanted} == pytest.approx(wanted, abs=1e-9)
        assert rows[5]["frc_nm"] is None, "the middle touches the part"
        assert rows[4]["frc_nm"] is not None
        assert found["image"][name]["frc_sections"] == 3
    halo = -(-reach(4, "bicubic") // 4)
    coarse = np.ones((20, 25), bool)
    coarse[3 - halo : 8 + halo, 7 - halo : 13 + halo] = False
    error = ((degrade(finished.sr[5], 4).astype(float) - finished.lr[5]) ** 2)[coarse].mean()
    row = next(row for row in found["per_section"] if row["z"] == 5)
    assert row["consistency"]["sr"] == pytest.approx(10 * np.log10(255**2 / error), abs=1e-9)


def test_parts_of_lr_count_in_voxels_of_sr(tmp_path: Path) -> None:
    finished = damaged(tmp_path, lr={"5": [[[4, 7], [8, 12]]]})
    boxes = scored(finished)["settings"]["damaged_parts"]["sections"]["5"]["boxes"]
    assert boxes == [[[12, 32], [28, 52]]], "a block of one lr pixel more on every side"


def test_parts_elsewhere_change_no_bit(tmp_path: Path) -> None:
    whole, other = (damaged(tmp_path / name) for name in ("whole", "other"))
    other.cards = {"hr": {"damaged_parts": {"1": [BOX]}}, "lr": {"damaged_parts": {"2": [BOX]}}}
    with_parts, without = scored(other.write()), scored(whole)
    assert with_parts["settings"].pop("sha256") == without["settings"].pop("sha256")
    assert with_parts == without


def test_a_part_that_leaves_no_window_leaves_the_section_out(tmp_path: Path) -> None:
    finished = damaged(tmp_path, hr={"5": [[[0, 80], [4, 90]]], "6": [[[0, 80], [2, 99]]]})
    stated = scored(finished)["settings"]
    assert stated["sections"] == [4, 5, 7], "of section 5 windows of 8 columns are left"
    assert stated["left_out"] == {"6": "damaged in part, which leaves nothing to score"}


def test_the_page_says_how_much_is_left_out(tmp_path: Path) -> None:
    finished = damaged(tmp_path, hr={"5": [BOX]})
    scored(finished)
    finished.write_run()
    report(finished.report_settings(), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "In no figure: 324 voxels (1.01% of the scored sections) in damaged parts of hr or lr, in section 5;" in page
    assert "so in no figure there: section 5 of hr." in page


areas = st.lists(st.tuples(*[st.tuples(st.integers(-3, 12), st.integers(-3, 12)).map(sorted).map(tuple)] * 2))


@given(areas, st.integers(0, 3))
def test_counts_are_those_of_a_mask(boxes: Any, border: int) -> None:
    within = (1, 11), (0, 9)
    found = parts.mask(boxes, within)
    whole = np.zeros((10, 9), bool) if found is None else found
    assert parts.count(boxes, within) == np.count_nonzero(whole)
    assert found is None or found.any()
    size = 2 * border + 1
    assert parts.windows_left(boxes, within, border) == np.count_nonzero(~touched(whole, size))


def test_blocks_of_the_image_are_those_of_the_search() -> None:
    assert [block_side((side, 3)) for side in (3, 64, 65, 1000)] == [1, 1, 2, 16]


# -- on the way to where they are needed ------------------------------------------------------------------------------


def test_sr_and_its_segments_name_the_parts_of_lr_and_a_caution(tmp_path: Path) -> None:
    made = SrProject(tmp_path, write_weights(tmp_path, "bicubic", 4))
    made.write_lr(tissue_like((7, 20, 28)))
    card = read_json(made.lr) | {"damaged_parts": {"3": [[[4, 9], [5, 20]]]}}
    made.lr.write_text(json.dumps(card))
    assert made.all()["damaged_parts"] == {"3": [[[16, 36], [20, 80]]]}
    chain = Chain(tmp_path / "chain")
    sr = image(tmp_path, tissue_like((9, 70, 52)), damaged_parts={"2": [BOX]}, caution="may invent membranes")
    chain.all(sr, weights(tmp_path))
    segments = read_card(chain.folder / "segments.json")
    assert segments["damaged_parts"] == {"2": [BOX]}
    assert segments["caution"] == "may invent membranes"


def test_registration_takes_parts_of_hr_along(tmp_path: Path) -> None:
    warp = WARPS[3][0]  # turned and shrunk
    hr, lr = (np.stack(part) for part in zip(*(images(z, warp) for z in range(3)), strict=True))
    hr[0, 40:120, 200:300] = 0
    folder = ingested(tmp_path, hr, lr)
    assert read_card(folder / "hr.json")["damaged_parts"] == {"0": [[[42, 120], [204, 300]]]}, "whole blocks of 6"
    card = registered(folder, registration={"limit_nm": 20.0, "kernel": "bicubic"})
    ((top, bottom), (left, right)) = card["damaged_parts"]["0"][0]
    similarity = truth(warp).scaled(SCALE)
    corners = np.array([similarity.back(complex(x, y)) for x in (204, 300) for y in (42, 120)])
    wanted = [corners.imag.min(), corners.imag.max(), corners.real.min(), corners.real.max()]
    assert [top, bottom, left, right] == pytest.approx(wanted, abs=1.5)
    assert (folder / "hr_registered.damaged.tsv").read_text().splitlines()[1].endswith("\tas in hr")


# -- segmentations ----------------------------------------------------------------------------------------------------

PART = {"4": [[[10, 24], [8, 30]]]}  # sections are smaller than 64 voxels, so a block is one
LEFT = np.s_[4, 9:25, 7:31]


def of_segments(folder: Path, change: Callable[[Scored], None] = lambda scored: None) -> Scored:
    made = Scored(folder)
    change(made)
    made.labels(made.truth)
    for name in made.segments:
        made.write(name, **({"damaged_parts": PART} if name == "sr" else {}))
    return made


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    from emsr.metrics.bootstrap import Draws

    monkeypatch.setattr(segment_worth, "DRAWS", Draws(40))


def test_a_part_of_one_image_is_in_no_score_of_any(tmp_path: Path) -> None:
    made = of_segments(tmp_path)
    found = made.score()
    truth = made.truth.copy()
    truth[LEFT] = 0
    for name, segments in made.segments.items():
        figures, pair = found["segmentation"][name], (truth[3:].astype(int), segments[3:].astype(int))
        assert figures["voi"] == pytest.approx(sum(variation_of_information(*pair, ignore_labels=[0])), abs=1e-9)
        assert figures["voxels"] == np.count_nonzero(truth[3:])
        assert found["membrane"][name]["voxels"] == np.count_nonzero(truth[3:])
    assert found["settings"]["parts_left_out"] == {"voxels": 384, "damaged_voxels": 384, "sections": {"4": 384}}


def test_what_lies_in_the_part_changes_nothing(tmp_path: Path) -> None:
    def spoil(made: Scored) -> None:
        draw = np.random.default_rng(3)
        for name in made.segments:
            made.segments[name][LEFT] = draw.integers(500, 520, made.segments[name][LEFT].shape)
            inner = made.near[name][:, 4, 10:24, 8:30]
            inner[...] = draw.integers(0, 255, inner.shape)

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    plain, spoilt = of_segments(tmp_path / "a").score(), of_segments(tmp_path / "b", spoil).score()
    plain["settings"].pop("sha256")
    spoilt["settings"].pop("sha256")
    sections = [one.pop("sections") for one in (plain, spoilt)]  # objects of a section are connected through the part
    assert sections[0].keys() == sections[1].keys()
    assert spoilt == plain


def test_what_was_not_made_of_one_image_is_in_no_score_of_any(tmp_path: Path) -> None:
    made = Scored(tmp_path)
    made.labels(made.truth)
    skipped = {"shard": [5, 20, 20], "runs": [[1, 2], [8, 12]], "shards": 5, "voxels": 1, "reasons": {"mask": 5}}
    truth = made.truth.copy()
    truth[:5, :20, 20:] = 0  # shard 0_0_1
    truth[5:, 20:40] = 0  # shards 1_1_0 and 1_1_1
    truth[5:, 40:] = 0  # shards 1_2_0 and 1_2_1, of one row
    for name in made.segments:
        made.write(name, **({"skipped": skipped} if name == "sr" else {}))
    found = made.score()
    for name in made.segments:
        assert found["segmentation"][name]["voxels"] == np.count_nonzero(truth[3:])
        assert found["membrane"][name]["voxels"] == np.count_nonzero(truth[3:])
    left = found["settings"]["parts_left_out"]
    assert left == {**left, "voxels": 2 * 20 * 18 + 5 * 21 * 38, "damaged_voxels": 0}
    assert sorted(left["sections"]) == ["3", "4", "5", "6", "7", "8", "9"]
