"""`emsr run` on a real Slurm: it comes to an end where snakemake alone would wait for ever."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from project import Project
from slurm_cluster import Cluster
from slurm_project import OUTAGE_SECONDS, SR, Driven, HalfWay, same, wait_until

pytestmark = pytest.mark.slurm


def test_a_job_that_is_cancelled_while_sacct_is_asked(made: Project, accounted: Cluster, tmp_path: Path) -> None:
    project = Driven.after(made, tmp_path / "project", accounted, "cube/sr*")
    project.profiled("slurm-status-command", "sacct")
    half = HalfWay.of(project)
    accounted.ask("scancel", half.job)
    half.driver.end()
    same(project, made)
    assert [job["JobState"] for job in project.jobs_of("superresolve")] == ["CANCELLED", "COMPLETED"]


def test_a_minute_without_slurmctld_and_nobody_to_ask(made: Project, plain: Cluster, tmp_path: Path) -> None:
    half = HalfWay.of(Driven.after(made, tmp_path / "project", plain, "cube/sr*"))
    plain.stop("slurmctld")
    half.project.thaw(half.process)
    wait_until(lambda: not half.project.processes("superresolve"))
    time.sleep(OUTAGE_SECONDS)  # what is tested
    plain.start("slurmctld")
    half.driver.end()
    same(half.project, made)
    assert len(half.project.jobs_of("superresolve")) == 1


def test_a_killed_driver_s_jobs_are_cancelled_before_others_start(
    made: Project, plain: Cluster, tmp_path: Path
) -> None:
    half = HalfWay.of(Driven.after(made, tmp_path / "project", plain, "cube/sr*"))
    os.kill(half.driver.process.pid, signal.SIGKILL)
    half.driver.process.wait()
    half.project.run(SR, "--set-scatter", "job=1")
    half.went_on(made)
    states = {job["JobId"]: job["JobState"] for job in half.project.jobs_of("superresolve")}
    assert states.pop(half.job) == "CANCELLED"
    assert list(states.values()) == ["COMPLETED"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_no_job(made: Project, plain: Cluster, tmp_path: Path, number: signal.Signals) -> None:
    half = HalfWay.of(Driven.after(made, tmp_path / "project", plain, "cube/sr*"))
    half.driver.process.send_signal(number)
    assert half.driver.end(check=False, timeout=120).returncode == 128 + number
    assert {job["JobState"] for job in half.project.jobs() if job["JobId"] == half.job} <= {"CANCELLED", "COMPLETING"}
    wait_until(lambda: not half.project.processes("superresolve"))
    half.recorded = half.project.states("cube/sr-*.records/*.json")  # it ended the shard that it was at
    half.project.run(SR, "--set-scatter", "job=1")
    half.went_on(made)
