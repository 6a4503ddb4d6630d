"""Networks of two directions through training and inference: losses, samples, and the protocol that is not ours."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import emsr
from emsr.commands.check import check_config
from emsr.config import parse
from emsr.degradation import degrade
from emsr.inference import allocation, rescaling
from emsr.inference.deviation import Deviation, normal
from emsr.models import checkpoint, edsr, irn, snadn
from emsr.models.stage import Stage
from emsr.steps.score import score
from emsr.steps.train import train
from emsr.stores.card import read_card
from emsr.training.data import Series
from emsr.training.objectives import dual
from emsr.training.objectives.context import Context
from network_goldens import any_numbers
from sr_project import SrProject, tissue_like, write_weights
from tiny_project import tiny_config, write_cube
from train_project import put, texture

TINY = {"blocks": 1, "layers": 1, "growth": 4, "max_h": 6, "width": 4, "hashes": 1, "chunk": 64}
STAGE = Stage("image", "dual", steps=2, batch=4, patch=6, learning_rate=1e-3, latent_weight=0.5, cycle_weight=0.1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(17)


# losses


def objective(stage: Stage = STAGE, scale: int = 2) -> Any:
    torch.manual_seed(17)
    network = any_numbers(snadn.build(scale, 1, replace(snadn.PRESETS["small"], **TINY)))
    hr = texture(4, 48, 48)
    series = Series("v", degrade(hr, scale), hr, ((0,), (1,), (2,), (3,)))
    return dual.make(Context(stage, network, scale, (series,), (series,), seed=6))


def test_losses_are_the_formula() -> None:
    made = objective()
    batch = made.batch(0)
    hr, lr = (torch.from_numpy(part).float() / 255 for part in (batch.hr, batch.lr[:, 0]))
    coarse, (latents,) = made.network.down(hr)
    keys = [[6, 0, *vars(place).values()] for place in batch.places]
    spreads = np.stack([np.random.default_rng(key).uniform(-1, 1) for key in keys]).clip(0).astype(np.float32)
    normals = [np.random.default_rng([*key, 0]).standard_normal(latents.shape[1:], np.float32) for key in keys]
    drawn = spreads[:, None, None, None] * np.stack(normals)
    assert 0 < np.count_nonzero(spreads) < 4, "of these patches some have latents zero"
    voxels = hr.numel()
    image = (made.network.up(lr, [torch.from_numpy(drawn)]) - hr).abs().mean()
    own = (coarse.clamp(0, 1) * 255).round() / 255
    cycle = (made.network.up(own, [latents]) - hr).abs().mean()
    expected = image + 4 * (coarse - lr).square().sum() / voxels + 0.5 * latents.square().sum() / voxels + 0.1 * cycle
    losses = made.losses(batch, 0)
    torch.testing.assert_close(losses["loss"], expected, atol=1e-6, rtol=1e-5)
    assert set(losses) == {"loss", "guide", "latent", "image", "cycle"}
    rescaled = objective(replace(STAGE, protocol="rescaling", cycle_weight=0.0)).losses(batch, 0)["image"]
    own_image = (made.network.up(own, [torch.from_numpy(drawn)]) - hr).abs().mean()
    torch.testing.assert_close(rescaled, own_image, atol=1e-6, rtol=1e-5)
    assert float(rescaled.detach()) != float(image.detach())


def test_parts_of_a_batch_have_its_loss_and_steps_differ() -> None:
    made = objective(replace(STAGE, image_error="charbonnier", guide_weight=2.0))
    batch = made.batch(0)
    parts = [made.losses(part, 3)["loss"] for part in made.parts(batch, 3, 2)]
    torch.testing.assert_close(torch.stack(parts).mean(), made.losses(batch, 3)["loss"], atol=1e-6, rtol=1e-5)
    assert float(made.losses(batch, 4)["loss"].detach()) != float(made.losses(batch, 3)["loss"].detach())


def test_directions_apart_are_both_together() -> None:
    made, batch = objective(replace(STAGE, alternate=True, cycle_weight=0.0)), objective().batch(0)
    apart = [turn.losses(batch, 0)["loss"] for turn in made.turns()]
    assert len(apart) == 2
    torch.testing.assert_close(sum(apart), made.losses(batch, 0)["loss"], atol=1e-6, rtol=1e-5)


def test_eight_bits_pass_the_gradient() -> None:
    lr = torch.tensor([-0.2, 0.0, 0.4999, 1.3], requires_grad=True)
    made = dual.quantised(lr)
    torch.testing.assert_close(made.detach(), torch.tensor([0, 0, 127 / 255, 1.0]))
    made.sum().backward()
    assert lr.grad is not None
    assert lr.grad.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(("module", "side"), [(irn, 144), (snadn, 224)])
@pytest.mark.parametrize("scale", [2, 4, 8, 16])
def test_published_recipes(module: Any, side: int, scale: int) -> None:
    (stage,) = module.stages("published", scale)
    assert (stage.objective, stage.learning_rate, stage.betas) == ("dual", 2e-4, (0.9, 0.999))
    assert stage.patch == side // scale
    voxels = (stage.patch * scale) ** 2
    assert stage.clip * voxels == pytest.approx(10)
    assert stage.weight_decay * voxels == pytest.approx(1e-5)
    assert [halving / stage.steps for halving in stage.halvings] == [0.2, 0.4, 0.6, 0.8]
    assert (stage.batch, stage.steps) == ((16, 500_000) if module is irn else (4, 400_000))
    assert stage.image_error == ("charbonnier" if module is irn else "absolute")


def test_latents_are_normal_and_their_own_place() -> None:
    numbers = normal((3, 0, 0, 7), (40, 60, 60), (5, 9))
    assert abs(float(numbers.mean())) < 0.01
    assert abs(float(numbers.std()) - 1) < 0.01
    assert abs(float((numbers**4).mean()) - 3) < 0.1
    flat = numbers.reshape(40, -1)
    assert np.abs(np.corrcoef(flat) - np.eye(40)).max() < 0.1
    for axis in range(3):
        a, b = np.delete(numbers, 0, axis).ravel(), np.delete(numbers, -1, axis).ravel()
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.01
    assert np.array_equal(normal((3, 0, 0, 7), (40, 20, 30), (15, 29)), numbers[:, 10:30, 20:50])
    for key in ((4, 0, 0, 7), (3, 1, 0, 7), (3, 0, 1, 7), (3, 0, 0, 8)):
        assert abs(np.corrcoef(normal(key, (40, 60, 60), (5, 9)).ravel(), numbers.ravel())[0, 1]) < 0.01


@torch.no_grad()
def test_deviation_is_that_of_the_samples() -> None:
    network = any_numbers(snadn.build(4, 1, replace(snadn.PRESETS["small"], **TINY)))
    lr = torch.rand(1, 1, 6, 8)
    made = Deviation(network, 3, 0.5, 2).centre([(lr,)], (4, 10, 20))
    (shape,) = network.latent_shapes(6, 8)
    drawn = [torch.from_numpy(normal((2, k, 0, 4), shape, (10, 20)) * np.float32(0.5))[None] for k in range(3)]
    samples = torch.stack([network.up(lr, [one]) for one in drawn])
    torch.testing.assert_close(made, 4 * samples.std(0), atol=1e-6, rtol=0)
    assert (made > 0).all()


@pytest.mark.parametrize(("asked", "message"), [
    ({"samples": 1}, "samples 1 have no standard deviation: use 2 or more"),
    ({"temperature": 0.0}, r"temperature 0\.0 draws no samples"),
    ({"seed": -1}, "seed -1 of the samples"),
])  # fmt: skip
def test_samples_that_cannot_be(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Deviation(torch.nn.Identity(), **{"samples": 2, "temperature": 1.0, "seed": 0, **asked})  # type: ignore[arg-type]


# through the step, the pipeline and memory


def learned(folder: Path, name: str, hr: np.ndarray | None = None, larger: bool = False, **recipe: Any) -> Path:
    """The card of a tiny network, or one a little ``larger``, trained by the real step."""
    hr = texture(14, 96, 96) if hr is None else hr
    data = {"volume": "v", "hr": str(put(folder, "hr", hr, {})), "lr": str(put(folder, "lr", degrade(hr, 4), {}))}
    options = TINY if name == "snadn" else {key: TINY[key] for key in ("blocks", "layers", "growth", "max_h")}
    options |= {"blocks": 2, "layers": 2, "growth": 8, "max_h": 15} if larger else {}
    changes = {"batch": 2, "patch": 8, "warmup": 0, "learning_rate": 5e-3, "checkpoint_every": 0, **recipe}
    settings = {
        **{"stage": "image", "overrides": changes, "scale": 4, "sections": 1, "section_step": 1, "result": 1},
        **{"model": {"name": name, "preset": "small", "options": options}, "window": 16, "seed": 0, "threads": 1},
        **{"device": "cpu", "cards": {}, "init_from": None, "perceptual": None, "spynet": None},
        "data": [{**data, "train": [[0, 8]], "validation": [[10, 14]]}],
    }
    train(settings, folder / "image.json")
    return folder / "image.json"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return learned(tmp_path_factory.mktemp("snadn"), "snadn", steps=40, validate_every=20, cycle_weight=0.1)


@pytest.fixture(scope="module")
def rescaler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return learned(tmp_path_factory.mktemp("irn"), "irn", steps=12, validate_every=12, protocol="rescaling")


def test_it_learns(trained: Path) -> None:
    curve = json.loads(trained.with_suffix(".curve.json").read_text())
    losses = [row["loss"] for row in curve["training"]]
    assert np.median(losses[-10:]) < 0.75 * np.mean(losses[:2]), "each step has its own spread of latents"
    card = checkpoint.load_card(trained)
    assert "protocol" not in card
    assert {"psnr", "bicubic_psnr"} <= set(card["health"])
    assert card["cost"]["flops_per_window"] > 0


@pytest.mark.parametrize("patch", [24, 25])
def test_patches_larger_than_sections_are_warned_of(
    patch: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    learned(tmp_path, "irn", steps=1, validate_every=1, patch=patch)
    said = [text for text in caplog.messages if "mirrored" in text]
    wanted = "stage image: patches of 25 pixels are larger than the sections of v, 24 x 24: mirrored beyond their edges"
    assert said == ([wanted] if patch == 25 else [])


@pytest.mark.parametrize(("name", "steps"), [("irn", 300), ("snadn", 80)])
def test_sr_becomes_better_than_bicubic(name: str, steps: int, tmp_path: Path) -> None:
    """By the recipe's own losses, on edges, of which bicubic makes too little; irn begins where pixels are repeated."""
    hr = np.where(texture(14, 96, 96) > 128, 190, 70).astype(np.uint8)
    card = learned(tmp_path, name, hr, larger=True, steps=steps, validate_every=steps, patch=16)
    health = checkpoint.load_card(card)["health"]
    assert health["psnr"] > health["bicubic_psnr"] + 0.05


