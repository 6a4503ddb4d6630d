"""What `emsr run` adds to snakemake on Slurm: names that find its jobs again, and answers that come to an end."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from emsr import durable
from emsr.driver import proxy

COMMANDS = ("sbatch", "squeue", "sacct")
CANCEL_SECONDS = 120.0  # until cancelled jobs have left the queue: longer than the minute that Slurm gives them
LOOK_SECONDS = 1.0
ANSWER_SECONDS = 60.0
MOST = 500  # jobs on one command line

log = logging.getLogger(__name__)


def name_of(results: Path) -> str:
    """What the names of all jobs hold that an `emsr run` submits for a results folder, and no other's jobs.

    It is random and stands in the folder; a copy of the folder, which is another one to the file system, gets its own.
    """
    file, folder = results / ".emsr" / "name.json", results.stat().st_ino
    try:
        stated = durable.read_json(file)
        if stated["folder"] == folder:
            return str(stated["name"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    name = f"emsr-{uuid.uuid4().hex[:12]}"
    durable.write_json(file, {"schema": 1, "name": name, "folder": folder})
    return name


class Slurm:
    """Slurm, as one run uses it; its files lie in `folder`."""

    def __init__(self, name: str, folder: Path, seconds: float) -> None:
        """`seconds`: how long a job may be unknown to Slurm, and Slurm away, before that counts as the end."""
        self.name, self._folder, self._seconds = name, folder, seconds
        self._told = 0

    def environment(self) -> dict[str, str]:
        """The environment in which snakemake finds emsr's sbatch, squeue and sacct before Slurm's own."""
        commands = self._folder / "bin"
        commands.mkdir(parents=True, exist_ok=True)
        for command in COMMANDS:
            if real := shutil.which(command):
                words = [sys.executable, "-I", "-S", proxy.__file__, command, real, str(self._folder)]
                script = os.open(commands / command, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o777)  # less the umask
                with open(script, "w") as file:
                    file.write(f'#!/bin/sh\nexec {shlex.join([*words, str(self._seconds)])} "$@"\n')
        return {**os.environ, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"}

    def begin(self) -> None:
        """Before each call of snakemake: nothing is noted yet, and no job is left of the call before."""
        if (self._folder / "submitted").exists():
            self.cancel()
        for name in ("submitted", "states.json", "lost"):
            (self._folder / name).unlink(missing_ok=True)
        self._told = 0

    def away(self) -> bool:
        """Whether Slurm has not answered for too long; tells of jobs that it forgot meanwhile."""
        lost = self._folder / "lost"
        jobs = lost.read_text().split() if lost.exists() else []
        for job in jobs[self._told :]:
            log.warning("Slurm has not known job %s for %.0f s: it counts as failed", job, self._seconds)
        self._told = len(jobs)
        return (self._folder / "away").exists()

    def cancel(self, seconds: float = CANCEL_SECONDS) -> int:
        """Cancel all jobs of this results folder and wait for `seconds` until they are gone; says how many there were.

        Raises ValueError, in one line, where Slurm does not answer. A job that does not go is a warning: what it
        writes yet is what its successor writes.
        """
        jobs = self._jobs()
        for first in range(0, len(jobs), MOST):
            _answer(["scancel", *jobs[first : first + MOST]], failing=False)
        deadline = time.monotonic() + seconds
        left = jobs
        while left and time.monotonic() < deadline:
            left = self._jobs()
            if left:
                time.sleep(LOOK_SECONDS)
        if left:
            log.warning("jobs %s were cancelled and are not gone after %.0f s", " ".join(left), seconds)
        return len(jobs)

    def _jobs(self) -> list[str]:
        """The numbers of the jobs that wait, run, or are ending."""
        rows = [line.split("|") for line in _answer(["squeue", "--me", "--noheader", "--format=%i|%j"]).splitlines()]
        return [row[0].strip() for row in rows if len(row) == 2 and self.name in row[1]]

    def clear(self) -> None:
        """Remove the files of this run."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _answer(words: Sequence[str], failing: bool = True) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=ANSWER_SECONDS, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise ValueError(
            f"{words[0]} is not on PATH: start where Slurm's commands are, or without --profile slurm"
        ) from None
    except subprocess.TimeoutExpired:
        raise ValueError(f"{words[0]} does not answer within {ANSWER_SECONDS:.0f} s: is Slurm up? Run again") from None
    if done.returncode and failing:
        reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise ValueError(f"{words[0]} does not answer ({reason}): is Slurm up? Run again")
    return done.stdout
