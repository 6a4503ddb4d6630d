"""EDSR, the single-section rival: its size, its formula, its training and the pipeline with it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import emsr
from edsr_goldens import FILE, TINY, numbers
from emsr.degradation import degrade
from emsr.models import checkpoint, edsr
from emsr.steps.train import train
from emsr.training import schedule
from network_goldens import any_numbers
from sr_project import SrProject, tissue_like
from train_project import put, texture

PUBLISHED = edsr.PRESETS["published"]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(7)


# size


def parameters(preset: str, scale: int) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in edsr.build(scale, 1, edsr.PRESETS[preset]).parameters())


@pytest.mark.parametrize(("scale", "count"), [(2, 1_367_553), (4, 1_515_265), (8, 1_662_977)])
def test_the_baseline_has_the_published_parameters(scale: int, count: int) -> None:
    assert parameters("published", scale) == count


@pytest.mark.parametrize(("scale", "millions"), [(2, 40.72), (4, 43.08), (8, 45.44)])
def test_the_full_network_has_the_published_parameters(scale: int, millions: float) -> None:
    assert round(parameters("full", scale) / 1e6, 2) == millions


def test_scales_differ_in_their_enlargement_alone() -> None:
    shapes = {s: {k: v.shape for k, v in edsr.build(s, 1, TINY).state_dict().items()} for s in edsr.SCALES}
    for scale in (4, 8, 16):
        added = {f"ups.{scale.bit_length() - 2}.0.{kind}" for kind in ("weight", "bias")}
        assert shapes[scale].keys() - shapes[scale // 2].keys() == added
        assert shapes[scale // 2].items() <= shapes[scale].items()
    assert shapes[3].keys() == shapes[2].keys(), "nine times the channels instead of four"
    assert {key for key in shapes[3] if shapes[3][key] != shapes[2][key]} == {"ups.0.0.weight", "ups.0.0.bias"}


# the formula


def plain(state: dict[str, Tensor], lr: Tensor, scale: int, options: edsr.Options) -> Tensor:
    """The network once more, without modules: (batch, 1, y, x) -> (batch, 1, scale*y, scale*x)."""

    def through(name: str, x: Tensor) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)

    head = x = through("first", lr - options.mean)
    for block in range(options.blocks):
        x = x + options.res_scale * through(f"blocks.{block}.conv2", through(f"blocks.{block}.conv1", x).relu())
    x = head + through("join", x)
    for level, by in enumerate([3] if scale == 3 else [2] * (scale.bit_length() - 1)):
        lifted = through(f"ups.{level}.0", x)
        n, c, h, w = lifted.shape
        x = lifted.view(n, c // by**2, by, by, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, c // by**2, by * h, by * w)
    return through("last", x) + options.mean


@pytest.mark.parametrize("scale", edsr.SCALES)
@pytest.mark.parametrize(("res_scale", "mean"), [(1.0, 0.5), (0.1, 0.5), (1.0, 0.0)])
@torch.no_grad()
def test_forward_is_the_formula(scale: int, res_scale: float, mean: float) -> None:
    options = replace(TINY, res_scale=res_scale, mean=mean)
    model = any_numbers(edsr.build(scale, 3, options))
    lr = torch.rand(2, 3, 1, 7, 9)
    torch.testing.assert_close(model(lr), plain(model.state_dict(), lr[:, 1], scale, options), atol=1e-5, rtol=0)


def test_blocks_of_no_scale_leave_the_path_of_convolutions() -> None:
    model = any_numbers(edsr.build(2, 1, replace(TINY, res_scale=0.0)))
    lr = torch.rand(1, 1, 1, 8, 8)
    sr, head = model(lr), model.first(lr[:, 0] - 0.5)
    assert torch.equal(sr, model.last(model.ups(head + model.join(head))) + 0.5)
    sr.sum().backward()
    assert not any(p.grad.any() for p in model.blocks.parameters())
    assert all(p.grad.any() for part in (model.first, model.join, model.ups, model.last) for p in part.parameters())


@torch.no_grad()
def test_neighbours_change_nothing() -> None:
    model, lr = any_numbers(edsr.build(4, 5, TINY)), torch.rand(1, 5, 1, 6, 6)
    assert torch.equal(model(lr), model(lr[:, 2:3]))
    assert not torch.equal(model(lr), model(lr[:, 1:2]))


@pytest.mark.parametrize(("blocks", "halo"), [(16, 36), (32, 68)])
def test_how_far_it_sees(blocks: int, halo: int) -> None:
    """What a pixel is made of ends ``halo`` lr pixels away, as blocks, enlargements and ends add up."""
    model = any_numbers(edsr.build(4, 1, replace(TINY, blocks=blocks))).double()
    middle = halo + 3
    lr = torch.rand(1, 1, 1, 2 * middle + 1, 2 * middle + 1, dtype=torch.float64, requires_grad=True)
    sr = model(lr)[..., 4 * middle : 4 * middle + 4, 4 * middle : 4 * middle + 4]
    (seen,) = torch.autograd.grad(sr.square().sum(), lr)
    reached = seen[0, 0, 0].abs().amax(0).nonzero()
    assert (int(reached.min()), int(reached.max())) == (middle - halo, middle + halo)


@torch.no_grad()
def test_shifted_sections_give_shifted_images_but_for_edges() -> None:
    scale, halo = 4, 2 * TINY.blocks + 4
    model, lr = any_numbers(edsr.build(scale, 1, TINY)), torch.rand(1, 1, 1, 30, 30)
    sr, shifted = model(lr), model(lr[..., 3:, 2:])
    inside, whole = slice(scale * halo, -scale * halo), sr[..., scale * 3 :, scale * 2 :]
    torch.testing.assert_close(shifted[..., inside, inside], whole[..., inside, inside], atol=1e-5, rtol=0)
    assert (shifted - whole).abs().max() > 1e-3, "edges see zeros"


@torch.no_grad()
def test_around_a_section_lies_the_mean() -> None:
    """Without biases a section of the mean alone has no edges."""
    model = any_numbers(edsr.build(4, 1, TINY))
    for name, parameter in model.named_parameters():
        parameter.mul_(0 if name.endswith("bias") else 1)
    assert torch.equal(model(torch.full((1, 1, 1, 5, 6), 0.5)), torch.full((1, 1, 20, 24), 0.5))


def test_our_own_goldens() -> None:
    made = numbers()
    with np.load(FILE) as golden:
        assert set(golden.files) == set(made)
        for name, found in made.items():
            np.testing.assert_allclose(found, golden[name], atol=1e-4, err_msg=name)
            assert found.std() > 0.01, name


@pytest.mark.parametrize(("scale", "change", "message"), [
    (5, {}, "scale 5 is not one of edsr's: use one of 2, 3, 4, 8, 16"),
    (4, {"width": 0}, "width 0 and blocks 2 make no edsr"),
    (4, {"blocks": -1}, "width 6 and blocks -1 make no edsr"),
    (4, {"mean": 128.0}, r"mean 128\.0 outside \[0, 1\]"),
    (4, {"res_scale": float("nan")}, "res_scale nan"),
])  # fmt: skip
def test_what_it_cannot_be(scale: int, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        edsr.build(scale, 1, replace(TINY, **change))


# training


@pytest.mark.parametrize("preset", ["published", "full"])
@pytest.mark.parametrize("scale", edsr.SCALES)
def test_the_published_recipe_is_the_specs(preset: str, scale: int) -> None:
    (stage,) = edsr.stages(preset, scale)
    assert (stage.objective, stage.steps, stage.batch, stage.patch) == ("image", 300_000, 16, 48)
    assert (stage.betas, stage.weight_ema, stage.clip, stage.precision) == ((0.9, 0.999), 0, 0, "float32")
    rates = {step: schedule.rate(stage, step) for step in (0, 199_999, 200_000, 299_999)}
    assert rates == {0: 1e-4, 199_999: 1e-4, 200_000: 5e-5, 299_999: 5e-5}


def test_every_halving_halves() -> None:
    stage = replace(edsr.stages("small", 4)[0], schedule="halvings", halvings=(50, 75), warmup=10, learning_rate=8.0)
    assert [schedule.rate(stage, step) for step in (4, 9, 49, 50, 75, 900)] == [4, 8, 8, 4, 2, 2]


STEPS = 90


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The card of a tiny network, trained by the real step."""
    folder = tmp_path_factory.mktemp("edsr")
    hr = texture(14, 96, 96)
    data = {"volume": "v", "hr": str(put(folder, "hr", hr, {})), "lr": str(put(folder, "lr", degrade(hr, 4), {}))}
    recipe = {"steps": STEPS, "batch": 4, "patch": 12, "warmup": 5, "learning_rate": 5e-3, "validate_every": 30}
    settings = {
        **{"stage": "image", "overrides": {**recipe, "checkpoint_every": 0}, "scale": 4, "sections": 3},
        **{"model": {"name": "edsr", "preset": "small", "options": {"width": 12, "blocks": 2}}, "section_step": 1},
        **{"window": 16, "seed": 0, "threads": 1, "device": "cpu", "cards": {}, "init_from": None, "result": 1},
        **{"perceptual": None, "spynet": None, "data": [{**data, "train": [[0, 8]], "validation": [[10, 14]]}]},
    }
    train(settings, folder / "image.json")
    return folder / "image.json"


def test_it_learns(trained: Path) -> None:
    curve = json.loads(trained.with_suffix(".curve.json").read_text())
    losses = [row["loss"] for row in curve["training"]]
    assert np.mean(losses[-10:]) < 0.4 * np.mean(losses[:5])
    scores = [row["score"] for row in curve["validation"]]
    assert scores == sorted(scores)
    card = checkpoint.load_card(trained)
    assert card["options"] == {**asdict(edsr.PRESETS["small"]), "width": 12, "blocks": 2}
    assert card["cost"]["flops_per_window"] > 0
    assert {"psnr", "ssim", "bicubic_psnr", "bicubic_ssim"} <= set(card["health"])


@pytest.mark.parametrize("jobs", [1, 3])
def test_pipeline_and_memory_give_the_same(trained: Path, tmp_path: Path, jobs: int) -> None:
    project, volume = SrProject(tmp_path, trained), tissue_like((5, 24, 30))
    project.write_lr(volume)
    project.all(n=jobs)
    assert np.array_equal(emsr.superresolve(volume, trained), project.voxels())
    assert project.voxels().std() > 10
