"""An image, weights and the steps from affinities to segments in one folder, for tests of steps without Snakemake."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from affinity_goldens import NARROW, filled
from emsr.durable import read_json
from emsr.models import checkpoint
from emsr.steps import affinities, agglomeration, fragments, segment
from emsr.steps.threshold import choose_threshold
from emsr.stores.card import write_card
from emsr.stores.zarr import Layout, create, open_array, write_box

SHAPE = (9, 70, 52)
CHUNK = [3, 16, 16]
BLOCK = {"method": "watershed", "block": [1, 16, 16], "halo": [0, 8, 8]}


def weights(folder: Path, name: str = "superhuman", **window: int) -> Path:
    options = NARROW[name]
    card = {"model": "affinity", "options": asdict(options), "scale": 1, "sections": 1, "stage": "affinity"}
    path = folder / "affinity.safetensors"
    checkpoint.save(path, filled(options).state_dict(), {**card, **(window or {"depth": 5, "window": 32})})
    return path.with_suffix(".json")


def image(folder: Path, voxels: np.ndarray, damaged: tuple[int, ...] = (), name: str = "hr", **stated: Any) -> Path:
    """An image card, or one of ids, with its array; ``stated`` is on the card too."""
    shape: Any = voxels.shape
    create(folder / f"{name}.zarr", Layout(shape, voxels.dtype.name, shape, shape, (40.0, 4.0, 4.0)))
    write_box(open_array(folder / f"{name}.zarr", write=True), (0, 0, 0), voxels)
    hashes = [hashlib.sha256(section.tobytes()).hexdigest() for section in voxels]
    space = {"voxel_size_nm": [40.0, 4.0, 4.0], "translation_nm": [20.0, 2.0, 2.0], "source": {}, "hr_shape": None}
    states = {"damaged": dict.fromkeys(map(str, damaged), "black"), "missing": {}, "degradation": None}
    fixed = {"array": f"{name}.zarr", "dtype": voxels.dtype.name, "shape": list(shape), "section_sha256": hashes}
    write_card(folder / f"{name}.json", {**fixed, **space, **states, **stated})
    return folder / f"{name}.json"


class Chain:
    """The steps in their order in one folder."""

    def __init__(
        self, folder: Path, jobs: int = 2, workers: int = 1, shard: tuple[int, int, int] = (3, 32, 32)
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.jobs, self.workers, self.shard = folder, jobs, workers, list(shard)
        self.affinities: dict[str, Any] = {
            **{"overlap": 8, "depth_overlap": 2, "precision": "float32", "device": "cpu"},
            **{"shard": self.shard, "chunk": CHUNK},
        }
        self.fragments: dict[str, Any] = {**BLOCK, "chunk": CHUNK}
        self.method = "exact"

    def predict(self, card: Path, weights: Path) -> dict[str, Any]:
        allocate = self.folder / "affinities" / "allocate.json"
        affinities.allocate_affinities(self.affinities, card, weights, allocate)
        marks = [allocate.parent / "jobs" / f"{n + 1}-of-{self.jobs}.json" for n in range(self.jobs)]
        for mark in marks:
            affinities.affinities(self.affinities, allocate, mark.stem, mark, workers=self.workers)
        affinities.prove_affinities(self.affinities, allocate, marks[:1], self.folder / "affinities.json", workers=1)
        return read_json(self.folder / "affinities.json")

    def cut(self) -> dict[str, Any]:
        allocate = self.folder / "fragments" / "allocate.json"
        fragments.allocate_fragments(self.fragments, self.folder / "affinities.json", allocate)
        marks = [allocate.parent / "jobs" / f"{n + 1}-of-{self.jobs}.json" for n in range(self.jobs)]
        for mark in marks:
            fragments.fragments(self.fragments, allocate, mark.stem, mark, workers=self.workers)
        fragments.prove_fragments(self.fragments, allocate, marks[:1], self.folder / "fragments.json", workers=1)
        return read_json(self.folder / "fragments.json")

    def merge(self, threshold: float = 0.5) -> np.ndarray:
        settings = {"method": self.method, "until": 0.9, "affinities": str(self.folder / "affinities.json")}
        out = self.folder / "agglomeration.json"
        agglomeration.agglomerate(settings, self.folder / "fragments.json", out, workers=self.workers)
        return self.segments(threshold)

    def segments(self, threshold: float) -> np.ndarray:
        self.choose({"threshold": threshold})
        merged, chosen = self.folder / "agglomeration.json", self.folder / "threshold.json"
        segment.segment({"chunk": CHUNK}, merged, chosen, self.folder / "segments.json", workers=self.workers)
        return self.voxels("segments.json")

    def choose(self, settings: dict[str, Any]) -> dict[str, Any]:
        """The threshold of these settings, or of validation sections without any tolerance."""
        out = self.folder / "threshold.json"
        settings = {"threshold": None, "border_nm": 0.0, "in_plane": False, **settings}
        choose_threshold(settings, self.folder / "agglomeration.json", out, workers=self.workers)
        found: dict[str, Any] = read_json(out)
        return found

    def voxels(self, card: str) -> np.ndarray:
        path = self.folder / card
        found: np.ndarray = open_array(path.parent / read_json(path)["array"]).read().result()
        return found

    def all(self, card: Path, weights: Path) -> np.ndarray:
        self.predict(card, weights)
        self.cut()
        return self.merge()
