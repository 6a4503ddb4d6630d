"""A finished results folder written from arrays, for tests of score and report without training or super-resolution."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from emsr.degradation import degrade, upsample
from emsr.stores.card import write_card
from emsr.stores.zarr import Layout, create, open_array, write_box

HEALTH: dict[str, dict[str, float]] = {
    "flow": {"endpoint_error": 0.61, "endpoint_error_without_flow": 5.2},
    "codebook": {"entries": 512, "entries_used": 0.9727, "perplexity": 371.2, "psnr": 24.1, "ssim": 0.62},
    "indexer": {
        **{"top1": 0.171, "majority_share": 0.0093, "cross_entropy": 3.9, "unigram_entropy": 5.92},
        **{"reference_psnr_predicted": 23.4, "reference_psnr_true": 24.1},
    },
    "fusion": {"psnr": 31.6, "ssim": 0.826, "bicubic_psnr": 29.9, "bicubic_ssim": 0.771},
}


def soft_tissue(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """uint8 (z, y, x): smooth cells with dark borders and a little noise, sections resembling their neighbours."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.arange(length) for length in shape), indexing="ij")
    waves = np.sin(y / 6 + z / 9) * np.cos(x / 7 - z / 11) + np.sin((x + y) / 15)
    return np.clip(150 - 90 * np.exp(-((waves / 0.15) ** 2)) + rng.normal(0, 5, shape), 0, 255).astype(np.uint8)


def job_stats(number: int) -> dict[str, Any]:
    """What a job says of itself: two workers for ten seconds, 18 of their 20 in the network; the second ran short."""
    seconds = {"network": 18.0, "blend": 0.5, "stall": 1.5, "read": 0.4, "write": 3.0}
    speed = {"voxels": 4_000_000, "voxels_per_second": 400_000.0 - number, "compute_seconds": 10.0}
    memory = {"peak_rss_mb": 900.0 + number, "workers": 2, "in_flight": 2 - number, "device": "cpu"}
    return {"state": "finished", **speed, **memory, **{f"{part}_seconds": value for part, value in seconds.items()}}


