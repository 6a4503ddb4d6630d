"""After `emsr repair` the workflow makes again what was damaged, and nothing else of it, to the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from project import Project
from segment_project import weights
from sr_project import write_weights
from test_workflow import computed, tiny_config, write_cube

LONG = pytest.mark.skipif("EMSR_SOAK" not in os.environ, reason="five runs of the workflow: make soak")
pytestmark = pytest.mark.workflow
TOLD_APART = ("logs", "benchmarks", "report", "report.html")  # what time is part of


def emsr(project: Project, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "emsr.cli", *words]
    return subprocess.run(command, cwd=project.folder, capture_output=True, text=True, timeout=300)


def content(project: Project) -> dict[str, bytes]:
    """All results that inputs determine."""
    files = (file.relative_to(project.path()) for file in project.path().rglob("*") if file.is_file())
    kept = (file for file in files if file.parts[0] not in TOLD_APART and not file.name.endswith("stats.json"))
    return {str(file): project.path(str(file)).read_bytes() for file in kept}


def finished(folder: Path) -> Project:
    config = tiny_config()
    source = {"path": "coarse.h5", "dataset": "volumes/raw"}
    config |= {"trainings": {}, "volumes": {"coarse": {"lr": source, "weights": {"path": "bicubic_x4_0.safetensors"}}}}
    project = Project(folder, config)
    write_cube(project.folder / "coarse.h5", (12, 40, 38))
    write_weights(project.folder, "bicubic", 4)
    project.run()
    assert emsr(project, "verify", "results").returncode == 0
    return project


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


SR_AGAIN = {"superresolve", "stitch", "score", "report"}
ALONE: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "a shard": (lambda coarse: flip(coarse / "sr.zarr/0/c/0/1/1"), SR_AGAIN),
    "a mark": (lambda coarse: (coarse / "sr/jobs/1-of-2.json").write_text("{"), SR_AGAIN),
    "an image": (lambda coarse: (coarse / "lr.zarr/0/c/0/0/0").unlink(), {"ingest", "allocate", *SR_AGAIN}),
    "no allocation": (lambda coarse: (coarse / "sr/allocate.json").unlink(), {"allocate", *SR_AGAIN}),
    "no card": (lambda coarse: (coarse / "lr.json").unlink(), {"ingest", "allocate", *SR_AGAIN}),
}


def test_each_fault_alone_is_what_the_next_run_begins_with(tmp_path: Path) -> None:
    """Snakemake looks no further back than a result that stands, so a run without a word must ask for the rest."""
    whole = finished(tmp_path / "whole")
    assert whole.run("-n").rules == Counter()
    for name, (spoil, again) in ALONE.items():
        project = whole.copy(tmp_path / name.replace(" ", "_"))
        spoil(project.path("coarse"))
        assert emsr(project, "verify", "results").returncode == 1, name
        assert emsr(project, "repair", "results").returncode == 0, name
        assert set(project.run("-n").rules) == again, name


@LONG
def test_what_is_damaged_is_made_again(tmp_path: Path) -> None:
    project = finished(tmp_path / "project")
    before = content(project)
    voxels = project.path("coarse", "sr.zarr").resolve()
    records = voxels.with_suffix(".records")
    flip(voxels / "0/c/0/1/1")
    (voxels / "0/c/2/0/1").unlink()
    (records / "1_2_2.json").write_text("{")
    project.path("coarse", "sr", "jobs", "1-of-2.json").write_text("{")
    project.path("coarse", "lr.zarr", "0", "c", "0", "0", "0").write_bytes(b"")

    told = emsr(project, "verify", "results")
    assert told.returncode == 1
    for name in ("sr: shard 0_1_1", "sr: shard 2_0_1", "sr: shard 1_2_2", "1-of-2.json", "lr: shard 0_0_0"):
        assert name in told.stdout
    assert emsr(project, "repair", "results").returncode == 0
    run = project.run()
    assert run.rules == Counter(["ingest", "allocate", "superresolve", "superresolve", "stitch", "score", "report"])
    assert computed(project) == {"0_1_1", "2_0_1", "1_2_2"}
    assert content(project) == before
    assert emsr(project, "verify", "results").returncode == 0
    assert project.run("-n").rules == Counter()


SHARDS = "coarse/segmentations/sr/fragments"


@LONG
def test_a_shard_alone_and_fragments_whose_affinities_were_removed(tmp_path: Path) -> None:
    """Nothing else is damaged, so that a run has no other reason than what repair took away."""
    config = tiny_config()
    affinity = {"path": "affinity.safetensors"}
    volume = {"lr": {"path": "coarse.h5", "dataset": "volumes/raw"}, "weights": {"path": "bicubic_x4_0.safetensors"}}
    volume["segmentations"] = {"sr": {"image": "sr", "weights": affinity, "threshold": 0.5}}
    config |= {"trainings": {}, "volumes": {"coarse": volume}, "keep": {"affinities": False, "fragments": True}}
    config["segment"] |= {"overlap": 4, "depth_overlap": 1, "shard": [4, 64, 64], "chunk": [4, 32, 32]}
    config["segment"]["fragments"] |= {"block": [1, 64, 64], "halo": [0, 8, 8]}
    project = Project(tmp_path / "project", config)
    write_cube(project.folder / "coarse.h5", (12, 40, 38))
    write_weights(project.folder, "bicubic", 4)
    weights(project.folder, depth=5, window=32)
    project.run()
    before = content(project)
    for pattern, record, rules in (
        ("coarse/sr-*.zarr/0/c/1/0/1", "coarse/sr-*.records/1_0_1.json", {"superresolve": 1, "stitch": 1}),
        (f"{SHARDS}/*.zarr/0/c/0/1/0", f"{SHARDS}/*.records/0_1_0.json", {"affinities": 2, "fragments": 2}),
    ):
        damaged, mended = next(project.path().glob(pattern)), next(project.path().glob(record))
        others = {path: path.stat().st_mtime_ns for path in mended.parent.glob("*.json") if path != mended}
        damaged.write_bytes(damaged.read_bytes()[:100])
        assert emsr(project, "repair", "results").returncode == 0
        run = project.run()
        assert rules.items() <= run.rules.items(), run.rules
        assert content(project) == before
        assert {path: path.stat().st_mtime_ns for path in others} == others
        assert emsr(project, "verify", "results").returncode == 0
        assert project.run("-n").rules == Counter()
