"""What a real cluster does to jobs half-way: each time the run goes on to the very bytes of the undisturbed one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from project import Project
from slurm_cluster import NODE, Cluster
from slurm_project import OUTAGE_SECONDS, SR, Driven, HalfWay, OnCluster, same, wait_until

pytestmark = pytest.mark.slurm


@pytest.fixture
def half(made: Project, plain: Cluster, tmp_path: Path) -> Iterator[HalfWay]:
    half = HalfWay.of(OnCluster.after(made, tmp_path / "project", plain, "cube/sr*"))
    yield half
    with suppress(ProcessLookupError):
        os.kill(half.process, signal.SIGKILL)


def scancel(half: HalfWay) -> str:
    half.project.cluster.ask("scancel", half.job)
    return "CANCELLED"


def timeout(half: HalfWay) -> str:
    half.project.cluster.ask("scontrol", "update", f"JobId={half.job}", "TimeLimit=1")
    return "TIMEOUT"


def killed(half: HalfWay) -> str:
    os.kill(half.process, signal.SIGKILL)
    return "FAILED"


@pytest.mark.parametrize("fault", [scancel, timeout, killed])
def test_a_job_that_ends_early_is_tried_again(half: HalfWay, made: Project, fault: Callable[[HalfWay], str]) -> None:
    state = fault(half)
    run = half.driver.end()
    assert f"SLURM status is: '{state}'" in run.output
    first, second = sorted(half.project.jobs_of("superresolve"), key=lambda job: int(job["JobId"]))
    assert (first["JobId"], first["JobState"], second["JobState"]) == (half.job, state, "COMPLETED")
    half.went_on(made)


def test_a_job_without_a_retry_left_fails_the_run_and_no_other_job(
    made: Project, plain: Cluster, tmp_path: Path
) -> None:
    project = OnCluster.after(made, tmp_path / "project", plain, "cube/sr*")
    project.profiled("retries", "0")
    driver = project.start(SR, "--set-scatter", "job=2")
    process = project.frozen("superresolve", driver)
    number = project.job_of(process)
    plain.ask("scancel", number)
    run = driver.end(check=False)
    assert run.returncode != 0
    states = {job["JobId"]: job["JobState"] for job in project.jobs_of("superresolve")}
    assert (states.pop(number), *states.values()) == ("CANCELLED", "COMPLETED")
    recorded = project.states("cube/sr-*.records/*.json")
    again = project.run(SR, "--set-scatter", "job=2")
    assert again.rules == {"superresolve": 1, "stitch": 1}
    now = project.states("cube/sr-*.records/*.json")
    assert {file: now[file] for file in recorded} == recorded
    same(project, made)


def test_a_node_that_is_lost_and_whose_process_comes_back(half: HalfWay, made: Project) -> None:
    """Slurm starts the job again, which is no retry; what the lost one still writes then is the same."""
    cluster = half.project.cluster
    cluster.stop("slurmd", signal.SIGKILL)
    for process in cluster.supervisors():
        os.kill(process, signal.SIGKILL)
    cluster.ask("scontrol", "update", f"NodeName={NODE}", "State=DOWN", "Reason=lost")
    cluster.start("slurmd", answering=False)
    cluster.ask("scontrol", "update", f"NodeName={NODE}", "State=RESUME")
    run = half.driver.end()
    (job,) = half.project.jobs_of("superresolve")
    assert (job["JobId"], job["Restarts"], job["JobState"]) == (half.job, "1", "COMPLETED")
    assert "Trying to restart job" not in run.output
    half.went_on(made)
    half.project.thaw(half.process)
    wait_until(lambda: not half.project.processes("superresolve"))
    same(half.project, made)


def test_a_driver_that_is_killed_leaves_a_job_that_hurts_nobody(half: HalfWay, made: Project) -> None:
    """Unlocked and run again, the job is there twice; the old one ends after the new one."""
    os.killpg(half.driver.process.pid, signal.SIGKILL)
    half.driver.process.wait()
    half.project.run("--unlock")
    half.project.run(SR, "--set-scatter", "job=1")
    half.went_on(made)
    half.project.thaw(half.process)
    jobs = half.project.jobs_of
    wait_until(lambda: {job["JobState"] for job in jobs("superresolve")} <= {"COMPLETED", "FAILED"})
    same(half.project, made)


def test_a_minute_without_slurmctld(made: Project, accounted: Cluster, tmp_path: Path) -> None:
    """The job ends meanwhile. With accounting the driver asks sacct until slurmctld is there again."""
    half = HalfWay.of(OnCluster.after(made, tmp_path / "project", accounted, "cube/sr*"))
    accounted.stop("slurmctld")
    half.project.thaw(half.process)
    wait_until(lambda: not half.project.processes("superresolve"))
    time.sleep(OUTAGE_SECONDS)  # what is tested
    accounted.start("slurmctld")
    half.driver.end()
    same(half.project, made)
    assert len(half.project.jobs_of("superresolve")) == 1


@pytest.mark.parametrize("kind", [OnCluster, Driven])
def test_a_job_that_sbatch_refuses(made: Project, plain: Cluster, tmp_path: Path, kind: type[OnCluster]) -> None:
    project = kind.after(made, tmp_path / "project", plain, "cube/sr*")
    project.profiled("superresolve.slurm_partition", "nowhere")
    run = project.run(SR, "--set-scatter", "job=1", check=False)
    assert run.returncode not in (0, None)
    assert "invalid partition" in run.output.lower()
    assert "nowhere" in run.output
    assert not project.states("cube/sr-*.records/*.json")
    project.profiled("superresolve.slurm_partition", "gpu")
    project.run(SR, "--set-scatter", "job=1")
    same(project, made)
