"""Every super-resolver of one stage through the real steps: trained, described, then run over a volume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import emsr
import tiny_networks
from emsr import plugins
from emsr.degradation import degrade
from emsr.models import checkpoint
from emsr.steps.train import train
from sr_project import SrProject, tissue_like
from train_project import put, texture

NAMES = [name for name in tiny_networks.NAMES if tiny_networks.about(name).TRAINS]

RECIPE = {"steps": 15, "batch": 2, "patch": 8, "learning_rate": 5e-3, "warmup": 0, "weight_ema": 0.0}


def trained(folder: Path, name: str, scale: int) -> Path:
    """The card of a tiny network after a few steps."""
    folder.mkdir()
    hr = texture(6, 20 * scale, 16 * scale)
    data = {"volume": "v", "hr": str(put(folder, "hr", hr, {})), "lr": str(put(folder, "lr", degrade(hr, scale), {}))}
    options: dict[str, Any] = {key: _listed(value) for key, value in tiny_networks.about(name).OPTIONS.items()}
    settings = {
        "model": {"name": name, "preset": "small", "options": options},
        **{"stage": "image", "overrides": RECIPE, "scale": scale, "sections": 3},
        **{"window": 16, "seed": 0, "threads": 1, "device": "cpu", "cards": {}, "init_from": None, "result": 1},
        **{"perceptual": None, "spynet": None, "data": [{**data, "train": [[0, 3]], "validation": [[4, 6]]}]},
        "section_step": 1,
    }
    train(settings, folder / "image.json")
    return folder / "image.json"


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("name", NAMES)
def test_trained_weights_super_resolve_alike_in_jobs_and_in_memory(name: str, tmp_path: Path) -> None:
    scale = 3 if 3 in plugins.load("models", name).SCALES else 4
    weights = trained(tmp_path / "training", name, scale)
    card = checkpoint.load_card(weights)
    assert (card["model"], card["stage"], card["scale"], card["window"]) == (name, "image", scale, 16)
    assert card["cost"]["flops_per_window"] > 0
    assert {"psnr", "bicubic_psnr"} <= set(card["health"])
    project, volume = SrProject(tmp_path, weights), tissue_like((2, 18, 20))
    project.settings |= {"shard": [4, 16 * scale, 16 * scale], "chunk": [2, 8 * scale, 8 * scale]}
    project.write_lr(volume)
    project.all(n=2)
    assert project.voxels().shape == (2, 18 * scale, 20 * scale)
    assert np.array_equal(emsr.superresolve(volume, weights), project.voxels())
    assert project.voxels().std() > 0
