"""WASA: its wavelet, its two attentions, its convolutions over the bicubic section."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import tiny_networks
from emsr.layers.attention import ChannelAttention, PeakAttention, SelfAttention
from emsr.layers.upscale import bicubic
from emsr.layers.wavelet import WaveletBlock, dwt, iwt
from emsr.models import wasa
from network_goldens import any_numbers
from test_super_resolvers import fit, patches, psnr

PUBLISHED = wasa.PRESETS["published"]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(6)


# wavelet


@torch.no_grad()
def test_the_wavelet_comes_back_and_keeps_energy() -> None:
    x = torch.randn(2, 3, 8, 6)
    bands = dwt(x)
    assert bands.shape == (2, 12, 4, 3)
    torch.testing.assert_close(iwt(bands), x, atol=1e-6, rtol=0)
    torch.testing.assert_close(bands.square().sum(), x.square().sum())


@torch.no_grad()
def test_bands_are_means_and_differences_of_squares() -> None:
    flat = dwt(torch.full((1, 2, 4, 4), 0.3))
    assert torch.allclose(flat[:, :2], torch.tensor(0.6))
    assert not flat[:, 2:].any()
    x = torch.randn(1, 2, 6, 4, dtype=torch.float64)
    a, b, c, d = (x[..., i::2, j::2] / 2 for i in (0, 1) for j in (0, 1))
    expected = [a + b + c + d, -a + b - c + d, -a - b + c + d, a - b - c + d]
    torch.testing.assert_close(dwt(x), torch.cat(expected, 1))
    assert dwt(x).dtype == torch.float64


# attention


@torch.no_grad()
def test_channels_are_weighed_by_means_and_by_peaks() -> None:
    attention, x = any_numbers(PeakAttention(8, 2)), torch.randn(2, 8, 5, 4)
    means = attention.gate(F.adaptive_avg_pool2d(x, 1))
    peaks = attention.gate(F.adaptive_max_pool2d(x, 1))
    torch.testing.assert_close(attention(x), x * means + x * peaks)
    for parameter in attention.parameters():
        parameter.zero_()
    torch.testing.assert_close(attention(x), x)  # 0.5 + 0.5; RCAN's gives a half
    assert issubclass(PeakAttention, ChannelAttention)


@torch.no_grad()
@pytest.mark.parametrize("scaled", [True, False])
def test_self_attention_is_that_of_all_positions(scaled: bool) -> None:
    attention, x = SelfAttention(16, scaled), torch.randn(2, 16, 5, 7)
    assert torch.equal(attention(x), x), "the gain begins as 0"
    attention.gain.fill_(0.7)
    q, k, v = (layer(x).flatten(2) for layer in (attention.q, attention.k, attention.v))  # (b, c, n)
    weights = (q.transpose(1, 2) @ k * (2**-0.5 if scaled else 1)).softmax(-1)
    torch.testing.assert_close(attention(x), x + 0.7 * (v @ weights.transpose(1, 2)).view_as(x), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_self_attention_without_preference_adds_the_mean() -> None:
    attention, x = SelfAttention(8, scaled=True), torch.randn(1, 8, 4, 6)
    attention.gain.fill_(1)
    for parameter in attention.q.parameters():
        parameter.zero_()
    mean = attention.v(x).mean((2, 3), keepdim=True)
    torch.testing.assert_close(attention(x), x + mean)


# the network


def test_three_colours_have_as_many_parameters_as_were_counted() -> None:
    with torch.device("meta"):
        network, block = wasa.Wasa(2, 1, PUBLISHED, channels=3), WaveletBlock(64, 16)
    assert sum(parameter.numel() for parameter in network.parameters()) == 19_808_791
    assert sum(parameter.numel() for parameter in block.parameters()) == 1_225_552


@torch.no_grad()
@pytest.mark.parametrize("scale", [2, 8])
def test_it_begins_as_bicubic_or_as_drawn(scale: int) -> None:
    lr = torch.rand(1, 1, 33, 47)
    large = bicubic(lr, scale)
    network = tiny_networks.build("wasa", scale)
    assert network.enlarge(lr).shape == (1, 1, 33 * scale, 47 * scale)
    torch.testing.assert_close(network.enlarge(lr), large, atol=1e-6, rtol=0)
    assert network.skip[0].weight.count_nonzero() == len(network.skip[0].weight), "each channel has its own tap"
    drawn = wasa.build(scale, 1, replace(tiny_networks.options("wasa"), skip="seed"))
    assert (drawn.enlarge(lr) - large).abs().mean() > 0.01


@torch.no_grad()
def test_odd_sides_are_mirrored() -> None:
    image = torch.arange(15.0).view(1, 1, 3, 5)
    assert wasa.even(image).shape == (1, 1, 4, 6)
    assert torch.equal(wasa.even(image)[..., 3, :5], image[..., 1, :])
    assert torch.equal(wasa.even(image)[..., :3, 5], image[..., 3])
    assert wasa.even(image[..., :1, :1]).shape == (1, 1, 2, 2)
    assert torch.equal(wasa.even(image[..., :2, :4]), image[..., :2, :4])


@torch.no_grad()
def test_attention_may_be_sparse() -> None:
    network = wasa.build(2, 1, replace(tiny_networks.options("wasa"), attention="sparse"))
    assert any_numbers(network).eval().enlarge(torch.rand(1, 1, 7, 9)).shape == (1, 1, 14, 18)


def test_four_patches_are_learned_much_better_than_bicubic() -> None:
    hr, lr = (part[:4] for part in patches(2))
    network = tiny_networks.build("wasa", 2)
    fit(network, lr, hr, 150, 5e-3)
    with torch.no_grad():
        assert psnr(network(lr), hr) > psnr(bicubic(lr[:, 0], 2), hr) + 3


@pytest.mark.parametrize(("scale", "change", "message"), [
    (3, {}, "scale 3 is not one of wasa's: use one of 2, 4, 8, 16"),
    (2, {"blocks": 0}, "blocks 0 makes no wasa"),
    (2, {"reduction": 40}, "reduction 40 leaves nothing of four bands of width 8: use at most 32"),
    (2, {"skip": "none"}, "skip 'none' is unknown: use one of identity, seed"),
    (2, {"attention": "local"}, "attention 'local' is unknown: use one of full, sparse"),
])  # fmt: skip
def test_what_it_cannot_be(scale: int, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wasa.build(scale, 1, replace(tiny_networks.options("wasa"), **change))


def test_the_published_recipes() -> None:
    (plain,) = wasa.stages("published", 2)
    assert (plain.batch, plain.patch, plain.learning_rate, plain.betas) == (16, 32, 1e-4, (0.9, 0.999))
    assert (plain.image_error, plain.perceptual_weight, plain.halvings) == (
        "absolute",
        0,
        (60_000, 120_000, 180_000, 240_000),
    )
    (perceptual,) = wasa.stages("published_perceptual", 2)
    assert perceptual == replace(plain, perceptual_weight=0.1)
