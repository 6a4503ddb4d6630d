"""What every super-resolver must do, whatever it is; the models are found by themselves."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

import tiny_networks
from emsr import plugins
from emsr.layers.upscale import bicubic
from network_goldens import any_numbers
from project import environment

NAMES = tiny_networks.NAMES
MODULES = {name: plugins.load("models", name) for name in NAMES}
SCALES = {name: MODULES[name].SCALES for name in NAMES}
PAIRS = [(name, scale) for name in NAMES for scale in SCALES[name]]
TRAINED = [name for name in NAMES if tiny_networks.about(name).TRAINS]
FITTED = [*TRAINED, *(name for name in NAMES if getattr(tiny_networks.about(name), "LAST_STAGE", False))]
STEPS, PATCHES, SIDE = 300, 8, 12
HALO_TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(3)


def drawn(name: str, scale: int, sections: int = 1) -> Any:
    """A small network with weights that all matter."""
    return any_numbers(tiny_networks.build(name, scale, sections)).eval()


# size, shape, repetition


@pytest.mark.parametrize("name", NAMES)
def test_published_sizes_have_the_published_parameters(name: str) -> None:
    for (preset, scale), count in tiny_networks.about(name).COUNTS.items():
        with torch.device("meta"):
            network = MODULES[name].build(scale, tiny_networks.counted(name), MODULES[name].PRESETS[preset])
        assert sum(parameter.numel() for parameter in network.parameters()) == count, (preset, scale)


@pytest.mark.parametrize(("name", "scale"), PAIRS)
@torch.no_grad()
def test_published_sizes_enlarge_a_window(name: str, scale: int) -> None:
    """Without their memory: shapes are computed, numbers are not."""
    sections, side = tiny_networks.counted(name), 16
    for preset, options in MODULES[name].PRESETS.items():
        if preset == "small":
            continue
        with FakeTensorMode(allow_non_fake_inputs=True):
            sr = MODULES[name].build(scale, sections, options).eval()(torch.rand(1, sections, 1, side, side))
        assert (tuple(sr.shape), sr.dtype) == ((1, 1, scale * side, scale * side), torch.float32), preset


@pytest.mark.parametrize(("name", "scale"), PAIRS)
@torch.no_grad()
def test_odd_sizes_and_their_type(name: str, scale: int) -> None:
    network = drawn(name, scale)
    step = tiny_networks.multiple(name)
    for y, x in ((13, 9), (8, 11)) if step == 1 else ((3 * step, 2 * step),):
        sr = network(torch.rand(1, 1, 1, y, x))
        assert (sr.shape, sr.dtype) == ((1, 1, scale * y, scale * x), torch.float32)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_what_lies_beside_in_a_batch_changes_nothing(name: str) -> None:
    network, lr = drawn(name, SCALES[name][-1], 3), torch.rand(2, 3, 1, 12, 16)
    both = network(lr)
    assert torch.equal(both, network(lr)), "a second call must give the same"
    for i in range(2):
        torch.testing.assert_close(both[i : i + 1], network(lr[i : i + 1]), atol=1e-5, rtol=1e-5)


PRINT = """
import torch, tiny_networks, hashlib
from network_goldens import any_numbers
for name in tiny_networks.NAMES:
    torch.manual_seed(3)
    network = any_numbers(tiny_networks.build(name, tiny_networks.plugins.load("models", name).SCALES[-1])).eval()
    with torch.no_grad():
        print(name, hashlib.sha256(network(torch.rand(1, 1, 1, 12, 8)).numpy().tobytes()).hexdigest())
