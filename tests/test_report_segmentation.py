"""Segmentations in the report: what super-resolution is worth comes first, and all that it stands on is said."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from emsr.config import parse
from emsr.report import page, segmentation, worth
from emsr.report.blocks import Paragraph, Table
from emsr.report.evidence import SegmentEvidence
from emsr.report.segment_terms import terms
from emsr.report.style import styled
from emsr.report.volumes import Drawings, draw
from emsr.report.worth_chart import BOUNDS, Line, worth_chart
from emsr.settings import Settings
from emsr.steps import segment_worth
from emsr.steps.evidence import gather
from emsr.steps.exhibits import write_exhibits
from emsr.steps.score import REPORT_FILES, report
from emsr.steps.segment_evidence import ssim
from segment_report_project import Change, Project
from segment_scored import Scored
from test_report import Page


@pytest.fixture(scope="module", autouse=True)
def few_resamples() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment_worth, "DRAWS", segment_worth.Draws(40))
        yield


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def segments(project: Project) -> SegmentEvidence:
    return project.segments()


# -- the page ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(project: Project) -> tuple[Path, Page]:
    out = project.finished.root / "report.html"
    report(project.settings(), out)
    return out, Page(out.read_text(encoding="utf-8"))


def test_page_opens_with_worth_and_needs_no_other_file(whole: tuple[Path, Page]) -> None:
    text, found = whole[0].read_text(), whole[1]
    assert text.index('<img src="data:image/svg+xml') < text.index('class="headline')
    assert text[text.index("<h2>") :].startswith("<h2>What super-resolution is worth</h2>")
    assert found.open == []
    assert all(address.startswith(("data:image/", "#")) for address in found.addresses)
    assert {address[1:] for address in found.addresses if address.startswith("#")} == set(found.ids)
    assert "nothing has been segmented" not in found.text


SAID = [
    ("Segmentation of tissue", "a chapter of its own"),
    ("bicubic, sr, hr: segmented by the network of training membranes, trained on hr of tissue.", "one for all three"),
    ("own (the bicubic image again): segmented by the network of training membranes_of_bicubic", "another network"),
    ("trained on bicubic_x4 of tissue. It is the fairer rival", "the fairer rival is named"),
    ("95% of 40 resamples of 9 sub-volumes (SSIM: of 7 sections), sections 3–9", "what intervals are over"),
    ("Border tolerance: none", "no tolerance is said, too"),
    ("Ignored labels: 0.", "background"),
    ("Organelles with ids of their own are left as they are", "none are absorbed"),
    ("Thresholds of bicubic, own, sr, hr: stated in the configuration", "who chose them"),
    ("validation sections 0–1 choose its threshold", "membrane's threshold"),
    (
        "Network other (training membranes_of_bicubic, trained on bicubic_x4 of tissue) made the affinities of own",
        "which network",
    ),
    ("segments of tissue, sr", "hashes of what was scored"),
]


@pytest.mark.parametrize(("words", "reason"), SAID)
def test_page_says(whole: tuple[Path, Page], words: str, reason: str) -> None:
    assert words in whole[1].text, reason


def test_files_beside_the_page_are_outputs_of_the_rule(whole: tuple[Path, Page], project: Project) -> None:
    folder = whole[0].with_suffix("")
    rule = (Path(__file__).parents[1] / "workflow" / "rules" / "score.smk").read_text()
    captions = Path(__file__).parents[1] / "workflow" / "report"
    for place, names in ((folder / "volumes" / "tissue", "segmented"), (folder, "worth")):
        for name in REPORT_FILES[names]:
            assert (place / name).stat().st_size > 0
            assert f'"{name}"' in rule
            assert (captions / name).with_suffix(".rst").is_file()
    with (folder / "volumes" / "tissue" / "mistakes.tsv").open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    listed = [*project.scores["worst"]["splits"], *project.scores["worst"]["merges"]]
    assert [(row["kind"], float(row["bits"]), int(row["x"])) for row in rows] == [
        (one["kind"], one["bits"], one["nearest"][2]) for one in listed
    ]
    assert len((folder / "worth.tsv").read_text().splitlines()) == 1 + 3 * 2 + 1


def test_every_table_says_what_it_stands_on(whole: tuple[Path, Page], segments: SegmentEvidence) -> None:
    said = terms(segments.scores)
    for part in ("border tolerance", "labels not counted: 0", "organelles", "thresholds of segments:", "of membrane:"):
        assert part in said
    chapter = segmentation.chapter("tissue", segments, {})
    blocks = [block for one in (chapter, *chapter.parts) for block in one.blocks if isinstance(block, Table)]
    assert len(blocks) == 8
    assert all(said in table.caption for table in blocks)
    for name in ("volumes/tissue/segmentation", "volumes/tissue/mistakes", "volumes/tissue/membrane", "worth"):
        text = (whole[0].with_suffix("") / f"{name}.tsv").read_text(encoding="utf-8")
        rows = list(csv.DictReader(text.splitlines(), delimiter="\t"))
        assert rows, name
        assert all(row["terms"] == said or row.get("metric") == "ssim" for row in rows), name


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"border_nm": 0.0}, "no border tolerance"),
        ({"border_nm": 8.0, "in_plane": True}, "border tolerance 8 nm in the section"),
        ({"organelles": {"max_voxels": 25, "absorbed": 3}}, "up to 25 voxels within another (organelles) are part of"),
        ({"validation": None}, "of membrane: the scored data itself"),
        ({"validation": [[3, 5]]}, "of membrane: validation sections 3–4"),
    ],
)
def test_terms(segments: SegmentEvidence, change: dict[str, Any], words: str) -> None:
    assert words in terms({**segments.scores, "settings": {**segments.scores["settings"], **change}})


def test_without_segmentations_nothing_is_said(project: Project, tmp_path: Path) -> None:
    settings = project.settings()
    settings["volumes"]["tissue"]["segmentation"] = None
    run = gather(settings)
    assert run.volumes[0].segments is None
    run = replace(run, volumes=[replace(run.volumes[0], sections=(), crosses=())])
    titles = [chapter.title for chapter in page.chapters(run, {"tissue": Drawings()})]
    assert titles[:4] == ["Headline figures", "Where not to trust it", "Volume tissue", "Training tissue"]
    write_exhibits(run, {"tissue": Drawings()}, tmp_path)
    written = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {name for kind in ("volumes", "trainings", "run") for name in REPORT_FILES[kind]}


def only_hr(scored: Scored) -> None:
    scored.settings["segmentations"] = {"hr": scored.settings["segmentations"]["hr"]}


def test_a_volume_that_is_not_super_resolved_shows_its_segmentations(tmp_path: Path) -> None:
    project = Project(tmp_path, only_hr)
    settings = project.settings()
    paths = settings["volumes"].pop("tissue")
    settings["segmented"] = {"tissue": {key: paths[key] for key in ("hr", "segmentation")}}
    out = tmp_path / "report.html"
    report(settings, out)
    text, row = Page(out.read_text(encoding="utf-8")).text, project.scores["segmentation"]["hr"]
    headline = text.split("tissue, segmented and not super-resolved")[1].split("Where not to trust it")[0]
    assert f"{row['voi']:.4f}" in headline
    for words in ("no segmentation is named bicubic or sr", "Segmentation of tissue", "Not listed: no segmentation"):
        assert words in text
    written = {path.name for path in (tmp_path / "report" / "volumes" / "tissue").iterdir()}
    assert written == set(REPORT_FILES["segmented"])


@pytest.mark.parametrize(("weights", "expected"), [(None, ["only"]), ("tissue", [])])
def test_settings_name_volumes_that_are_only_segmented(weights: str | None, expected: list[str]) -> None:
    values = yaml.safe_load((Path(__file__).parents[1] / "config.yaml").read_text())
    trained = values["trainings"]["tissue"]
    model = {"model": {"name": "affinity", "preset": "small", "options": {}}, "stages": {"affinity": {}}}
    data = [{**trained["data"][0], "image": "hr"}]
    values["trainings"]["membranes"] = {**trained, **model, "scale": 1, "sections": 1, "section_step": 1, "data": data}
    hr = {"hr": {"image": "hr", "weights": "membranes", "threshold": 0.5}}
    values["volumes"]["only"] = {**values["volumes"]["tissue"], "weights": weights, "segmentations": hr}
    settings = Settings(parse(values))
    found = json.loads(settings.report())
    assert list(found["segmented"]) == expected
    assert ("only" in found["volumes"]) == (weights is not None)
    assert f"{settings.root}/only/segmentation.json" in settings.evidence


def test_names_are_escaped(project: Project) -> None:
    evil = "<script>alert('x')</script>&$x_1$"
    run = project.run()
    volume = run.volumes[0]
    assert volume.segments is not None
    scores = json.loads(json.dumps(volume.segments.scores).replace('"own"', json.dumps(evil)))
    bare = replace(volume.segments, scores=scores, splits=(), merges=(), invented=(), lost=())
    other = replace(volume, name=evil, segments=bare)
    text = page.render(replace(run, volumes=[other]), {evil: draw(other)})
    found = Page(text)
    assert "script" not in found.tags
    assert found.text.count(evil) >= 6


def only_sr(scored: Scored) -> None:
    scored.settings["segmentations"] = {"sr": scored.settings["segmentations"]["sr"]}


def only_bicubic(scored: Scored) -> None:
    scored.settings["segmentations"] = {"bicubic": scored.settings["segmentations"]["bicubic"]}


LACKING = [
    (only_sr, "no segmentation is named bicubic or hr", "Not measured: no segmentation is named hr"),
    (only_bicubic, "no segmentation is named sr or hr", "Not listed: no segmentation is named sr"),
]


@pytest.mark.parametrize(("change", "reason", "places"), LACKING)
def test_what_was_not_compared_is_said_and_does_not_open_the_page(
    change: Change, reason: str, places: str, tmp_path: Path
) -> None:
    volume = Project(tmp_path, change).run().volumes[0]
    assert worth.opening([volume]) == []
    assert volume.segments is not None
    assert any(reason in words for _, words in worth.doubts(volume.segments))
    found = segmentation.chapter("tissue", volume.segments, {})
    said = [one.text for part in (found, *found.parts) for one in part.blocks if isinstance(one, Paragraph)]
    assert any(reason in text for text in said)
    assert any(places in text for text in said)


def test_segments_made_again_are_refused(tmp_path: Path) -> None:
    project = Project(tmp_path)
    scores = json.loads(project.path.read_text())
    scores["settings"]["sha256"]["sr"] = "0" * 64
    project.path.write_text(json.dumps(scores))
    with pytest.raises(ValueError, match=r"segments.json is not what .*segmentation.json was made from: run score-seg"):
        project.run()


# -- shares -----------------------------------------------------------------------------------------------------------


def share(value: float | None, low: float | None = None, high: float | None = None, why: str = "") -> dict[str, Any]:
    figures = {"bicubic": 2.0, "sr": 1.5, "hr": 1.0, "sub_volumes": 9, "undefined": 0.0, "higher_is_better": False}
    return {"share": value, "low": low, "high": high, "reason": why or None, **figures}


def test_bars_are_as_long_as_shares() -> None:
    found = [share(0.5, 0.25, 0.75), share(None, why="there is no gap"), share(-3.0, -8.0, 0.5)]
    shown = [Line(name, "bicubic", one) for name, one in zip(("voi", "arand", "membrane_f1"), found, strict=True)]
    with styled():
        axes = worth_chart({"tissue": shown}).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.5, -3.0]
    ends = [list(line.get_xdata()) for line in axes.lines]
    assert [0.25, 0.75] in ends
    assert axes.get_xlim()[0] == pytest.approx(BOUNDS[0] - 0.06)
    assert [axes.get_xlim()[0]] in ends, "what is longer than the scale has an arrow at its end"
    words = {text.get_text() for text in axes.texts}
    assert {"50% (25% to 75%)", "undefined: there is no gap", "−300% (−800% to 50%)", "2.000 → 1.500 → 1.000"} <= words


def test_lines_are_of_every_metric_and_rival(segments: SegmentEvidence) -> None:
    found = worth.lines(segments)
    assert [(line.metric, line.rival) for line in found] == [
        *((metric, rival) for metric in ("voi", "arand", "membrane_f1") for rival in ("bicubic", "own")),
        ("ssim", "bicubic"),
    ]
    assert found[1].found == segments.scores["worth_against"]["own"]["voi"]
    table = worth.table(segments)
    assert [row[2] for row in table.rows] == [line.share for line in found]


def test_share_of_ssim_by_hand() -> None:
    """Of two sections a resample has 0, 1 or 2 of the first, so the interval ends at the shares of single sections."""
    rows = [{"z": z, "bicubic": {"ssim": b}, "sr": {"ssim": s}} for z, b, s in ((0, 0.6, 0.8), (1, 0.8, 0.85))]
    settings = {"draws": {"resamples": 400, "confidence": 0.95}, "seed": 0}
    found = ssim({"per_section": [*rows, {"z": 2, "consistency": {}}]}, settings)
    assert found is not None
    assert (found["share"], found["low"], found["high"]) == pytest.approx((0.125 / 0.3, 0.25, 0.5))
    assert (found["bicubic"], found["sr"], found["hr"], found["sub_volumes"]) == pytest.approx((0.7, 0.825, 1, 2))
    assert ssim({"per_section": [{"z": 2, "consistency": {}}]}, settings) is None


DOUBTS = [
    (share(0.5, 0.2, 0.8), [], "nothing is wrong"),
    (share(-0.5, -1.0, -0.1), [("warn", "bicubic is better in variation of information")], "worse than bicubic"),
    (share(0.1, -0.2, 0.4), [("warn", "perhaps by chance: its share may be −20% to 40%")], "the interval holds 0"),
    (share(0.5, why="one sub-volume"), [("unmeasured", "has no interval: one sub-volume")], "not known how sure"),
    (share(None, why="no gap to close"), [("unmeasured", "No share of the gap from bicubic")], "undefined"),
]


@pytest.mark.parametrize(("found", "expected", "reason"), DOUBTS)
def test_doubts(found: dict[str, Any], expected: list[tuple[str, str]], reason: str) -> None:
    good = share(0.5, 0.4, 0.6)
    scores = {"worth": {"voi": found, "arand": good, "membrane_f1": good}, "worth_against": {}}
    points = worth.doubts(SegmentEvidence({**scores, "invented": [], "invented_lost_reason": None}))
    assert [state for state, _ in points] == [state for state, _ in expected], reason
    assert all(words in point for (_, words), (_, point) in zip(expected, points, strict=True))


# -- tables and words -------------------------------------------------------------------------------------------------


def test_tables_have_every_segmentation_and_its_figures(segments: SegmentEvidence) -> None:
    scores = segments.scores
    for table in (segmentation.object_table, segmentation.section_table, segmentation.membrane_table):
        assert [row[0] for row in table(scores).rows] == ["bicubic", "own", "sr", "hr"]
    row = segmentation.object_table(scores).rows[2]
    of = scores["segmentation"]["sr"]
    assert row[4:9] == tuple(f"{of[key]:.4f}" for key in ("voi_split", "voi_merge", "voi", "arand", "precision"))
    assert row[1:4] == ("sr", "0.5", "config")


STATED = [
    ({"border_nm": 4.0}, "Border tolerance: 4 nm. Voxels so near to a border of labels, in the own section", "border"),
    ({"border_nm": 4.0, "in_plane": False}, "near to a border of labels, in all directions", "also along z"),
    ({"in_plane": False}, "1 − mean of the affinities along z, y and x", "membrane of all axes"),
    ({"organelles": {"max_voxels": 50, "absorbed": 3}}, "at most 50 voxels that another one encloses", "organelles"),
    ({"left_out": {"5": "black"}}, "In no score: section 5, damaged or missing", "damage"),
    ({"validation": None}, "nothing but the scored data chose its threshold", "no validation"),
]


@pytest.mark.parametrize(("change", "words", "reason"), STATED)
def test_stated(segments: SegmentEvidence, change: dict[str, Any], words: str, reason: str) -> None:
    def said(scores: Any) -> str:
        return " ".join(text for _, text in segmentation.stated(scores))

    scores = segments.scores
    assert words in said({**scores, "settings": {**scores["settings"], **change}}), reason
    assert words not in said(scores), reason
