"""Volumes on disk and settings of trainings of four stages, as small as tests need."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from emsr.degradation import degrade
from emsr.stores.card import write_card
from emsr.stores.zarr import Layout, create, open_array

SCALE = 4
OPTIONS = {
    "channels": [8, 8, 8, 8, 8],
    "latent": 8,
    "entries": 16,
    "tail_blocks": 1,
    "indexer_channels": [8, 8, 8, 8, 8],
    "width": 8,
    "front_blocks": 1,
    "back_blocks": 1,
    "deformable_groups": 2,
    "flow_features": 4,
    "flow_levels": 3,
    "flow_widths": [8],
}
STAGES: dict[str, dict[str, Any]] = {
    "flow": {"steps": 6, "batch": 2, "patch": 16},
    "codebook": {"steps": 12, "batch": 4, "patch": 64, "kmeans_vectors": 64, "restart_after": 2},
    "indexer": {"steps": 6, "batch": 2, "patch": 16},
    "fusion": {"steps": 6, "batch": 2, "patch": 16},
}
READS = {"flow": ["lr"], "codebook": ["hr"], "indexer": ["lr", "hr"], "fusion": ["lr", "hr"]}
EARLIER = {"flow": [], "codebook": [], "indexer": ["codebook"], "fusion": ["flow", "codebook", "indexer"]}


def texture(z: int, y: int, x: int) -> np.ndarray:
    """Blobs that drift from section to section, uint8."""
    grid = np.meshgrid(np.arange(z), np.arange(y), np.arange(x), indexing="ij")
    wave = np.sin(0.2 * grid[1] + 0.5 * grid[0]) * np.cos(0.13 * grid[2] - 0.3 * grid[0])
    noise = np.random.default_rng(0).normal(0, 8, (z, y, x))
    return np.clip(128 + 70 * wave + noise, 0, 255).astype(np.uint8)


def put(folder: Path, name: str, voxels: np.ndarray, damaged: dict[str, str]) -> Path:
    """An array with its image card."""
    layout = Layout(voxels.shape, "uint8", (8, 64, 64), (4, 32, 32), (40.0, 4.0, 4.0))
    create(folder / f"{name}.zarr", layout)
    open_array(folder / f"{name}.zarr", write=True)[...].write(voxels).result()
    hashes = [hashlib.sha256(section.tobytes()).hexdigest() for section in voxels]
    card = {
        "array": f"{name}.zarr",
        "shape": list(voxels.shape),
        "dtype": "uint8",
        "voxel_size_nm": [40, 4, 4],
        "translation_nm": [0, 0, 0],
        "section_sha256": hashes,
        "damaged": damaged,
        "missing": {},
        "source": {},
        "degradation": None if name == "hr" else {"kernel": "bicubic", "scale": SCALE},
        "hr_shape": None,
    }
    write_card(folder / f"{name}.json", card)
    return folder / f"{name}.json"


def pair(folder: Path) -> dict[str, str]:
    """The cards of an hr with a damaged section and of the lr made from it."""
    hr = texture(14, 96, 96)
    images = {"hr": put(folder, "hr", hr, {"2": "black"}), "lr": put(folder, "lr", degrade(hr, SCALE), {})}
    return {image: str(path) for image, path in images.items()}


def settings(stage: str, volume: dict[str, str], out: Path, /, **changes: Any) -> dict[str, Any]:
    """Settings as rules give them, after JSON."""
    recipe = {**STAGES[stage], "validate_every": 3, "checkpoint_every": 2}
    images = {image: volume[image] if image in READS[stage] else None for image in volume}
    whole = {
        "stage": stage,
        "overrides": recipe,
        "model": {"name": "gpemsr", "preset": "small", "options": OPTIONS},
        "scale": SCALE if all(images.values()) else 1,
        "sections": 3,
        "section_step": 1,
        "window": 16,
        "seed": 0,
        "threads": 1,
        "device": "cpu",
        "data": [{"volume": "v", **images, "train": [[0, 8]], "validation": [[10, 14]]}],
        "cards": {earlier: str(out / f"{earlier}.json") for earlier in EARLIER[stage]},
        "init_from": None,
        "perceptual": None,
        "spynet": None,
        "result": 1,
    }
    return json.loads(json.dumps({**whole, **changes}))  # type: ignore[no-any-return]
