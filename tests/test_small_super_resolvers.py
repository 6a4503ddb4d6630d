"""SRCNN, FSRCNN and ESPCN: three or a few convolutions each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from emsr.layers.upscale import bicubic
from emsr.models import espcn, fsrcnn, srcnn
from network_goldens import any_numbers
from reach import reach


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(1)


def zero(*layers: Any) -> None:
    for layer in layers:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)


# srcnn


@pytest.mark.parametrize(("preset", "seen"), [("published", 17), ("published_915", 13)])
def test_srcnn_sees_as_far_as_its_kernels(preset: str, seen: int) -> None:
    network = any_numbers(srcnn.build(2, 1, srcnn.PRESETS[preset])).double()
    before, after = reach(network.refine, seen // 2)
    assert 1 + before + after == seen == 2 * network.reach + 1


@torch.no_grad()
def test_srcnn_of_identities_is_bicubic_up_to_the_edges() -> None:
    network = srcnn.build(3, 1, srcnn.PRESETS["published"])
    zero(network)
    for layer in (network.first, network.second, network.last):
        middle = layer.kernel_size[0] // 2
        layer.weight[0, 0, middle, middle] = 1
    lr = torch.rand(1, 1, 1, 9, 7)
    torch.testing.assert_close(network(lr), bicubic(lr[:, 0], 3).clamp(min=0), atol=1e-6, rtol=0)


# fsrcnn


def test_fsrcnn_of_another_scale_differs_in_its_last_layer_alone() -> None:
    shapes = {s: {k: v.shape for k, v in fsrcnn.build(s, 1, _fsrcnn(9)).state_dict().items()} for s in (2, 3, 4, 8)}
    assert all(found == shapes[2] for found in shapes.values()), "and there in nothing but the stride"
    large = {k: v.shape for k, v in fsrcnn.build(16, 1, _fsrcnn(0)).state_dict().items()}
    assert {k for k, v in large.items() if v != shapes[2][k]} == {"up.weight"}


def _fsrcnn(kernel: int) -> fsrcnn.Options:
    return replace(fsrcnn.PRESETS["published"], kernel=kernel)


def test_fsrcnn_has_the_published_parameters_at_x8_with_the_published_kernel() -> None:
    assert sum(p.numel() for p in fsrcnn.build(8, 1, _fsrcnn(9)).parameters()) == 12_809


@pytest.mark.parametrize(("scale", "side"), [(2, 9), (3, 9), (4, 9), (8, 17), (16, 33)])
@torch.no_grad()
def test_fsrcnn_leaves_no_gap_between_the_pixels_that_it_enlarges(scale: int, side: int) -> None:
    up = fsrcnn.build(scale, 1, _fsrcnn(0)).up
    assert up.kernel_size == (side, side)
    ones = nn.ConvTranspose2d(1, 1, side, scale, side // 2, output_padding=scale - 1, bias=False)
    nn.init.ones_(ones.weight)
    times = ones(torch.ones(1, 1, 8, 8))[..., 3 * scale : 5 * scale, 3 * scale : 5 * scale]
    assert times.min() >= (4 if scale >= 8 else 1), "of two pixels along each axis at least, where 9 would leave one"


def test_fsrcnn_refuses_kernels_with_gaps() -> None:
    with pytest.raises(ValueError, match="kernel 9 of fsrcnn is even or leaves gaps at scale 16: use 0, or an odd"):
        fsrcnn.build(16, 1, _fsrcnn(9))


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_fsrcnn_sees_as_far_as_it_says(scale: int) -> None:
    network = any_numbers(fsrcnn.build(scale, 1, replace(_fsrcnn(0), width=8, narrow=6))).double()
    assert max(reach(network.enlarge, network.halo, scale)) == network.halo


# espcn


@torch.no_grad()
def test_espcn_lays_its_channels_out_in_rows() -> None:
    network = espcn.build(3, 1, espcn.PRESETS["published"])
    lr = torch.rand(1, 1, 5, 4)
    features = network.last(network.second(network.first(lr).tanh()).tanh())
    assert torch.equal(F.pixel_unshuffle(network.enlarge(lr), 3), features)
    zero(network.last)
    network.last.bias.copy_(torch.arange(9.0))
    assert torch.equal(network.enlarge(lr)[0, 0], torch.arange(9.0).view(3, 3).tile(5, 4))


def test_espcn_sees_nine_lr_pixels() -> None:
    network = any_numbers(espcn.build(4, 1, espcn.PRESETS["published"])).double()
    assert reach(network.enlarge, 4, 4) == (4, 4)


# all


@pytest.mark.parametrize(("module", "slow"), [(srcnn, "last"), (fsrcnn, "up"), (espcn, "last")])
def test_their_last_layer_learns_ten_times_slower(module: Any, slow: str) -> None:
    (stage,) = module.stages("published", 4)
    assert (stage.image_error, stage.slow, stage.slow_factor) == ("squared", (slow,), 0.1)
    assert stage.learning_rate == (1e-4 if module is srcnn else 1e-3)
    assert module.stages("small", 4)[0].slow == (), "6,000 steps are too few for that"


@pytest.mark.parametrize(("module", "change", "message"), [
    (srcnn, {"widths": (64,)}, r"widths \(64,\) and kernels .* make no srcnn: use two widths and three odd sides"),
    (srcnn, {"kernels": (9, 4, 5)}, r"kernels \(9, 4, 5\) make no srcnn"),
    (srcnn, {"widths": (64, 0)}, "widths 0 makes no srcnn: use 1 or more"),
    (fsrcnn, {"mappings": 0}, "mappings 0 makes no fsrcnn: use 1 or more"),
    (espcn, {"widths": (1, 2, 3)}, r"widths \(1, 2, 3\) make no espcn: use two"),
])  # fmt: skip
def test_what_they_cannot_be(module: Any, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module.build(4, 1, replace(module.PRESETS["published"], **change))
    with pytest.raises(ValueError, match=r"scale 5 is not one of .*: use one of 2, 3, 4, 8, 16"):
        module.build(5, 1, module.PRESETS["published"])
