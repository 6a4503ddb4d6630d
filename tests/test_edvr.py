"""EDVR: what its alignment and attention are, padding inside, neighbours, and the pipeline with it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import emsr
import tiny_networks
from emsr.degradation import degrade
from emsr.layers.alignment import Alignment
from emsr.layers.attention import SectionAttention
from emsr.models import edvr
from emsr.steps.train import train
from emsr.training import schedule
from network_goldens import any_numbers
from sr_project import SrProject, tissue_like
from train_project import put, texture

TINY = tiny_networks.options("edvr")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(7)


def test_the_large_network_for_colour_has_the_published_parameters() -> None:
    with torch.device("meta"):
        network = edvr.Edvr(4, 5, edvr.PRESETS["large"], channels=3)
    assert sum(p.numel() for p in network.parameters()) == 20_633_827


def test_scales_differ_in_their_enlargement_alone() -> None:
    shapes = {s: {k: v.shape for k, v in edvr.build(s, 1, TINY).state_dict().items()} for s in edvr.SCALES}
    for scale in (4, 8, 16):
        added = {f"ups.{scale.bit_length() - 2}.0.{kind}" for kind in ("weight", "bias")}
        assert shapes[scale].keys() - shapes[scale // 2].keys() == added
        assert shapes[scale // 2].items() <= shapes[scale].items()


@torch.no_grad()
def test_neighbours_that_equal_the_centre_weigh_as_much_as_it() -> None:
    model = any_numbers(edvr.build(4, 5, TINY))
    model.attention.embed.load_state_dict(model.attention.embed_centre.state_dict())
    states = [model.section(torch.rand(1, 1, 8, 12))] * 5
    weights = model.attention.likeness(model.aligned(states))
    assert len(weights) == 5
    assert all(torch.equal(weight, weights[2]) for weight in weights)
    assert weights[2].std() > 0
    others = [*states[:4], model.section(torch.rand(1, 1, 8, 12))]
    changed = model.attention.likeness(model.aligned(others))
    assert torch.equal(changed[3], weights[3])
    assert not torch.equal(changed[4], weights[4])


@torch.no_grad()
def test_attention_is_the_papers_formula() -> None:
    layer, aligned = SectionAttention(8, 3, mixes=False), [torch.randn(2, 8, 8, 12) for _ in range(3)]
    centre = F.conv2d(aligned[1], layer.embed_centre.weight, layer.embed_centre.bias, padding=1)
    weighted = []
    for each in aligned:
        embedded = F.conv2d(each, layer.embed.weight, layer.embed.bias, padding=1)
        weighted.append(each * torch.sigmoid((embedded * centre).sum(1, keepdim=True)))
    joined = torch.cat(weighted, 1)
    attention, bias = layer.spatial(joined)
    wanted = F.leaky_relu(layer.fuse(joined), 0.1) * attention * 2 + bias
    torch.testing.assert_close(layer(aligned), wanted, atol=1e-6, rtol=0)


@torch.no_grad()
def test_without_displacement_alignment_is_of_plain_convolutions() -> None:
    """Offsets of zero and masks of one: what is left is convolution, level by level."""
    layer: Any = Alignment(4, 0, 2)
    for module in (*(level.deform for level in layer.levels), layer.cascade):
        module.offsets.bias.data[2 * module.groups * 9 :] = 100.0  # masks of sigmoid(100)
    neighbour, centre = ([torch.randn(1, 4, 8 >> i, 8 >> i) for i in range(3)] for _ in range(2))

    def plain(module: Any, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, module.weight, module.bias, padding=1)

    moved = F.leaky_relu(plain(layer.levels[2].deform, neighbour[2]), 0.1)
    for level in (1, 0):
        large = F.interpolate(moved, scale_factor=2, mode="bilinear")
        moved = layer.levels[level].merge(torch.cat([plain(layer.levels[level].deform, neighbour[level]), large], 1))
        moved = F.leaky_relu(moved, 0.1) if level else moved
    wanted = F.leaky_relu(plain(layer.cascade, moved), 0.1)
    torch.testing.assert_close(layer(neighbour, centre), wanted, atol=1e-5, rtol=0)


@torch.no_grad()
def test_sizes_that_are_no_multiples_of_four_are_padded_inside() -> None:
    model = any_numbers(edvr.build(2, 3, TINY))
    lr = torch.rand(1, 3, 1, 9, 10)
    padded = F.pad(lr[:, :, 0], (0, 2, 0, 3), mode="replicate")[:, :, None]
    assert model(lr).shape == (1, 1, 18, 20)
    # the bilinear base of the last row and column sees what lies behind them
    torch.testing.assert_close(model(lr)[..., :-2, :-2], model(padded)[..., :16, :18], atol=1e-6, rtol=0)


@torch.no_grad()
def test_neighbours_matter_and_their_order_too() -> None:
    model, lr = any_numbers(edvr.build(4, 3, TINY)), torch.rand(1, 3, 1, 8, 8)
    changed = lr.clone()
    changed[:, 0] = torch.rand_like(changed[:, 0])
    assert not torch.allclose(model(lr), model(changed))
    assert not torch.allclose(model(lr), model(lr.flip(1)))


@torch.no_grad()
def test_sections_in_training_and_one_by_one_give_the_same() -> None:
    for attention in (True, False):
        model, lr = any_numbers(edvr.build(4, 3, replace(TINY, attention=attention))), torch.rand(2, 3, 1, 8, 8)
        torch.testing.assert_close(model.train()(lr), model.eval()(lr), atol=1e-5, rtol=0)


@pytest.mark.parametrize("attention", [True, False])
def test_every_parameter_has_a_gradient_with_neighbours(attention: bool) -> None:
    model = any_numbers(edvr.build(8, 3, replace(TINY, attention=attention))).train()
    model(torch.rand(2, 3, 1, 10, 12)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize(("scale", "sections", "change", "message"), [
    (3, 3, {}, "scale 3 is not one of edvr's: use one of 2, 4, 8, 16"),
    (4, 2, {}, "sections 2 have no centre"),
    (4, 3, {"width": 0}, "width 0 makes no edvr"),
    (4, 3, {"deformable_groups": 3}, "deformable_groups 3 do not divide width 16"),
])  # fmt: skip
def test_what_it_cannot_be(scale: int, sections: int, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        edvr.build(scale, sections, replace(TINY, **change))


def test_the_published_recipe_is_the_specs() -> None:
    for preset in ("published", "large"):
        (stage,) = edvr.stages(preset, 4)
        assert (stage.steps, stage.patch, stage.betas, stage.weight_ema) == (600_000, 64, (0.9, 0.99), 0.999)
        assert stage.image_error == "charbonnier"
        starts = (0, 50_000, 150_000, 300_000, 450_000)
        assert all(schedule.rate(stage, step) == pytest.approx(4e-4) for step in starts)
        assert all(schedule.rate(stage, step - 1) < 1e-6 for step in (*starts[1:], 600_000))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The card of a tiny network, trained by the real step."""
    folder = tmp_path_factory.mktemp("edvr")
    hr = texture(10, 64, 64)
    data = {"volume": "v", "hr": str(put(folder, "hr", hr, {})), "lr": str(put(folder, "lr", degrade(hr, 4), {}))}
    recipe = {"steps": 8, "batch": 2, "patch": 12, "warmup": 2, "validate_every": 4, "checkpoint_every": 0}
    settings = {
        **{"stage": "image", "overrides": recipe, "scale": 4, "sections": 3, "section_step": 1},
        **{"model": {"name": "edvr", "preset": "small", "options": tiny_networks.about("edvr").OPTIONS}},
        **{"window": 16, "seed": 0, "threads": 1, "device": "cpu", "cards": {}, "init_from": None, "result": 1},
        **{"perceptual": None, "spynet": None, "data": [{**data, "train": [[0, 6]], "validation": [[7, 10]]}]},
    }
    train(settings, folder / "image.json")
    return folder / "image.json"


def test_the_card_says_what_was_trained(trained: Path) -> None:
    card = json.loads(trained.read_text())
    assert card["options"] == json.loads(json.dumps(asdict(TINY)))
    assert card["cost"]["macs"]["section"] > 0
    assert "alignment" in edvr.Edvr.parts
    assert card["health"]["offset"] > 0


def test_pipeline_and_memory_give_the_same(trained: Path, tmp_path: Path) -> None:
    project, volume = SrProject(tmp_path, trained), tissue_like((5, 24, 30))
    project.write_lr(volume)
    project.all(n=3)
    assert np.array_equal(emsr.superresolve(volume, trained), project.voxels())
    assert project.voxels().std() > 10
