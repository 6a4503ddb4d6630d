"""A volume with only lr and a network that is not trained: what `emsr run` does with it takes seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from project import ROOT, Project, environment
from sr_project import tissue_like
from test_workflow import tiny_config

SHAPE = (8, 48, 40)
SHARDS = 2 * 3 * 3
EMSR = (sys.executable, "-m", "emsr.cli", "run", "--snakefile", str(ROOT / "Snakefile"), "--cores", "2", "--nocolor")
SR = "results/cells/sr.json"


def config(jobs: int = 4) -> dict[str, Any]:
    made = tiny_config()
    made["jobs"] = jobs
    plain = {"init_from": None, "perceptual": None, "spynet": None, "stages": {"untrained": {}}, "data": []}
    model = {"name": "bicubic", "preset": "small", "options": {}}
    made["trainings"] = {"tiny": made["trainings"]["tiny"] | plain | {"model": model}}
    made["volumes"] = {"cells": {"lr": {"path": "lr.h5", "dataset": "raw"}, "weights": "tiny"}}
    return made


class Driven(Project):
    """A project that is run by `emsr run`."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        super().__init__(folder, config)
        with h5py.File(folder / "lr.h5", "w") as file:
            file.create_dataset("raw", data=tissue_like(SHAPE)).attrs["resolution"] = (40.0, 32.0, 32.0)

    def command(self, *words: str) -> list[str]:
        return [*EMSR, *words]

    def start(self, *words: str, **more: str) -> subprocess.Popen[str]:
        """`emsr run` in a session of its own, its messages in driver.log."""
        with (self.folder / "driver.log").open("w") as log:
            return subprocess.Popen(
                self.command(*words),
                cwd=self.folder,
                stdout=log,
                stderr=log,
                text=True,
                env={**environment(), **more},
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return (self.folder / "driver.log").read_text()

    @property
    def locks(self) -> list[str]:
        """Locks of emsr and of snakemake that are there."""
        folders = [self.path(".emsr"), self.folder / ".snakemake" / "locks"]
        return [name for folder in folders if folder.is_dir() for name in os.listdir(folder) if name.endswith(".lock")]


def alive(folder: Path) -> list[int]:
    """Processes that work in a folder."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if Path(f"/proc/{pid}/cwd").resolve() == folder.resolve():
                found.append(int(pid))
        except OSError:
            continue
    return found


def voxels(shape: tuple[int, int, int]) -> np.ndarray:
    return tissue_like(shape)
