"""A truth of single sections, from config to report: what it cannot say is said, and nothing fails for it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage.metrics import variation_of_information

from emsr.commands.check import check_config
from emsr.config import parse
from emsr.durable import read_json
from emsr.metrics.segmentation import Contingency, summary
from emsr.report import caveats, segmentation
from emsr.report.evidence import StageEvidence, TrainingEvidence
from emsr.report.health import checks
from emsr.report.segment_terms import terms
from emsr.settings import Settings
from emsr.steps import labelled
from emsr.steps.data import ingest
from emsr.steps.segment_scores import score_segments
from emsr.steps.train import train
from image_files import folder
from segment_project import Chain
from test_check_segment import changed
from test_segment_workflow import STAGE, config, write
from test_stores_membranes import lines

SHAPE = (9, 70, 52)
SIZE = [40.0, 4.0, 4.0]
LABELS = {"path": "membranes", "voxel_size_nm": SIZE, "membranes": 128}


# -- config ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    folder(tmp_path / "membranes", lines((14, 97, 90)))
    return tmp_path


WRONG: list[tuple[str, Any, str]] = [
    ("labels.membranes", 0, "labels.membranes is 0: Input should be greater than or equal to 1"),
    ("labels.membranes", 256, "labels.membranes is 256: Input should be less than or equal to 255"),
    ("labels.membranes", "128", "labels.membranes is '128': Input should be a valid integer"),
    ("labels.membranes", True, "labels.membranes is True: Input should be a valid integer"),
    ("labels.link", True, "labels.link: objects between membranes are found, which makes a copy; leave link out"),
    ("labels.membrane", 128, "membranes"),
    ("hr.membranes", 128, "hr.membranes: only labels are made from membranes; leave it out"),
    ("mask", LABELS, "mask.membranes: only labels are made from membranes; leave it out"),
    ("tissue", {"shape": [14, 97, 90], "voxel_size_nm": SIZE, "seed": 1}, "tissue brings its own hr and labels"),
    ("labels.path", "cube.h5", "float64, membranes are uint8: convert it, or leave membranes out for ids"),
    ("labels.membranes", None, "is uint8, grey levels and not ids: state membranes: 128 if"),
]


def stated(where: str | None = None, value: Any = None) -> dict[str, Any]:
    values = changed("volumes.cube.labels", dict(LABELS))
    part: Any = values["volumes"]["cube"]
    *parents, last = (where or "labels.membranes").split(".")
    for name in parents:
        part = part[name]
    part[last] = value if where else LABELS["membranes"]
    return values


@pytest.mark.parametrize(("where", "value", "words"), WRONG, ids=[f"{row[0]}={row[1]}"[:40] for row in WRONG])
def test_what_cannot_be_is_refused_in_one_line(project: Path, where: str, value: Any, words: str) -> None:
    values = stated(where, value)
    if value == "cube.h5":
        import h5py

        values["volumes"]["cube"]["labels"]["dataset"] = "wrong"
        with h5py.File("cube.h5", "r+") as file:
            file["wrong"] = np.zeros((14, 97, 90))
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        check_config(parse(values))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_scores_across_sections_are_refused(project: Path) -> None:
    values = stated()
    values["segment"]["scores"]["in_plane"] = False
    with pytest.raises(ValueError, match=r"every voxel would lie at a border along z; set segment.scores.in_plane to"):
        parse(values)
    values["volumes"]["cube"]["labels"] = {"path": "cube.h5", "dataset": "volumes/labels"}
    parse(values)


def test_what_fits_passes_and_others_keep_their_slice(project: Path) -> None:
    check_config(parse(stated()))
    with_membranes = json.loads(Settings(parse(stated())).ingest("cube", "labels"))
    assert with_membranes["source"]["membranes"] == 128
    for image in ("hr", "labels"):
        assert "membranes" not in json.loads(Settings(parse(config())).ingest("cube", image))["source"]


# -- the steps ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Images, labels of which one section lacks, a network of a few steps, segments and their scores."""
    root = tmp_path_factory.mktemp("single")
    drawn = lines(SHAPE)
    folder(root / "membranes", drawn)
    (root / "membranes" / "s_01.png").unlink()
    folder(root / "hr", 255 - drawn // 2)
    layout = {"shard": [4, 64, 64], "chunk": [4, 32, 32], "region": None}
    for image, name in (("hr", "hr"), ("labels", "membranes")):
        source = {"path": str(root / name), "dataset": None, "voxel_size_nm": SIZE}
        source |= {"membranes": 128} if image == "labels" else {}
        ingest({"image": image, "source": source, **layout}, root / f"{image}.json")
    settings = {
        **{"stage": "affinity", "overrides": STAGE, "scale": 1, "sections": 1, "section_step": 1, "window": 32},
        **{"model": {"name": "affinity", "preset": "small", "options": {"widths": [2, 2, 3]}}, "seed": 0},
        **{"threads": 1, "device": "cpu", "cards": {}, "init_from": None, "perceptual": None, "spynet": None},
        "data": [{"volume": "v", "image": str(root / "hr.json"), "labels": str(root / "labels.json")}],
    }
    settings["data"][0] |= {"train": [[0, 3]], "validation": [[4, 6]]}
    train(settings, root / "affinity.json")
    chain = Chain(root)
    chain.affinities["window"] = 32
    chain.predict(root / "hr.json", root / "affinity.json")
    chain.cut()
    chain.merge()
    chosen = chain.choose({"labels": str(root / "labels.json"), "validation": [[4, 6]], "candidates": [0.3, 0.6, 0.9]})
    chain.segments(chosen["threshold"])
    files = {name: str(root / f"{name}.json") for name in ("segments", "affinities", "threshold")}
    score = {
        **{"volume": "v", "test": [[0, 3], [7, 9]], "validation": [[4, 6]], "labels": str(root / "labels.json")},
        **{"segmentations": {"hr": {"image": "hr", **files}}, "border_nm": 0, "membrane_nm": 8, "in_plane": True},
        **{"absorb": 0, "windows": 40, "seed": 0},
    }
    score_segments(score, root / "segmentation.json")
    return {"root": root, "settings": settings, "chosen": chosen, "scores": read_json(root / "segmentation.json")}


def test_training_learns_in_the_plane_and_its_card_says_what_from(made: dict[str, Any]) -> None:
    card = read_json(made["root"] / "affinity.json")
    assert card["training"]["single_sections"] == {"v": {"level": 128, "least_pixels": 10}}
    assert math.isfinite(card["scores"]["f1"])
    assert card["health"]["connected_z"] == 0.0
    assert {"auc_y", "auc_x", "f1_y", "f1_x"} <= set(card["health"])
    assert not {"auc_z", "f1_z"} & set(card["health"])
    seen = labelled.series(made["settings"]["data"][0], "train")
    assert seen.bad == {1}, "nothing is learned of a section without labels, which would all be cut"
    assert labelled.identity(made["settings"])[0]["bad"] == [1]


def test_what_is_undefined_along_z_neither_holds_nor_fails(made: dict[str, Any]) -> None:
    card = read_json(made["root"] / "affinity.json")
    found = {check.name[-1]: check for check in checks("affinity", card["health"])}
    assert found["z"].state == "unmeasured"
    assert "cut all of them, as labels of single sections do along z" in found["z"].figure
    assert {found[axis].state for axis in "yx"} <= {"pass", "warn"}
    training = TrainingEvidence("membranes", [StageEvidence("affinity", card, {}, {})])
    words = [words for state, words in caveats.of_training(training) if state == "unmeasured"]
    assert len(words) == 1
    assert words[0].startswith("Stage affinity, cut affinities along z: not measured: the labels of")
    one_section = {name: value for name, value in card["health"].items() if not name.endswith("_z")}
    assert "do not know both kinds" in checks("affinity", one_section)[0].figure, "one section knows nothing along z"
    assert checks("affinity", {})[0].figure == "not measured", "a card without health"
    assert checks("affinity", {**one_section, "connected_z": 1.0})[0].figure.endswith("cut none of them")


def test_thresholds_and_scores_stand_on_single_sections(made: dict[str, Any]) -> None:
    scores = made["scores"]
    assert made["chosen"]["source"] == "validation"
    assert made["chosen"]["sections"] == [4, 5]
    assert scores["settings"]["single_sections"] == {"level": 128, "least_pixels": 10}
    assert scores["settings"]["left_out"] == {"1": "missing in labels"}
    assert scores["settings"]["sections"] == [0, 2, 7, 8]
    row = scores["segmentation"]["hr"]
    assert row["objects"] > 4 * 5
    assert math.isfinite(row["voi"])
    assert math.isfinite(scores["sections"]["hr"]["arand"])
    assert 0 < scores["membrane"]["hr"]["f1"] <= 1


def test_the_report_says_so_on_every_table(made: dict[str, Any]) -> None:
    scores = made["scores"]
    said = "labels are of single sections, made from membranes of level 128"
    for table in (segmentation.object_table, segmentation.section_table, segmentation.membrane_table):
        assert said in table(scores).caption
    assert "each in one section" in segmentation.object_table(scores).caption
    (point,) = (words for _, words in segmentation.stated(scores) if words.startswith("L" + said[1:]))
    assert "pieces of fewer than 10 pixels are no objects" in point
    settings = {key: value for key, value in scores["settings"].items() if key != "single_sections"}
    other = {**scores, "settings": settings}
    assert "single sections, made" not in terms(other) + json.dumps(segmentation.stated(other))
    assert segmentation.object_table(other).caption.startswith("Objects of the whole volume. VOI")


def test_voi_of_the_volume_is_that_of_its_sections(tmp_path: Path) -> None:
    """By scikit-image, section by section: what docs and report say of VOI where no segment goes on."""
    source = {"path": str(folder(tmp_path / "m", lines())), "dataset": None, "voxel_size_nm": SIZE, "membranes": 128}
    layout = {"shard": [4, 64, 64], "chunk": [4, 32, 32], "region": None}
    ingest({"image": "labels", "source": source, **layout}, tmp_path / "labels.json")
    truth = Chain(tmp_path).voxels("labels.json")
    rng = np.random.default_rng(0)
    segments = np.stack([rng.integers(1, 9, 40)[section % 40] + 100 * z for z, section in enumerate(truth, 1)])
    sections = [sum(variation_of_information(*pair)) for pair in zip(truth, segments, strict=True)]
    assert summary(Contingency.of(truth, segments))["voi"] == pytest.approx(np.mean(sections), rel=1e-12)
