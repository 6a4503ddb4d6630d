"""A project whose jobs a real Slurm runs, and hands that reach into it to break things."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from project import ROOT, SNAKEMAKE, Project, Run, environment
from slurm_cluster import Cluster
from test_workflow import tiny_config, write_cube

SOON = ("--slurm-init-seconds-before-status-checks", "2", "--seconds-between-status-checks", "2", "--latency-wait", "5")

PATIENCE = 300.0  # seconds
OUTAGE_SECONDS = 60.0
SR = "results/cube/sr.json"
WALL_TIMES = 6


def undisturbed(folder: Path) -> Project:
    """A tiny project as it is made without Slurm."""
    config = tiny_config()
    config["trainings"]["tiny"]["stages"]["flow"] |= {"steps": WALL_TIMES}
    project = Project(folder, config)
    write_cube(project.folder / "cube.h5")
    project.run()
    return project


def same(project: Project, made: Project) -> None:
    """Voxels, records and proof are those of the undisturbed run."""
    assert project.bytes_of("cube/sr.zarr") == made.bytes_of("cube/sr.zarr")
    assert project.json("cube", "sr.json") == made.json("cube", "sr.json")
    for record in made.path("cube").glob("sr-*.records/*.json"):
        assert project.path("cube", record.parent.name, record.name).read_bytes() == record.read_bytes()


class OnCluster(Project):
    """A project with the profile as it is shipped, without the account where the cluster has no accounting."""

    program: tuple[str, ...] = SNAKEMAKE

    def __init__(self, folder: Path, config: dict[str, Any], cluster: Cluster, profile: str = "slurm") -> None:
        super().__init__(folder, config)
        self.cluster, self.profile = cluster, profile
        text = (ROOT / profile / "config.yaml").read_text()
        if not cluster.accounting:
            text, count = re.subn(r"^  slurm_account: .*\n", "", text, flags=re.MULTILINE)
            assert count == 1
        (folder / profile).mkdir(exist_ok=True)
        (folder / profile / "config.yaml").write_text(text)

    @classmethod
    def after(cls, made: Project, folder: Path, cluster: Cluster, *gone: str, profile: str = "slurm") -> OnCluster:
        """A copy of a finished project without what matches patterns below its results."""
        shutil.copytree(made.folder, folder, symlinks=True)
        for pattern in gone:
            for path in (folder / "results").glob(pattern):
                path.unlink() if path.is_symlink() or path.is_file() else shutil.rmtree(path)
        return cls(folder, made.config, cluster, profile)

    def command(self, *words: str) -> list[str]:
        return [*self.program, "--cores", "all", "--nocolor", "--profile", self.profile, *SOON, *words]

    def profiled(self, where: str, value: str) -> None:
        """Change a line of the profile: "retries", or "train.runtime"."""
        file = self.folder / self.profile / "config.yaml"
        part, _, name = where.rpartition(".")
        begins = f"^  {part}:\n(?:    .*\n)*?    " if part else "^"
        text, count = re.subn(f"({begins}{name}: )\\S+", rf"\g<1>{value}", file.read_text(), flags=re.MULTILINE)
        assert count == 1, where
        file.write_text(text)

    def environment(self) -> dict[str, str]:
        return {**environment(), "PATH": f"{self.cluster.folder}/bin:{environment()['PATH']}"}

    def run(self, *words: str, check: bool = True) -> Run:
        return self.start(*words).end(check)

    def start(self, *words: str) -> Started:
        """Start snakemake and go on."""
        return self.start_command(self.command(*words))

    def start_command(self, command: list[str]) -> Started:
        return Started(self, command)

    def frozen(self, verb: str, driver: Started) -> int:
        """Wait for a process of a step while a shard is recorded and others are not, and stop it; its process id."""
        found: list[int] = []
        recorded = partial(self.folder.glob, "results/*/sr-*.records/*.json")
        writing = partial(self.folder.glob, "results/*/sr-*.zarr/**/*.__lock")

        def stopped() -> bool:
            for process in self.processes(verb):
                self.freeze(process)
                if any(recorded()) and not any(writing()):  # its lock of a shard would stop its successor
                    found.append(process)
                    return True
                self.thaw(process)
            return False

        wait_until(stopped, driver, pause=0.01)
        return found[0]

    @staticmethod
    def freeze(process: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGSTOP)

    @staticmethod
    def thaw(process: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)

    def processes(self, verb: str) -> list[int]:
        """The processes of a step that work in this folder."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (process / "cmdline").read_bytes().split(b"\0")
                named = len(words) > 2 and words[1].endswith(b"/emsr") and words[2] == verb.encode()
                if named and (process / "cwd").resolve() == self.folder.resolve():
                    found.append(int(process.name))
        return found

    def job_of(self, process: int) -> str:
        """The number of the Slurm job that a process belongs to."""
        return self.variables(process)["SLURM_JOB_ID"]

    @staticmethod
    def variables(process: int) -> dict[str, str]:
        text = Path(f"/proc/{process}/environ").read_bytes().decode()
        return dict(line.split("=", 1) for line in text.split("\0") if "=" in line)

    def jobs(self) -> list[dict[str, str]]:
        """What Slurm knows of the jobs that were started in this folder."""
        blocks = self.cluster.ask("scontrol", "show", "job", "--oneliner").splitlines()
        jobs = [dict(re.findall(r"(\w+)=(\S*)", block)) for block in blocks]
        return [job for job in jobs if job.get("WorkDir") == str(self.folder)]

    def jobs_of(self, rule: str) -> list[dict[str, str]]:
        return [job for job in self.jobs() if job["Comment"].startswith(f"rule_{rule}_")]


