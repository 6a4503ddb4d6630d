"""BasicVSR: recurrence along z, its flow, training on clips, and windows of z that are blended."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import emsr
import tiny_networks
from emsr.commands.check_training import card_of, check_training
from emsr.config import Training
from emsr.degradation import degrade
from emsr.inference.allocation import layer_inputs, make_plan
from emsr.inference.clips import clip_table, seen, shown
from emsr.inference.cost import of_card
from emsr.inference.forecast import of_jobs
from emsr.inference.valid import stand_ins
from emsr.layers.flow import warp
from emsr.models import basicvsr
from emsr.models.stage import Stage
from emsr.plan import Plan
from emsr.steps.train import train
from emsr.training.data import Patches, Request, Series
from emsr.training.descent import Descent
from emsr.training.group import ALONE
from emsr.training.objective import Turn
from network_goldens import any_numbers
from sr_project import SrProject, tissue_like
from train_project import put, texture

TINY = tiny_networks.options("basicvsr")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(7)


def drawn(scale: int = 2, **changes: Any) -> Any:
    return any_numbers(basicvsr.build(scale, 1, replace(TINY, **changes))).eval()


# the network


def test_flow_has_the_published_parameters() -> None:
    with torch.device("meta"):
        flow = basicvsr.network("flow", 4, 1, basicvsr.PRESETS["published"])
    assert sum(p.numel() for p in flow.parameters()) == 1_440_300


def plain(model: Any, clip: Tensor, flows: tuple[list[Tensor], list[Tensor]] | None) -> Tensor:
    """The recurrence once more, section by section: (batch, z, 1, y, x) -> (batch, z, 1, s*y, s*x)."""

    def step(part: Any, lr: Tensor, carried: Tensor) -> Tensor:
        x = F.leaky_relu(F.conv2d(torch.cat([lr, carried], 1), part.first.weight, part.first.bias, padding=1), 0.1)
        for block in part.blocks:
            x = x + block.conv2(block.conv1(x).relu())
        return x

    depth, zeros = clip.shape[1], torch.zeros(clip.shape[0], TINY.width, *clip.shape[-2:])
    above, below = [zeros] * depth, [zeros] * depth
    for z in range(depth):
        carried = below[z - 1] if z else zeros
        below[z] = step(model.forward_pass, clip[:, z], warp(carried, flows[1][z - 1]) if flows and z else carried)
    for z in reversed(range(depth)):
        carried = above[z + 1] if z < depth - 1 else zeros
        here = warp(carried, flows[0][z]) if flows and z < depth - 1 else carried
        above[z] = step(model.backward_pass, clip[:, z], here)
    made = []
    for z in range(depth):
        x = F.leaky_relu(model.fuse(torch.cat([above[z], below[z]], 1)), 0.1)
        for lift in model.ups:
            x = F.leaky_relu(lift(x), 0.1)
        detail = model.last(F.leaky_relu(model.fine(x), 0.1))
        made.append(detail + F.interpolate(clip[:, z], scale_factor=model.scale, mode="bilinear"))
    return torch.stack(made, 1)


@torch.no_grad()
def test_no_flow_is_the_plain_recurrence() -> None:
    model, lr = drawn(flow="none"), torch.rand(2, 4, 1, 8, 12)
    torch.testing.assert_close(
        model.clip(lr.transpose(1, 2)).transpose(1, 2), plain(model, lr, None), atol=1e-5, rtol=0
    )


@torch.no_grad()
def test_flow_of_zero_is_the_plain_recurrence() -> None:
    model, lr = drawn(), torch.rand(2, 4, 1, 8, 12)
    assert not torch.allclose(model.clip(lr.transpose(1, 2)).transpose(1, 2), plain(model, lr, None), atol=1e-5)
    for level in model.flow.levels:
        level[-1].weight.zero_()
        level[-1].bias.zero_()
    torch.testing.assert_close(
        model.clip(lr.transpose(1, 2)).transpose(1, 2), plain(model, lr, None), atol=1e-5, rtol=0
    )


@torch.no_grad()
def test_features_are_moved_by_the_flow_of_the_pair() -> None:
    model, lr = drawn(), torch.rand(1, 4, 1, 8, 12)
    down = [model.flow(lr[:, z], lr[:, z + 1]) for z in range(3)]
    up = [model.flow(lr[:, z + 1], lr[:, z]) for z in range(3)]
    found = model.clip(lr.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(found, plain(model, lr, (down, up)), atol=1e-5, rtol=0)
    assert max(float(flow.abs().max()) for flow in down) > 0.01


def swapped(model: Any) -> Any:
    """The same network with its two directions exchanged."""
    other = basicvsr.build(model.scale, 1, TINY).eval()
    state = dict(model.state_dict())
    for name, tensor in model.state_dict().items():
        for one, two in (("backward_pass.", "forward_pass."), ("forward_pass.", "backward_pass.")):
            if name.startswith(one):
                state[two + name.removeprefix(one)] = tensor
    state["fuse.weight"] = state["fuse.weight"].roll(TINY.width, 1)
    other.load_state_dict(state)
    return other


@torch.no_grad()
def test_a_stack_upside_down_is_the_stack_for_exchanged_directions() -> None:
    model = drawn()
    static = torch.rand(1, 1, 1, 8, 8).expand(1, 1, 5, 8, 8)
    torch.testing.assert_close(swapped(model).clip(static).flip(2), model.clip(static), atol=1e-5, rtol=0)
    assert not torch.allclose(model.clip(static).flip(2), model.clip(static), atol=1e-4), "directions differ"
    lr = torch.rand(1, 1, 5, 8, 8)
    torch.testing.assert_close(swapped(model).clip(lr.flip(2)).flip(2), model.clip(lr), atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_centre_is_that_of_the_clip() -> None:
    model, lr = drawn(4), torch.rand(2, 5, 1, 9, 7)
    assert torch.equal(model(lr), model.clip(lr.transpose(1, 2))[:, :, 2])


@pytest.mark.parametrize(("scale", "change", "message"), [
    (3, {}, "scale 3 is not one of basicvsr's: use one of 2, 4, 8, 16"),
    (4, {"flow": "raft"}, "option flow 'raft' is unknown"),
    (4, {"blocks": 0}, "blocks 0 makes no basicvsr"),
    (4, {"flow_kernel": 4}, "flow_kernel 4 has no centre"),
])  # fmt: skip
def test_what_it_cannot_be(scale: int, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        basicvsr.build(scale, 1, replace(TINY, **change))


# training


def test_the_published_recipe_is_the_specs() -> None:
    _, stage = basicvsr.stages("published", 4)
    assert (stage.steps, stage.patch, stage.learning_rate, stage.depth) == (300_000, 64, 2e-4, 15)
    assert (stage.slow, stage.slow_factor, stage.slow_from) == (("flow",), 0.125, 5_000)
    assert (stage.image_error, stage.schedule, stage.weight_ema) == ("charbonnier", "cosine", 0.999)


def test_samples_are_clips_with_the_hr_of_every_section() -> None:
    lr, hr = tissue_like((9, 12, 12)), tissue_like((9, 24, 24), seed=1)
    series = Series("v", lr, hr, ((0, 1, 2), (4, 5, 6)))
    batch = Patches([series], Request(12, 2, 4, augment=False, clip=True), 0, "x").batch(0)
    assert batch.lr is not None
    assert batch.hr is not None
    assert batch.hr.shape == (4, 3, 1, 24, 24)
    for place, low, high in zip(batch.places, batch.lr, batch.hr, strict=True):
        named = list(series.table[place.row])
        assert np.array_equal(low[:, 0], lr[named])
        assert np.array_equal(high[:, 0], hr[named])


def test_slow_parts_stand_until_they_learn() -> None:
    model, clip = basicvsr.build(2, 3, TINY), torch.rand(1, 3, 1, 8, 8)
    stage = Stage("image", "image", 10, 1, 8, 1e-2, slow=("flow",), slow_factor=0.5, slow_from=2)
    turn = Turn(model, lambda lr, step: {"loss": model(lr).square().mean()})
    descent = Descent(turn, stage, "cpu", ALONE, 1)
    moved = []
    for step in range(3):
        before = {name: tensor.clone() for name, tensor in model.named_parameters()}
        descent.descend([clip], step)
        changed = {name for name, tensor in model.named_parameters() if not torch.equal(tensor, before[name])}
        moved.append((any(n.startswith("flow.") for n in changed), any(n.startswith("fuse.") for n in changed)))
    assert moved == [(False, True), (False, True), (True, True)]


def config(change: dict[str, Any], options: dict[str, Any]) -> Training:
    return Training.model_validate({
        **{"scale": 4, "model": {"name": "basicvsr", "preset": "small", "options": options}, "sections": 1},
        **{"section_step": 1, "window": 32, "seed": 0, "threads": 1, "device": "cpu"},
        **{"data": [{"volume": "v", "train": [[0, 8]], "validation": [[8, 12]]}]},
        **{"stages": {"flow": {"steps": 0} if options.get("flow") == "none" else {}, "image": change}},
    })  # fmt: skip


@pytest.mark.parametrize(("change", "options", "message"), [
    ({"depth": 4}, {}, "depth 4 leaves clips without a centre"),
    ({"depth_overlap": 7}, {}, "depth_overlap 7 leaves no step for clips of 7: use 0 to 6"),
    ({"depth": 0}, {}, "stage image: depth 0 is no number of sections for BasicVsr: use an odd number"),
    ({}, {"flow": "none"}, "slow 'flow' is no part of the network"),
])  # fmt: skip
def test_check_names_clips_that_cannot_be(change: dict[str, Any], options: dict[str, Any], message: str) -> None:
    check_training("t", config({}, {}), ((32,), None))
    check_training("t", config({"slow": []}, {"flow": "none"}), ((32,), None))
    with pytest.raises(ValueError, match=message):
        check_training("t", config(change, options), ((32,), None))


def test_a_plan_before_training_knows_the_clips() -> None:
    card = card_of(config({"depth": 9}, {}))
    assert (card["depth"], card["depth_overlap"]) == (9, 2)
    plan = make_plan({"overlap": 4, "shard": [4, 64, 64]}, card, {"shape": [20, 40, 40], "damaged": {}, "missing": {}})
    assert plan.starts(0) == (0, 7, 11)
    work, cost = of_jobs(plan, 1, 1)[0], of_card(card, 32)
    assert work.centres == work.sections == 9 * work.windows
    assert cost.section.total == 0 < cost.centre.macs["recurrence"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the cards flow.json and image.json of a tiny network, trained by the real steps."""
    folder = tmp_path_factory.mktemp("basicvsr")
    hr = texture(12, 48, 48)
    data = {"volume": "v", "hr": str(put(folder, "hr", hr, {})), "lr": str(put(folder, "lr", degrade(hr, 2), {}))}
    common: dict[str, Any] = {
        **{"model": {"name": "basicvsr", "preset": "small", "options": tiny_networks.about("basicvsr").OPTIONS}},
        **{"section_step": 1, "seed": 0, "threads": 1, "device": "cpu", "init_from": None, "result": 1},
        **{"perceptual": None, "spynet": None, "data": [{**data, "train": [[0, 8]], "validation": [[8, 12]]}]},
    }
    few = {"steps": 3, "batch": 2, "warmup": 1, "validate_every": 0, "checkpoint_every": 0}
    flow = {"stage": "flow", "overrides": {**few, "patch": 16}, "scale": 1, "sections": 1, "window": None, "cards": {}}
    train({**common, **flow, "data": [{**part, "hr": None} for part in common["data"]]}, folder / "flow.json")
    overrides = {**few, "patch": 8, "depth": 5, "depth_overlap": 2}
    image = {"stage": "image", "overrides": overrides, "scale": 2, "sections": 1, "window": 16}
    train({**common, **image, "cards": {"flow": str(folder / "flow.json")}}, folder / "image.json")
    return folder


