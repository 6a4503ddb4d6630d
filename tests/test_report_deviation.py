"""Samples in the report: the figures are those of the array, the picture is the array, and the caveat is there."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from emsr.inference.deviation import PER_GREY
from emsr.report import deviation
from emsr.report.canvas import GAP, HEAD
from emsr.report.evidence import VolumeEvidence
from emsr.report.style import pixels, styled
from emsr.steps import evidence
from emsr.steps.score import REPORT_FILES, report, score
from project import ROOT
from report_project import Finished, soft_tissue
from test_report import Page

SAMPLES = {"count": 5, "temperature": 0.8, "seed": 3}


def spread(hr: np.ndarray) -> np.ndarray:
    """uint8 quarters of a grey level: large where tissue is steep along y, and some at the end."""
    steep = np.abs(np.diff(hr.astype(int), axis=1, prepend=hr[:, :1]))
    return np.minimum(4 * steep, 255).astype(np.uint8)


def made(folder: Path, truth: bool = True) -> tuple[Finished, np.ndarray]:
    cards = {"deviation": {"samples": SAMPLES}}
    finished = Finished(folder / "results", soft_tissue((8, 64, 96)), truth=truth, cards=cards).write()
    finished.write_run()
    score(finished.score_settings(), finished.folder / "scores.json")
    voxels = spread(finished.hr)
    finished.image("deviation", voxels)
    return finished, voxels


def settings(finished: Finished) -> dict:
    values = finished.report_settings()
    values["volumes"]["tissue"]["deviation"] = str(finished.folder / "deviation.json")
    return values


def found(finished: Finished) -> VolumeEvidence:
    values = settings(finished)
    return evidence.volume("tissue", values["volumes"]["tissue"], values["config"])


def test_figures_are_those_of_whole_sections(tmp_path: Path) -> None:
    finished, voxels = made(tmp_path)
    seen, grey = found(finished), voxels / PER_GREY
    assert list(seen.deviation.sections) == [4, 5, 6, 7], "test sections, as scores"
    for z, row in seen.deviation.sections.items():
        assert row.mean == pytest.approx(grey[z].mean())
        assert row.p99 == np.quantile(grey[z], 0.99, method="inverted_cdf")
        assert row.ended == (voxels[z] == 255).mean()
        assert row.error == pytest.approx(np.sqrt(((finished.sr[z].astype(float) - finished.hr[z]) ** 2).mean()))
    whole = seen.deviation.whole
    assert whole.mean == pytest.approx(grey[4:].mean())
    assert whole.p99 == np.quantile(grey[4:], 0.99, method="inverted_cdf")
    assert whole.error == pytest.approx(np.sqrt(((finished.sr[4:].astype(float) - finished.hr[4:]) ** 2).mean()))


def test_the_picture_is_the_array(tmp_path: Path) -> None:
    """The colour of every voxel away from the bar and its words is that of its deviation."""
    finished, voxels = made(tmp_path)
    view = found(finished).deviation.views[0]
    grey = voxels[view.section.z] / PER_GREY
    np.testing.assert_array_equal(view.deviation, grey)
    with styled():
        drawn = pixels(deviation.picture(view, (20, 40)))
    factor = 5
    left = 96 * factor + GAP
    field = drawn[HEAD : HEAD + 64 * factor : factor, left : left + 96 * factor : factor].astype(int)
    index = np.minimum((grey / 20 * 256).astype(int), 255)
    expected = (matplotlib.colormaps["magma"](index)[..., :3] * 255).round().astype(int)
    assert np.abs(field - expected)[:50].max() <= 1


def test_the_page_says_it_and_files_lie_beside_it(tmp_path: Path) -> None:
    finished, voxels = made(tmp_path)
    out = finished.root / "report.html"
    report(settings(finished), out)
    text = Page(out.read_text(encoding="utf-8")).text
    for words in (
        "5 images that fit the same",
        "temperature 0.8, seed 3",
        "Small is not the same as sure",
        "at the largest",
    ):
        assert words in text
    folder = out.with_suffix("") / "volumes" / "tissue"
    with (folder / "deviation.tsv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert [row["z"] for row in rows] == ["all", "4", "5", "6", "7"]
    assert float(rows[1]["mean"]) == pytest.approx((voxels[4] / PER_GREY).mean(), abs=6e-4)
    Image.open(folder / "deviation.png").verify()
    rule = (ROOT / "workflow" / "rules" / "score.smk").read_text()
    assert all(f'"{name}"' in rule for name in REPORT_FILES["sampled"])
    assert (ROOT / "workflow" / "report" / "deviation.rst").is_file()


def test_without_samples_nothing_is_said(tmp_path: Path) -> None:
    finished, _ = made(tmp_path)
    out = finished.root / "report.html"
    report(finished.report_settings(), out)
    assert "Samples" not in Page(out.read_text(encoding="utf-8")).text
    written = {path.name for path in (out.with_suffix("") / "volumes" / "tissue").iterdir()}
    assert written == set(REPORT_FILES["volumes"])


def test_without_truth_there_is_no_error(tmp_path: Path) -> None:
    seen = found(made(tmp_path, truth=False)[0]).deviation
    assert len(seen.sections) == seen.measured == 8
    assert {row.error for row in seen.sections.values()} == {None}
    with styled():
        one, two = (deviation.draw(replace(seen, views=seen.views[:count])) for count in (0, 1))
    assert one == []
    assert two[0].shape[1] == 2 * 96 * 5 + GAP


@pytest.mark.parametrize(("most", "end"), [(0.0, 1), (0.9, 1), (1.1, 2), (4.9, 5), (5.1, 10), (31.0, 35)])
def test_ends_of_the_colour_scale(most: float, end: float) -> None:
    assert deviation._end([np.full((4, 4), most, np.float32)]) == end


def test_the_longest_table_keeps_where_samples_lie_farthest_apart() -> None:
    rows = {z: deviation.Spread(z % 7, 1.0, 0.0) for z in range(100)}
    every = deviation.DeviationEvidence({"samples": SAMPLES}, rows, deviation.Spread(3.0, 1.0, 0.0), 200)
    table = deviation.shown(every)
    assert len(table.rows) == 1 + deviation.LONGEST
    assert {row[1] for row in table.rows[1:]} == {"6.000", "5.000", "4.000", "3.000"}
    assert "100 of 200 sections" in table.caption


@pytest.mark.parametrize(("table", "counted"), [
    ("superresolve/tissue.1-of-2", True), ("superresolve/tissue.1-of-3", False),
    ("superresolve/deviation/tissue.1-of-3", True), ("superresolve/deviation/tissue.1-of-2", False),
    ("allocate/deviation/tissue", True),
])  # fmt: skip
def test_times_of_proved_jobs_count(tmp_path: Path, table: str, counted: bool) -> None:
    for folder, jobs in (("sr", 2), ("deviation/sr", 3)):
        proof = tmp_path / "tissue" / folder / "proof.json"
        proof.parent.mkdir(parents=True)
        proof.write_text(json.dumps({"marks": [f"jobs/1-of-{jobs}.json"]}))
    paths = {
        "allocate": str(tmp_path / "tissue/sr/allocate.json"),
        "deviation": str(tmp_path / "tissue/deviation/sr.json"),
    }
    config = {"volumes": {"tissue": {}}}
    values = {"config": config, "volumes": {"tissue": paths}, "benchmarks": str(tmp_path / "benchmarks")}
    wanted: Callable[[Path], bool] = evidence.current(values)
    assert wanted(tmp_path / "benchmarks" / f"{table}.tsv") is counted
