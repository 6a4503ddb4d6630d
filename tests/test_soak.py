"""Kills at random: of a worker, of a job with its shell, of the driver, which is snakemake or emsr run.

One of them here, 200 with `make soak`.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from driver_project import WORDS
from project import Project, environment
from sr_project import write_weights
from test_workflow import tiny_config, write_cube

pytestmark = pytest.mark.workflow
KILLS = int(os.environ.get("EMSR_SOAK", "1"))
SEED = int(os.environ.get("EMSR_SOAK_SEED", str(time.time_ns() % 10**6)))
TARGET = "results/coarse/sr.json"
SHARDS = 27
LONGEST = 300  # seconds that a run may take


class Soaked(Project):
    """A project that is run by snakemake, or by emsr run."""

    front = "snakemake"

    def command(self, *words: str) -> list[str]:
        if self.front == "snakemake":
            return super().command(*words)
        return [sys.executable, "-m", "emsr.cli", "run", "--no-canary", *WORDS, *words]


def tiny(folder: Path) -> Project:
    config = tiny_config()
    source = {"path": "coarse.h5", "dataset": "volumes/raw"}
    weights = {"path": "bicubic_x4_0.safetensors"}
    config |= {"trainings": {}, "jobs": 3, "volumes": {"coarse": {"lr": source, "weights": weights}}}
    project = Project(folder, config)
    write_cube(folder / "coarse.h5", (12, 40, 38))
    write_weights(folder, "bicubic", 4)
    return project


def content(project: Project) -> dict[str, bytes]:
    """All results of the volume that inputs determine."""
    files = (file for file in project.path("coarse").rglob("*") if file.is_file())
    return {str(f.relative_to(project.path())): f.read_bytes() for f in files if not f.name.endswith("stats.json")}


def below(pid: int) -> dict[int, str]:
    """The processes that a process started, and theirs, with their command lines."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found, last = {}, {pid}
    while last:
        last = {child for child, parent in parents.items() if parent in last and child not in found}
        for child in last:
            with contextlib.suppress(OSError):
                found[child] = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
    return found


def victims(driver: int, kind: str, rng: random.Random) -> list[int]:
    """Whom to kill: the driver; one emsr process; a shell that runs one, with all below it."""
    if kind == "driver":
        return [driver]
    started = below(driver)
    workers = [pid for pid, line in started.items() if "/emsr " in line and "bash" not in line.split(" ")[0]]
    shells = [pid for pid, line in started.items() if "bash" in line.split(" ")[0] and "emsr " in line]
    chosen = rng.choice((workers if kind == "worker" else shells or workers) or [0])  # bash may have become what it ran
    return [chosen, *(below(chosen) if kind == "job" else ())] if chosen else []


def records(project: Project) -> dict[str, int]:
    return {Path(file).stem: mtime for file, mtime in project.states("coarse/sr-*.records/[0-9]*.json").items()}


def disturbed(project: Project, rng: random.Random, again: bool) -> tuple[int | None, str | None]:
    """Run the workflow and kill something of it once; its exit code, and what was killed, if something was there."""
    log = (project.folder / "soak.log").open("a")
    words = ["--rerun-incomplete", TARGET] if again and project.front == "snakemake" else [TARGET]
    kind, wanted = rng.choice(["worker", "job", "driver"]), rng.randint(0, SHARDS)
    with (
        log,
        subprocess.Popen(
            project.command(*words),
            cwd=project.folder,
            stdout=log,
            stderr=log,
            env=environment(),
            start_new_session=True,
        ) as process,
    ):
        begun = time.monotonic()
        while process.poll() is None and len(records(project)) < wanted and time.monotonic() - begun < LONGEST:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.5 if wanted else 4))
        chosen = victims(process.pid, kind, rng) if process.poll() is None else []
        for pid in chosen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            code = process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise AssertionError(f"after a kill of {kind} {project.front} did not end: {project.folder}") from None
    return code, kind if chosen else None


def test_kills_at_random_cost_no_more_than_what_was_in_flight_and_change_no_byte(tmp_path: Path) -> None:
    sys.stderr.write(f"soak: {KILLS} kills, EMSR_SOAK_SEED={SEED}\n")
    rng, killed, rounds, kept = random.Random(SEED), Counter[str](), Counter[str](), 0
    start = tiny(tmp_path / "start")
    project = start.copy(tmp_path / "project")  # cards name paths, so all rounds have the same
    project.run(TARGET)
    whole = content(project)
    assert len(records(project)) == SHARDS
    while killed.total() < KILLS:
        shutil.rmtree(tmp_path / "project")
        project, code = Soaked(start.copy(tmp_path / "project").folder, start.config), 1
        project.front = rng.choice(["snakemake", "emsr run"])
        rounds[project.front] += 1
        while code:
            before = records(project)
            code, kind = disturbed(project, rng, bool(killed))
            killed.update([f"{kind} of {project.front}"] if kind else [])
            after = records(project)
            touched = [name for name, mtime in before.items() if after.get(name) != mtime]
            assert not touched, f"seed {SEED}, after {dict(killed)}: shards that had records were made again: {touched}"
            kept += len(before)
            if kind == "driver" and project.front == "snakemake":
                project.run("--unlock")
            if killed.total() >= KILLS:
                project.run(*(["--rerun-incomplete"] if project.front == "snakemake" else []), TARGET, cold=True)
                code = 0
        assert content(project) == whole, f"seed {SEED}, after {dict(killed)}"
    sys.stderr.write(f"soak: killed {dict(killed)} in rounds of {dict(rounds)}, {kept} finished shards were kept\n")
    command = [sys.executable, "-m", "emsr.cli", "verify", "results"]
    verified = subprocess.run(command, cwd=project.folder, capture_output=True, text=True)
    assert verified.returncode == 0, verified.stdout
