"""Training at random scales: which are drawn, what lr and points are, and what an acquired lr can be trained at."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tiny_networks
from emsr.degradation import degrade, upsample
from emsr.layers.implicit import Points, bilinear
from emsr.metrics.image import psnr, ssim
from emsr.models import iste, liif
from emsr.models.stage import Stage
from emsr.steps.degraded import patch
from emsr.training.data import Series
from emsr.training.group import Group
from emsr.training.objectives import scales
from emsr.training.objectives.context import Context

STAGE = Stage("image", "scales", 10, batch=2, patch=12, learning_rate=1e-3, scales=(1.0, 4.0), samples=50)
AREA = {"kernel": "area"}
SIDE = 96


class Bilinear(nn.Module):
    """lr between its pixels' centres, instead of a network."""

    def sample(self, lr: Tensor, y: Tensor, x: Tensor, scale: tuple[float, float]) -> Tensor:
        return bilinear(lr, Points(y, x, (lr.shape[-2], lr.shape[-1]))).view(*y.shape, 1)


def ramp() -> np.ndarray[Any, Any]:
    """Sections whose grey level rises by 2 a voxel along y and 0.5 along x."""
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.stack([np.rint(2 * y + 0.5 * x).astype(np.uint8)] * 3)


def context(stage: Stage = STAGE, scale: Any = 4, network: nn.Module | None = None, **changes: Any) -> Context:
    hr = changes.pop("hr", ramp())
    series = Series("v", degrade(hr, 4), hr, ((0,), (1,), (2,)), changes.pop("made", AREA))
    measures = {"psnr": psnr, "ssim": ssim}
    made = Context(stage, network or Bilinear(), scale, (series,), (series,), 5, measures=measures)
    return replace(made, enlarge=upsample, degrade=patch, **changes)


def drawn(stage: Stage, count: int = 400) -> np.ndarray[Any, Any]:
    objective = scales.make(context(stage))
    return np.array([objective.scale(step) for step in range(count)])


def test_scales_are_drawn_within_their_range() -> None:
    even = drawn(STAGE)
    assert (even[:, 0] == even[:, 1]).all()
    assert (even.min() >= 1, even.max() <= 4.04) == (True, True)
    assert np.median(even) == pytest.approx(2.5, abs=0.25)
    ratios = drawn(replace(STAGE, scales=(1.0, 16.0), scales_drawn="logarithmic"))
    assert np.median(ratios) == pytest.approx(4, abs=0.8)
    assert len(np.unique(even)) > 40, "sixteen lr pixels are any whole number of voxels from 16 to 64"


def test_some_batches_have_a_scale_for_each_axis() -> None:
    found = drawn(replace(STAGE, anisotropy=0.5))
    assert np.mean(found[:, 0] != found[:, 1]) == pytest.approx(0.5, abs=0.1)


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    first, again = (scales.make(context()).batch(3) for _ in range(2))
    other = scales.make(context()).batch(4)
    assert all(np.array_equal(getattr(first, name), getattr(again, name)) for name in vars(first))
    assert first.lr.shape == (2, 1, 12, 12)
    assert first.hr.shape == first.y.shape == (2, 50)
    assert not np.array_equal(first.lr, other.lr)


def test_processes_see_their_share_of_the_same() -> None:
    whole = scales.make(context()).batch(3)
    parts = [scales.make(context(group=Group(rank, 2))).batch(3) for rank in range(2)]
    for name in vars(whole):
        joined = np.concatenate([getattr(part, name) for part in parts])
        assert np.array_equal(joined, getattr(whole, name)), name
    halves = scales.make(context()).parts(whole, 3, 2)
    assert np.array_equal(np.concatenate([half.hr for half in halves]), whole.hr)


@pytest.mark.parametrize("anisotropy", [0.0, 1.0])
@pytest.mark.parametrize("kernel", ["area", "bicubic"])
def test_points_lie_where_hr_is(anisotropy: float, kernel: str) -> None:
    """Of a ramp, lr between its centres is hr: half a voxel beside it, the error would be a grey level and more."""
    stage = replace(STAGE, anisotropy=anisotropy, scales_drawn="logarithmic", samples=4096)
    objective = scales.make(context(stage, made={"kernel": kernel}))
    for step in range(6):
        batch = objective.batch(step)
        y, x = (torch.from_numpy(part) for part in (batch.y, batch.x))
        lr = torch.from_numpy(batch.lr).float()
        said = Bilinear().sample(lr, y, x, (1.0, 1.0))[..., 0].numpy()
        inside = ((batch.y > 0.5) & (batch.y < 11.5) & (batch.x > 0.5) & (batch.x < 11.5)).nonzero()
        error = (said - batch.hr)[inside]
        assert abs(error.mean()) < 0.1
        assert np.abs(error).max() < 1.6, "both were rounded"
        assert len(np.unique(batch.y[0] * 1000 + batch.x[0])) == batch.hr.shape[1], "no voxel twice"


