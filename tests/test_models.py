"""What every model file must offer; the models are found by themselves."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emsr import degradation, plugins
from emsr.models import bicubic, checkpoint, gpemsr
from emsr.models.stage import Stage, overridden
from network_goldens import any_numbers, card

NAMES = plugins.names("models")


def literal(name: str, constant: str) -> Any:
    return plugins.literal(plugins.file_of("models", name), constant)


PAIRS = [(name, scale) for name in NAMES for scale in literal(name, "SCALES")]
ENLARGING = [(name, scale) for name, scale in PAIRS if plugins.output(plugins.file_of("models", name)) == "sr"]
OBJECTIVES = {
    "flow",
    "codebook",
    "indexer",
    "fusion",
    "image",
    "heads",
    "dual",
    "scales",
    "adversarial",
    "affinity",
    "none",
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(5)


# the contract


def test_models_are_found() -> None:
    assert {"bicubic", "edsr", "gpemsr", "affinity"} <= set(NAMES)
    assert {name for name, _ in PAIRS} - {name for name, _ in ENLARGING} == {"affinity", "intensity"}


@pytest.mark.parametrize("name", NAMES)
def test_options_are_flat_frozen_and_of_types_that_yaml_has(name: str) -> None:
    options = plugins.load("models", name).Options
    assert dataclasses.is_dataclass(options)
    assert options.__dataclass_params__.frozen  # type: ignore[attr-defined]
    types = set(plugins.fields(plugins.file_of("models", name), "Options").values())
    assert types <= {"int", "float", "str", "bool", "tuple[int, ...]", "tuple[float, ...]"}


@pytest.mark.parametrize("name", NAMES)
def test_presets_fit_their_own_types(name: str) -> None:
    module, types = plugins.load("models", name), plugins.fields(plugins.file_of("models", name), "Options")
    assert list(module.PRESETS) == plugins.keys(plugins.file_of("models", name), "PRESETS")
    for preset, options in module.PRESETS.items():
        for option, value in dataclasses.asdict(options).items():
            assert plugins.fits(value, types[option]), (preset, option)


@pytest.mark.parametrize("name", NAMES)
def test_networks_without_memory_draw_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device normal numbers are "drawn" by torch's compiler, whose import takes every job a second."""
    monkeypatch.setattr(torch.Tensor, "normal_", lambda *_, **__: pytest.fail("drawn"))
    module = plugins.load("models", name)
    for stage in module.NEEDS:
        options = json.loads(json.dumps(dataclasses.asdict(module.PRESETS["small"])))
        said = {"model": name, "stage": stage, "scale": literal(name, "SCALES")[0], "sections": 1, "options": options}
        with torch.device("meta"):
            assert all(tensor.is_meta for tensor in checkpoint.network(said).parameters())


@pytest.mark.parametrize(("name", "scale"), PAIRS)
def test_recipes_train_each_stage_after_what_it_needs(name: str, scale: int) -> None:
    module, needs = plugins.load("models", name), literal(name, "NEEDS")
    for preset in module.PRESETS:
        recipe = module.stages(preset, scale)
        done: set[str] = set()
        for stage in recipe:
            assert isinstance(stage, Stage)
            assert set(needs[stage.name]) <= done
            assert stage.objective in OBJECTIVES
            done.add(stage.name)
            if stage.schedule == "restarts":
                assert len(stage.periods) == len(stage.restarts) + 1
        assert done == set(needs)


@pytest.mark.parametrize(("name", "scale"), ENLARGING)
@torch.no_grad()
def test_forward_has_the_shape_and_equals_streaming_bit_for_bit(name: str, scale: int) -> None:
    module = plugins.load("models", name)
    for sections in (1, 3):
        model = any_numbers(module.build(scale, sections, module.PRESETS["small"]))
        y, x = (8, 12) if scale < 16 else (4, 8)  # some work on sr's grid
        lr = torch.rand(1, sections, 1, y, x)
        sr = model(lr)
        assert sr.shape == (1, 1, y * scale, x * scale)
        assert torch.isfinite(sr).all()
        assert torch.equal(sr, model.centre([model.section(lr[:, i]) for i in range(sections)]))
        assert torch.equal(sr, model(lr)), "a second call must give the same"


@pytest.mark.parametrize(("name", "scale"), PAIRS)
def test_every_stage_is_saved_and_loaded_unchanged(name: str, scale: int, tmp_path: Path) -> None:
    module = plugins.load("models", name)
    for stage in literal(name, "NEEDS"):
        about = card(name, stage, scale, module.PRESETS["small"])
        network = checkpoint.network(about)
        path = tmp_path / f"{stage}.safetensors"
        checkpoint.save(path, network.state_dict(), about)
        loaded = checkpoint.load(path, stage=stage, scale=scale)
        assert not loaded.training
        assert loaded.state_dict().keys() == network.state_dict().keys()
        assert all(torch.equal(tensor, loaded.state_dict()[key]) for key, tensor in network.state_dict().items())
    assert module.PRESETS["small"] == module.Options(**dataclasses.asdict(module.PRESETS["small"]))


# recipes


def test_overridden_replaces_fields_and_makes_tuples() -> None:
    stage = overridden(gpemsr.stages("small", 8)[0], {"steps": 7, "restarts": [1, 2]})
    assert (stage.steps, stage.restarts, stage.name) == (7, (1, 2), "flow")
    with pytest.raises(ValueError, match="stage key 'step' is unknown: use one of name, "):
        overridden(stage, {"step": 7}, "stage key")


def test_published_recipe_is_the_specs() -> None:
    """A.6, B, C.9, C.10."""
    _, codebook, indexer, fusion = gpemsr.stages("published", 8)
    for stage in (codebook, indexer, fusion):
        assert (stage.steps, stage.batch, stage.learning_rate, stage.betas) == (480_000, 8, 4e-4, (0.9, 0.99))
        assert stage.periods == (40_000, 80_000, 120_000, 120_000, 120_000)
        assert (stage.weight_ema, stage.clip, stage.precision, stage.warmup) == (0, 0, "float32", 0)
    assert codebook.restarts == fusion.restarts == (40_000, 120_000, 240_000, 360_000)
    assert indexer.restarts == (40_000, 80_000, 240_000, 360_000), "as released, a typo or not"
    assert (codebook.codebook_weight, codebook.commitment, codebook.adversarial_weight) == (10, 1, 0.05)
    assert codebook.entries_decay == codebook.kmeans_vectors == codebook.restart_after == codebook.unquantised == 0
    found = {scale: gpemsr.stages("published", scale)[3] for scale in (8, 16)}
    assert {scale: (stage.patch, stage.contextual_weight) for scale, stage in found.items()} == {
        8: (32, pytest.approx(0.001)),
        16: (16, pytest.approx(0.01)),
    }


# bicubic


@pytest.mark.parametrize("scale", literal("bicubic", "SCALES"))
def test_bicubic_is_the_imaging_models_enlargement(scale: int) -> None:
    lr = torch.rand(1, 3, 1, 9, 7, dtype=torch.float64)
    sr = bicubic.build(scale, 3, bicubic.Options())(lr)
    np.testing.assert_allclose(sr[0, 0].numpy(), degradation.upsample(lr[0, 1, 0].numpy(), scale), atol=1e-12)
