"""Projects whose jobs a real Slurm runs, without accounting and with it: what is asked for and what is made."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from project import Project
from slurm_cluster import Cluster
from slurm_project import SR, WALL_TIMES, Driven, OnCluster, same, wait_until
from test_workflow import SR_RULES, STAGE_RULES, STAGES, write_cube

pytestmark = pytest.mark.slurm

SR_ALONE = Counter(["allocate", "superresolve", "superresolve", "stitch"])
GPU_RULES = ("train", "superresolve")


def test_a_whole_project_and_the_gpus_that_it_asks_for(made: Project, plain: Cluster, tmp_path: Path) -> None:
    project = OnCluster(tmp_path / "project", made.config, plain)
    write_cube(project.folder / "cube.h5")
    run = project.run("--set-scatter", "job=2")
    assert run.rules == Counter(["ingest", "degrade", *STAGE_RULES, *SR_RULES])
    same(project, made)
    for stage in STAGES:
        weights = ("trainings", "tiny", f"{stage}.safetensors")
        assert project.path(*weights).read_bytes() == made.path(*weights).read_bytes()
    asked = {job["JobId"]: job for job in project.jobs()}
    assert len(asked) == sum(run.rules.values())
    of_gpus = {number for number, job in asked.items() if job["Comment"].split("_")[1] in GPU_RULES}
    assert {asked[number].get("TresPerJob") for number in of_gpus} == {"gres:gpu:1"}
    assert {asked[number]["Partition"] for number in of_gpus} == {"gpu"}
    assert {job["Partition"] for number, job in asked.items() if number not in of_gpus} == {"cpu"}
    devices = seen(plain, asked)
    assert all((devices[number] in ({"0"}, {"1"})) == (number in of_gpus) for number in asked), devices


def seen(cluster: Cluster, jobs: dict[str, dict[str, str]]) -> dict[str, set[str]]:
    """The GPUs that the steps of each job found in their environment."""
    lines = [line.split("\t") for line in (cluster.folder / "log/tasks.tsv").read_text().splitlines()]
    return {number: {gpus for _, job, step, _, gpus in lines if job == number and step} for number in jobs}


@pytest.mark.parametrize("profile", ["slurm", "slurm-gres"])
def test_two_jobs_at_once_see_a_gpu_each_and_a_third_waits(
    made: Project, plain: Cluster, tmp_path: Path, profile: str
) -> None:
    project = OnCluster.after(made, tmp_path / "project", plain, "cube/sr*", profile=profile)
    driver = project.start(SR, "--set-scatter", "job=3")
    found: dict[int, str] = {}

    def both() -> bool:
        for process in project.processes("superresolve"):
            found[process] = project.variables(process)["CUDA_VISIBLE_DEVICES"]
            project.freeze(process)
        return len(found) == 2

    wait_until(both, driver, pause=0.02)
    assert sorted(found.values()) == ["0", "1"]
    wait_until(lambda: len(project.jobs_of("superresolve")) == 3, driver)
    jobs = project.jobs_of("superresolve")
    assert sorted(job["JobState"] for job in jobs) == ["PENDING", "RUNNING", "RUNNING"]
    key = {"slurm": "TresPerJob", "slurm-gres": "TresPerNode"}[profile]
    assert [job.get(key) for job in jobs] == ["gres:gpu:1"] * 3
    for process in found:
        project.thaw(process)
    assert driver.end().rules == SR_ALONE + Counter(["superresolve"])
    same(project, made)


@pytest.mark.parametrize(("cluster", "command"), [("plain", "squeue"), ("accounted", "sacct")])
def test_a_training_of_six_wall_times_takes_one_job_and_no_retry(
    made: Project, request: pytest.FixtureRequest, tmp_path: Path, cluster: str, command: str
) -> None:
    """Its wall time is shorter than the five minutes before its end at which it stops: each attempt makes one step."""
    project = OnCluster.after(made, tmp_path / "project", request.getfixturevalue(cluster), "trainings")
    project.profiled("slurm-status-command", command)
    project.profiled("retries", "0")
    project.profiled("train.runtime", "1")
    run = project.run("results/trainings/tiny/flow.json")
    assert run.rules == Counter(["train flow"])
    assert project.json("trainings", "tiny", "flow.stats.json")["attempts"] == WALL_TIMES
    (job,) = project.jobs_of("train")
    assert job["Restarts"] == str(WALL_TIMES - 1)
    weights = ("trainings", "tiny", "flow.safetensors")
    assert project.path(*weights).read_bytes() == made.path(*weights).read_bytes()


@pytest.mark.parametrize("kind", [OnCluster, Driven])
def test_the_driver_is_a_job_itself(made: Project, plain: Cluster, tmp_path: Path, kind: type[OnCluster]) -> None:
    project = kind.after(made, tmp_path / "project", plain, "cube/sr*")
    script = tmp_path / "driver.sh"
    script.write_text(f"#!/bin/sh\nexec {' '.join(project.command(SR, '--set-scatter', 'job=2'))}\n")
    words = [
        "sbatch",
        "--parsable",
        "--wait",
        f"--chdir={project.folder}",
        "--output=driver.log",
        "--comment=driver",
        "--mem=2000",
    ]
    started = project.start_command([*words, str(script)])
    started.end()
    log = (project.folder / "driver.log").read_text()
    assert "4 of 4 steps (100%) done" in log
    assert Counter(job["Comment"].split("_")[0] for job in project.jobs()) == Counter(driver=1, rule=4)
    same(project, made)


@pytest.mark.parametrize("command", ["squeue", "sacct"])
def test_a_cluster_with_accounting(made: Project, accounted: Cluster, tmp_path: Path, command: str) -> None:
    project = OnCluster.after(made, tmp_path / "project", accounted, "cube/sr*")
    project.profiled("slurm-status-command", command)
    assert project.run(SR, "--set-scatter", "job=2").rules == SR_ALONE
    assert {job["Account"] for job in project.jobs()} == {"emsr"}
    same(project, made)
