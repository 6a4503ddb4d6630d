"""A network of real scales through the pipeline: trained at random scales by the real step, used at a whole one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import emsr
from emsr.degradation import degrade
from emsr.durable import read_json, write_sealed
from emsr.models import checkpoint
from emsr.steps.train import train
from sr_project import SrProject, tissue_like
from train_project import put, texture

OPTIONS = {"encoder": "edsr", "width": 8, "blocks": 1, "hidden": [12]}
STEPS = 60


def settings(folder: Path, **overrides: Any) -> dict[str, Any]:
    hr = texture(14, 96, 96)
    data = {"volume": "v", "hr": str(put(folder, "hr", hr, {})), "lr": str(put(folder, "lr", degrade(hr, 4), {}))}
    recipe = {"steps": STEPS, "batch": 4, "patch": 12, "samples": 100, "warmup": 5, "learning_rate": 1e-2}
    return {
        **{"stage": "image", "overrides": {**recipe, "checkpoint_every": 0, **overrides}, "scale": 4, "sections": 3},
        **{"model": {"name": "liif", "preset": "small", "options": OPTIONS}, "section_step": 1},
        **{"window": 16, "seed": 0, "threads": 1, "device": "cpu", "cards": {}, "init_from": None, "result": 1},
        **{"perceptual": None, "spynet": None, "data": [{**data, "train": [[0, 8]], "validation": [[10, 14]]}]},
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("liif")
    train(settings(folder), folder / "image.json")
    return folder / "image.json"


def test_it_learns(trained: Path) -> None:
    curve = json.loads(trained.with_suffix(".curve.json").read_text())
    losses = [row["loss"] for row in curve["training"]]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])
    card = checkpoint.load_card(trained)
    assert card["training"]["recipe"]["scales"] == [1, 4]
    assert card["cost"]["flops_per_window"] > 0
    assert {"psnr", "ssim", "bicubic_psnr", "bicubic_ssim"} <= set(card["health"])


def test_pipeline_and_memory_give_the_same(trained: Path, tmp_path: Path) -> None:
    project, volume = SrProject(tmp_path, trained), tissue_like((5, 24, 30))
    project.write_lr(volume)
    project.all(n=1)
    assert np.array_equal(emsr.superresolve(volume, trained), project.voxels())
    assert project.voxels().std() > 10


def test_acquired_lr_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    stated = settings(tmp_path)
    lr = Path(stated["data"][0]["lr"])
    write_sealed(lr, {**read_json(lr), "degradation": None})
    with pytest.raises(ValueError, match=r"lr of volume v was acquired.* set scales \[4, 4\] in stage image"):
        train(stated, tmp_path / "image.json")
    assert not (tmp_path / "image.json").exists()
    train({**stated, "overrides": {**stated["overrides"], "scales": [4, 4], "steps": 1}}, tmp_path / "image.json")