def test_pipeline_and_memory_give_the_same(trained: Path, tmp_path: Path) -> None:
    project, volume = SrProject(tmp_path, trained), tissue_like((3, 24, 30))
    project.write_lr(volume)
    project.all(n=2)
    assert np.array_equal(emsr.superresolve(volume, trained), project.voxels())
    assert project.voxels().std() > 10


def test_deviation_of_a_volume(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = tissue_like((2, 24, 30))
    made = emsr.deviation(volume, trained, samples=3)
    assert made.shape == (2, 96, 120)
    assert (made > 0).mean() > 0.5
    assert not np.array_equal(made[0], made[1])
    assert np.array_equal(made, emsr.deviation(volume, trained, samples=3, workers=3))
    monkeypatch.setattr("emsr.inference.memory.SHARD", (1, 32, 48))
    assert np.array_equal(made, emsr.deviation(volume, trained, samples=3)), "shards change nothing"
    assert not np.array_equal(made, emsr.deviation(volume, trained, samples=3, seed=1))
    assert emsr.deviation(volume, trained, samples=3, temperature=0.1).mean() < 0.3 * made.mean()


def test_steps_make_the_deviation_in_jobs(trained: Path, tmp_path: Path) -> None:
    volume = tissue_like((5, 24, 30))
    project = SrProject(tmp_path, trained)
    project.settings["samples"] = {"count": 3, "temperature": 1.0, "seed": 0}
    project.write_lr(volume)
    card = project.all(n=2)
    assert card["samples"] == project.settings["samples"]
    assert np.array_equal(emsr.deviation(volume, trained, samples=3, overlap=4), project.voxels())
    assert project.job("1-of-2") == [], "a finished shard is not made again"
    project.settings["samples"] = {"count": 1, "temperature": 1.0, "seed": 0}
    with pytest.raises(ValueError, match="samples 1 have no standard deviation"):
        project.allocate()
    settings = {"volume": "v", "scale": 4, "test": None, "hr": None, "lr": str(project.lr)}
    with pytest.raises(ValueError, match="says how far samples lie apart and is no image"):
        score({**settings, "sr": str(tmp_path / "sr.json")}, tmp_path / "scores.json")


def test_models_without_latents_have_no_samples(tmp_path: Path) -> None:
    options = edsr.Options(width=4, blocks=1, res_scale=1.0, mean=0.5)
    card = {"model": "edsr", "stage": "image", "scale": 4, "sections": 1, "options": vars(options), "window": 8}
    checkpoint.save(tmp_path / "e.safetensors", edsr.build(4, 1, options).state_dict(), card)
    with pytest.raises(ValueError, match="of a model that gives one image and no samples: use snadn or irn"):
        emsr.deviation(tissue_like((1, 8, 8)), tmp_path / "e.safetensors")


# rescaling


def test_protocols_never_meet(trained: Path, rescaler: Path, tmp_path: Path) -> None:
    volume, weights = tissue_like((1, 16, 16)), checkpoint.load_card(rescaler)
    for enlarge in (emsr.superresolve, emsr.deviation):
        with pytest.raises(ValueError, match=r"image\.json is of protocol rescaling, in which a network enlarges"):
            enlarge(volume, rescaler)
    with pytest.raises(ValueError, match="was trained to enlarge lr that is given and not its own"):
        rescaling.finer(volume, trained)
    with pytest.raises(ValueError, match=r"volume is float32 \(15, 4, 4\)"):  # latents
        emsr.superresolve(np.zeros((15, 4, 4), np.float32), trained)
    project = SrProject(tmp_path, trained)
    project.write_lr(volume)
    lr, image = project.lr, read_card(project.lr)
    with pytest.raises(ValueError, match=r"image\.json is of protocol rescaling"):
        allocation.check_weights(weights, rescaler, image, lr)
    own = {**image, "degradation": {"scale": 4, "protocol": "rescaling"}}
    with pytest.raises(ValueError, match=r"lr\.json is of protocol rescaling"):
        allocation.check_weights(checkpoint.load_card(trained), trained, own, lr)


def test_check_knows_weights_that_a_volume_cannot_use(
    rescaler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_cube(tmp_path / "cube.h5")
    config = {**tiny_config(), "trainings": {}}
    config["volumes"]["cube"] |= {"weights": {"path": str(rescaler.with_suffix(".safetensors"))}}
    with pytest.raises(ValueError, match=r"image\.safetensors is of protocol rescaling"):
        check_config(parse(config))
    config["volumes"]["cube"] |= {
        "weights": {"path": str(write_weights(tmp_path, "bicubic", 4).with_suffix(".safetensors"))},
        "samples": {"count": 2, "temperature": 1.0, "seed": 0},
    }
    with pytest.raises(ValueError, match=r"cube\.samples: weights .* of bicubic give one image"):
        check_config(parse(config))


@torch.no_grad()
def test_latents_of_another_lr_are_refused() -> None:
    network, lr = irn.build(4, 1, irn.PRESETS["small"]), torch.rand(1, 1, 5, 6)
    with pytest.raises(ValueError, match=r"latents \[\(1, 15, 5, 5\)\] are not \[\(1, 15, 5, 6\)\]"):
        network.up(lr, [torch.zeros(1, 15, 5, 5)])
