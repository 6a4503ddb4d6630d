"""The objective that learns affinities: its truth, its loss, its figures, its training, on volumes of a few voxels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from torch import Tensor, nn
from torch.nn import functional

from emsr.models.affinity import Options, build
from emsr.models.stage import Stage
from emsr.training import losses
from emsr.training.loop import Result, Run, train
from emsr.training.objectives import affinity
from emsr.training.objectives.context import Context, channels_last
from labelled import ROUGH, STAGE, series


class Cells(nn.Module):
    """Knows the truth where the image is the labels: equal grey levels are connected. Cuts ``rim`` voxels off."""

    def __init__(self, rim: int) -> None:
        super().__init__()
        self.rim, self.scale = rim, nn.Parameter(torch.tensor(8.0))

    def forward(self, image: Tensor) -> Tensor:
        return self.logits(image).sigmoid()

    def logits(self, image: Tensor) -> Tensor:
        same = [(image == image.roll(1, axis)) & (image > 0) for axis in (2, 3, 4)]
        rim = slice(self.rim, -self.rim)
        return (torch.cat(same, 1).float() - 0.5)[:, :, rim, rim, rim] * self.scale


def objective(network: nn.Module, flat: bool = False, **changes: Any) -> affinity.Affinity:
    held_out = series(seed=1)
    if flat:
        held_out = replace(held_out, labels=np.ones(held_out.image.shape, np.uint64))
    stage = replace(STAGE, **{"border": 0, **changes})
    return affinity.make(Context(stage, network, 1, (series(),), (held_out,), 0))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: objective(Cells(2), depth=0), "depth 0 of stage affinity leaves patches without sections"),
        (lambda: objective(Cells(2), balance_limit=0.5), r"balance_limit 0.5 of stage affinity is below 1"),
        (lambda: objective(nn.Conv3d(1, 2, 1)), r"network makes \[1, 2, 4, 10, 10\] of window \[4, 10, 10\]"),
        (
            lambda: objective(Cells(1), flat=True),
            r"hold 0, 0, 0 cut and \d+, \d+, \d+ connected .* at least two objects",
        ),
    ],
)
def test_what_cannot_be_learned_from_is_one_line(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rim", [1, 3])
def test_a_network_that_knows_the_truth_scores_fully_whatever_it_cuts_off(rim: int) -> None:
    """So targets lie where the output lies, edges go to lower neighbours, and deformed patches are still true."""
    learned = objective(Cells(rim), depth=8, augment=True, shift_share=0.5, shift=2)
    with torch.inference_mode():
        assert learned.validate(learned.network)["score"] == 1.0
        health = learned.health(learned.network)
        assert {health[f"{name}_{axis}"] for name in ("f1", "auc") for axis in "zyx"} == {1.0}
        assert 0.5 < health["connected_x"] < 1
        for step in range(10):
            assert float(learned.losses(learned.parts(learned.batch(step), step, 1)[0], step)["loss"]) < 0.02


@pytest.mark.parametrize(
    ("target", "limit", "ones", "zeros", "why"),
    [
        ([1, 1, 1, 0], 0.0, 1, 1, "no balance"),
        ([1, 1, 1, 0], 10.0, 4 / 6, 2, "n / (2 n_c)"),
        ([1] * 39 + [0], 10.0, 40 / 78, 10, "20 is cut to the limit"),
        ([1, 1, 1, 1], 10.0, 0.5, None, "one class only"),
    ],
)
def test_class_balance_by_hand(target: list[int], limit: float, ones: float, zeros: float, why: str) -> None:
    truth = torch.tensor([*target, 0, 1]).reshape(1, 1, 1, 1, -1)
    known = torch.tensor([1] * len(target) + [0, 0]).reshape(truth.shape)
    weight = losses.class_balance(truth, known, limit).flatten().tolist()
    assert weight[:-2] == pytest.approx([ones if one else zeros for one in target]), why
    assert weight[-2:] == [0, 0], "what is not known weighs nothing"


def test_the_error_is_a_mean_over_patches_and_channels_that_know_something() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 2, 4, 4), torch.rand(2, 3, 2, 4, 4).round()
    weight = torch.rand(2, 3, 2, 4, 4)
    weight[0, 1] = 0
    each = [
        functional.binary_cross_entropy(logits[b, c].sigmoid(), target[b, c], weight[b, c], reduction="sum")
        / weight[b, c].sum()
        for b, c in ((0, 0), (0, 2), (1, 0), (1, 1), (1, 2))
    ]
    error = losses.affinity_error(logits, target, weight, "cross_entropy")
    assert float(error) == pytest.approx(float(torch.stack(each).mean()), rel=1e-5)
    squared = losses.affinity_error(logits, target, torch.ones_like(weight), "squared")
    assert float(squared) == pytest.approx(float(functional.mse_loss(logits.sigmoid(), target)), rel=1e-5)
    assert float(losses.affinity_error(logits, target, torch.zeros_like(weight), "squared")) == 0, "nothing is known"


@settings(max_examples=30)
@given(arrays(np.int64, (2, affinity.LEVELS), elements=st.integers(0, 3), fill=st.just(0)))
def test_separation_is_its_definition(counts: np.ndarray) -> None:
    counts[0, 7] += 1
    counts[1, 9] += 1
    cut, connected = (np.repeat(np.arange(affinity.LEVELS), row) for row in counts)
    pairs = np.sign(connected[:, None].astype(int) - cut)
    f1 = [2 * (cut < t).sum() / ((cut < t).sum() + (connected < t).sum() + len(cut)) for t in np.arange(1, 257) - 0.5]
    found = affinity.separation(counts)
    assert found["auc"] == pytest.approx((pairs + 1).mean() / 2)
    assert found["f1"] == pytest.approx(max(f1))
    assert found["threshold"] == pytest.approx((int(np.argmax(f1)) + 0.5) / 255)
    assert found["connected"] == len(connected) / (len(cut) + len(connected))


class Tiny(nn.Sequential):
    """A network of valid convolutions with running statistics; stops once when told to."""

    def __init__(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            super().__init__(nn.Conv3d(1, 6, 3), nn.BatchNorm3d(6), nn.ReLU(), nn.Conv3d(6, 3, 1), nn.Sigmoid())


def trained(folder: Path, stage: Stage, stop_at: int | None = None) -> Result:
    context = Context(stage, channels_last(Tiny(), "cpu"), 1, (series(),), (series(seed=1),), 0)  # type: ignore[arg-type]
    made = affinity.make(context)
    real = made.after

    def after(step: int) -> None:
        if step == stop_at:
            raise KeyboardInterrupt
        real(step)

    made.after = after  # type: ignore[method-assign]
    return train(made, stage, Run(folder, "me", "tiny"))  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_interrupted_training_ends_with_the_same_bits(tmp_path: Path, precision: Any) -> None:
    stage = replace(ROUGH, weight_ema=0.5, precision=precision)
    whole = trained(tmp_path / "whole", stage)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", stage, stop_at=5)
    resumed = trained(tmp_path / "cut", stage)
    assert (resumed.stats["steps"], resumed.stats["attempts"]) == (8, 2), "continues from the state after step 3"
    assert all(torch.equal(value, resumed.weights[name]) for name, value in whole.weights.items())
    assert whole.curve == resumed.curve
    assert whole.scores == resumed.scores


def test_training_learns_affinities(tmp_path: Path) -> None:
    stage = replace(STAGE, steps=60, validate_every=20, learning_rate=0.05, border=0)
    rows = trained(tmp_path, stage).curve["validation"]
    assert rows[-1]["score"] > rows[0]["score"]
    assert rows[-1]["loss"] < 0.6 < np.log(2), "better than knowing nothing"


def test_the_shape_of_the_output_is_found_without_computing() -> None:
    network = Tiny().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert affinity.output_shape(network, (30, 3000, 3000)) == (28, 2998, 2998)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("options", "window", "output"),
    [
        (Options("superhuman", (2, 2, 2, 2, 2, 2), 0.02), (18, 160, 160), (18, 160, 160)),
        (Options("mala", (2, 2, 2, 2), 0.0), (53, 268, 268), (25, 56, 56)),
    ],
)
def test_published_networks_say_something_of_the_published_part(options: Options, window: Any, output: Any) -> None:
    assert affinity.output_shape(build(options), window) == output
