"""The report: true to the pixel, self-contained, escaped, bounded, and honest about what it does not know."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from emsr.report import caveats, tables, volumes
from emsr.report.blocks import Table, duration, spans, tsv
from emsr.report.canvas import HEAD
from emsr.report.charts import curve_chart, score_chart, use_chart
from emsr.report.evidence import CrossView, SectionView, StageEvidence, VolumeEvidence
from emsr.report.health import checks
from emsr.report.pictures import Layout, nearer, section_picture, zoom_corner
from emsr.report.planes import SIDE, cross_picture, plane_factors
from emsr.report.style import JOB, SHARD, pixels, png, styled, svg, webp
from emsr.steps import crops, evidence
from emsr.steps.score import REPORT_FILES, report, score
from emsr.steps.throughput import throughput
from emsr.steps.tiles import Images
from project import ROOT
from report_project import HEALTH, Finished, job_stats, soft_tissue


def view(truth: bool = True, shape: tuple[int, int] = (96, 128)) -> SectionView:
    rng = np.random.default_rng(3)
    images = {name: rng.integers(0, 256, shape).astype(np.uint8) for name in ("lr", "bicubic", "sr", "hr")}
    if not truth:
        del images["hr"]
    return SectionView(5, "the median gain", images, (0, 0), (4.0, 4.0), (4, 4), 4.0)


# -- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("truth", [True, False])
def test_every_voxel_is_drawn_as_whole_pixels(truth: bool) -> None:
    """The fields in the picture are the images repeated, away from the frame of the zoom and the scale bar."""
    shown = view(truth)
    layout = Layout.of(shown)
    with styled():
        drawn = pixels(section_picture(shown))
    corner = zoom_corner(shown.images["bicubic"], layout.side)
    after = corner[0] + layout.side
    clean = slice(1, corner[0] - 1) if corner[0] > 8 else slice(after + 1, layout.rows)
    for column, name in enumerate(list(shown.images)[:-1]):
        field = drawn[HEAD : HEAD + layout.height, layout.left(column) :][:, : layout.width, 0]
        found = field[:: layout.factor, :: layout.factor]
        np.testing.assert_array_equal(found[clean], shown.images[name][clean])
        blocks = field.reshape(layout.rows, layout.factor, layout.columns, layout.factor)[clean]
        assert (blocks == blocks[:, :1, :, :1]).all()


def test_zoom_is_where_the_image_varies_most() -> None:
    image = np.full((64, 96), 128, np.uint8)
    image[40:52, 60:72] = np.random.default_rng(0).integers(0, 256, (12, 12))
    y, x = zoom_corner(image, 16)
    assert abs(y - 38) <= 4
    assert abs(x - 58) <= 4


def test_nearer_is_positive_where_sr_is_nearer() -> None:
    shown = view()
    images = {**shown.images, "sr": shown.images["hr"].copy()}
    images["sr"][:, 64:], images["bicubic"] = 255 - images["hr"][:, 64:], images["hr"].copy()
    images["bicubic"][:, :64] = 255 - images["hr"][:, :64]
    found = nearer(replace(shown, images=images))
    assert found.shape == (24, 32)
    assert (found[:, :16] > 0).all()
    assert (found[:, 16:] < 0).all()


def cross(**changes: Any) -> CrossView:
    image = np.random.default_rng(0).integers(0, 256, (12, 100)).astype(np.uint8)
    return replace(CrossView("x", {"bicubic": image, "sr": image}, (20, 0), 7, (40.0, 4.0)), **changes)


def coloured(picture: np.ndarray, colour: str) -> int:
    """How many pixels have exactly ``colour``."""
    return int((picture == np.round(np.array(to_rgb(colour)) * 255).astype(np.uint8)).all(axis=-1).sum())


MARKS = [
    ({}, JOB, False, "no border, no mark"),
    ({"job_borders": ((26,), ())}, JOB, True, "a job begins at z 26"),
    ({"job_borders": ((), (50,))}, JOB, True, "a job begins at x 50"),
    ({"job_borders": ((5,), (400,))}, JOB, False, "both borders lie outside the crop"),
    ({"shard_borders": ((26,), (50,))}, SHARD, True, "shards begin there"),
    ({"shard_borders": ((26,), ()), "job_borders": ((26,), ())}, SHARD, False, "a border of both is marked as job's"),
]


@pytest.mark.parametrize(("changes", "colour", "marked", "reason"), MARKS)
def test_borders_are_marked(changes: dict[str, Any], colour: str, marked: bool, reason: str) -> None:
    with styled():
        picture = pixels(cross_picture([cross(**changes)]))
    assert (coloured(picture, colour) > 0) == marked, reason


def test_marks_leave_the_plane_alone_and_proportions_hold() -> None:
    shown = cross(job_borders=((26,), (50,)), shard_borders=((23,), (20,)), damaged=frozenset({24}))
    down, across = plane_factors(shown)
    assert down == 10 * across
    with styled():
        drawn = pixels(cross_picture([shown]))
    plane = drawn[HEAD : HEAD + 12 * down, SIDE : SIDE + 100 * across]
    np.testing.assert_array_equal(plane[::down, ::across, 0], shown.images["bicubic"])
    assert (plane[..., 0] == plane[..., 2]).all()


def test_sections_without_data_are_tinted_and_not_black() -> None:
    shown = cross(absent=frozenset({23}))
    down, across = plane_factors(shown)
    with styled():
        drawn = pixels(cross_picture([shown]))
    line = drawn[HEAD + 3 * down : HEAD + 4 * down, SIDE : SIDE + 100 * across]
    assert (line[..., 0] > line[..., 2]).all()


def test_pictures_are_lossless_and_equal_for_equal_figures() -> None:
    with styled():
        first, second = (pixels(section_picture(view())) for _ in range(2))
        stages = [StageEvidence("fusion", {}, {"training": [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]})]
        charts = [svg(figure) for figure in (curve_chart(stages), curve_chart(stages)) if figure]
    assert png(first) == png(second)
    np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(webp(first)))), first)
    assert len(charts) == 2
    assert charts[0] == charts[1]


# -- what is alive, what to trust -------------------------------------------------------------------------------------

CODEBOOK, INDEXER, FUSION = HEALTH["codebook"], HEALTH["indexer"], HEALTH["fusion"]
ALIVE = [
    ("codebook", CODEBOOK | {"entries_used": 0.8}, ["pass", "pass", "info"], "80 % of 512 used"),
    ("codebook", CODEBOOK | {"entries_used": 0.799}, ["warn", "pass", "info"], "79.9 % used"),
    ("codebook", CODEBOOK | {"perplexity": 256.0}, ["pass", "pass", "info"], "exactly half"),
    ("codebook", CODEBOOK | {"perplexity": 255.9}, ["pass", "warn", "info"], "under half"),
    ("codebook", CODEBOOK | {"entries_used": 0.012, "perplexity": 3.1}, ["warn", "warn", "info"], "collapsed"),
    ("indexer", INDEXER, ["pass", "pass", "pass"], "all hold"),
    ("indexer", INDEXER | {"top1": 0.0929}, ["warn", "pass", "pass"], "9.99 times the majority"),
    ("indexer", INDEXER | {"cross_entropy": 4.93}, ["pass", "warn", "pass"], "0.99 nat under"),
    ("indexer", INDEXER | {"reference_psnr_predicted": 23.05}, ["pass", "pass", "warn"], "1.05 dB under"),
    ("indexer", {}, ["unmeasured"] * 3, "a card without health"),
    ("indexer", INDEXER | {"top1": float("nan")}, ["unmeasured", "pass", "pass"], "no number"),
    ("flow", HEALTH["flow"], ["pass"], "less than without flow"),
    ("flow", {"endpoint_error": 5.2, "endpoint_error_without_flow": 5.2}, ["warn"], "as bad as no flow"),
    ("fusion", FUSION, ["pass", "pass"], "beats bicubic"),
    ("fusion", FUSION | {"ssim": 0.77}, ["pass", "warn"], "SSIM under bicubic"),
    ("untrained", {}, [], "bicubic has nothing to be alive"),
]


@pytest.mark.parametrize(("stage", "health", "states", "reason"), ALIVE)
def test_conditions_of_stages(stage: str, health: dict[str, float], states: list[str], reason: str) -> None:
    assert [check.state for check in checks(stage, health)] == states, reason


def row(z: int, bicubic: float, sr: float, consistency: float = 40.0) -> dict[str, Any]:
    scores = {"bicubic": {"psnr": bicubic, "ssim": 0.7}, "sr": {"psnr": sr, "ssim": 0.8}}
    return {"z": z, "consistency": {"sr": consistency, "bicubic": 40.0}, **scores}


def volume(rows: list[dict[str, Any]], **changes: Any) -> VolumeEvidence:
    lr = {"shape": [32, 16, 16], "voxel_size_nm": [40, 16, 16]}
    scores = {"image": {"bicubic": {}, "sr": {}}, "per_section": rows}
    return replace(VolumeEvidence("v", 4, lr, {}, scores), **changes)


GOOD = [row(z, 30, 32) for z in range(9)]
DISTRUST = [
    (volume(GOOD), None, "nothing speaks against it"),
    (volume(GOOD, sr={"caution": "invented, not for work"}), "Invented, not for work: the network was", "a GAN"),
    (volume([*GOOD, row(9, 30, 29.9)]), "In section 9 bicubic has the better PSNR", "worse than bicubic"),
    (volume([*GOOD, row(9, 25, 28.9)]), "In section 9 PSNR is more than 3 dB under", "far under the others"),
    (volume([*GOOD, row(9, 30, 32, 36)]), "In section 9 consistency with lr is more than 3 dB", "inconsistent"),
    (
        volume(GOOD, scores={"image": None, "consistency": {"sr": {"psnr": 24.0}, "bicubic": {"psnr": 30.0}}}),
        "departs from lr: 24.00 dB",
        "inconsistent as a whole",
    ),
    (volume(GOOD, seams={"window": {"y": 1.2, "x": None}}), "Borders of windows along y show", "a seam"),
    (volume(GOOD, lr={"shape": [32, 1, 1], "missing": {"7": "missing"}}), "empty there: section 7", "no data"),
    (volume(GOOD, lr={"shape": [32, 1, 1], "damaged": {"3": "x", "4": "x"}}), "sections 3–4", "damaged"),
]


@pytest.mark.parametrize(("evidence", "words", "reason"), DISTRUST)
def test_reservations(evidence: VolumeEvidence, words: str | None, reason: str) -> None:
    warnings = [text for state, text in caveats.of_volume(evidence) if state == "warn"]
    assert len(warnings) == (0 if words is None else 1), reason
    assert words is None or words in warnings[0]


def test_verdict_counts_sections_better_in_both() -> None:
    assert caveats.verdict(volume(GOOD)) == (
        "pass",
        "Better than bicubic in PSNR and SSIM on 9 of 9 held-out sections.",
    )
    state, words = caveats.verdict(volume(GOOD, sr={"caution": "invented, not for work"}))
    assert (state, "9 of 9 held-out sections. Invented, not for work: " in words) == ("warn", True)
    assert caveats.verdict(volume([*GOOD, row(9, 30, 29)]))[0] == "warn"
    assert caveats.verdict(volume(GOOD, scores={"image": None}))[0] == "unmeasured"


FURTHER = {"psnr": 30.0, "ssim": 0.8, "ms_ssim": 0.95, "lpips": 0.25, "frc_nm": 22.9, "frc_half_bit_nm": 24.28}
STATED = {"frc": {"limit_nm": 8.0, "middle_yx": [60, 72]}, "lpips": {"network": "alex", "middle_yx": [60, 72]}}
MEANS = [
    ({}, {"FRC 1/7, nm": "22.9", "FRC half-bit, nm": "24.3", "MS-SSIM": "0.9500", "LPIPS": "0.2500"}, "measured"),
    ({"frc_nm": None, "frc_at_limit": ["frc_nm"]}, {"FRC 1/7, nm": "≤ 8.0", "FRC half-bit, nm": "24.3"}, "never falls"),
    ({"frc_nm": None}, {"FRC 1/7, nm": "–"}, "below from the first ring on"),
]


@pytest.mark.parametrize(("change", "cells", "reason"), MEANS)
def test_means_of_further_figures(change: dict[str, Any], cells: dict[str, str], reason: str) -> None:
    """A resolution that the voxels limit is the best that can be, and no missing figure."""
    image = {"bicubic": FURTHER, "sr": FURTHER | {"frc_at_limit": []} | change}
    table = tables.score_table(volume([], scores={"image": image, "settings": STATED}))
    found = dict(zip(table.columns, table.rows[1], strict=True))
    assert {title: found[title] for title in cells} == cells, reason


def test_columns_that_say_nothing_are_left_out() -> None:
    table = Table("", ("image", "LPIPS", "SSIM"), [("bicubic", "–", "0.8"), ("sr", "–", "–")])
    assert tables.said(table) == Table("", ["image", "SSIM"], [["bicubic", "0.8"], ["sr", "–"]])


def test_gain_is_positive_where_better() -> None:
    rows = [row(z, 30, 32) for z in (4,)]
    rows[0]["bicubic"] |= {"frc_nm": 22.9, "ms_ssim": 0.9}
    rows[0]["sr"] |= {"frc_nm": 25.0, "ms_ssim": 0.95}
    table = tables.section_table(volume(rows))
    cells = [str(cell) for cell in table.rows[0]]
    assert cells[table.columns.index("sr FRC 1/7") + 1] == "−2.1"
    assert cells[table.columns.index("sr MS-SSIM") + 1] == "+0.0500"
    assert table.states == [""], "marked for PSNR and SSIM alone"


def test_long_tables_keep_marked_rows() -> None:
    rows = [row(z, 30, 32) for z in range(100)] + [row(100, 30, 29)]
    short = tables.shown(tables.section_table(volume(rows)))
    assert len(short.rows) == tables.LONGEST
    assert short.rows[-1][0] == 100
    assert short.states[-1] == "warn"


# -- charts -----------------------------------------------------------------------------------------------------------


def test_charts_show_what_was_measured() -> None:
    with styled():
        whole, lr_only = (
            score_chart(volume(GOOD)),
            score_chart(volume([{"z": 1, "consistency": GOOD[0]["consistency"]}])),
        )
        assert score_chart(volume([])) is None
        assert curve_chart([StageEvidence("flow", {})]) is None
        use = use_chart(volume([], ranges={"test": [[25, 32]]}, hr={"damaged": {"3": "black"}}))
    assert whole is not None
    assert lr_only is not None
    assert [axes.get_title(loc="left") for axes in whole.axes] == ["PSNR, dB", "SSIM", "consistency with lr, dB"]
    assert [axes.get_title(loc="left") for axes in lr_only.axes] == ["consistency with lr, dB"]
    assert use.axes[0].get_legend_handles_labels()[1] == ["test", "damaged"]


def test_curves_start_with_what_tells_most_and_drop_copies() -> None:
    curve = [{"step": s, "image": 0.2 / s, "loss": 0.2 / s, "quantisation": 0.1} for s in (1, 2, 3)]
    figures = [{"step": 3, "entries": 512, "perplexity": 300.0, "psnr": 24.0, "score": 24.0}]
    stage = StageEvidence("codebook", {"scores": {"step": 3}}, {"training": curve, "validation": figures})
    with styled():
        figure = curve_chart([stage])
    assert figure is not None
    left, *right = figure.axes
    assert left.get_legend_handles_labels()[1] == ["loss", "quantisation"]
    assert [axes.get_ylabel() for axes in right] == ["psnr", "perplexity"]


def test_stages_come_in_the_order_of_the_model(tmp_path: Path) -> None:
    """Settings are sorted by name; the model says which stage comes first."""
    finished = Finished(tmp_path, soft_tissue((4, 16, 16)))
    finished.write_run()
    stages = dict(sorted(finished.report_settings()["trainings"]["tissue"].items()))
    found = [stage.name for stage in evidence.training("tissue", stages).stages]
    assert found == ["flow", "codebook", "indexer", "fusion"]


# -- words and tables -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "–"), (0.84, "0.8 s"), (41, "41 s"), (125, "2 min 5 s"), (3599.7, "1 h 0 min"), (11220, "3 h 7 min")],
)
def test_durations(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("sections", "words"), [([], ""), ([3], "3"), ([9, 7, 8, 3], "3, 7–9"), ([1, 1, 2], "1–2"), ([0, 2], "0, 2")]
)
def test_spans(sections: list[int], words: str) -> None:
    assert spans(sections) == words


def test_tables_as_text_keep_their_columns() -> None:
    assert tsv(Table("", ("a", "b"), [("x\ty\nz", None), (1, 2.5)])) == "a\tb\nx y z\t\n1\t2.5\n"


def test_the_speed_of_jobs_is_in_the_report(tmp_path: Path) -> None:
    finished = Finished(tmp_path, soft_tissue((4, 16, 16)))
    found = throughput(finished.folder / "sr")
    assert found is None, "before any job"
    (finished.folder / "sr").mkdir(parents=True, exist_ok=True)
    for number in range(2):
        finished.json(f"tissue/sr/jobs/{number + 1}-of-2.stats.json", job_stats(number))
    finished.json("tissue/sr/jobs/3-of-3.stats.json", job_stats(7))
    finished.json("tissue/sr/proof.json", {"marks": [f"jobs/{number + 1}-of-2.json" for number in range(2)]})
    found = throughput(finished.folder / "sr")
    assert found is not None
    assert (found.jobs, found.voxels, found.seconds, found.peak_mb) == (2, 8_000_000, 20.0, 901.0), "not the third"
    assert (found.slowest, found.halved, found.devices) == (399_999.0, 1, ("cpu",))
    assert found.shares == pytest.approx({"network": 0.9, "blend": 0.025, "stall": 0.075, "read": 0.02, "write": 0.15})


def test_times_are_summed_by_rule(tmp_path: Path) -> None:
    """Seconds of all jobs, the longest, the highest memory; what Snakemake did not measure is None."""
    Finished(tmp_path, soft_tissue((4, 16, 16))).benchmarks()
    rules = {cost.rule: cost for cost in evidence.rule_costs(tmp_path / "benchmarks")}
    train = rules["train"]
    assert (train.runs, train.seconds, train.longest, train.peak_mb) == (2, 430.0, 300.0, 2150.5)
    assert rules["score"].peak_mb is None


@pytest.fixture
def current(tmp_path: Path) -> Callable[[str], bool]:
    """Whether a table counts, of a volume that two jobs made; hr was segmented by three jobs and then by two."""
    for folder, jobs in (("sr", 2), ("segmentations/hr/affinities", 3), ("segmentations/hr/fragments", 2)):
        proof = tmp_path / "tissue" / folder / "proof.json"
        proof.parent.mkdir(parents=True)
        proof.write_text(json.dumps({"marks": [f"jobs/1-of-{jobs}.json"]}))
    volume = {"allocate": str(tmp_path / "tissue" / "sr" / "allocate.json")}
    config = {"volumes": {"tissue": {"segmentations": {"hr": {}}}, "coarse": {}}, "trainings": {"membranes": {}}}
    settings = {"config": config, "volumes": {"tissue": volume}, "benchmarks": str(tmp_path / "benchmarks")}
    wanted = evidence.current(settings)
    return lambda table: wanted(tmp_path / "benchmarks" / f"{table}.tsv")


@pytest.mark.parametrize(
    ("table", "counted"),
    [
        *(("ingest/tissue.hr", True), ("ingest/gone.hr", False), ("train/membranes.affinity", True)),
        *(("score_segments/tissue", True), ("enlarge/tissue.x4", True), ("superresolve/coarse.1-of-1", False)),
        *(("superresolve/tissue.1-of-2", True), ("superresolve/tissue.1-of-12", False)),
        *(("affinities/tissue.hr.1-of-3", True), ("affinities/tissue.hr.1-of-2", False)),
        *(("fragments/tissue.hr.1-of-2", True), ("fragments/tissue.hr.1-of-3", False)),
    ],
)
def test_tables_of_former_jobs_and_names_do_not_count(
    current: Callable[[str], bool], table: str, counted: bool
) -> None:
    assert current(table) is counted


def test_tables_of_former_segmentations_do_not_count(current: Callable[[str], bool]) -> None:
    """Of every rule that writes one for each segmentation."""
    text = (ROOT / "workflow" / "rules" / "segment.smk").read_text()
    rules = re.findall(r"benchmarks/(\w+)/{{volume}}\.{{segmentation}}", text)
    assert len(rules) == 10
    for rule in rules:
        job = {"affinities": ".1-of-3", "fragments": ".1-of-2"}.get(rule, "")
        assert current(f"{rule}/tissue.hr{job}"), rule
        assert not current(f"{rule}/tissue.gone{job}"), rule


# -- crops ------------------------------------------------------------------------------------------------------------


@dataclass
class Endless:
    """An array that could never be held: what is read of it is counted, and zero."""

    shape: tuple[int, int, int]
    most: int = 0

    def __getitem__(self, box: tuple[int | slice, ...]) -> Any:
        sides = [1 if isinstance(side, int) else side.stop - side.start for side in box]
        self.most = max(self.most, int(np.prod(sides)))
        return _Read(np.zeros(sides[1:], np.uint8))


@dataclass
class _Read:
    voxels: np.ndarray

    def read(self) -> _Read:
        return self

    def result(self) -> np.ndarray:
        return self.voxels


def test_crops_are_bounded_whatever_the_volume() -> None:
    from emsr.plan import Plan

    shape = (5000, 400_000, 300_000)
    arrays = [Endless((5000, 100_000, 75_000)), Endless(shape), Endless(shape)]
    images = Images(arrays[0], arrays[1], arrays[2], 4, "bicubic")
    sr = {"shape": list(shape), "voxel_size_nm": [40.0, 4.0, 4.0]}
    plan = Plan(arrays[0].shape, 4, 64, 16, (32, 1024, 1024), ())
    scores = {"image": {"sr": {}}, "per_section": [row(z, 30, 32) for z in range(3000, 3003)]}
    shown = crops.section_views(images, scores, sr)
    planes = crops.cross_views(images, sr, plan, 1, ({}, {}))
    assert max(array.most for array in arrays) <= 520**2
    assert all(image.shape == (512, 512) for one in shown for image in one.images.values())
    assert all(image.shape == (40, 512) for plane in planes for image in plane.images.values())


def test_crops_are_of_the_same_place(tmp_path: Path) -> None:
    """sr equal to hr: equal crops; lr repeated is what bicubic averages to."""
    hr = soft_tissue((8, 64, 72))
    finished = Finished(tmp_path, hr, sr=hr.copy(), cards={"lr": {"missing": {"3": "missing"}}}).write()
    finished.write_run(4)
    score(finished.score_settings(), finished.folder / "scores.json")
    found = evidence.gather(finished.report_settings()).volumes[0]
    one = found.sections[0]
    np.testing.assert_array_equal(one.images["sr"], one.images["hr"])
    np.testing.assert_array_equal(one.images["sr"], hr[one.z])
    assert np.abs(one.images["lr"].astype(float) - one.images["bicubic"]).mean() < 20
    xz, yz = found.crosses
    np.testing.assert_array_equal(np.delete(xz.images["sr"], 3, 0), np.delete(hr[:, 32], 3, 0))
    np.testing.assert_array_equal(np.delete(yz.images["hr"], 3, 0), np.delete(hr[:, :, 36], 3, 0))
    assert (xz.job_borders[1], yz.job_borders[1], xz.shard_borders[1]) == ([64], [32], [32, 64])
    assert xz.absent == {3}


CHOICE: list[tuple[list[dict[str, Any]], dict[int, str]]] = [
    ([row(1, 30, 31), row(2, 30, 33), row(3, 30, 32)], {3: "the median gain", 1: "the smallest", 2: "the largest"}),
    ([row(1, 30, 31)], {1: "the median gain"}),
    ([], {}),
]


@pytest.mark.parametrize(("rows", "expected"), CHOICE)
def test_sections_shown_are_median_worst_and_best(rows: list[dict[str, Any]], expected: dict[int, str]) -> None:
    found = dict(crops.chosen({"image": {"sr": {}}, "per_section": rows}))
    assert list(found) == list(expected)
    assert all(found[z].startswith(words) for z, words in expected.items())


# -- the page ---------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Tags that are never closed or never opened, addresses, and text of a page."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        found = dict(attrs)
        self.addresses += [str(found[name]) for name in ("src", "href") if name in found]
        self.ids += [str(found["id"])] if "id" in found else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.text += data


def made(finished: Finished, change: Callable[[dict[str, Any]], None] = lambda settings: None) -> tuple[Path, Page]:
    finished.write()
    finished.write_run()
    score(finished.score_settings(), finished.folder / "scores.json")
    settings = finished.report_settings()
    change(settings)
    out = finished.root / "report.html"
    report(settings, out)
    return out, Page(out.read_text(encoding="utf-8"))


EVIL = "<script>alert('x')</script>&"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Page]:
    cards = {"lr": {"damaged": {"1": "black"}}, "sr": {"seams": {"window": {"y": 1.01, "x": 1.0}}}}

    def rename(settings: dict[str, Any]) -> None:
        settings["title"] = EVIL
        settings["config"]["volumes"]["tissue"]["hr"] = {"path": EVIL}

    return made(Finished(tmp_path_factory.mktemp("results"), soft_tissue((8, 64, 64)), cards=cards), rename)


def test_page_needs_no_other_file(whole: tuple[Path, Page]) -> None:
    page = whole[1]
    assert page.open == []
    assert page.addresses
    assert all(address.startswith(("data:image/", "#")) for address in page.addresses)
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert "url(" not in whole[0].read_text()
    links = {address[1:] for address in page.addresses if address.startswith("#")}
    assert links == set(page.ids)
    assert len(page.ids) == len(set(page.ids))


SAID = [
    ("Better than bicubic in PSNR and SSIM on 4 of 4 held-out sections", "the verdict"),
    ("498 of 512 (97.3%)", "health of the codebook"),
    ("8 of 8 conditions of its stages hold", "health of the training"),
    ("made from own data alone and in no score: section 1", "damage is named"),
    ("nothing has been segmented", "what is unmeasured is said"),
    ("2.2 GB", "memory of training"),
    ("2222222222222222", "hash of the indexer's weights"),
    ("scikit-image", "a version"),
    ("validation:", "the resolved configuration"),
    ("1.010", "the seam score"),
    ("MS-SSIM is of 3 scales", "how many scales 64 voxels hold"),
    ("No LPIPS: no weights are named (score.lpips) (bicubic and sr).", "why a figure is missing"),
    ("agrees with hr down to (FRC), nm", "the finest period in the headline"),
]


@pytest.mark.parametrize(("words", "reason"), SAID)
def test_page_says(whole: tuple[Path, Page], words: str, reason: str) -> None:
    assert words in whole[1].text, reason


def test_files_beside_the_page(whole: tuple[Path, Page]) -> None:
    folder = whole[0].with_suffix("")
    for name in REPORT_FILES["volumes"]:
        assert (folder / "volumes" / "tissue" / name).stat().st_size > 0
    for name in REPORT_FILES["trainings"]:
        assert (folder / "trainings" / "tissue" / name).stat().st_size > 0
    lines = (folder / "headline.tsv").read_text().splitlines()
    assert len(lines) == 3
    assert len((folder / "rules.tsv").read_text().splitlines()) == 5
    scores = json.loads((folder.parent / "tissue" / "scores.json").read_text())
    assert f"{scores['image']['sr']['psnr']:.2f}" in lines[2]
    Image.open(folder / "volumes" / "tissue" / "sections.png").verify()


def test_names_are_escaped(whole: tuple[Path, Page]) -> None:
    assert "script" not in whole[1].tags
    assert whole[1].text.count(EVIL) >= 3


def test_volume_without_truth(tmp_path: Path) -> None:
    """No training, no score, and it is said; the picture of what the network changed stands for the errors."""
    _, page = made(Finished(tmp_path, soft_tissue((8, 32, 32)), truth=False))
    assert "There are no scores for this volume: the volume has only low resolution" in page.text
    assert "not whether rightly" in page.text
    assert "PSNR and SSIM on" not in page.text
    assert "nan" not in re.findall(r"\w+", page.text.lower())


def test_all_test_sections_damaged_still_makes_a_page(tmp_path: Path) -> None:
    damaged = {str(z): "black" for z in range(8)}
    _, page = made(Finished(tmp_path, soft_tissue((8, 32, 32)), cards={"lr": {"damaged": damaged}}))
    assert "No section could be shown" in page.text


def test_missing_input_is_one_line(tmp_path: Path) -> None:
    finished = Finished(tmp_path, soft_tissue((8, 32, 32))).write()
    with pytest.raises(FileNotFoundError, match=r"scores.json does not exist: run the step that makes it"):
        report(finished.report_settings(), tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_noise_of_a_coarse_image_is_said_in_words() -> None:
    made = {"kernel": "bicubic", "scale": 8, "noise": {"dose": 50, "read": None, "seed": 1}}
    assert volumes.listed(made) == "kernel bicubic, noise (dose 50, seed 1), scale 8"
