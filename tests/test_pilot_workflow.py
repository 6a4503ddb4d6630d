"""A pilot within a mask through the whole workflow, segmented and scored, and the later whole run, which keeps it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from emsr import superresolve
from emsr.metrics.image import psnr
from emsr.stores.zarr import open_array
from project import Project
from test_segment_workflow import ONE, THREE, TWO, untrained, write
from tiny_project import tiny_config

pytestmark = pytest.mark.workflow

PILOT = [[8, 14], [0, 24], [0, 10]]  # of 14 x 24 x 22 lr voxels: the left half of sections 8 to 13
MADE = np.s_[8:14, :64, :64]  # of sr: what both ask for, in shards of 4 x 64 x 64
INSIDE = {"2_0_0", "3_0_0"}


def config() -> dict[str, Any]:
    made = tiny_config()
    made["jobs"] = 1
    untrained(made)
    raw = {"name": "intensity", "preset": "smoothed", "options": {"sigma": [0, 0.5, 0.5], "dark": 0.3, "bright": 0.6}}
    membranes = made["trainings"]["tiny"] | {"scale": 1, "sections": 1, "window": 38, "model": raw}
    membranes["data"] = [{"volume": "cube", "image": "hr", "train": [], "validation": [[8, 9]]}]
    made["trainings"]["raw"] = membranes
    made["segment"] |= {"depth": 6, "window": 38, "shard": [4, 32, 32], "chunk": [4, 32, 32]}
    made["segment"]["fragments"] |= {"block": [1, 32, 32], "halo": [0, 0, 0]}
    made["segment"]["scores"] |= {"windows": 40}
    made["volumes"]["cube"] |= {
        "labels": {"path": "cube.h5", "dataset": "volumes/labels"},
        "mask": {"path": "cube.h5", "dataset": "volumes/mask"},
        "pilot": PILOT,
        "segmentations": {"sr": {"image": "sr", "weights": "raw"}},
    }
    return made


@pytest.fixture(scope="module")
def piloted(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("pilot") / "project", config())
    write(project.folder)
    with h5py.File(project.folder / "cube.h5", "r+") as file:
        tissue = np.zeros(file["volumes/raw"].shape, bool)
        tissue[:, :60] = True
        file["volumes/mask"] = tissue
        file["volumes/mask"].attrs["resolution"] = (40.0, 4.0, 4.0)
    project.run()
    return project


def voxels(project: Project, *path: str) -> np.ndarray:
    found: np.ndarray = open_array(project.path("cube", *path)).read().result()
    return found


def of_whole(project: Project) -> np.ndarray:
    """All of lr super-resolved in memory, by the same weights and windows."""
    return superresolve(voxels(project, "lr_x4.zarr"), project.path("trainings", "tiny", "untrained.safetensors"))


def of_segments(project: Project, kind: str) -> dict[str, int]:
    """Time stamps of the records of sr's affinities or fragments, by shard."""
    found = project.states(f"cube/segmentations/sr/{kind}/*.records/*.json")
    return {Path(file).stem: time for file, time in found.items()}


def test_a_pilot_makes_what_both_ask_for(piloted: Project) -> None:
    sr, lr = piloted.json("cube", "sr.json"), piloted.json("cube", "lr_x4.json")
    assert (sr["shape"], sr["translation_nm"]) == ([14, 96, 88], piloted.json("cube", "hr.json")["translation_nm"])
    assert sr["skipped"]["reasons"] == {"mask": 2, "pilot": 12}
    made = np.zeros((14, 96, 88), bool)
    made[MADE] = True
    image = voxels(piloted, "sr.zarr")
    assert not image[~made].any()
    assert np.array_equal(image[MADE], of_whole(piloted)[MADE]), "every bit is that of the whole volume"
    assert (voxels(piloted, "valid.zarr") > 0).tolist() == made[:, ::4, ::4].tolist()
    assert lr["shape"] == [14, 24, 22]


def test_scores_and_segments_are_of_what_was_made(piloted: Project) -> None:
    scores, hr = piloted.json("cube", "scores.json"), voxels(piloted, "hr.zarr")
    assert scores["settings"]["sections"] == [11, 12, 13]
    for row in scores["per_section"]:
        pair = (hr[row["z"], :64, :64], voxels(piloted, "sr.zarr")[row["z"], :64, :64])
        assert row["sr"]["psnr"] == pytest.approx(psnr(*pair))
    made = np.zeros((14, 96, 88), bool)
    made[MADE] = True
    labels, segments = voxels(piloted, "labels.zarr"), voxels(piloted, "segmentations", "sr", "segments.zarr")
    assert segments[made].all()
    assert not segments[~made].any()
    assert scores["segmentation"]["sr"]["voxels"] == np.count_nonzero(labels[11:14, :64, :64])
    assert scores["membrane"]["sr"]["voxels"] == np.count_nonzero(labels[11:14, :64, :64])
    left = scores["segmentation_settings"]["parts_left_out"]
    assert left == {
        **{"voxels": 3 * (96 * 88 - 64 * 64), "damaged_voxels": 0},
        "sections": dict.fromkeys(("11", "12", "13"), 96 * 88 - 64 * 64),
    }
    page = piloted.path("report.html").read_text()
    assert "13,056 voxels (51.52%) in sections 11–13, not made. Affinities" in page
    assert piloted.run("-n").rules == Counter()


def test_the_later_whole_run_computes_only_the_rest(piloted: Project, tmp_path: Path) -> None:
    project = piloted.copy(tmp_path / "project")
    before = project.states("cube/sr-*.records/*.json")
    near = {kind: of_segments(project, kind) for kind in ("affinities", "fragments")}
    for key in ("pilot", "mask"):
        del project.config["volumes"]["cube"][key]
    project.change("jobs", 2)  # the number of jobs changes nothing either
    once = {*ONE, *TWO, *THREE, "allocate", "stitch", "score_segments", "score", "report"}
    assert project.run().rules == Counter(once) + Counter({"superresolve": 2}), "a finished array keeps its jobs"
    after = project.states("cube/sr-*.records/*.json")
    assert {Path(file).stem for file in after if after[file] == before[file]} == INSIDE
    sr = project.json("cube", "sr.json")
    assert "skipped" not in sr
    assert np.array_equal(voxels(project, "sr.zarr"), of_whole(project))
    for key in ("shape", "voxel_size_nm", "translation_nm"):
        assert sr[key] == piloted.json("cube", "sr.json")[key], key
    assert project.path("cube", "sr.zarr").resolve().name == piloted.path("cube", "sr.zarr").resolve().name
    for kind, of in near.items():
        now = of_segments(project, kind)
        kept = {shard for shard in now if now[shard] == of[shard]}
        assert kept == {"3_0_0"}, "its windows, halos included, reach into nothing that was not made"
    assert voxels(project, "segmentations", "sr", "segments.zarr").all()
    assert project.run("-n").rules == Counter()
