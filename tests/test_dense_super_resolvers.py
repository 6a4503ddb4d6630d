"""SRDenseNet, RDN and RCAN: dense blocks and channel attention."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tiny_networks
from emsr.layers.attention import ChannelAttention
from emsr.layers.dense import Dense, ResidualDense
from emsr.models import rcan, rdn, srdensenet
from network_goldens import any_numbers
from reach import reach


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(4)


def zero(*layers: Any) -> None:
    for layer in layers:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)


# dense layers


@torch.no_grad()
def test_dense_layers_see_all_before_them() -> None:
    x = torch.randn(1, 3, 6, 5)
    for keeps in (True, False):
        dense = Dense(3, 4, 3, keeps)
        first = F.relu(dense.layers[0](x))
        before = torch.cat([x, first], 1) if keeps else first
        second = F.relu(dense.layers[1](before))
        third = F.relu(dense.layers[2](torch.cat([before, second], 1)))
        made = torch.cat([first, second, third], 1)
        assert torch.equal(dense(x), torch.cat([x, made], 1) if keeps else made)
        assert dense(x).shape[1] == dense.outputs


@torch.no_grad()
def test_a_residual_dense_block_that_fuses_nothing_is_the_identity() -> None:
    block, x = ResidualDense(6, 4, 3), torch.randn(2, 6, 5, 5)
    assert not torch.equal(block(x), x)
    zero(block.fuse)
    assert torch.equal(block(x), x)


# srdensenet


def test_srdensenet_joins_the_first_convolution_and_all_blocks() -> None:
    network = srdensenet.build(4, 1, srdensenet.PRESETS["published"])
    assert network.bottleneck.in_channels == 128 * 9
    assert [block.layers[0].in_channels for block in network.blocks] == [128 * b for b in range(1, 9)]
    assert [layer.in_channels for layer in network.blocks[0].layers[1:]] == [16 * i for i in range(1, 8)]
    assert len(network.ups) == 2


# rdn


@torch.no_grad()
def test_rdn_fuses_what_each_block_gave() -> None:
    network = any_numbers(tiny_networks.build("rdn", 2))
    lr = torch.rand(1, 1, 7, 6)
    head = network.first(lr)
    one = network.blocks[0](network.second(head))
    two = network.blocks[1](one)
    expected = network.last(network.ups(head + network.fuse(torch.cat([one, two], 1))))
    torch.testing.assert_close(network.enlarge(lr), expected)
    zero(network.fuse)
    torch.testing.assert_close(network.enlarge(lr), network.last(network.ups(head)))


# rcan


@torch.no_grad()
def test_attention_of_no_weights_halves() -> None:
    attention, x = ChannelAttention(32, 16), torch.randn(2, 32, 5, 4)
    assert attention.reduce.out_channels == 2
    zero(attention)
    assert torch.equal(attention(x), 0.5 * x)


@torch.no_grad()
def test_attention_is_of_channels_and_of_their_means() -> None:
    attention, x = ChannelAttention(8, 4), torch.randn(1, 8, 6, 6)
    gate = (attention(x) / x)[0].flatten(1)
    torch.testing.assert_close(gate, gate[:, :1].expand_as(gate), atol=1e-4, rtol=0)
    shuffled = x.flatten(2)[..., torch.randperm(36)].view_as(x)
    torch.testing.assert_close(attention(shuffled) / shuffled, attention(x) / x, atol=1e-4, rtol=0)


@torch.no_grad()
def test_groups_of_rcan_that_give_nothing_leave_the_first_features() -> None:
    network = any_numbers(tiny_networks.build("rcan", 2))
    lr = torch.rand(1, 1, 6, 6)
    features = network.first(lr - 0.5)
    zero(*(group[-1] for group in network.groups))
    expected = network.last(network.ups(features + network.join(features))) + 0.5
    torch.testing.assert_close(network.enlarge(lr), expected)


def test_rcan_sees_the_whole_window() -> None:
    network = any_numbers(tiny_networks.build("rcan", 2)).double()
    far = 20  # no convolution reaches as far
    assert network.halo is None
    assert reach(network.enlarge, far, 2) == (far + 2, far + 2)


# sight and options


@pytest.mark.parametrize("name", ["srdensenet", "rdn"])
@pytest.mark.parametrize("scale", [2, 4])
def test_they_see_as_far_as_they_say(name: str, scale: int) -> None:
    network = any_numbers(tiny_networks.build(name, scale)).double()
    assert max(reach(network.enlarge, network.halo, scale)) == network.halo


@pytest.mark.parametrize(("module", "halo"), [(rdn, 133), (srdensenet, 66)])
def test_what_is_around_published_windows(module: Any, halo: int) -> None:
    with torch.device("meta"):
        assert module.build(4, 1, module.PRESETS["published"]).halo == halo


@pytest.mark.parametrize(("module", "change", "message"), [
    (srdensenet, {"growth": 0}, "growth 0 makes no srdensenet: use 1 or more"),
    (rdn, {"layers": 0}, "layers 0 makes no rdn: use 1 or more"),
    (rcan, {"reduction": 64}, "reduction 64 leaves nothing of width 48: use at most 48"),
    (rcan, {"mean": 2.0}, r"mean 2\.0 is outside \[0, 1\]: use 0\.5"),
])  # fmt: skip
def test_what_they_cannot_be(module: Any, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module.build(4, 1, replace(module.PRESETS["small"], **change))
