"""SRGAN: two networks that learn by turns, and what is said of all that they make."""

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
from emsr import degradation, plugins
from emsr.commands.view import view
from emsr.models import checkpoint, srgan, srresnet
from emsr.report import caveats
from emsr.report.evidence import StageEvidence, TrainingEvidence
from emsr.steps.score import score
from emsr.steps.train import train
from emsr.training import losses
from emsr.training.data import Series
from emsr.training.descent import Descent
from emsr.training.group import ALONE
from emsr.training.objectives.adversarial import Adversarial
from emsr.training.objectives.context import Context
from network_goldens import any_numbers
from sr_project import SrProject, tissue_like
from train_project import put, texture

TINY = replace(tiny_networks.options("srgan"), batch_norm=True)
CAUTION = "perceptual, not for measurement"
RECIPE = {"steps": 6, "batch": 2, "patch": 8, "learning_rate": 1e-3, "warmup": 0, "weight_ema": 0.0}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(2)


def objective(**changes: Any) -> Adversarial:
    """The objective on one volume of two networks with normalisation."""
    hr = np.random.default_rng(0).integers(0, 256, (4, 64, 48), dtype=np.uint8)
    series = Series("v", degradation.degrade(hr, 2), hr, ((0,), (1,), (2,)))
    stage = replace(srgan.stages("small", 2)[0], **{**RECIPE, "adversarial_from": 2, "weight_ema": 0.0, **changes})
    networks = {"discriminator": srgan.discriminator(TINY)}
    context = Context(stage, srgan.build(2, 1, TINY), 2, (series,), (series,), 1, parts=networks)
    return Adversarial(replace(context, perceptual=lambda image: F.avg_pool2d(image, 4)))


def snapshot(network: torch.nn.Module) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in network.state_dict().values()]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# networks


def test_the_discriminator_has_as_many_parameters_as_were_counted() -> None:
    with torch.device("meta"):
        network = srgan.discriminator(srgan.PRESETS["published"])
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == 23_562_497
    assert round(count / 1e6, 2) == 23.56
    strides = [layer.stride[0] for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert strides == [1, 2] * 4


@torch.no_grad()
def test_96_pixels_are_judged_as_they_are_and_others_too() -> None:
    network = any_numbers(srgan.discriminator(replace(TINY, discriminator_channels=(2, 2, 2, 2), batch_norm=False)))
    image = torch.rand(1, 1, 96, 96)
    left = network.layers[:-1](image)
    assert left.shape == (1, 2, 6, 6)
    assert torch.equal(network(image), network.judge(left))
    assert network(torch.rand(3, 1, 40, 22)).shape == (3, 1)


@torch.no_grad()
@pytest.mark.parametrize("norm", [True, False])
def test_the_generator_is_deterministic_once_trained(norm: bool) -> None:
    network = srresnet.build(2, 1, srresnet.Options(width=6, blocks=1, batch_norm=norm))
    for _ in range(3):
        network.train()(torch.rand(4, 1, 1, 8, 8))
    lr = torch.rand(2, 1, 1, 8, 8)
    sr = network.eval()(lr)
    assert torch.equal(sr, network(lr))
    torch.testing.assert_close(sr[:1], network(lr[:1]), atol=1e-6, rtol=1e-5)
    assert any(isinstance(layer, torch.nn.BatchNorm2d) for layer in network.modules()) == norm


def test_what_it_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"discriminator_channels \[\] make nothing: use 64, 128, 256, 512"):
        srgan.discriminator(replace(TINY, discriminator_channels=()))
    with pytest.raises(ValueError, match="discriminator_features 0 makes no srgan"):
        srgan.discriminator(replace(TINY, discriminator_features=0))
    with pytest.raises(ValueError, match="scale 5 is not one of srgan's"):
        srgan.build(5, 1, TINY)


# training


def test_logistic_losses_are_cross_entropies() -> None:
    real, fake = torch.randn(5, 1), torch.randn(5, 1)
    one, zero = torch.ones(5, 1), torch.zeros(5, 1)
    entropy = F.binary_cross_entropy_with_logits
    torch.testing.assert_close(losses.logistic_generator(fake), entropy(fake, one))
    expected = entropy(real, one) + entropy(fake, zero)
    torch.testing.assert_close(losses.logistic_discriminator(real, fake), expected)


def test_each_turn_touches_its_own_network_alone() -> None:
    both = objective(perceptual_weight=0.5, adversarial_weight=1.0)
    first, second = (Descent(turn, both.stage, "cpu", ALONE, 1) for turn in both.turns())
    assert (first.turn.first_step, second.turn.first_step) == (0, 2)
    parts = both.parts(both.batch(2), 2, 1)
    assert both.discriminator is not None
    generator, critic = snapshot(both.network), snapshot(both.discriminator)
    said = first.descend(parts, 2)
    assert set(said) == {"loss", "image", "perceptual", "generator"}
    assert same(critic, snapshot(both.discriminator))
    assert all(parameter.grad is None for parameter in both.discriminator.parameters())
    assert not same(generator, snapshot(both.network))
    generator = snapshot(both.network)
    assert set(second.descend(parts, 2)) == {"loss", "critic"}
    assert same(generator, snapshot(both.network))
    assert not same(critic, snapshot(both.discriminator))


