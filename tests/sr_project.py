"""A coarse volume, weights and the three steps of super-resolution, for tests of steps without Snakemake."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from emsr.durable import read_json
from emsr.models import checkpoint
from emsr.models.gpemsr import PRESETS, build
from emsr.models.stage import overridden
from emsr.steps import superresolve as steps
from emsr.stores.card import write_card
from emsr.stores.zarr import Layout, create, open_array, write_box

TINY: dict[str, Any] = {
    "channels": [8, 8, 8, 8, 8],
    "indexer_channels": [8, 8, 8, 8, 8],
    "latent": 8,
    "entries": 16,
    "tail_blocks": 1,
    "width": 8,
    "front_blocks": 1,
    "back_blocks": 1,
    "deformable_groups": 2,
    "flow_features": 2,
    "flow_levels": 2,
    "flow_widths": [4, 4],
}


def write_weights(
    folder: Path,
    model: str,
    scale: int,
    sections: int = 3,
    window: int = 16,
    seed: int = 0,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> Path:
    """Random weights of a tiny network (or bicubic's none) with their card; returns the card's path."""
    options = {**TINY, **options} if model == "gpemsr" else {}
    card = {"model": model, "options": options, "scale": scale, "sections": sections, "section_step": 1}
    state: dict[str, torch.Tensor] = {}
    if model == "gpemsr":
        tiny = overridden(PRESETS["small"], options)
        card["options"] = dict(vars(tiny))
        state = {
            name: _random(name, tensor, seed) for name, tensor in build(scale, sections, tiny).state_dict().items()
        }
    stage = "fusion" if model == "gpemsr" else "untrained"
    path = folder / f"{model}_x{scale}_{seed}.safetensors"
    checkpoint.save(path, state, {**card, "stage": stage, "window": window, "intensity": {"dtype": "uint8"}})
    return path.with_suffix(".json")


def _random(name: str, tensor: torch.Tensor, seed: int) -> torch.Tensor:
    """Values that depend on the tensor's name and shape alone, so that a golden outlives a reordered network."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    values = rng.normal(size=tuple(tensor.shape))
    if tensor.ndim > 1:
        values /= np.sqrt(np.prod(tensor.shape[1:]))
    else:
        values = 0.1 * values + (1.0 if name.endswith("weight") else 0.0)
    return torch.from_numpy(values).to(tensor.dtype)


def tissue_like(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Smooth noise, uint8: neighbouring sections and pixels resemble each other."""
    rng = np.random.default_rng(seed)
    voxels = rng.normal(size=shape)
    for axis, length in enumerate(shape):
        if length > 2:
            voxels = voxels + np.roll(voxels, 1, axis)
    return np.clip(128 + 40 * voxels / voxels.std(), 0, 255).astype(np.uint8)


@dataclass
class SrProject:
    """One volume in `folder`; `settings` are those of the steps, without result numbers."""

    folder: Path
    card: Path
    settings: dict[str, Any] = field(
        default_factory=lambda: {
            **{"overlap": 4, "shard": [4, 64, 64], "chunk": [2, 32, 32]},
            **{"precision": "float32", "device": "cpu"},
        }
    )

    @property
    def lr(self) -> Path:
        return self.folder / "lr.json"

    @property
    def allocation(self) -> Path:
        return self.folder / "sr" / "allocate.json"

    def mark(self, job: str) -> Path:
        return self.folder / "sr" / "jobs" / f"{job}.json"

    def write_lr(self, voxels: np.ndarray, damaged: tuple[int, ...] = (), missing: tuple[int, ...] = ()) -> None:
        """What ingest leaves behind."""
        array = self.folder / "lr.zarr"
        shape: Any = voxels.shape
        create(array, Layout(shape, "uint8", shape, shape, (40.0, 32.0, 32.0), (0.0, 0.0, 0.0)))
        write_box(open_array(array, write=True), (0, 0, 0), voxels)
        space = {"voxel_size_nm": [40.0, 32.0, 32.0], "translation_nm": [0.0, 0.0, 0.0]}
        states = {
            "damaged": dict.fromkeys(map(str, damaged), "black"),
            "missing": dict.fromkeys(map(str, missing), "-"),
        }
        hashes = [hashlib.sha256(np.ascontiguousarray(section)).hexdigest() for section in voxels]
        fixed = {"array": "lr.zarr", "dtype": "uint8", "source": {}, "degradation": None, "hr_shape": None}
        write_card(self.lr, {**fixed, **space, **states, "shape": list(shape), "section_sha256": hashes})

    def allocate(self) -> None:
        self.allocation.parent.mkdir(parents=True, exist_ok=True)
        steps.allocate({**self.settings, "result": steps.ALLOCATE_RESULT}, self.lr, self.card, self.allocation)

    def job(self, job: str, workers: int = 1) -> list[str]:
        """Run a job; returns the shards that it computed."""
        settings = {**self.settings, "result": steps.SUPERRESOLVE_RESULT}
        steps.superresolve(settings, self.allocation, job, self.mark(job), workers=workers)
        computed: list[str] = self.stats(job)["computed"]
        return computed

    def stats(self, job: str) -> dict[str, Any]:
        stats: dict[str, Any] = read_json(self.mark(job).with_suffix(".stats.json"))
        return stats

    def stitch(self, n: int, workers: int = 1) -> dict[str, Any]:
        settings = {**self.settings, "result": steps.STITCH_RESULT}
        marks = [self.mark(f"{i + 1}-of-{n}") for i in range(n)]
        steps.stitch(settings, self.allocation, marks, self.folder / "sr.json", workers=workers)
        card: dict[str, Any] = read_json(self.folder / "sr.json")
        return card

    def all(self, n: int = 1, workers: int = 1) -> dict[str, Any]:
        """Every step, `n` jobs; returns sr's card."""
        self.allocate()
        for i in range(n):
            self.job(f"{i + 1}-of-{n}", workers)
        return self.stitch(n, workers)

    def voxels(self) -> np.ndarray:
        array = open_array(self.folder / "sr.zarr")
        voxels: np.ndarray = array.read().result()
        return voxels

    def files(self) -> dict[str, bytes]:
        """Every file of the array, links followed, and every record."""
        array = (self.folder / "sr.zarr").resolve()
        folders = (array, array.with_suffix(".records"))
        found = [file for folder in folders for file in sorted(folder.rglob("*")) if file.is_file()]
        return {str(file.relative_to(array.parent)): file.read_bytes() for file in found}
