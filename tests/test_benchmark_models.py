"""benchmarks/models.py: its configs are configs, budgets are kept to, its page says what its figures say."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from emsr.config import parse
from emsr.degradation import degrade
from emsr.steps.train_job import Job
from project import ROOT
from test_benchmarks import loaded
from train_project import put, texture


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return loaded("models", monkeypatch)


def whole_config(models: ModuleType, key: str, names: list[str], folder: Path) -> Any:
    """The config of a sample laid over config.yaml, with something at every path that it names."""
    from snakemake.utils import update_config

    sample = models.SAMPLES[key]
    values = yaml.safe_load((ROOT / "config.yaml").read_text())
    made = models.config(sample, {name: models.stated(sample, name) for name in names})
    sources = [made["volumes"]["whole"][image]["path"] for image in ("hr", "labels")]
    for name in (*sources, made["trainings"]["membranes"]["init_from"]["affinity"]):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch() if path.suffix else path.mkdir()
    update_config(values, made)
    return parse(values)


@pytest.mark.parametrize("key", ["fib", "vnc"])
def test_every_super_resolver_has_a_volume_and_a_training(
    models: ModuleType, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sample = models.SAMPLES[key]
    names = models.models(sample.scale)
    assert {"gpemsr", "edsr", "snadn", "wasa", "iste", "basicvsr"} <= set(names)
    assert not {"bicubic", "affinity", "intensity"} & set(names), "nothing to train, or no super-resolver"
    config = whole_config(models, key, names, tmp_path)
    assert set(names) == set(config.trainings) - {"membranes"} == set(config.volumes) - {"whole"}
    for name in names:
        volume, training = config.volumes[name], config.trainings[name]
        assert (training.model.name, training.model.preset, training.scale) == (name, "small", sample.scale)
        ((first, last),) = volume.test
        assert (first + sample.shown[0], last + sample.shown[0]) == sample.test
        ((_, trained),) = training.data[0].train
        ((begin, end),) = training.data[0].validation
        assert trained <= begin - 1
        assert end <= sample.test[0] - 2, "the house's distance of test sections"
    assert set(config.volumes[names[0]].segmentations) == {"sr", "bicubic", "hr"}
    assert set(config.volumes[names[1]].segmentations) == {"sr"}


def test_recipes_are_shortened_to_the_budget(models: ModuleType) -> None:
    sample = models.SAMPLES["fib"]
    one = models.shortened(sample, "srgan", {"image": 2e10}, 10e12)["image"]
    assert (one["steps"], one["adversarial_from"]) == (500, 333), "the same third of the steps has a discriminator"
    macs = {"flow": 3e9, "codebook": 14e9, "indexer": 12e9, "fusion": 49e9}
    several = models.shortened(sample, "gpemsr", macs, 10e12)
    assert math.isclose(sum(several[stage]["steps"] * each for stage, each in macs.items()), 10e12, rel_tol=0.01)
    assert several["codebook"]["patch"] == 96, "as in the example"
    assert several["fusion"]["steps"] / several["codebook"]["steps"] == pytest.approx(1500 / 600, rel=0.05)


def test_arithmetic_is_counted_once_for_each_recipe(
    models: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was counted of another recipe, option or patch is not taken for this one's."""
    sample, counted = replace(models.SAMPLES["fib"], volume=str(tmp_path / "x")), []
    monkeypatch.setattr(models, "config", lambda *_: {})
    monkeypatch.setattr(models, "written", lambda *_: tmp_path / "config.yaml")
    monkeypatch.setattr(models, "workflow", lambda *_: 0)
    monkeypatch.setattr(models, "read_configs", lambda _: {})
    monkeypatch.setattr(models, "Settings", lambda _: None)
    monkeypatch.setattr(models.Sample, "results", str(tmp_path))
    monkeypatch.setattr(models.arithmetic, "of_stages", lambda _, name: counted.append(name) or {"image": 2e10})
    monkeypatch.setattr(models, "stated", lambda *_: {"image": {}})
    first = models.all_steps(sample, ["edsr", "rcan"], 10e12, "1")
    assert models.all_steps(sample, ["edsr", "rcan"], 10e12, "1") == first
    assert counted == ["edsr", "rcan"]
    monkeypatch.setattr(models, "stated", lambda _, name: {"image": {"patch": 24} if name == "rcan" else {}})
    models.all_steps(sample, ["edsr", "rcan"], 10e12, "1")
    assert counted == ["edsr", "rcan", "rcan"]


def test_the_arithmetic_of_a_step_is_that_of_the_network_and_its_way_back(models: ModuleType, tmp_path: Path) -> None:
    hr = texture(4, 64, 64)
    data = {"volume": "v", "hr": str(put(tmp_path, "hr", hr, {})), "lr": str(put(tmp_path, "lr", degrade(hr, 4), {}))}
    recipe = {"steps": 120, "batch": 2, "patch": 8, "validate_every": 0, "checkpoint_every": 0}
    settings = {
        "model": {"name": "espcn", "preset": "small", "options": {}},
        **{"stage": "image", "overrides": recipe, "scale": 4, "sections": 1, "section_step": 1},
        **{"window": 16, "seed": 0, "threads": 1, "device": "cpu", "cards": {}, "init_from": None, "result": 1},
        **{"perceptual": None, "spynet": None, "data": [{**data, "train": [[0, 2]], "validation": [[3, 4]]}]},
    }
    first, second, third = 25 * 64, 9 * 64 * 32, 9 * 32 * 16  # of a pixel of lr, by the paper
    forward_and_back = 3 * (first + second + third) - first  # grey levels want no gradient
    found = models.arithmetic.of_step(Job.read(settings, tmp_path / "image.json"), tmp_path / "state")
    assert found == forward_and_back * 2 * 8 * 8


def test_the_page_says_what_the_figures_say(models: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = loaded("models_figures", monkeypatch)
    kept = json.loads(figures.FIGURES.read_text())
    assert figures.PAGE.read_text() == figures.page(kept), "python benchmarks/models_figures.py --pages"
    assert set(kept["data"]) == set(models.SAMPLES)
    for key, each in kept["data"].items():
        assert set(each["models"]) == set(models.models(models.SAMPLES[key].scale))
        budget = models.SAMPLES[key].budget * 1e12
        assert all(0.9 * budget < one["training_macs"] < 1.1 * budget for one in each["models"].values())