def test_the_card_keeps_depth_and_overlap(project: Path) -> None:
    card = json.loads((project / "image.json").read_text())
    assert (card["depth"], card["depth_overlap"], card["window"]) == (5, 2, 16)
    assert card["cost"]["macs"]["section"] == 0 < card["cost"]["macs"]["centre"]
    assert card["made_with"]["flow"] == json.loads((project / "flow.json").read_text())["sha256"]


# windows of z


@pytest.mark.parametrize(("jobs", "shard"), [(1, [4, 64, 64]), (3, [4, 64, 64]), (4, [3, 32, 32])])
def test_any_cutting_gives_the_bytes_of_memory(project: Path, tmp_path: Path, jobs: int, shard: list[int]) -> None:
    made, volume = SrProject(tmp_path, project / "image.json"), tissue_like((12, 24, 30))
    made.settings["shard"], made.settings["chunk"] = shard, [1, 32, 32]
    made.write_lr(volume)
    made.all(n=jobs)
    assert np.array_equal(emsr.superresolve(volume, project / "image.json"), made.voxels())
    assert made.voxels().std() > 10


def test_each_section_is_the_blend_of_its_clips(project: Path) -> None:
    """A volume of one window in y and x: clips at 0, 3 and 6, weighed by ramps along z."""
    volume = tissue_like((11, 16, 16))
    model: Any = emsr.load_model(project / "image.json")
    sums, weights = np.zeros((11, 32, 32)), np.zeros((11, 1, 1))
    ramp = np.array([1.0, 13.0, 13.0, 13.0, 1.0]).reshape(-1, 1, 1)
    with torch.no_grad():
        for start in (0, 3, 6):
            clip = torch.from_numpy(volume[start : start + 5]).float()[None, None] / 255
            sums[start : start + 5] += ramp * model.clip(clip)[0, 0].clamp(0, 1).numpy()
            weights[start : start + 5] += ramp
    found = emsr.superresolve(volume, project / "image.json")
    assert np.abs(found - 255 * sums / weights).max() < 0.51


