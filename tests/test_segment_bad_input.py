"""Labels, affinities and thresholds that cannot be: one line where a user meets them, or they simply work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

from emsr.cli import main
from emsr.durable import read_json, write_json
from emsr.steps.train import train
from emsr.stores.zarr import Layout, create, open_array, write_box
from segment_project import SHAPE, Chain, image, weights
from sr_project import tissue_like
from test_check_segment import HR, changed
from test_segment_workflow import write

HINT = "labels are unsigned integers: convert them to uint64, unlabelled voxels to 0"
COARSE = np.kron(np.arange(1, 73).reshape(2, 6, 6), np.ones((7, 20, 20), int))[:, :97, :90]


LABELS: list[tuple[str, Callable[[np.ndarray], np.ndarray], str]] = [
    ("single precision", lambda labels: labels.astype(np.float32), f"neuron_ids is float32, {HINT}"),
    ("not a number", lambda labels: np.where(labels > 3, labels, np.nan), f"neuron_ids is float64, {HINT}"),
    ("negative", lambda labels: (labels - 9).astype(np.int16), f"neuron_ids is int16, {HINT}"),
    ("a mask", lambda labels: labels > 9, f"neuron_ids is bool, {HINT}"),
    ("fewer sections", lambda labels: labels[:-1].astype(np.uint64), "neuron_ids have shape [13, 97, 90] but hr"),
    ("narrower", lambda labels: labels[:, :, 1:].astype(np.uint64), "cut or pad one so that both cover the same"),
    ("one section", lambda labels: labels[0].astype(np.uint64), "is one section, not a volume: stack sections"),
]


def refused(values: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
    """The line that ``emsr check`` ends with; nothing is written."""
    Path("mine.yaml").write_text(yaml.safe_dump(values))
    before = sorted(Path().rglob("*"))
    assert main(["check", "mine.yaml"]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert sorted(Path().rglob("*")) == before
    return line


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("why", "make", "words"), LABELS, ids=[row[0] for row in LABELS])
def test_labels_that_cannot_be_are_refused_by_check(
    project: Path, capsys: pytest.CaptureFixture[str], why: str, make: Callable[[np.ndarray], np.ndarray], words: str
) -> None:
    with h5py.File("cube.h5", "r+") as file:
        file["volumes/neuron_ids"] = make(COARSE)
        file["volumes/neuron_ids"].attrs["resolution"] = (40.0, 4.0, 4.0)
    labels = {"path": "cube.h5", "dataset": "volumes/neuron_ids"}
    assert words in refused(changed("volumes.cube.labels", labels), capsys)


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        (f"{HR}.threshold", -0.1, "segmentations.hr.threshold is -0.1: Input should be greater than or equal to 0"),
        (f"{HR}.threshold", 1.01, "threshold is 1.01: Input should be less than or equal to 1"),
        (f"{HR}.threshold", float("nan"), "threshold is nan: Input should be"),
        (f"{HR}.threshold", "half", "threshold is 'half': Input should be a valid number"),
        ("segment.agglomeration.until", 1.5, "until is 1.5: Input should be less than or equal to 1"),
        ("segment.agglomeration.thresholds", [0.5, -0.2], "thresholds.1 is -0.2: Input should be greater"),
        ("segment.agglomeration.thresholds", [], "thresholds [] must be some"),
    ],
)
def test_thresholds_outside_0_to_1_are_refused_by_check(
    project: Path, capsys: pytest.CaptureFixture[str], where: str, value: Any, words: str
) -> None:
    assert words in refused(changed(where, value), capsys)


# -- devices -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        (False, "(1 on cpu, 1 on cuda), which differ in voxels: set segment.device to one of cpu, cuda"),
        (True, "on cuda, others would be on cpu and differ in voxels: set segment.device to one of them"),
    ],
)
def test_affinities_of_two_devices_name_the_key_of_segmentation(tmp_path: Path, missing: bool, words: str) -> None:
    chain = Chain(tmp_path, jobs=1, shard=(9, 80, 32))
    card, weight = image(tmp_path, tissue_like(SHAPE)), weights(tmp_path)
    chain.predict(card, weight)
    first, second = sorted((tmp_path / "affinities").glob("*.records/*.json"))
    write_json(first, {**read_json(first), "device": "cuda"})
    if missing:
        second.unlink()
    with pytest.raises(ValueError) as error:  # noqa: PT011
        chain.predict(card, weight)
    assert words in str(error.value)


# -- training ----------------------------------------------------------------------------------------------------------


def several() -> np.ndarray:
    """Objects of 3 x 12 x 12 voxels that touch, none of them background."""
    parts = np.kron(np.arange(1, 61).reshape(3, 5, 4), np.ones((4, 12, 12), int))
    return parts.astype(np.uint64)


def trained(folder: Path, labels: np.ndarray) -> dict[str, Any]:
    """The card of a network that was trained for one step, on sections 0 to 7, and validated on 8 to 11."""
    grey = (several() % 12 * 20).astype(np.uint8)
    cards = {"image": image(folder, grey), "labels": image(folder, labels, name="labels")}
    recipe = {"steps": 1, "batch": 1, "patch": 16, "depth": 3, "precision": "float32", "validate_every": 1}
    settings = {
        **{"stage": "affinity", "overrides": recipe, "scale": 1, "sections": 1, "section_step": 1, "window": 16},
        "model": {"name": "affinity", "preset": "small", "options": {"widths": [2, 2, 3]}},
        "data": [{"volume": "v", **{k: str(p) for k, p in cards.items()}, "train": [[0, 8]], "validation": [[8, 12]]}],
        **{"seed": 0, "threads": 1, "device": "cpu", "cards": {}, "init_from": None, "perceptual": None},
        **{"spynet": None, "result": 1},
    }
    out = folder / "made" / "affinity.json"
    out.parent.mkdir()
    train(json.loads(json.dumps(settings)), out)
    card: dict[str, Any] = read_json(out)
    return card


def test_labels_without_background_are_learned_from(tmp_path: Path) -> None:
    assert trained(tmp_path, several())["scores"]["loss"] > 0


def mixed(training: np.ndarray, validation: np.ndarray) -> np.ndarray:
    """Labels of sections 0 to 7 and of sections 8 to 11."""
    return np.concatenate([training[:8], validation[8:]])


ONE, NONE = np.full((12, 60, 48), 7, np.uint64), np.zeros((12, 60, 48), np.uint64)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (mixed(ONE, several()), r"training labels of stage affinity hold 0, 0, 0 cut and \d+, \d+, \d+ connected"),
        (mixed(NONE, several()), r"training labels .* cut and 0, 0, 0 connected .*: train on sections with at least"),
        (mixed(several(), ONE), r"validation labels .* hold 0, 0, 0 cut .*: validate on sections with at least two"),
        (mixed(several(), NONE), r"validation labels .* and 0, 0, 0 connected affinities \(z, y, x\) in \d+ patches"),
        (several()[:, :-1], r"labels \[12, 59, 48\] of volume v do not cover its image \[12, 60, 48\]: state labels"),
        (several()[:-1], r"labels \[11, 60, 48\] of volume v do not cover its image"),
        (several().astype(np.float32), "labels are float32, but ids count from 0: convert them to uint64"),
    ],
)
def test_labels_that_teach_nothing_are_refused_before_anything_is_written(
    tmp_path: Path, labels: np.ndarray, words: str
) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        trained(tmp_path, labels)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "made").iterdir())


# -- affinities --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("affinities")
    Chain(folder / "a").predict(image(folder, tissue_like(SHAPE)), weights(folder))
    return folder / "a" / "affinities.json"


@pytest.mark.parametrize(
    ("shape", "channels", "words"),
    [
        ((9, 60, 52), 3, "cannot be read .*size=60.*: run the step that makes this array again"),
        (SHAPE, 2, r"affinities of shape \(2, 1, \d+, \d+\) are not \(3, z, y, x\)"),
        (SHAPE, None, r"affinities of shape \(1, \d+, \d+\) were read for a box of \(1, \d+, \d+\) voxels"),
    ],
)
def test_affinities_of_another_shape_are_one_line(
    predicted: Path, tmp_path: Path, shape: tuple[int, int, int], channels: int | None, words: str
) -> None:
    given = Layout(shape, "uint8", shape, shape, (40.0, 4.0, 4.0), **({"channels": channels} if channels else {}))
    create(tmp_path / "own.zarr", given)
    voxels = np.full(((channels,) if channels else ()) + shape, 200, np.uint8)
    write_box(open_array(tmp_path / "own.zarr", write=True), (0, 0, 0), voxels)
    write_json(tmp_path / "affinities.json", {**read_json(predicted), "array": "own.zarr"})
    chain = Chain(tmp_path, jobs=1, shard=(3, 32, 32))
    with pytest.raises(ValueError, match=words) as caught:
        chain.cut()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "fragments.json").exists()