@dataclass
class Finished:
    """Writes one volume and one training below ``root`` as the rules would have; ``card`` entries by image override."""

    root: Path
    hr: np.ndarray
    scale: int = 4
    voxel_nm: tuple[float, float, float] = (40.0, 4.0, 4.0)
    volume: str = "tissue"
    cards: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    truth: bool = True
    sr: np.ndarray | None = None
    shard: tuple[int, int, int] = (8, 32, 32)
    test: tuple[tuple[int, int], ...] = ((4, 8),)

    def __post_init__(self) -> None:
        s = self.scale
        y, x = (length - length % s for length in self.hr.shape[1:])
        fine = self.hr[:, :y, :x]
        self.lr = degrade(fine, s)
        if self.sr is None:
            self.sr = np.clip(np.rint(0.6 * upsample(self.lr, s) + 0.4 * fine), 0, 255).astype(np.uint8)

    @property
    def folder(self) -> Path:
        return self.root / self.volume

    def image(self, name: str, voxels: np.ndarray, scale: int = 1) -> Path:
        """An array with its card; returns the card's path."""
        size = (self.voxel_nm[0], self.voxel_nm[1] * scale, self.voxel_nm[2] * scale)
        shard = tuple(min(side, 32) for side in self.shard)
        path = self.folder / f"{name}.zarr"
        create(path, Layout(voxels.shape, "uint8", shard, shard, size))  # type: ignore[arg-type]
        write_box(open_array(path, write=True), (0, 0, 0), voxels)
        card = {
            **{"array": path.name, "shape": list(voxels.shape), "dtype": "uint8", "voxel_size_nm": list(size)},
            **{"translation_nm": [0.0, 0.0, 0.0], "damaged": {}, "missing": {}, "degradation": None, "hr_shape": None},
            "source": {"path": "tissue.h5", "dataset": "volumes/raw", "format": "hdf"},
            "section_sha256": [hashlib.sha256(np.ascontiguousarray(section)).hexdigest() for section in voxels],
        }
        write_card(self.folder / f"{name}.json", {**card, **self.cards.get(name, {})})
        return self.folder / f"{name}.json"

    def write(self) -> Finished:
        """Every file that score reads."""
        self.image("lr", self.lr, self.scale)
        if self.truth:
            self.image("hr", self.hr)
        assert self.sr is not None
        self.image("sr", self.sr)
        return self

    def score_settings(self) -> dict[str, Any]:
        paths = {name: str(self.folder / f"{name}.json") for name in ("lr", "hr", "sr")}
        values = {"result": 1, "volume": self.volume, "scale": self.scale, "test": [list(span) for span in self.test]}
        return {**values, **paths, **({} if self.truth else {"hr": None, "test": None})}

    def write_run(self, jobs: int = 2) -> None:
        """What the rules before the report leave: plan, proof, weights' cards and curves, benchmark tables."""
        assert self.sr is not None
        table = [[max(z - 1, 0), z, min(z + 1, len(self.lr) - 1)] for z in range(len(self.lr))]
        plan = {"lr": {"shape": list(self.lr.shape)}, "scale": self.scale, "window": 16, "overlap": 4}
        self.json(f"{self.volume}/sr/allocate.json", {**plan, "shard": list(self.shard), "sections": table})
        marks = [f"jobs/{number + 1}-of-{jobs}.json" for number in range(jobs)]
        self.json(f"{self.volume}/sr/proof.json", {"marks": marks, "settings": {}})
        self.json(f"{self.volume}/sr/stitch.stats.json", {"job_seams": {"y": 1.002, "x": None}})
        for number, mark in enumerate(marks):
            self.json(f"{self.volume}/sr/{Path(mark).with_suffix('.stats.json')}", job_stats(number))
        for number, (stage, health) in enumerate(HEALTH.items()):
            card = {"model": "gpemsr", "preset": "small", "stage": stage, "sha256": f"{number}" * 64, "health": health}
            card["training"] = {"recipe": {"steps": 300}}
            self.json(f"trainings/{self.volume}/{stage}.json", {**card, "scores": {"score": 24.1, "step": 240}})
            self.json(f"trainings/{self.volume}/{stage}.curve.json", curve(number))
            self.json(f"trainings/{self.volume}/{stage}.stats.json", {"seconds": 61.5, "peak_memory_bytes": 9e8})
        self.benchmarks()

    def benchmarks(self) -> None:
        for name, seconds, memory in (
            ("ingest/tissue.hr", 3.2, "210.4"),
            ("train/tissue.codebook", 130.0, "1720.0"),
            ("train/tissue.fusion", 300.0, "2150.5"),
            ("superresolve/tissue.1-of-2", 41.0, "980.1"),
            ("score/tissue", 0.8, "-"),
        ):
            path = self.root / "benchmarks" / f"{name}.tsv"
            path.parent.mkdir(parents=True, exist_ok=True)
            header = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time"
            path.write_text(f"{header}\n{seconds}\t0:00:01\t{memory}\t1\t1\t1\t0\t0\t185.2\t3.1\n")

    def json(self, name: str, document: Any) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document))

    def report_settings(self) -> dict[str, Any]:
        volume = {name: str(self.folder / f"{name}.json") for name in ("lr", "sr", "scores")}
        volume |= {"allocate": str(self.folder / "sr" / "allocate.json"), "scale": self.scale}  # type: ignore[dict-item]
        volume |= {"hr": str(self.folder / "hr.json") if self.truth else None}  # type: ignore[dict-item]
        stages = {stage: str(self.root / "trainings" / self.volume / f"{stage}.json") for stage in HEALTH}
        data = [{"volume": self.volume, "train": [[0, 2]], "validation": [[2, 3]]}]
        config = {
            "results": "results",
            "volumes": {self.volume: {"weights": self.volume, "test": self.score_settings()["test"]}},
            "trainings": {self.volume: {"scale": self.scale, "data": data if self.truth else []}},
        }
        return {
            "result": 1,
            "title": "Synthetic tissue",
            "config": config,
            "volumes": {self.volume: {**volume, "card": stages["fusion"]}},
            "trainings": {self.volume: stages} if self.truth else {},
            "benchmarks": str(self.root / "benchmarks"),
        }


def curve(number: int) -> dict[str, list[dict[str, float]]]:
    """Curves that fall and rise as those of a training do."""
    steps = range(10, 301, 10)
    noise = np.random.default_rng(number).normal(1, 0.05, 31)
    losses = [{"step": s, "loss": noise[i] * (0.02 + 0.3 / s), "image": 0.02 * noise[i]} for i, s in enumerate(steps)]
    figures = [{"step": s, "psnr": 31 - 60 / s, "ssim": 0.8 - 3 / s, "score": 31 - 60 / s} for s in range(30, 301, 30)]
    return {"training": losses, "validation": figures}
