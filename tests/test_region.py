"""A pilot region: its shards are the whole run's, the others are recorded as skipped, and nothing is computed twice."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsr.degradation import degrade, upsample
from emsr.durable import read_json, write_json
from emsr.geometry import Box, ShardGrid, rectangles
from emsr.inference.extent import made_areas
from emsr.inference.valid import stand_ins
from emsr.metrics.image import psnr, ssim
from emsr.plan import Plan, neighbour_table
from emsr.shards import shards_of_job
from emsr.steps.crops import _centre, _middle
from emsr.steps.score import report, score
from emsr.steps.tiles import Images, made_of
from emsr.stores.zarr import open_array
from report_project import Finished, soft_tissue
from sr_project import SrProject, tissue_like, write_weights

SHAPE = (7, 20, 28)  # lr; sr 7 x 80 x 112 in shards of 4 x 64 x 64: 2 x 2 x 2 of them
PILOT = [[1, 3], [2, 17], [3, 9]]  # touches shards 0_0_0 and 0_1_0
INSIDE = ["0_0_0", "0_1_0"]
OUTSIDE = ["0_0_1", "0_1_1", "1_0_0", "1_0_1", "1_1_0", "1_1_1"]
NOTHING = hashlib.sha256(b"").hexdigest()


def project(folder: Path, model: str = "bicubic", **settings: Any) -> SrProject:
    folder.mkdir(parents=True, exist_ok=True)
    made = SrProject(folder, write_weights(folder, model, 4))
    made.settings |= settings
    made.write_lr(tissue_like(SHAPE))
    return made


def test_the_whole_run_keeps_what_the_pilot_computed(tmp_path: Path) -> None:
    whole = project(tmp_path / "whole", "gpemsr")
    card = whole.all()
    made = project(tmp_path / "pilot", "gpemsr", pilot=PILOT)
    piloted, voxels = made.all(n=3), made.voxels()
    assert [name for i in (1, 2, 3) for name in made.stats(f"{i}-of-3")["computed"]] == INSIDE
    for key in ("shape", "voxel_size_nm", "translation_nm"):
        assert piloted[key] == card[key], key
    assert np.array_equal(voxels[:4, :, :64], whole.voxels()[:4, :, :64])
    assert not voxels[4:].any()
    assert not voxels[:4, :, 64:].any()
    assert piloted["skipped"] == {
        **{"shards": 6, "voxels": 7 * 80 * 112 - 4 * 80 * 64, "reasons": {"pilot": 6}},
        **{"shard": [4, 64, 64], "runs": [[1, 2], [3, 8]]},
    }
    sections = [hashlib.sha256(section.tobytes()).hexdigest() for section in voxels]
    assert piloted["section_sha256"] == sections, "skipped shards are part of the root hash, unread"
    del made.settings["pilot"]
    made.allocate()
    assert made.job("1-of-1") == OUTSIDE, "none of the pilot's"
    assert made.stitch(1) == card
    assert made.files() == whole.files()


def test_a_skipped_shard_has_a_record_and_zeros(tmp_path: Path) -> None:
    made = project(tmp_path, pilot=PILOT)
    made.allocate()
    assert made.job("1-of-1") == INSIDE
    shards = read_json(made.mark("1-of-1"))["shards"]
    assert sorted(name for name, sha256 in shards.items() if sha256 == NOTHING) == OUTSIDE
    records = (made.allocation.parent / read_json(made.allocation)["records"]).resolve()
    record = {"schema": 1, "box": [[0, 0, 64], [4, 64, 112]], "skipped": True, "sha256": NOTHING}
    assert read_json(records / "0_0_1.json") == record
    (records / "0_0_1.json").unlink()
    with pytest.raises(ValueError, match=r"shard 0_0_1 of .* has no record that holds"):
        made.stitch(1)
    assert made.job("1-of-1") == []
    made.stitch(1)


def test_another_pilot_adds_and_throws_nothing_away(tmp_path: Path) -> None:
    made = project(tmp_path, pilot=PILOT)
    made.all()
    made.settings["pilot"] = [[5, 6], [0, 1], [0, 1]]
    made.allocate()
    assert made.job("1-of-1") == ["1_0_0"]
    assert made.stitch(1)["skipped"]["shards"] == 5
    assert made.voxels()[:4, :, :64].all(axis=0).any()


def test_an_old_shard_outside_the_pilot_is_emptied(tmp_path: Path) -> None:
    made = project(tmp_path)
    made.all()
    made.write_lr(255 - tissue_like(SHAPE))  # what was computed no longer holds
    made.settings["pilot"] = PILOT
    made.all()
    assert not made.voxels()[4:].any()


def test_the_border_of_a_pilot_is_no_seam(tmp_path: Path) -> None:
    made = project(tmp_path, pilot=[[0, 7], [0, 20], [0, 10]])
    made.write_lr(np.full(SHAPE, 200, np.uint8))
    assert made.all()["seams"]["shard"] == {"y": None, "x": None}, "flat where it was made"


def test_coarser_levels_are_means_and_empty_outside(tmp_path: Path) -> None:
    made = SrProject(tmp_path, write_weights(tmp_path, "bicubic", 4))
    made.settings |= {"pilot": PILOT, "shard": [4, 32, 32]}
    made.write_lr(tissue_like((5, 80, 80)))
    made.all()
    fine, coarse = (open_array(made.folder / "sr.zarr", level).read().result().astype(int) for level in (0, 1))
    four = fine[:, ::2, ::2] + fine[:, 1::2, ::2] + fine[:, ::2, 1::2] + fine[:, 1::2, 1::2]
    assert np.array_equal(coarse, (four + 2) >> 2)
    assert coarse.any()


@pytest.mark.parametrize(
    ("pilot", "message"),
    [
        ([[0, 8], [0, 20], [0, 28]], r"reaches beyond lr of shape \[7, 20, 28\]"),
        ([[2, 2], [0, 20], [0, 28]], "holds no voxel"),
        ([[0, 2**60], [0, 20], [0, 28]], "reaches beyond lr"),
    ],
)
def test_a_pilot_outside_lr_is_refused_before_anything_is_written(tmp_path: Path, pilot: Any, message: str) -> None:
    made = project(tmp_path, pilot=pilot)
    with pytest.raises(ValueError, match=message):
        made.allocate()
    assert not list(tmp_path.glob("sr-*"))


def test_a_job_with_another_pilot_than_allocated_is_refused(tmp_path: Path) -> None:
    made = project(tmp_path, pilot=PILOT)
    made.allocate()
    made.settings["pilot"] = None
    with pytest.raises(ValueError, match="run allocate again"):
        made.job("1-of-1")


@given(st.integers(1, 9), st.tuples(*[st.integers(1, 5)] * 3), st.data())
def test_each_shard_is_in_one_job_and_the_pilot_is_shared_out(n: int, counts: Any, data: Any) -> None:
    grid = ShardGrid(counts, (1, 1, 1))
    low = tuple(data.draw(st.integers(0, side - 1)) for side in counts)
    high = tuple(data.draw(st.integers(first + 1, side)) for first, side in zip(low, counts, strict=True))
    within = Box(low, high)  # type: ignore[arg-type]
    dealt = [shards_of_job(grid, number, n, within) for number in range(n)]
    assert sorted(index for mine in dealt for index in mine) == sorted(grid.indices)
    shares = [len(set(mine) & set(within.indices())) for mine in dealt]
    assert max(shares) < within.size or n == 1 or within.size == 1


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), max_size=6))
def test_rectangles_are_the_true_cells(rows: list[list[bool]]) -> None:
    covered = [(y, x) for (a, b), (c, d) in rectangles(rows) for y in range(a, b) for x in range(c, d)]
    assert sorted(covered) == [(y, x) for y, row in enumerate(rows) for x, cell in enumerate(row) if cell]
    assert not (rows and all(map(all, rows))) or len(rectangles(rows)) == 1


def test_made_areas_of_a_card() -> None:
    card = {"shape": [7, 80, 112], "skipped": {"shard": [4, 64, 64], "runs": [[1, 2], [4, 7]]}}
    assert made_areas(card, 3) == [((0, 64), (0, 64)), ((64, 80), (0, 112))]
    assert made_areas(card, 4) == [((64, 80), (64, 112))]
    assert made_areas({"shape": [7, 80, 112]}, 4) == [((0, 80), (0, 112))]


# -- valid ------------------------------------------------------------------------------------------------------------


BOTH_SIDES = ("end", "neighbour", "damaged", "neighbour", "neighbour", "missing", "neighbour")


@pytest.mark.parametrize(
    ("sections", "step", "damaged", "missing", "side", "expected", "reason"),
    [
        (1, 1, (), (), 16, {}, "a section of itself alone is always whole"),
        (3, 1, (), (), 16, {0: "end", 6: "end"}, "past the ends"),
        (3, 2, (), (), 16, {0: "end", 1: "end", 5: "end", 6: "end"}, "every other section"),
        (3, 1, (2,), (5,), 16, dict(enumerate(BOTH_SIDES)), "both sides of damage"),
        (1, 1, (), (), 8, dict.fromkeys(range(7), "mirrored"), "smaller than a window"),
    ],
)  # fmt: skip
def test_what_is_made_from_whole_data(
    sections: int, step: int, damaged: Any, missing: Any, side: int, expected: dict[int, str], reason: str
) -> None:
    table = neighbour_table(7, sections, step, damaged, missing)
    assert stand_ins(Plan((7, side, 40), 4, 16, 4, (4, 64, 64), table), step, damaged) == expected, reason


def test_valid_marks_what_was_made_from_whole_data(tmp_path: Path) -> None:
    made = project(tmp_path, pilot=PILOT)
    made.write_lr(tissue_like(SHAPE), damaged=(1,), missing=(3,))
    card = made.all()
    valid = open_array(tmp_path / card["valid"]["array"]).read().result()
    expected = np.zeros(SHAPE, np.uint8)
    expected[:3, :, :16] = 1
    assert np.array_equal(valid, expected)
    assert card["valid"]["sections"] == {
        **{"0": "neighbour", "1": "damaged", "2": "neighbour", "3": "missing", "4": "neighbour", "6": "end"}
    }
    document = read_json(tmp_path / "valid.zarr" / "zarr.json")["attributes"]["ome"]["multiscales"][0]
    transforms = document["datasets"][0]["coordinateTransformations"]
    assert [one[one["type"]] for one in transforms] == [[40.0, 32.0, 32.0], [0.0, 0.0, 0.0]], "lr's place"


# -- scores and report ------------------------------------------------------------------------------------------------


def test_what_was_skipped_is_in_no_score(tmp_path: Path) -> None:
    """Figures are those of what was made, cut out and scored alone, whatever stands beside it."""
    skipped = {"shard": [6, 32, 32], "runs": [[1, 3], [4, 12]], "shards": 10, "voxels": 1, "reasons": {"pilot": 10}}
    finished = Finished(tmp_path, soft_tissue((8, 64, 96)), cards={"sr": {"skipped": skipped}})
    finished.write()
    out = finished.folder / "scores.json"
    score(finished.score_settings(), out)
    found = read_json(out)
    assert found["settings"]["left_out"] == {"6": "skipped in sr", "7": "skipped in sr"}
    parts = [(slice(0, 64), slice(0, 32))]
    for row in found["per_section"]:
        z = row["z"]
        for name, image in (("sr", finished.sr[z]), ("bicubic", upsample(finished.lr, 4)[z])):  # type: ignore[index]
            tallies = [(finished.hr[z][part], image[part]) for part in parts]
            assert row[name]["psnr"] == pytest.approx(np.mean([psnr(*pair) for pair in tallies]), abs=1e-9)
            assert row[name]["ssim"] == pytest.approx(np.mean([ssim(*pair) for pair in tallies]), abs=1e-9)
        error = (degrade(finished.sr[z], 4).astype(float) - finished.lr[z])[:, :6]  # type: ignore[index]
        assert row["consistency"]["sr"] == pytest.approx(
            20 * np.log10(255) - 10 * np.log10((error**2).mean()), abs=1e-9
        )
    assert [row["z"] for row in found["per_section"]] == [4, 5]


def test_the_report_says_what_was_not_made(tmp_path: Path) -> None:
    skipped = {"shard": [8, 32, 32], "runs": [[1, 6]], "shards": 5, "voxels": 40960, "reasons": {"mask": 2, "pilot": 3}}
    valid = {"array": "valid.zarr", "sections": {"0": "end", "3": "neighbour", "4": "neighbour", "7": "end"}}
    cards = {"sr": {"skipped": skipped, "valid": valid}}
    finished = Finished(tmp_path, soft_tissue((8, 64, 96)), cards=cards).write()
    score(finished.score_settings(), finished.folder / "scores.json")
    finished.write_run()
    report(finished.report_settings(), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    words = "83.3% of the voxels, in 5 shards (2 without tissue in the mask, 3 outside the pilot)"
    assert f"so the result is empty there and in no score: {words}" in page
    assert "sections 3–4 (another section in place of a damaged or missing neighbour); sections 0, 7 (the end" in page


def test_crops_show_what_was_made(tmp_path: Path) -> None:
    card = {"shape": [8, 1600, 1600], "skipped": {"shard": [8, 800, 800], "runs": [[0, 3]]}}
    lr = np.zeros((8, 400, 400), np.uint8)
    images = Images(lr, None, None, 4, "bicubic", None, made_of(card))
    assert _middle(images, 0) == ((944, 1456), (944, 1456)), "512 voxels around 1200"
    plan = Plan((8, 400, 400), 4, 16, 4, (8, 800, 800), ((0,),) * 8, within=Box((0, 1, 1), (1, 2, 2)))
    assert _centre(plan) == [4, 1200, 1200]


def test_damaged_parts_are_local(tmp_path: Path) -> None:
    """Neighbours stay what they are; valid marks the part in its section and in those that are made from it."""
    made = project(tmp_path, "gpemsr")
    made.allocate()
    table = read_json(made.allocation)["sections"]
    write_json(made.lr, {**read_json(made.lr), "damaged_parts": {"3": [[[4, 9], [5, 20]]]}})
    card = made.all()
    assert read_json(made.allocation)["sections"] == table
    valid = open_array(tmp_path / card["valid"]["array"]).read().result()
    expected = np.full(SHAPE, 2)
    expected[[0, 6]] = 1
    expected[2:5, 4:9, 5:20] = 1
    assert np.array_equal(valid, expected)
