"""A volume of a few voxels, and the config of a project that trains a tiny network on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml

from project import ROOT

TINY = {  # a network with all its parts, for a second of training
    **{"latent_stride": 4, "channels": [8, 8, 8], "latent": 8, "entries": 16, "tail_blocks": 1},
    **{"indexer_channels": [8, 8], "width": 8, "front_blocks": 1, "back_blocks": 1, "deformable_groups": 1},
    **{"flow_levels": 3, "flow_widths": [8], "flow_kernel": 3, "flow_features": 4, "flow_scale": 1},
}
STAGE = {"steps": 2, "batch": 1, "validate_every": 2, "checkpoint_every": 1, "precision": "float32"}
STAGES = {
    "flow": {**STAGE, "patch": 16},
    "codebook": {**STAGE, "patch": 32, "kmeans_vectors": 64, "unquantised": 0.5},
    "indexer": {**STAGE, "patch": 16},
    "fusion": {**STAGE, "patch": 16},
}
SHAPE = (14, 97, 90)  # no multiple of the scale


def tiny_config() -> dict[str, Any]:
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    layout = {"shard": [4, 64, 64], "chunk": [4, 32, 32]}
    config["ingest"] = layout
    config["superresolve"] |= {"overlap": 4, **layout}
    config["volumes"] = {
        "cube": {
            "hr": {"path": "cube.h5", "dataset": "volumes/raw"},
            "degradation": {"kernel": "bicubic"},
            "weights": "tiny",
            "test": [[11, 14]],
        }
    }
    training = {"scale": 4, "window": 16, "sections": 3, "section_step": 1, "seed": 0, "threads": 1, "device": "cpu"}
    training["model"] = {"name": "gpemsr", "preset": "small", "options": TINY}
    training["data"] = [{"volume": "cube", "train": [[0, 6]], "validation": [[8, 9]]}]
    config["trainings"] = {"tiny": {**training, "stages": STAGES}}
    return config


def write_cube(path: Path, shape: tuple[int, int, int] = SHAPE) -> None:
    """Smooth noise in CREMI layout; section 3 is black."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (shape[0] + 4, shape[1] // 6 + 2, shape[2] // 6 + 2))
    smooth = sum(coarse[k : k + shape[0]] for k in range(4)) / 4
    voxels = np.kron(smooth, np.ones((1, 6, 6)))[:, : shape[1], : shape[2]] + rng.normal(0, 4, shape)
    voxels[3] = 0
    with h5py.File(path, "w") as file:
        file.create_dataset("volumes/raw", data=np.clip(voxels, 0, 255).astype(np.uint8))
        file["volumes/raw"].attrs["resolution"] = (40.0, 4.0, 4.0)
