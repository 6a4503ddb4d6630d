"""Segmentation in the whole workflow: from labels to a trained network and the scores of three images."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from project import Project
from test_workflow import change
from tiny_project import tiny_config, write_cube

pytestmark = pytest.mark.workflow

STAGE = {
    **{"steps": 3, "batch": 1, "patch": 16, "depth": 3, "validate_every": 3, "checkpoint_every": 1},
    **{"precision": "float32", "shift": 2, "elastic": 2.0},
}
ONE = ["allocate_affinities", *["affinities"] * 2, "prove_affinities"]
TWO = ["allocate_fragments", *["fragments"] * 2, "prove_fragments", "agglomerate"]
THREE = ["choose_threshold", "segment"]
SCORES = ["score_segments", "score", "report"]
NAMES = ("bicubic", "sr", "hr")


def untrained(made: dict[str, Any]) -> None:
    """Bicubic interpolation instead of the network of a config."""
    plain = {"init_from": None, "perceptual": None, "spynet": None, "stages": {"untrained": {}}, "data": []}
    made["trainings"]["tiny"] |= plain | {"model": {"name": "bicubic", "preset": "small", "options": {}}}


def config() -> dict[str, Any]:
    made = tiny_config()
    untrained(made)
    cube = made["volumes"]["cube"]
    cube["labels"] = {"path": "cube.h5", "dataset": "volumes/labels"}
    cube["segmentations"] = {name: {"image": name, "weights": "membranes"} for name in NAMES}
    made["segment"] |= {"overlap": 4, "depth_overlap": 1, "shard": [4, 64, 64], "chunk": [4, 32, 32]}
    made["segment"]["fragments"] |= {"block": [1, 64, 64], "halo": [0, 8, 8]}
    made["segment"]["scores"] |= {"windows": 40}
    made["trainings"]["membranes"] = {
        **{"scale": 1, "sections": 1, "section_step": 1, "window": 32, "seed": 0, "threads": 1, "device": "cpu"},
        "model": {"name": "affinity", "preset": "small", "options": {"widths": [2, 2, 3]}},
        "data": [{"volume": "cube", "image": "hr", "train": [[4, 6]], "validation": [[8, 9]]}],
        "stages": {"affinity": STAGE},
    }
    return made


def write(folder: Path) -> None:
    write_cube(folder / "cube.h5")
    with h5py.File(folder / "cube.h5", "r+") as file:
        depth, height, width = file["volumes/raw"].shape
        coarse = np.arange(2 * 6 * 6, dtype=np.uint64).reshape(2, 6, 6) + 1
        labels = np.kron(coarse, np.ones((7, 20, 20), np.uint64))[:depth, :height, :width]
        file.create_dataset("volumes/labels", data=labels.astype(np.uint64))
        file["volumes/labels"].attrs["resolution"] = (40.0, 4.0, 4.0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("segment") / "project", config())
    write(project.folder)
    run = project.run()
    for rule, times in Counter([*ONE, *TWO, *THREE]).items():
        assert run.rules[rule] == 3 * times, rule
    for rule in ("enlarge", "train affinity", *SCORES):
        assert run.rules[rule] == 1, rule
    return project


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    return finished.copy(tmp_path / "project")


def test_what_a_run_leaves(finished: Project) -> None:
    shapes = {"hr": [14, 97, 90], "sr": [14, 96, 88], "bicubic": [14, 96, 88]}
    for name in NAMES:
        card = finished.json("cube", "segmentations", name, "segments.json")
        assert card["shape"] == shapes[name]
        assert card["voxel_size_nm"] == [40.0, 4.0, 4.0]
        assert finished.json("cube", "segmentations", name, "threshold.json")["source"] == "validation"
    assert finished.json("trainings", "membranes", "affinity.json")["depth"] == 3
    scores = finished.json("cube", "scores.json")
    for name in NAMES:
        assert {"voi_split", "voi_merge", "arand"} <= set(scores["segmentation"][name])
        assert scores["membrane"][name]["best_f1"] > 0
    assert scores["segmentation_settings"]["border_nm"] == 0
    assert scores["segmentation"]["hr"]["objects"] > 1
    assert finished.run("-n").rules == Counter()


CHANGES = [
    ("jobs are bookkeeping", change("jobs", 3), []),
    ("a stated threshold", change("volumes.cube.segmentations.sr.threshold", 0.3), [*THREE, *SCORES]),
]


@pytest.mark.parametrize(("reason", "make", "rules"), CHANGES, ids=[row[0] for row in CHANGES])
def test_a_change_reruns_exactly(project: Project, reason: str, make: Any, rules: list[str]) -> None:
    """A run that scores again stops before the page, which is then all that is left."""
    before = project.states("cube/segmentations/*/*/*.records/*.json")
    make(project)
    assert project.run("-n").rules == Counter(rules)
    left = Counter({"report": rules.count("report")})
    assert project.run(*["results/cube/scores.json"][: left.total()]).rules == Counter(rules) - left
    after = project.states("cube/segmentations/*/*/*.records/*.json")
    assert after == before, "no shard is computed"
    assert project.run("-n").rules == left


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(("spoilt", "begins"), [
    ("affinities/affinities-*.zarr/0/c/0/0/0/0", "affinities"),
    ("fragments/fragments-*.records/0_0_0.json", "fragments"), ("agglomeration.json", "agglomerate"),
])  # fmt: skip
def test_each_fault_alone_is_what_a_run_after_repair_begins_with(project: Project, spoilt: str, begins: str) -> None:
    (file,) = project.path("cube", "segmentations", "sr").glob(spoilt)
    flip(file)
    command = [sys.executable, "-m", "emsr.cli", "repair", "results"]
    repaired = subprocess.run(command, cwd=project.folder, capture_output=True, text=True)
    assert repaired.returncode == 0, repaired.stdout
    assert begins in project.run("-n").rules, repaired.stdout


def test_what_is_not_kept_goes_when_all_made_of_it_is_proved(project: Project) -> None:
    kept = {name: project.json("cube", "segmentations", name, "segments.json") for name in NAMES}
    project.change("keep", {"affinities": False, "fragments": False})
    assert project.run().rules == Counter({"discard": 3, "report": 1})
    left = {"removed.json", "segments.json", "segments.zarr", "threshold.json", "affinities", "fragments"}
    for name in NAMES:
        folder = project.path("cube", "segmentations", name)
        assert {file.name for file in folder.iterdir()} - {"agglomeration"} == left
        for stage in ("affinities", "fragments", "agglomeration"):
            assert {file.name for file in folder.glob(f"{stage}/*")} <= {"proof.json"}
        assert project.json("cube", "segmentations", name, "segments.json") == kept[name]
    assert project.run("-n").rules == Counter()
    project.change("jobs", 3)
    assert project.run("-n").rules == Counter(), "another number of jobs makes nothing again"
    project.change("keep", None)
    assert project.run("-n").rules == Counter({"report": 1})
    project.change("keep", {"affinities": False, "fragments": False})
    project.change("volumes.cube.segmentations.sr.threshold", 0.3)
    again = Counter({rule: 3 * times for rule, times in Counter([*ONE, *TWO, *THREE, "discard"]).items()})
    assert project.run("-n").rules == again + Counter(SCORES), "by the jobs of before, and all that are scored together"