"""


def test_another_process_gives_the_same() -> None:
    said = [
        subprocess.run(
            [sys.executable, "-c", PRINT],
            cwd=Path(__file__).parent,
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for _ in range(2)
    ]
    assert said[0] == said[1]
    assert [line.split()[0] for line in said[0]] == NAMES


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_parts_with_their_halo_are_the_whole(name: str) -> None:
    """Where what a voxel can depend on has an end, any window gives the same; elsewhere the network says None."""
    scale = SCALES[name][0]
    network = drawn(name, scale)
    halo = getattr(network, "halo", None)
    if halo is None:
        pytest.skip("depends on the window")
    inside = 5
    lr = torch.rand(1, 1, 1, 2 * halo + inside + 4, 2 * halo + inside + 3)
    whole, part = network(lr), network(lr[..., 2 : 2 + 2 * halo + inside, 3 : 3 + 2 * halo + inside])
    at, size = scale * halo, scale * inside
    torch.testing.assert_close(
        part[..., at : at + size, at : at + size],
        whole[..., at + 2 * scale : at + 2 * scale + size, at + 3 * scale : at + 3 * scale + size],
        atol=HALO_TOLERANCE,
        rtol=0,
    )


# training


def patches(scale: int, side: int = SIDE) -> tuple[Tensor, Tensor]:
    """Lines at many angles, hr (8, 1, y, x) and the lr that area makes of them, (8, 1, 1, side, side)."""
    side = side * scale
    y, x = torch.meshgrid(torch.arange(side) / scale, torch.arange(side) / scale, indexing="ij")
    angles = torch.arange(PATCHES)[:, None, None] * 0.4
    phase = x * torch.cos(angles) + y * torch.sin(angles) + 0.35 * torch.sin(0.6 * y + angles)
    hr = torch.sigmoid(6 * scale * (torch.sin(1.1 * phase) - 0.5))[:, None]
    return hr, F.avg_pool2d(hr, scale)[:, None]


def psnr(sr: Tensor, hr: Tensor) -> float:
    return float(-10 * (sr - hr).square().mean().log10())


@torch.enable_grad()
def fit(network: Any, lr: Tensor, hr: Tensor, steps: int, rate: float) -> None:
    network.train()
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(parameters, lr=rate)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * (1 - step / steps)
        optimiser.zero_grad()
        (network(lr) - hr).abs().mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
    network.eval()


def rate(name: str) -> float:
    return float(getattr(tiny_networks.about(name), "RATE", 2e-3))


@cache
def fitted(name: str) -> Any:
    torch.manual_seed(3)
    network = tiny_networks.build(name, SCALES[name][0])
    hr, lr = patches(SCALES[name][0])
    fit(network, lr, hr, getattr(tiny_networks.about(name), "STEPS", STEPS), rate(name))
    return network


@pytest.mark.parametrize("name", TRAINED)
def test_every_parameter_is_used_and_its_gradient_finite(name: str) -> None:
    sections = tiny_networks.sections(name)
    network = any_numbers(tiny_networks.build(name, SCALES[name][-1], sections)).train()
    used = getattr(tiny_networks.about(name), "used", lambda network, lr: network(lr).square().sum())
    used(network, torch.rand(2, sections, 1, 10, 12)).backward()
    for parameter, tensor in network.named_parameters():
        assert tensor.requires_grad, f"{parameter} is frozen: make it a buffer"
        assert tensor.grad is not None, f"{parameter} is used for nothing"
        assert torch.isfinite(tensor.grad).all(), parameter
        cancels = parameter in getattr(tiny_networks.about(name), "CANCELS", ())
        assert cancels or tensor.grad.any(), f"{parameter} changes nothing"


@pytest.mark.parametrize("name", FITTED)
@torch.no_grad()
def test_few_patches_are_learned_better_than_bicubic(name: str) -> None:
    scale = SCALES[name][0]
    hr, lr = patches(scale)
    assert psnr(fitted(name)(lr), hr) >= psnr(bicubic(lr[:, 0], scale), hr) + 1


@pytest.mark.parametrize("name", FITTED)
@torch.no_grad()
def test_windows_that_matter_do_so_less_than_the_network_errs(name: str) -> None:
    """Two windows of 20 lr pixels share 8: in the middle of these, where they weigh alike, they are near."""
    scale, network = SCALES[name][0], fitted(name)
    if getattr(network, "halo", None) is not None:
        pytest.skip("is the same for every window")
    hr, lr = patches(scale, 32)
    shared = slice(14 * scale, 18 * scale)
    one, other = network(lr[..., :20])[..., shared], network(lr[..., 12:])[..., 2 * scale : 6 * scale]
    difference = float((one - other).abs().mean())
    assert 0 < difference < float((one - hr[..., shared]).abs().mean())


@pytest.mark.parametrize("name", FITTED)
@torch.no_grad()
def test_orientations(name: str, record_property: Any) -> None:
    """What a turned image differs by when it is turned back: reported, and no more than what was learned."""
    network = fitted(name)
    _, lr = patches(SCALES[name][0])
    sr, errors = network(lr), []
    for turns in range(4):
        for flip in (False, True):
            turned = torch.rot90(lr, turns, (-2, -1)).flip(-1) if flip else torch.rot90(lr, turns, (-2, -1))
            back = network(turned).flip(-1) if flip else network(turned)
            errors.append(float((torch.rot90(back, -turns, (-2, -1)) - sr).abs().mean()))
    record_property("mean_orientation_error", sum(errors) / 8)
    assert errors[0] == 0
    assert max(errors) < 0.2


@pytest.mark.parametrize("name", FITTED)
@torch.no_grad()
def test_bfloat16_is_near(name: str) -> None:
    network, (_, lr) = fitted(name), patches(SCALES[name][0])
    with torch.autocast("cpu", torch.bfloat16):
        reduced = network(lr).float()
    difference = (reduced - network(lr)).abs()
    if getattr(tiny_networks.about(name), "FLOAT32", False):
        assert not difference.any()
        return
    assert 0 < float(difference.mean()) < 1e-2
    assert float(difference.max()) < 0.1


@pytest.mark.parametrize("name", FITTED)
def test_constants_stay_constant(name: str) -> None:
    network, scale = tiny_networks.build(name, SCALES[name][0]), SCALES[name][0]
    levels = torch.linspace(0.2, 0.8, PATCHES).view(-1, 1, 1, 1, 1)
    lr = levels.expand(-1, 1, 1, 8, 8)
    hr = levels[:, 0].expand(-1, 1, 8 * scale, 8 * scale)
    fit(network, lr, hr, min(120, getattr(tiny_networks.about(name), "STEPS", STEPS)), rate(name))
    with torch.no_grad():
        sr = network(lr)
    assert float((sr - hr).abs().mean()) < 0.03
    assert float(sr.std((1, 2, 3)).max()) < 0.05
