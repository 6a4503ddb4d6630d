"""Snakemake itself, with one core, twenty jobs that end at once and others that wait: how often it looks for work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from project import environment

RULES = """
import json
from emsr.driver.rounds import only_when_needed

ROUNDS = []

rule all:
    input: "last.txt"

rule quick:
    output: "quick/{i}.txt"
    shell: "touch {output}"

rule slow:
    input: expand("quick/{i}.txt", i=range(20))
    output: "slow/{i}.txt"
    shell: "sleep 4; touch {output}"

rule beside:
    output: "beside.txt"
    priority: -1
    resources: mem_mb=10
    shell: "touch {output}"

rule last:
    input: expand("slow/{i}.txt", i=range(2)), "beside.txt"
    output: "last.txt"
    shell: "touch {output}"

onstart:
    if config["calmly"]:
        only_when_needed(workflow)
    select = workflow.scheduler.job_selector
    workflow.scheduler.job_selector = lambda jobs: ROUNDS.append(len(jobs)) or select(jobs)

onsuccess:
    Path("rounds.json").write_text(json.dumps(ROUNDS))
"""


def rounds(folder: Path, calmly: bool, *words: str) -> int:
    folder.mkdir()
    (folder / "Snakefile").write_text(RULES)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--config", f"calmly={calmly}", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment(), timeout=300)
    assert done.returncode == 0, done.stderr
    return len(json.loads((folder / "rounds.json").read_text()))


@pytest.mark.workflow
def test_rounds_are_no_more_than_jobs(tmp_path: Path) -> None:
    """And without it there are more, so that this can be left out when snakemake has mended it."""
    jobs = 25
    assert rounds(tmp_path / "calm", True) <= jobs + 2
    assert rounds(tmp_path / "snakemake's own", False) > 2 * jobs


@pytest.mark.workflow
def test_a_limit_that_was_asked_for_stays(tmp_path: Path) -> None:
    assert rounds(tmp_path / "slow", True, "--max-jobs-per-timespan", "20/2s") > 26
