"""VDSR, DRCN, DRRN and MemNet: deep networks over the enlarged section, most of them of few weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from emsr.layers.upscale import bicubic
from emsr.models import drcn, drrn, memnet, vdsr
from emsr.training import schedule
from network_goldens import any_numbers
from reach import reach


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(2)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("network", [
    vdsr.build(4, 1, vdsr.Options(width=6, depth=5)),
    drcn.build(4, 1, drcn.Options(width=6, recursions=3)),
    drrn.build(4, 1, drrn.Options(width=6, blocks=2, units=2)),
    memnet.build(4, 1, memnet.Options(width=6, blocks=2, recursions=2, norm=True)),
], ids=lambda network: type(network).__name__)  # fmt: skip
@torch.no_grad()
def test_nothing_added_is_bicubic(network: Any) -> None:
    last = network.rebuild[2] if isinstance(network, drcn.Drcn) else network.last
    for parameter in last.parameters():
        parameter.zero_()
    lr = torch.rand(1, 1, 1, 6, 7)
    torch.testing.assert_close(network.eval()(lr), bicubic(lr[:, 0], 4), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("model", "options", "seen"), [
    (vdsr, vdsr.Options(width=5, depth=20), 41), (drcn, drcn.Options(width=5, recursions=16), 41),
    (drrn, drrn.Options(width=4, blocks=1, units=25), 105),
    (memnet, memnet.Options(width=4, blocks=6, recursions=6, norm=True), 149),
], ids=["vdsr", "drcn", "drrn", "memnet"])  # fmt: skip
def test_they_see_as_far_as_published(model: Any, options: Any, seen: int) -> None:
    networks = [model.build(2, 1, options) for _ in range(4)]  # in some a ReLU lets nothing through from afar
    reached = [reach(any_numbers(network).double().refine, seen // 2) for network in networks]
    before, after = map(max, zip(*reached, strict=True))
    assert 1 + before + after == seen == 2 * networks[0].reach + 1


# sharing


@pytest.mark.parametrize(("one", "other"), [(1, 16), (3, 4)])
def test_turns_of_drcn_share_all_but_their_weight_in_the_mean(one: int, other: int) -> None:
    less, more = (drcn.build(2, 1, drcn.Options(width=4, recursions=turns)) for turns in (one, other))
    assert count(more) - count(less) == other - one == count(more.mean) - count(less.mean)


def test_units_of_drrn_share_everything() -> None:
    assert count(drrn.build(2, 1, drrn.Options(8, 1, units=9))) == count(drrn.build(2, 1, drrn.Options(8, 1, units=25)))


@torch.no_grad()
def test_drrn_is_its_formula() -> None:
    network = any_numbers(drrn.build(2, 1, drrn.Options(width=5, blocks=2, units=3)))
    state, large = network.state_dict(), torch.rand(1, 1, 9, 8)

    def through(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, state[f"{name}.weight"], padding=1)

    x = large
    for block in range(2):
        start = x = through(f"first.{block}", x.relu() if block else x)
        for _ in range(3):
            x = start + through(f"unit.{block}.conv2", through(f"unit.{block}.conv1", x.relu()).relu())
    torch.testing.assert_close(network.refine(large), large + through("last", x.relu()), atol=1e-5, rtol=0)


# means of several images


@torch.no_grad()
def test_weights_of_means_sum_to_one_and_sr_is_their_mean() -> None:
    lr = torch.rand(2, 3, 1, 6, 5)
    for network in (
        drcn.build(2, 3, drcn.Options(width=4, recursions=4)),
        memnet.build(2, 3, memnet.Options(width=4, blocks=4, recursions=1, norm=False)),
    ):
        assert network.mean.weights().tolist() == [0.25] * 4
        nn.init.normal_(network.mean.logits)
        weights = network.mean.weights()
        assert float(weights.sum()) == pytest.approx(1, abs=1e-6)
        *each, sr = any_numbers(network).images(lr)
        assert torch.equal(sr, network(lr))
        expected = sum(weight * image for weight, image in zip(network.mean.weights(), each, strict=True))
        torch.testing.assert_close(sr, expected, atol=1e-6, rtol=0)
        assert torch.stack(each).std(0).max() > 1e-4, "the images differ"


@torch.no_grad()
def test_turns_of_drcn_begin_as_the_identity() -> None:
    first, *others = drcn.build(2, 1, drcn.Options(width=6, recursions=5)).images(torch.rand(1, 1, 1, 7, 7))
    for other in others:
        torch.testing.assert_close(other, first, atol=1e-6, rtol=0)


def test_turns_of_drcn_learn_first() -> None:
    (stage,) = drcn.stages("published", 4)
    shares = [schedule.early(stage, step) for step in (0, stage.steps // 2, stage.steps)]
    assert shares == [1, 0.5, 0]


@pytest.mark.parametrize(("preset", "share"), [("published", 6 / 7), ("small", 3 / 4)])
def test_all_images_of_memnet_count_alike_always(preset: str, share: float) -> None:
    (stage,) = memnet.stages(preset, 4)
    assert share == memnet.PRESETS[preset].blocks / (memnet.PRESETS[preset].blocks + 1)
    assert {schedule.early(stage, step) for step in (0, stage.steps // 2, stage.steps)} == {share}


# memnet


def test_gates_of_memnet_see_turns_and_all_that_is_remembered() -> None:
    network = memnet.build(4, 1, memnet.PRESETS["published"])
    assert [block.gate.in_channels for block in network.blocks] == [64 * (6 + m) for m in range(1, 7)]
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert sum(map(count, convolutions)) == 678_209, "677 thousand as published, without biases"
    turns = 2 * sum(block.recursions for block in network.blocks)
    assert turns + len(network.blocks) + 2 == 80, "layers"
    assert all(len(block.unit.norm1) == 6 for block in network.blocks), "each turn normalises by its own"


# recipes


@pytest.mark.parametrize(("module", "side", "falls"), [(vdsr, 41, 10), (drrn, 31, 2), (memnet, 31, 10)])
def test_published_recipes_are_descent_with_momentum(module: Any, side: int, falls: int) -> None:
    (stage,) = module.stages("published", 4)
    assert (stage.optimiser, stage.betas[0], stage.weight_decay, stage.clip_change) == ("sgd", 0.9, 1e-4, 0.01)
    assert (stage.image_error, stage.image_weight) == ("squared", side**2 / 2)
    first, second = schedule.rate(stage, 0), schedule.rate(stage, stage.halvings[0])
    assert first == pytest.approx(0.1)
    assert first / second == pytest.approx(falls)
    (small,) = module.stages("small", 4)
    assert (small.optimiser, small.weight_decay, small.clip_change, small.image_weight) == ("adam", 0, 0, 1)


@pytest.mark.parametrize(("module", "change", "message"), [
    (vdsr, {"depth": 1}, "depth 1 makes no vdsr: use 2 or more"),
    (drcn, {"recursions": 0}, "recursions 0 makes no drcn: use 1 or more"),
    (drrn, {"units": 0}, "units 0 makes no drrn: use 1 or more"),
    (memnet, {"width": -1}, "width -1 makes no memnet: use 1 or more"),
])  # fmt: skip
def test_what_they_cannot_be(module: Any, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module.build(4, 1, replace(module.PRESETS["small"], **change))
