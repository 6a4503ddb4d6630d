"""What each stage of a training depends on: a change elsewhere must not cost weeks, one here must not be missed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from emsr import plugins, slices
from emsr.config import parse
from emsr.settings import Settings

ROOT = Path(__file__).parents[1]
STAGES = ("flow", "codebook", "indexer", "fusion")


def settings(**changes: Any) -> Settings:
    """The committed config with changed keys of its training; ``kernel`` is the volume's."""
    values = yaml.safe_load((ROOT / "config.yaml").read_text())
    values["volumes"]["tissue"]["degradation"]["kernel"] = changes.pop("kernel", "bicubic")
    values["trainings"]["tissue"] |= changes
    return Settings(parse(values))


def stage(chosen: Settings, name: str, training: str = "tissue") -> dict[str, Any]:
    return json.loads(chosen.train(training, name))  # type: ignore[no-any-return]


LR, HR = "results/tissue/lr_x8.json", "results/tissue/hr.json"


@pytest.mark.parametrize(
    ("name", "images"), [("flow", [LR]), ("codebook", [HR]), ("indexer", [HR, LR]), ("fusion", [HR, LR])]
)
def test_a_stage_asks_for_the_images_that_it_reads(name: str, images: list[str]) -> None:
    chosen = settings()
    asked, (data,) = chosen.train_inputs("tissue", name), stage(chosen, name)["data"]
    assert [path for path in asked if "/trainings/" not in path] == images
    assert [data[image] for image in ("hr", "lr") if data[image]] == images


def test_a_model_that_trains_nothing_asks_for_no_image() -> None:
    model = {"name": "bicubic", "preset": "small", "options": {}}
    chosen = settings(model=model, stages={"untrained": {}})
    assert chosen.train_inputs("tissue", "untrained") == []
    assert stage(chosen, "untrained")["scale"] == 8, "the whole network's scale"


@pytest.mark.parametrize(
    ("changes", "stages", "why"),
    [
        ({"kernel": "area"}, [], "lr itself changes; its card is an input"),
        ({"perceptual": "FILE"}, ["fusion"], "the mask and the contextual loss"),
        ({"spynet": "FILE"}, ["flow"], "flow takes its weights"),
        ({"init_from": {"codebook": "FILE"}}, ["codebook"], "one stage's"),
        ({"scale": 4}, ["flow", "indexer", "fusion"], "the codebook reads hr alone; flow another lr"),
        ({"window": 32}, ["fusion"], "for inference"),
        ({"sections": 1}, ["fusion"], "earlier stages see single sections"),
        ({"seed": 1}, list(STAGES), "all random numbers"),
    ],
)
def test_a_change_reaches_only_the_stages_that_depend_on_it(
    tmp_path: Path, changes: dict[str, Any], stages: list[str], why: str
) -> None:
    (tmp_path / "FILE").write_bytes(b"weights")
    file = str(tmp_path / "FILE")
    changes = {
        key: file if value == "FILE" else dict.fromkeys(value, file) if key == "init_from" else value
        for key, value in changes.items()
    }
    before, after = settings(), settings(**changes)
    assert [name for name in STAGES if stage(before, name) != stage(after, name)] == stages, why


@pytest.mark.parametrize(
    ("option", "stages"),
    [
        ({"flow": "correlation"}, ["flow", "fusion"]),
        ({"flow_radius": 3}, ["flow", "fusion"]),
        ({"flow_features": 8}, ["fusion"]),
        ({"entries": 64}, ["codebook", "indexer", "fusion"]),
    ],
)
def test_an_option_reaches_only_the_stages_that_depend_on_it(option: dict[str, Any], stages: list[str]) -> None:
    model = {"name": "gpemsr", "preset": "small", "options": option}
    before, after = settings(), settings(model=model)
    assert [name for name in STAGES if stage(before, name) != stage(after, name)] == stages


def test_trainings_of_two_scales_share_a_codebook() -> None:
    values = yaml.safe_load((ROOT / "config.yaml").read_text())
    fine = {**values["trainings"]["tissue"], "scale": 4}
    fine["stages"] = {"flow": {}, "codebook": {"use": "tissue"}, "indexer": {}, "fusion": {}}
    values["trainings"]["fine"] = fine
    chosen = Settings(parse(values))
    assert stage(chosen, "codebook")["scale"] == stage(chosen, "flow")["scale"] == 1
    assert [stage(chosen, name, "fine")["scale"] for name in ("indexer", "fusion")] == [4, 4]
    assert stage(chosen, "indexer", "fine")["cards"] == {"codebook": "results/trainings/tissue/codebook.json"}


def test_what_a_stage_reads_is_of_a_known_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bicubic = plugins.file_of("models", "bicubic").read_text()
    (tmp_path / "ownmodels").mkdir()
    (tmp_path / "ownmodels" / "mine.py").write_text(bicubic.replace('"untrained": ()}\n\n\n', '"untrained": ("h",)}\n'))
    (tmp_path / "ownmodels" / "free.py").write_text(bicubic.replace("READS", "OTHER"))
    monkeypatch.syspath_prepend(tmp_path)
    own = {"preset": "small", "options": {}}
    chosen = settings(model={**own, "name": "ownmodels.mine"}, stages={"untrained": {}})
    with pytest.raises(ValueError, match=r"READS of model ownmodels.mine: input of stage untrained 'h' is unknown"):
        chosen.train("tissue", "untrained")
    chosen = settings(model={**own, "name": "ownmodels.free"}, stages={"untrained": {}})
    assert chosen.train_inputs("tissue", "untrained") == [HR, LR], "a model that does not say reads all but labels"


@pytest.mark.parametrize("model", plugins.names("models"))
def test_early_stages_of_one_image_are_the_same_at_every_scale(model: str) -> None:
    """That is what lets their slices leave the scale out."""
    file, module = plugins.file_of("models", model), plugins.load("models", model)
    order = list(plugins.literal(file, "NEEDS"))  # type: ignore[call-overload]
    reads = plugins.literal(file, "READS") if plugins.has(file, "READS") else {}
    assert isinstance(reads, dict)
    assert set(reads) <= set(order)
    alone = [name for name in order[:-1] if not set(slices.IMAGES) <= set(reads.get(name, slices.INPUTS))]
    for preset, options in module.PRESETS.items():
        for name in alone:
            recipes = [part for scale in module.SCALES for part in module.stages(preset, scale) if part.name == name]
            assert all(recipe == recipes[0] for recipe in recipes), (preset, name)
            with torch.device("meta"):
                networks = [module.network(name, scale, 1, options).state_dict() for scale in (1, *module.SCALES)]
            shapes = [{key: tuple(tensor.shape) for key, tensor in network.items()} for network in networks]
            assert all(shape == shapes[0] for shape in shapes), (preset, name)


@pytest.mark.parametrize(("name", "result"), [("irn", 2), ("snadn", 2), ("edsr", None)])
def test_a_model_is_trained_anew_by_a_result_number_of_its_own(name: str, result: int | None) -> None:
    """And no other model with it."""
    chosen = settings(model={"name": name, "preset": "small", "options": {}}, stages={"image": {}})
    assert stage(chosen, "image")["model"].get("result") == result
    assert stage(chosen, "image")["result"] == slices.result_number("train")