def test_pixels_come_first() -> None:
    both = objective(perceptual_weight=0.5, adversarial_image=0.25, adversarial_weight=0.1, image_weight=2.0)
    (part,) = both.parts(both.batch(1), 1, 1)
    early = both.generator_losses(part, 1)
    assert set(early) == {"loss", "image"}
    torch.testing.assert_close(early["loss"], 2 * early["image"])
    late = both.generator_losses(part, 2)
    expected = 2 * 0.25 * late["image"] + 0.5 * late["perceptual"] + 0.1 * late["generator"]
    torch.testing.assert_close(late["loss"], expected)
    assert not part.made.requires_grad
    assert len(objective(adversarial_from=6).turns()) == 1, "a recipe that never reaches it has no discriminator"


def test_the_published_recipe() -> None:
    (stage,) = srgan.stages("published", 4)
    assert (stage.objective, stage.steps, stage.adversarial_from, stage.patch) == (
        "adversarial",
        1_200_000,
        1_000_000,
        24,
    )
    assert (stage.adversarial_weight, stage.perceptual_weight, stage.adversarial_image) == (1e-3, 0.006, 0)
    assert (stage.halvings, stage.halving, stage.learning_rate) == ((1_100_000,), 0.1, 1e-4)


# what is said of it


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The card of weights after some steps without a discriminator and some with one."""
    folder = tmp_path_factory.mktemp("srgan")
    hr = texture(6, 40, 32)
    data = {"volume": "v", "hr": str(put(folder, "hr", hr, {}))}
    data |= {"lr": str(put(folder, "lr", degradation.degrade(hr, 2), {}))}
    settings = {
        "model": {"name": "srgan", "preset": "small", "options": {"width": 6, "blocks": 1, "batch_norm": True}},
        **{"stage": "image", "overrides": {**RECIPE, "adversarial_from": 3, "validate_every": 2}, "scale": 2},
        **{"window": 16, "seed": 0, "threads": 1, "device": "cpu", "cards": {}, "init_from": None, "result": 1},
        **{"perceptual": None, "spynet": None, "data": [{**data, "train": [[0, 3]], "validation": [[4, 6]]}]},
        **{"section_step": 1, "sections": 1},
    }
    train(settings, folder / "image.json")
    return folder / "image.json"


def test_the_last_weights_are_kept_and_say_what_they_are(trained: Path) -> None:
    card = checkpoint.load_card(trained)
    assert card["caution"] == CAUTION
    assert card["scores"]["step"] == 6
    curve = json.loads(trained.with_suffix(".curve.json").read_text())["training"]
    assert ["critic" in row for row in curve] == [False] * 3 + [True] * 3
    evidence = TrainingEvidence("t", (StageEvidence("image", card),))
    assert any(words.startswith("Perceptual, not for measurement") for _, words in caveats.of_training(evidence))


def test_all_that_is_made_says_so(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, volume = SrProject(tmp_path, trained), tissue_like((2, 18, 20))
    project.settings |= {"shard": [4, 32, 32], "chunk": [2, 16, 16]}
    project.write_lr(volume)
    project.all(n=1)
    caplog.clear()
    assert np.array_equal(emsr.superresolve(volume, trained), project.voxels())
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"{trained}: {CAUTION}"
    ]
    sr = json.loads((tmp_path / "sr.json").read_text())
    assert sr["caution"] == CAUTION
    caplog.clear()

    def end(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("emsr.commands.view.threading.Event.wait", end)
    view([tmp_path / "sr.json"], client="https://viewer.example", no_browser=True)
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [f"sr: {CAUTION}"]
    paths = {"lr": str(project.lr), "sr": str(tmp_path / "sr.json"), "hr": None}
    score({"volume": "v", "scale": 2, "test": None, **paths}, tmp_path / "scores.json")
    assert json.loads((tmp_path / "scores.json").read_text())["caution"] == CAUTION


def test_only_what_states_it_is_cautioned() -> None:
    said = {name: plugins.caution(plugins.file_of("models", name)) for name in plugins.names("models")}
    assert {name: words for name, words in said.items() if words} == {"srgan": CAUTION}


def test_srresnets_weights_may_begin_it() -> None:
    options = asdict(tiny_networks.options("srresnet"))
    begun = srgan.build(4, 1, replace(TINY, **options)).state_dict()
    assert begun.keys() == srresnet.build(4, 1, srresnet.Options(**options)).state_dict().keys()
