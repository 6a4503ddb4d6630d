"""A folder in which a test runs the workflow as a user does, and what it sees of it."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import warm

ROOT = Path(__file__).parents[1]
SNAKEMAKE = (sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"))


SECRET = "planted-hunter2"


@dataclass(frozen=True)
class Run:
    """What one call of snakemake did."""

    returncode: int
    output: str

    @property
    def rules(self) -> Counter[str]:
        """How often each rule ran, ``train`` with its stage."""
        blocks = re.findall(r"^(?:local)?rule (\w+):\n((?:    .*\n)*)", self.output, flags=re.MULTILINE)
        names = Counter[str]()
        for rule, text in blocks:
            stage = re.search(r"wildcards: .*stage=(\w+)", text)
            if rule != "all":
                names[f"{rule} {stage[1]}" if stage else rule] += 1
        return names


class Project:
    """A working folder with a config.yaml of its own."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder, self.config = folder, copy.deepcopy(config)
        folder.mkdir(parents=True, exist_ok=True)
        self._write()

    def _write(self) -> None:
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self.config, sort_keys=False))

    def change(self, where: str, value: Any) -> None:
        """Set the config value at a dotted place."""
        *parents, last = where.split(".")
        part = self.config
        for name in parents:
            part = part[name]
        part[last] = value
        self._write()

    def copy(self, folder: Path) -> Project:
        """The same project elsewhere, with all that it has made and the times of its files."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder, self.config)

    def command(self, *words: str) -> list[str]:
        return [*SNAKEMAKE, "--cores", "2", "--nocolor", *words]

    def run(self, *words: str, check: bool = True, cold: bool = False) -> Run:
        """Run snakemake to its end; cold, with the installed commands in new processes, as a user does."""
        if cold:
            done = subprocess.run(
                self.command(*words), cwd=self.folder, capture_output=True, text=True, env=environment(), timeout=900
            )
        else:
            done = warm.Started(self.command(*words)[2:], self.folder, environment()).wait()
        run = Run(done.returncode, done.stdout + (done.stderr or ""))
        assert not check or done.returncode == 0, run.output
        return run

    def kill_when(self, condition: Callable[[], bool], *words: str, timeout: float = 300) -> None:
        """Start snakemake and kill -9 it with all its jobs as soon as ``condition`` holds."""
        process = warm.Started(self.command(*words)[2:], self.folder, environment())
        start = time.monotonic()
        while not process.ended() and not condition() and time.monotonic() - start < timeout:
            time.sleep(0.02)
        ended, held = process.ended(), condition()
        os.killpg(process.pid, signal.SIGKILL)
        said = process.wait().stdout
        assert held, said
        assert not ended, f"ended before it could be killed:\n{said}"

    def path(self, *parts: str) -> Path:
        return self.folder.joinpath("results", *parts)

    def json(self, *parts: str) -> Any:
        return json.loads(self.path(*parts).read_text())

    def bytes_of(self, zarr: str) -> dict[str, bytes]:
        """Every file below an array's folder."""
        folder = self.path(*zarr.split("/")).resolve()
        return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}

    def states(self, pattern: str) -> dict[str, int]:
        """Time stamps of files below the results."""
        return {str(file): file.stat().st_mtime_ns for file in self.folder.glob(f"results/{pattern}")}


def environment() -> dict[str, str]:
    """The environment with this interpreter's commands first, and secrets that no file may ever hold."""
    secrets = dict.fromkeys(("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "GITHUB_TOKEN"), SECRET)
    return {**os.environ, **secrets, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def telling(folder: Path) -> list[Path]:
    """Files below a folder that hold a secret of the environment."""
    files = [file for file in folder.rglob("*") if file.is_file() and not file.is_symlink()]
    assert len(files) > 20
    return [file for file in files if SECRET.encode() in file.read_bytes()]