def test_lr_is_what_the_whole_section_would_give() -> None:
    """The kernel sees the voxels around a patch: at a scale of whole voxels it is a patch of the degraded section."""
    hr = np.random.default_rng(3).integers(0, 256, (1, 64, 64), np.uint8)
    stage = replace(STAGE, scales=(2.0, 2.0), augment=False)
    made = replace(context(stage, hr=hr), training=(Series("v", None, hr, ((0,),), {"kernel": "bicubic"}),))
    batch = scales.make(made).batch(0)
    phases = [degrade(hr[0, dy : 62 + dy, dx : 62 + dx], 2, "bicubic") for dy in (0, 1) for dx in (0, 1)]
    windows = np.concatenate(
        [np.lib.stride_tricks.sliding_window_view(phase, (12, 12)).reshape(-1, 12, 12) for phase in phases]
    )
    for lr in batch.lr:
        assert (windows == lr[0]).all((1, 2)).any()


def test_noise_is_that_of_its_seed() -> None:
    noisy = {"kernel": "area", "noise": {"dose": 200.0, "read": 2.0, "seed": 0}}
    objective = scales.make(context(made=noisy))
    assert np.array_equal(objective.batch(0).lr, objective.batch(0).lr)
    clean = scales.make(context()).batch(0)
    assert (objective.batch(0).lr.astype(int) - clean.lr).std() > 2
    assert np.array_equal(objective.batch(0).hr, clean.hr)


def test_an_acquired_lr_is_trained_at_its_own_scale() -> None:
    own = replace(STAGE, scales=(4.0, 4.0))
    for stage in (own, replace(STAGE, scales=())):
        objective = scales.make(context(stage, made=None))
        batch = objective.batch(0)
        assert batch.scale.tolist() == [[4, 4], [4, 4]]
        loss = objective.losses(batch, 0)["loss"]
        assert 0 < float(loss) < 0.02
    wanted = r"lr of volume v was acquired, not made of hr.* set scales \[4, 4\] in stage image, or train on volumes"
    with pytest.raises(ValueError, match=wanted):
        scales.make(context(made=None))
    with pytest.raises(ValueError, match=r"none at scale 3\.7: train on volumes that state degradation"):
        scales.make(context(own, scale=3.7, made=None))


@pytest.mark.parametrize("scale", [4, 3.7, (2.5, 4.0)])
@torch.no_grad()
def test_validation_is_at_the_trainings_own_scale(scale: Any) -> None:
    network = liif.build(scale, 1, tiny_networks.options("liif")).eval()
    objective = scales.make(context(scale=scale, network=network))
    (batch, *_) = objective.fixed(4)
    y, x = scale if isinstance(scale, tuple) else (scale, scale)
    assert batch.lr is not None
    assert batch.hr is not None
    assert batch.lr.shape == (2, 1, 1, 12, 12)
    assert batch.hr.shape == (2, 1, round(12 * y), round(12 * x))
    assert {"psnr", "ssim", "score"} <= set(objective.validate(network))


@torch.no_grad()
def test_skipped_layers_are_those_of_the_seed() -> None:
    options = replace(
        tiny_networks.options("iste"), encoder="swinir", embedding=8, groups=1, layers=3, heads=2, drop_path=0.6
    )
    torch.manual_seed(0)
    objective = scales.make(context(network=iste.build(4, 1, options).train()))
    batch, before = objective.batch(0), torch.random.get_rng_state()
    losses = [float(objective.losses(batch, 0)["loss"]) for _ in range(3)]
    assert losses[0] == losses[1] == losses[2]
    assert torch.equal(torch.random.get_rng_state(), before), "nothing else draws other numbers for it"
    again = replace(batch, seeds=batch.seeds + 1)
    others = [float(objective.losses(replace(again, seeds=again.seeds + i), 0)["loss"]) for i in range(8)]
    assert any(other != losses[0] for other in others)
