"""Trainings in parts, and by two processes over gloo: the same losses as of one process that sees whole batches."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from emsr.models.stage import Stage
from emsr.progress import UnfinishedError
from emsr.steps.train import train
from emsr.training import losses
from emsr.training.group import ALONE, Group, invited, parts
from emsr.training.launch import launch
from emsr.training.stopping import NEVER, Limit
from train_project import OPTIONS, pair, settings

GRADIENT = {**OPTIONS, "discriminator_channels": [4, 8], "codebook_learning": "gradient"}
ADVERSARIAL = {"codebook_weight": 1.0, "adversarial_weight": 0.05, "adversarial_from": 1, "penalty_weight": 1e-2}
OF_ENTRIES = {"kmeans_vectors": 0, "entries_decay": 0.0, "unquantised": 0.0}
RECIPES: dict[str, dict[str, Any]] = {  # by name: what is not as in the project
    "flow": {},
    "codebook": {"patch": 32, "kmeans_vectors": 32, "restart_after": 1, "unquantised": 0.3, "codebook_weight": 1.0},
    "critic": {"patch": 64, **ADVERSARIAL, **OF_ENTRIES, "penalty_every": 2},
    "indexer": {},
    "fusion": {"contextual_weight": 1.0, "clip": 1.0},
}
STEPS = 5


def asked(name: str, volume: dict[str, str], out: Path, /, **overrides: Any) -> dict[str, Any]:
    stage = "codebook" if name == "critic" else name
    model = {"name": "gpemsr", "preset": "small", "options": GRADIENT if name == "critic" else OPTIONS}
    base = settings(stage, volume, out, model=model)
    recipe = {"batch": 4, "precision": "float32", "weight_ema": 0.9, "steps": STEPS, "validate_every": STEPS}
    return {**base, "overrides": {**base["overrides"], **recipe, **RECIPES[name], **overrides}}


def curve(folder: Path, stage: str) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = json.loads((folder / f"{stage}.curve.json").read_text())["training"]
    return rows


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return pair(tmp_path_factory.mktemp("volume"))


@pytest.fixture(scope="module")
def alone(volume: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone")
    for name in RECIPES:
        train(asked(name, volume, out), out / f"{name}.json")
    return out


def assert_same_losses(one: Path, other: Path, name: str) -> None:
    rows, again = curve(one, name), curve(other, name)
    assert [list(row) for row in rows] == [list(row) for row in again]
    assert len(rows) == STEPS
    for row, back in zip(rows, again, strict=True):
        np.testing.assert_allclose(list(row.values()), list(back.values()), rtol=2e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("name", RECIPES)
def test_a_batch_in_parts_gives_the_same_losses(alone: Path, volume: dict[str, str], tmp_path: Path, name: str) -> None:
    train(asked(name, volume, alone, accumulate=2), tmp_path / f"{name}.json")
    assert_same_losses(alone, tmp_path, name)


def one_after_another(group: Group, jobs: list[tuple[dict[str, Any], Path, Limit]]) -> None:
    """Several trainings in one group, which is linked once."""
    from emsr.steps import train as step
    from emsr.training import group as module

    with module.joined(group, "cpu"):
        module.joined = lambda *_: nullcontext()  # type: ignore[assignment]
        for chosen, out, limit in jobs:
            if limit is NEVER or limit.end is None:
                step._train(group, chosen, out, limit)
            else:
                with pytest.raises(UnfinishedError, match=f"stopped at step 1 of {STEPS}"):
                    step._train(group, chosen, out, limit)


def test_two_processes_give_the_losses_of_one(alone: Path, volume: dict[str, str], tmp_path: Path) -> None:
    """Also where a training began with two processes, was stopped, and goes on with one."""
    jobs = [(asked(name, volume, alone), tmp_path / f"{name}.json", NEVER) for name in RECIPES]
    whole, ended = asked("fusion", volume, alone), tmp_path / "stopped" / "fusion.json"
    launch(one_after_another, 2, [*jobs, (whole, ended, Limit(end=0.0))])
    for name in RECIPES:
        assert_same_losses(alone, tmp_path, name)
        card, again = (json.loads((folder / f"{name}.json").read_text()) for folder in (alone, tmp_path))
        for figure in card["scores"]:
            assert card["scores"][figure] == pytest.approx(again["scores"][figure], rel=1e-3, abs=1e-3), figure
    assert not ended.exists()
    train(whole, ended)
    assert json.loads(ended.with_suffix(".stats.json").read_text())["attempts"] == 2
    assert_same_losses(alone, ended.parent, "fusion")


def test_the_command_stops_on_sigterm_and_torchrun_goes_on(volume: dict[str, str], tmp_path: Path) -> None:
    """Both as a user calls them, two processes each; the first passes the signal on to its own."""
    steps = {"steps": 40, "validate_every": 40}
    chosen, out = asked("flow", volume, tmp_path, checkpoint_every=1, **steps), tmp_path / "cut" / "flow.json"
    verb = ["-m", "emsr.cli", "train", json.dumps(chosen), str(out)]
    command = [sys.executable, *verb, "--processes", "2", "--log", str(tmp_path / "log")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as started:
        while started.poll() is None and not (out.parent / "flow.checkpoint" / "latest.json").exists():
            time.sleep(0.02)
        started.send_signal(signal.SIGTERM)
        said = [line for line in started.communicate()[1].splitlines() if line.startswith("emsr:")]
    assert started.returncode == 75, said
    assert len(said) == 1
    assert re.fullmatch(
        r"emsr: warning: cut flow stopped at step \d+ of 40, because .*: start it again to go on", said[0]
    )
    assert not out.exists()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *verb]
    subprocess.run(torchrun, check=True, capture_output=True)
    assert json.loads(out.with_suffix(".stats.json").read_text())["attempts"] == 2
    train(asked("flow", volume, tmp_path, **steps), tmp_path / "flow.json")
    one, two = ([row["loss"] for row in curve(folder, "flow")] for folder in (tmp_path, out.parent))
    np.testing.assert_allclose(one, two, rtol=1e-2)


def fails(group: Group, message: str) -> None:
    if group.rank == 1:
        raise ValueError(message)


def test_what_one_process_says_is_said_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"^batch is a bad name$"):
        launch(fails, 2, "batch is a bad name")


STAGE = Stage("s", "image", steps=1, batch=6, patch=8, learning_rate=1e-3)


@pytest.mark.parametrize(
    ("accumulate", "size", "count"), [(1, 1, 1), (3, 1, 3), (1, 2, 2), (2, 6, 6), (3, 2, 6), (6, 3, 6)]
)
def test_parts_are_a_multiple_of_both(accumulate: int, size: int, count: int) -> None:
    assert parts(replace(STAGE, accumulate=accumulate), size) == count
    shares = [Group(rank, size).share(6) for rank in range(size)]
    assert [place for share in shares for place in range(6)[share]] == list(range(6))


@pytest.mark.parametrize(
    ("accumulate", "size", "message"),
    [
        (4, 1, r"batch 6 of stage s is no multiple of 4 \(accumulate 4\)"),
        (1, 4, r"no multiple of 4 \(accumulate 1 and 4 processes\): .* another number of GPUs"),
        (0, 1, "accumulate 0 of stage s is below 1"),
    ],
)
def test_a_batch_that_cannot_be_cut_is_one_line(accumulate: int, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parts(replace(STAGE, accumulate=accumulate), size)


def test_more_processes_than_the_batch_are_refused_before_anything_is_made(
    volume: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"batch 4 of stage flow is no multiple of 3 .* another number of GPUs"):
        train(asked("flow", volume, tmp_path), tmp_path / "out" / "flow.json", processes=3)
    with pytest.raises(ValueError, match="processes -1 train nothing: state 1 or more, or 0 for one"):
        train(asked("flow", volume, tmp_path), tmp_path / "out" / "flow.json", processes=-1)
    assert not (tmp_path / "out").exists()


def test_a_network_that_normalises_over_its_batch_takes_it_whole() -> None:
    from emsr.training.descent import Descent
    from emsr.training.objective import Turn

    turn = Turn(nn.Sequential(nn.BatchNorm2d(1)), lambda part, step: {})
    Descent(turn, STAGE, "cpu", ALONE, 1)
    with pytest.raises(ValueError, match=r"normalises over its batch \(BatchNorm2d\), which 2 parts would change"):
        Descent(turn, replace(STAGE, accumulate=2), "cpu", ALONE, 2)


def test_the_place_that_torchrun_gives_is_taken() -> None:
    assert invited({"RANK": "1", "WORLD_SIZE": "2"}) == Group(1, 2)
    assert invited({"WORLD_SIZE": "2"}) is None


def test_errors_of_parts_have_the_mean_of_the_whole() -> None:
    """Where batches are coupled by a count: patches that flow leaves, and channels in which nothing is known."""
    draw = torch.Generator().manual_seed(0)
    flow, truth = torch.rand(4, 2, 3, 3, generator=draw), torch.rand(4, 2, 3, 3, generator=draw)
    inside = (torch.rand(4, 1, 3, 3, generator=draw) > 0.5).float()
    share = inside.sum() / 2
    halves = [losses.endpoint_error(flow[of], truth[of], inside[of], share) for of in (slice(2), slice(2, 4))]
    assert torch.stack(halves).mean().item() == pytest.approx(losses.endpoint_error(flow, truth, inside).item())
    logits, target = torch.randn(4, 3, 2, 2, 2, generator=draw), torch.ones(4, 3, 2, 2, 2)
    weight = torch.ones_like(target)
    weight[0, 1], weight[3] = 0, 0
    count = torch.tensor(8 / 2)
    halves = [
        losses.affinity_error(logits[of], target[of], weight[of], "squared", count) for of in (slice(2), slice(2, 4))
    ]
    whole = losses.affinity_error(logits, target, weight, "squared")
    assert torch.stack(halves).mean().item() == pytest.approx(whole.item())