def test_missing_and_damaged_sections(project: Path, tmp_path: Path) -> None:
    """In clips the nearest good section stands for both; of a missing one nothing is made."""
    made, volume = SrProject(tmp_path, project / "image.json"), tissue_like((9, 16, 16))
    spoilt = volume.copy()
    spoilt[2], spoilt[6] = 0, 255
    made.write_lr(spoilt, damaged=(6,), missing=(2,))
    made.all(n=2)
    whole = volume.copy()
    whole[2], whole[6] = volume[1], volume[5]
    wanted = emsr.superresolve(whole, project / "image.json")
    wanted[2] = 0
    assert np.array_equal(made.voxels(), wanted)


def test_what_stands_for_what() -> None:
    table = clip_table(6, (0, 3), (4,))
    assert table == ((1,), (1,), (2,), (2,), None, (5,))
    plan = Plan((6, 8, 8), 2, 8, 0, (6, 16, 16), table, 3, 1)
    assert [shown(plan, z) for z in range(6)] == [1, 1, 2, 2, 2, 5]
    assert plan.starts(0) == (0, 2, 3)
    assert seen(plan, 3, 4) == range(2, 6)
    reasons = stand_ins(plan, 1, {0, 3})
    assert [reasons.get(z) for z in range(6)] == ["damaged", *["neighbour"] * 2, "damaged", "missing", "neighbour"]
    assert stand_ins(Plan((9, 8, 8), 2, 8, 0, (9, 16, 16), clip_table(9, (8,), ()), 3, 0), 1, {8}).keys() == {6, 7, 8}
    assert layer_inputs(replace(plan, shard=(3, 16, 16)), list("abcdef")) != layer_inputs(plan, list("abcdef"))


@pytest.mark.parametrize(("changed", "layers"), [(0, [0]), (1, [0]), (2, [0, 1]), (4, [0, 1]), (5, [1]), (7, [1])])
def test_a_layer_depends_on_the_sections_of_its_clips(changed: int, layers: list[int]) -> None:
    """Clips of 3 that share 1 lie at 0, 2, 4 and 5; layers of shards are 4 deep."""
    plan = Plan((8, 8, 8), 2, 8, 0, (4, 16, 16), clip_table(8, (), ()), 3, 1)
    before = layer_inputs(plan, list("abcdefgh"))
    after = layer_inputs(plan, [name if z != changed else "x" for z, name in enumerate("abcdefgh")])
    assert [layer for layer in (0, 1) if before[layer] != after[layer]] == layers
