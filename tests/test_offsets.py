"""Sampling offsets that run away are noticed in training and in health, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny_networks
from emsr import degradation
from emsr.layers.deform import DeformableConv
from emsr.metrics.image import psnr, ssim
from emsr.models import edvr
from emsr.models.stage import Stage
from emsr.report import health
from emsr.steps.degraded import patch
from emsr.training import offsets
from emsr.training.data import Series
from emsr.training.loop import Run, train
from emsr.training.objectives.context import Context
from emsr.training.objectives.image import Image
from network_goldens import any_numbers

STAGE = Stage("image", "image", steps=4, batch=1, patch=8, learning_rate=1e-3, validate_every=2)


def layers(network: torch.nn.Module) -> list[DeformableConv]:
    return [layer for layer in network.modules() if isinstance(layer, DeformableConv)]


@torch.no_grad()
def test_means_are_those_of_each_call_and_nothing_else_changes() -> None:
    torch.manual_seed(0)
    layer = any_numbers(DeformableConv(8, 2))
    x, guide = torch.rand(2, 2, 8, 6, 5).unbind(0)
    plain = layer(x, guide)
    with offsets.watched(layer) as found:
        assert torch.equal(layer(x, guide), plain)
        layer(x, 2 * guide)
    raw = torch.nn.functional.conv2d(torch.stack([guide, 2 * guide]).flatten(0, 1), layer.offsets.weight, padding=1)
    expected = (raw + layer.offsets.bias[:, None, None])[:, :36].abs().reshape(2, -1).mean(1)
    torch.testing.assert_close(torch.stack(found.means), expected)
    assert found.figures() == {"offset": pytest.approx(float(expected.max()))}
    layer(x, guide)
    assert len(found.means) == 2, "no longer watched"


def test_a_network_without_them_has_no_figure() -> None:
    with offsets.watched(torch.nn.Conv2d(1, 1, 3)) as found:
        pass
    assert found.figures() == {}
    assert found.warning(1e-3) == ""


@pytest.mark.parametrize(("value", "warned"), [(50.0, False), (50.1, True), (float("nan"), True)])
def test_the_limit(value: float, warned: bool) -> None:
    found = offsets.Offsets()
    found.means = [torch.tensor(1.0), torch.tensor(value)]
    assert bool(found.warning(4e-4)) is warned
    assert ("offset" in found.figures()) is (value == value)


def objective(bias: float) -> Image:
    """Of a tiny edvr, one of whose deformable convolutions displaces by ``bias`` pixels."""
    torch.manual_seed(0)
    hr = np.random.default_rng(0).integers(0, 256, (4, 64, 64), dtype=np.uint8)
    series = Series("v", degradation.degrade(hr, 4), hr, ((0, 0, 1), (0, 1, 2), (1, 2, 3)), None)
    network = edvr.build(4, 3, replace(tiny_networks.options("edvr")))
    torch.nn.init.constant_(layers(network)[-1].offsets.bias, bias)
    measures = {"psnr": psnr, "ssim": ssim}
    return Image(Context(STAGE, network, 4, (series,), (series,), 1, degrade=patch, measures=measures))


@pytest.mark.parametrize("bias", [60.0, 3.0])
def test_training_says_once_that_it_is_broken(bias: float, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    result = train(objective(bias), STAGE, Run(tmp_path / "v.checkpoint", "identity", "v image"))
    assert [row["step"] for row in result.curve["validation"]] == [2, 4]
    assert all(row["offset"] == pytest.approx(bias, abs=1) for row in result.curve["validation"])
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    broken = (
        "v image: step 2: sampling offsets of a deformable convolution are 60 pixels on average, above 50: the "
        "training is broken; begin it anew with a lower learning_rate than 0.001, as 0.00025"
    )
    assert said == ([broken] if bias > 50 else [])


def test_the_report_judges_by_the_same_limit() -> None:
    assert health.MOST_OFFSET == offsets.MOST
    figures = {"psnr": 30.0, "bicubic_psnr": 29.0, "ssim": 0.8, "bicubic_ssim": 0.7}
    for most, state in ((None, []), (50.0, ["pass"]), (50.5, ["warn"])):
        found = health.checks("fusion", figures | ({} if most is None else {"offset": most}))
        assert [check.state for check in found] == ["pass", "pass", *state]
