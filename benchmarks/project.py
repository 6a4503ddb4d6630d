"""What several benchmarks begin with: a coarse volume, weights of no training, and the steps of super-resolution."""

from __future__ import annotations

import contextlib
import hashlib
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from emsr.durable import read_json
from emsr.models import checkpoint, gpemsr
from emsr.steps import superresolve as steps
from emsr.stores.card import write_card
from emsr.stores.ome import Layout
from emsr.stores.zarr import create, open_array, write_box

SECTIONS = 5
SIZE_NM = (40.0, 32.0, 32.0)
SHARD, CHUNK = (32, 1024, 1024), (16, 128, 128)  # of config.yaml
DEEP = 32  # sections of lr that are made at a time


def grey(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """uint8 (z, y, x): smooth cells with shot noise; neighbouring sections are alike."""
    generator = np.random.default_rng(seed)
    tile = gaussian_filter(generator.normal(size=(64, 64)), 2, mode="wrap")
    tile *= 35 / tile.std()
    pattern = np.tile(tile, [-(-side // 64) for side in shape[1:]])[: shape[1], : shape[2]]
    noise = generator.standard_normal(shape, np.float32) * 6
    for z, section in enumerate(noise):
        section += 128 + np.roll(pattern, z, axis=1)
    return np.clip(noise, 0, 255).astype(np.uint8)


def weights(folder: Path, model: str, scale: int, window: int, preset: str = "small") -> Path:
    """The card of random weights of gpemsr, or of bicubic's none."""
    sections = SECTIONS if model == "gpemsr" else 1
    card: dict[str, Any] = {"model": model, "options": {}, "scale": scale, "sections": sections, "section_step": 1}
    state: dict[str, torch.Tensor] = {}
    if model == "gpemsr":
        torch.manual_seed(0)
        options = gpemsr.PRESETS[preset]
        state = gpemsr.build(scale, sections, options).state_dict()
        card["options"] = {name: list(v) if isinstance(v, tuple) else v for name, v in vars(options).items()}
    path = folder / f"{model}_x{scale}.safetensors"
    stage = "fusion" if model == "gpemsr" else "untrained"
    checkpoint.save(path, state, {**card, "stage": stage, "window": window, "intensity": {"dtype": "uint8"}})
    return path.with_suffix(".json")


@dataclass
class Project:
    """A volume in a folder of its own."""

    folder: Path
    card: Path
    overlap: int
    shard: tuple[int, int, int] = SHARD
    device: str = "cpu"
    precision: str = "float32"
    voxel_size_nm: tuple[float, ...] = SIZE_NM

    def write_lr(self, shape: tuple[int, int, int]) -> None:
        """What ingest leaves behind, a few sections at a time."""
        self._write(shape, lambda z, deep: grey((deep, *shape[1:]), z))

    def take_lr(self, voxels: np.ndarray) -> None:
        """The same of voxels uint8 (z, y, x) that are there."""
        depth, height, width = voxels.shape
        self._write((depth, height, width), lambda z, deep: np.ascontiguousarray(voxels[z : z + deep]))

    def _write(self, shape: tuple[int, int, int], made: Callable[[int, int], np.ndarray]) -> None:
        path = self.folder / "lr.zarr"
        create(path, Layout(shape, "uint8", (DEEP, 512, 512), (8, 128, 128), self.voxel_size_nm))
        array, hashes = open_array(path, write=True), []
        for z in range(0, shape[0], DEEP):
            part = made(z, min(DEEP, shape[0] - z))
            write_box(array, (z, 0, 0), part)
            hashes += [hashlib.sha256(section.data).hexdigest() for section in part]
        fixed = {"array": path.name, "dtype": "uint8", "source": {}, "degradation": None, "hr_shape": None}
        space = {"voxel_size_nm": list(self.voxel_size_nm), "translation_nm": [0.0, 0.0, 0.0]}
        states = {"damaged": {}, "missing": {}, "section_sha256": hashes}
        write_card(self.folder / "lr.json", {**fixed, **space, **states, "shape": list(shape)})

    def sr(self) -> np.ndarray:
        """The voxels that were made."""
        voxels: np.ndarray = open_array(self.folder / "sr.zarr").read().result()
        return voxels

    @property
    def settings(self) -> dict[str, Any]:
        laid = {"overlap": self.overlap, "shard": list(self.shard), "chunk": list(CHUNK)}
        return {**laid, "precision": self.precision, "device": self.device}

    def run(self, workers: int, jobs: int = 1) -> dict[str, Any]:
        """Seconds of allocate, of all jobs and of stitch, and the stats of the last job."""
        allocation = self.folder / "sr" / "allocate.json"
        marks = [allocation.parent / "jobs" / f"{n + 1}-of-{jobs}.json" for n in range(jobs)]
        clock = [time.perf_counter()]
        with contextlib.redirect_stderr(io.StringIO()):
            stated = {**self.settings, "result": steps.ALLOCATE_RESULT}
            steps.allocate(stated, self.folder / "lr.json", self.card, allocation)
            clock.append(time.perf_counter())
            for mark in marks:
                stated = {**self.settings, "result": steps.SUPERRESOLVE_RESULT}
                steps.superresolve(stated, allocation, mark.stem, mark, workers=workers)
            clock.append(time.perf_counter())
            stated = {**self.settings, "result": steps.STITCH_RESULT}
            steps.stitch(stated, allocation, marks, self.folder / "sr.json", workers=workers)
            clock.append(time.perf_counter())
        allocate, superresolve, stitch = np.diff(clock).tolist()
        stats = read_json(marks[-1].with_suffix(".stats.json"))
        return {"allocate": allocate, "superresolve": superresolve, "stitch": stitch, "stats": stats}
