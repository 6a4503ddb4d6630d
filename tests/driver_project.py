"""A volume with only lr and weights that need no training: what `emsr run` does with it takes seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from project import ROOT, Project, environment
from sr_project import tissue_like, write_weights
from test_workflow import tiny_config

SHAPE = (8, 48, 40)
SHARDS = 2 * 3 * 3
WORDS = ("--snakefile", str(ROOT / "Snakefile"), "--cores", "2", "--nocolor")
SR = "results/cells/sr.json"


class Driven(Project):
    """A project that is run by `emsr run`."""

    def __init__(self, folder: Path, jobs: int = 2, lr: np.ndarray | None = None) -> None:
        folder.mkdir(parents=True)
        with h5py.File(folder / "lr.h5", "w") as file:
            file.create_dataset("raw", data=tissue_like(SHAPE) if lr is None else lr)
            file["raw"].attrs["resolution"] = (40.0, 32.0, 32.0)
        super().__init__(folder, config(write_weights(folder, "bicubic", 4), jobs))

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "emsr.cli", "run", *WORDS, *words]

    def start(self, *words: str) -> subprocess.Popen[str]:
        """`emsr run` in a session of its own, its messages in driver.log."""
        with (self.folder / "driver.log").open("w") as log:
            streams: dict[str, Any] = {"stdout": log, "stderr": log, "text": True, "start_new_session": True}
            return subprocess.Popen(self.command(*words), cwd=self.folder, env=environment(), **streams)

    @property
    def said(self) -> str:
        return (self.folder / "driver.log").read_text()

    @property
    def locks(self) -> list[str]:
        """Locks of emsr and of snakemake that are there."""
        folders = [self.path(".emsr"), self.folder / ".snakemake" / "locks"]
        return [name for folder in folders if folder.is_dir() for name in os.listdir(folder) if name.endswith(".lock")]


def config(card: Path, jobs: int) -> dict[str, Any]:
    made = tiny_config()
    made["jobs"] = jobs
    made["trainings"] = {}
    weights = {"path": str(card.with_suffix(".safetensors"))}
    made["volumes"] = {"cells": {"lr": {"path": "lr.h5", "dataset": "raw"}, "weights": weights}}
    return made


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
