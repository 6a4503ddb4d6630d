"""The whole workflow as a user runs it: what is made, what a change redoes, what a kill costs."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

from project import ROOT, Project, telling
from tiny_project import STAGES, tiny_config, write_cube

pytestmark = pytest.mark.workflow

SR_RULES = ["allocate", "superresolve", "superresolve", "stitch", "score", "report"]
STAGE_RULES = [f"train {stage}" for stage in STAGES]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after its first whole run. Never changed: tests work on copies."""
    project = Project(tmp_path_factory.mktemp("finished") / "project", tiny_config())
    write_cube(project.folder / "cube.h5")
    run = project.run()
    assert run.rules == Counter(["ingest", "degrade", *STAGE_RULES, *SR_RULES])
    assert "The report is" in run.output
    return project


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    return finished.copy(tmp_path / "project")


def test_no_file_holds_a_secret_of_the_environment(finished: Project) -> None:
    """Results, logs, report, Snakemake's notes."""
    assert telling(finished.folder) == []


def computed(project: Project, volume: str = "coarse") -> set[str]:
    """The shards that the last superresolve jobs computed."""
    stats = project.path(volume, "sr", "jobs").glob("*.stats.json")
    return {shard for file in stats for shard in json.loads(file.read_text())["computed"]}


def shards(project: Project, volume: str = "cube") -> list[str]:
    """Every shard of a volume's sr, by its shape and the config's shard."""
    shape, shard = project.json(volume, "sr.json")["shape"], project.config["superresolve"]["shard"]
    return sorted(
        "_".join(map(str, index)) for index in np.ndindex(*(-(-a // b) for a, b in zip(shape, shard, strict=True)))
    )


def recorded_since(before: dict[str, int], project: Project, volume: str = "cube") -> list[str]:
    """The shards whose records were written since ``before``."""
    now = project.states(f"{volume}/sr-*.records/*.json")
    return sorted(Path(file).stem for file, time in now.items() if before.get(file) != time)


def test_what_a_run_leaves(finished: Project) -> None:
    sr, lr = finished.json("cube", "sr.json"), finished.json("cube", "lr_x4.json")
    assert lr["shape"] == [14, 24, 22]
    assert lr["hr_shape"] == [14, 96, 88]
    assert sr["shape"] == [14, 96, 88]
    assert sr["voxel_size_nm"] == [40.0, 4.0, 4.0]
    assert lr["voxel_size_nm"] == [40.0, 16.0, 16.0]
    assert "\n3\tblack\t" in finished.path("cube", "hr.sections.tsv").read_text()
    scores = finished.json("cube", "scores.json")
    assert set(scores["image"]) == {"bicubic", "sr"}
    assert scores["settings"]["sections"] == [11, 12, 13]
    page = finished.path("report.html").read_text()
    assert "Synthetic tissue" in page
    assert 'src="http' not in page
    assert 'href="http' not in page
    for stage in STAGES:
        assert finished.json("trainings", "tiny", f"{stage}.json")["stage"] == stage
    assert finished.path("cube", "sr.zarr").resolve().name.startswith("sr-")


@dataclass(frozen=True)
class Change:
    """A change of a finished run, why it is in the table, and exactly the rules that it reruns.

    A change that reaches ``superresolve`` computes every shard: tests below have those that compute some.
    """

    reason: str
    make: Callable[[Project], object]
    rules: list[str]


def change(where: str, value: Any) -> Callable[[Project], object]:
    return lambda project: project.change(where, value)


TRAINING = "trainings.tiny"
AFTER_FUSION = ["train fusion", *SR_RULES]


CHANGES = [
    Change("nothing", lambda project: None, []),
    Change("jobs are bookkeeping", change("jobs", 5), []),
    Change("workers change no voxel", change("workers", 2), []),
    Change("only the page shows its title", change("report.title", "Other"), ["report"]),
    Change("scored sections", change("volumes.cube.test", [[12, 14]]), ["score", "report"]),
    Change("blending is super-resolution", change("superresolve.overlap", 8), SR_RULES),
    Change(
        "the imaging model",
        change("volumes.cube.degradation", {"kernel": "area"}),
        ["degrade", "train flow", "train indexer", "train fusion", *SR_RULES],
    ),
    Change("the layout of sr", change("superresolve.shard", [8, 64, 64]), SR_RULES),
    Change("the last stage alone", change(f"{TRAINING}.stages.fusion.steps", 3), AFTER_FUSION),
    Change(
        "an earlier stage and those that need it",
        change(f"{TRAINING}.stages.codebook.steps", 3),
        ["train codebook", "train indexer", *AFTER_FUSION],
    ),
    Change("an option of the fusion network", change(f"{TRAINING}.model.options.back_blocks", 2), AFTER_FUSION),
    Change(
        "every stage sees the range",
        change(f"{TRAINING}.data", [{"volume": "cube", "train": [[0, 5]], "validation": [[8, 9]]}]),
        [*STAGE_RULES, *SR_RULES],
    ),
]


@pytest.mark.parametrize("row", CHANGES, ids=[row.reason for row in CHANGES])
def test_a_change_reruns_exactly(project: Project, row: Change) -> None:
    """Where voxels are made again, the run stops before the page, which is then all that is left."""
    before = project.states("cube/sr-*.records/*.json")
    row.make(project)
    assert project.run("-n").rules == Counter(row.rules)
    again = "superresolve" in row.rules
    run = project.run(*["results/cube/scores.json"][:again])
    left = Counter(["report"][:again])
    assert run.rules == Counter(row.rules) - left
    assert recorded_since(before, project) == (shards(project) if again else [])
    assert project.run("-n").rules == left


def test_settings_that_come_back_find_their_shards_again(project: Project) -> None:
    """The other setting left its array beside the first one's; going back computes nothing."""
    whole = project.bytes_of("cube/sr.zarr")
    project.change("superresolve.overlap", 8)
    project.run("results/cube/sr.json")
    assert project.bytes_of("cube/sr.zarr") != whole
    before = project.states("cube/sr-*.records/*.json")
    project.change("superresolve.overlap", 4)
    assert project.run("results/cube/scores.json").rules == Counter(SR_RULES[:-1])
    assert recorded_since(before, project) == []
    assert computed(project, "cube") == set()
    assert project.bytes_of("cube/sr.zarr") == whole


def lr_only(finished: Project, folder: Path) -> Project:
    """A project whose volume has only low resolution, with the finished project's weights in a file."""
    config = tiny_config()
    config["trainings"] = {}
    config["volumes"] = {
        "coarse": {"lr": {"path": "coarse.h5", "dataset": "volumes/raw"}, "weights": {"path": "fusion.safetensors"}}
    }
    project = Project(folder, config)
    write_cube(folder / "coarse.h5", (12, 40, 38))
    for suffix in ("safetensors", "json"):
        shutil.copy2(finished.path("trainings", "tiny", f"fusion.{suffix}"), folder / f"fusion.{suffix}")
    return project


@pytest.fixture(scope="module")
def coarse(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = lr_only(finished, tmp_path_factory.mktemp("coarse") / "project")
    assert project.run(cold=True).rules == Counter(["ingest", *SR_RULES])
    return project


def test_low_resolution_alone_needs_no_truth(coarse: Project) -> None:
    scores = coarse.json("coarse", "scores.json")
    assert scores["image"] is None
    assert "only low resolution" in scores["reason"]
    assert scores["consistency"]["sr"]["psnr"] > 0
    assert "only low resolution" in coarse.path("report.html").read_text()


def test_weights_swapped_under_their_old_time_stamp(coarse: Project, tmp_path: Path) -> None:
    """Weights and card of the same size, age and name, other content."""
    from emsr.models import checkpoint

    project = coarse.copy(tmp_path / "project")
    files = [project.folder / f"fusion.{suffix}" for suffix in ("safetensors", "json")]
    ages = [file.stat() for file in files]
    card = checkpoint.load_card(files[0])
    state = {name: tensor * 1.01 if tensor.is_floating_point() else tensor for name, tensor in
             checkpoint.load_state(files[0], card).items()}  # fmt: skip
    checkpoint.save(files[0], state, card)
    for file, age in zip(files, ages, strict=True):
        os.utime(file, ns=(age.st_atime_ns, age.st_mtime_ns))
    before = project.json("coarse", "sr.json")["sha256"]
    assert project.run("results/coarse/scores.json").rules == Counter(SR_RULES[:-1])
    assert project.json("coarse", "sr.json")["sha256"] != before
    assert computed(project) == {file.stem for file in coarse.path("coarse").glob("sr-*.records/*.json")}
    assert project.run("-n").rules == Counter(["report"])
    shutil.copy2(coarse.folder / "fusion.safetensors", files[0])
    run = project.run(check=False)
    assert run.returncode != 0
    assert "restore the file or the card" in run.output


def test_a_changed_section_recomputes_only_shards_made_from_it(coarse: Project, tmp_path: Path) -> None:
    """Section 8 opens the third layer of shards (4 sections each); section 7, its neighbour, closes the second."""
    project = coarse.copy(tmp_path / "project")
    with h5py.File(project.folder / "coarse.h5", "r+") as file:
        file["volumes/raw"][8] = np.roll(file["volumes/raw"][8], 3, axis=0)
    assert project.run("results/coarse/scores.json").rules == Counter(["ingest", *SR_RULES[:-1]])
    every = {file.stem for file in project.path("coarse").glob("sr-*.records/*.json")}
    assert computed(project) == {shard for shard in every if shard.startswith(("1_", "2_"))} != every


def test_half_way_another_number_of_jobs_computes_what_is_missing(coarse: Project, tmp_path: Path) -> None:
    project = coarse.copy(tmp_path / "project")
    whole = project.bytes_of("coarse/sr.zarr")
    records = sorted(project.path("coarse").glob("sr-*.records/*.json"))
    for file in records[1::2]:
        file.unlink()
    for name in ("sr.json", "sr/proof.json", "sr/jobs/1-of-2.json", "sr/jobs/2-of-2.json"):
        project.path("coarse", *name.split("/")).unlink()
    for file in project.path("coarse", "sr", "jobs").glob("*.stats.json"):
        file.unlink()
    project.change("jobs", 3)
    assert project.run().rules == Counter(["superresolve", *SR_RULES[1:]])
    assert computed(project) == {file.stem for file in records[1::2]}
    assert project.bytes_of("coarse/sr.zarr") == whole
    rules = project.path("report", "rules.tsv").read_text()
    row = next(line for line in rules.splitlines() if line.startswith("superresolve"))
    assert row.split("\t")[1] == "3"  # jobs of the former cut are not counted


def test_kill_during_super_resolution(coarse: Project, tmp_path: Path) -> None:
    """The rerun ends with the same bytes and leaves finished shards alone."""
    whole, root = coarse.bytes_of("coarse/sr.zarr"), coarse.json("coarse", "sr.json")["sha256"]
    project = coarse.copy(tmp_path / "project")
    for part in project.path("coarse").glob("sr*"):
        part.unlink() if part.is_symlink() or part.is_file() else shutil.rmtree(part)

    def some() -> bool:
        return len(list(project.path("coarse").glob("sr-*.records/*.json"))) >= 3

    project.kill_when(some)
    done = project.states("coarse/sr-*.records/*.json")
    project.run("--unlock")
    project.run("--rerun-incomplete", "results/coarse/sr.json")
    assert done
    assert sorted(recorded_since(done, project, "coarse") + [Path(file).stem for file in done]) == shards(
        project, "coarse"
    )
    assert project.bytes_of("coarse/sr.zarr") == whole
    assert project.json("coarse", "sr.json")["sha256"] == root


def test_kill_during_training_and_the_same_weights_again(finished: Project, tmp_path: Path) -> None:
    """A killed training goes on bit for bit, and a second project trains the same weights."""
    project = Project(tmp_path / "project", tiny_config())
    shutil.copy2(finished.folder / "cube.h5", project.folder / "cube.h5")
    target = "results/trainings/tiny/fusion.json"
    checkpoints = project.path("trainings", "tiny")
    project.kill_when(lambda: any(checkpoints.glob("codebook.checkpoint/latest.json")), target)
    project.run("--unlock")
    project.run("--rerun-incomplete", target)
    assert "resumed at step" in project.path("logs", "train", "tiny.codebook.log").read_text()
    for stage in STAGES:
        file = ("trainings", "tiny", f"{stage}.safetensors")
        assert project.path(*file).read_bytes() == finished.path(*file).read_bytes(), stage


def test_dry_run_with_the_cluster_profile_asks_for_gpus(tmp_path: Path) -> None:
    project = Project(tmp_path / "project", yaml.safe_load((ROOT / "config.yaml").read_text()))
    shutil.copytree(ROOT / "slurm", project.folder / "slurm")
    run = project.run("--profile", "slurm", "-n")
    assert run.rules["superresolve"] == 16
    for rule in ("train", "superresolve"):
        block = run.output.split(f"rule {rule}:")[1].split("\n\n")[0]
        assert "gpu=1" in block, rule