class Driven(OnCluster):
    """Such a project that `emsr run` runs; what the tiny network makes would pass no gate of the canary."""

    program = (sys.executable, "-m", "emsr.cli", "run", "--no-canary", *SNAKEMAKE[3:])


class Started:
    """A snakemake at work."""

    def __init__(self, project: OnCluster, command: list[str]) -> None:
        self.path = project.folder / f"driver.{time.monotonic_ns()}.log"
        with self.path.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=project.folder, stdout=log, stderr=log, env=project.environment(), start_new_session=True
            )

    def end(self, check: bool = True, timeout: float = 600) -> Run:
        """Wait for the end."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise AssertionError(self.path.read_text()) from None
        run = Run(self.process.returncode, self.path.read_text())
        assert not check or run.returncode == 0, run.output
        return run


def wait_until(holds: Callable[[], object], driver: Started | None = None, pause: float = 0.2) -> None:
    """Look again and again, as long as the driver works."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert driver is None or driver.process.poll() is None, driver.path.read_text()
        assert time.monotonic() < end, "it never came to be"
        time.sleep(pause)


@dataclass
class HalfWay:
    """A run whose only super-resolution job has recorded a shard and stands still."""

    project: OnCluster
    driver: Started
    process: int
    job: str
    recorded: dict[str, int]

    @classmethod
    def of(cls, project: OnCluster) -> HalfWay:
        driver = project.start(SR, "--set-scatter", "job=1")
        process = project.frozen("superresolve", driver)
        return cls(project, driver, process, project.job_of(process), project.states("cube/sr-*.records/*.json"))

    def went_on(self, made: Project) -> None:
        """The job's replacement made what was missing and nothing else; another run finds nothing to do."""
        same(self.project, made)
        now = self.project.states("cube/sr-*.records/*.json")
        assert self.recorded
        assert {file: now[file] for file in self.recorded} == self.recorded
        stats = self.project.json("cube", "sr", "jobs", "1-of-1.stats.json")
        assert set(stats["computed"]) == {Path(file).stem for file in now.keys() - self.recorded.keys()}
        assert not self.project.run("-n", SR, "--set-scatter", "job=1").rules
