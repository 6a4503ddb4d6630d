"""The demo of the README, whole, through a real Slurm: a quarter of an hour of two cores."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from project import ROOT
from slurm_cluster import Cluster
from slurm_project import OnCluster

pytestmark = pytest.mark.slurm
LONGEST = 3600.0  # seconds


def started(cluster: Cluster) -> set[str]:
    """The numbers of all jobs of which a step began."""
    tasks = cluster.folder / "log/tasks.tsv"
    return {line.split("\t")[1] for line in tasks.read_text().splitlines()} if tasks.exists() else set()


def test_the_demo(plain: Cluster, tmp_path: Path) -> None:
    project = OnCluster(tmp_path / "project", yaml.safe_load((ROOT / "config.yaml").read_text()), plain)
    run = project.start("--jobs", "8").end(timeout=LONGEST)  # of the profile's 100: this machine is one
    jobs = project.jobs()
    assert len(jobs) == sum(run.rules.values())
    assert {job["JobState"] for job in jobs} == {"COMPLETED"}
    for command in (["-m", "emsr.cli", "verify", "results"], [str(ROOT / "benchmarks/alive.py"), "results"]):
        done = subprocess.run([sys.executable, *command], cwd=project.folder, capture_output=True, text=True)
        sys.stderr.write(done.stdout)
        assert done.returncode == 0, done.stdout + done.stderr
    assert project.path("report.html").is_file()
    assert not project.run("-n").rules, "a second run has nothing to do"
