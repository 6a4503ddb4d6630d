"""ISTE: attention within windows, texture, what is alike elsewhere, and the whole formula."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import tiny_networks
from emsr.layers.implicit import Corner, Points, centres, every, rows
from emsr.layers.texture import LocalAttention, SelfTexture, Texture, best_keys
from emsr.models import iste
from network_goldens import any_numbers

TINY = tiny_networks.options("iste")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(2)


def test_published_counts() -> None:
    with torch.device("meta"):
        sizes = {name: p.numel() for name, p in iste.build(4, 1, iste.PRESETS["published"]).named_parameters()}
        colour = iste.Iste(4, 1, iste.PRESETS["published"], channels=3)
    assert sum(size for name, size in sizes.items() if not name.startswith("encoder")) == 1_135_362
    assert sum(parameter.numel() for parameter in colour.parameters()) == 12_739_434


# attention within 3 x 3 pixels


def test_attention_sees_nine_pixels() -> None:
    attention, features = any_numbers(LocalAttention(8, 2)), torch.rand(1, 8, 7, 7, requires_grad=True)
    attention(features)[0, :, 3, 3].sum().backward()
    assert features.grad is not None
    seen = (features.grad[0] != 0).all(0)
    wanted = torch.zeros(7, 7, dtype=torch.bool)
    wanted[2:5, 2:5] = True
    assert torch.equal(seen, wanted)


@torch.no_grad()
def test_attention_is_softmax_over_ten_tokens() -> None:
    """Itself, the mean of its window and its neighbours, mirrored beyond the edge, against torch's own attention."""
    attention, features = any_numbers(LocalAttention(8, 2)), torch.rand(2, 8, 4, 5)
    shares, _ = attention.shares(features)
    assert shares.shape == (40, 2, 10)
    torch.testing.assert_close(shares.sum(-1), torch.ones(40, 2))
    windows = F.unfold(F.pad(features, (1, 1, 1, 1), mode="reflect"), 3).view(2, 8, 9, 20).permute(0, 3, 2, 1)
    tokens = torch.cat([windows, windows.mean(2, keepdim=True)], 2).reshape(40, 10, 8)
    q, k, v = (layer(part).view(40, -1, 2, 4).transpose(1, 2) for layer, part in (
        (attention.q, rows(features)[:, None]), (attention.k, tokens), (attention.v, tokens)
    ))  # fmt: skip
    mixed = attention.project(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(40, 8))
    torch.testing.assert_close(rows(attention(features)), mixed)


@torch.no_grad()
def test_attention_of_a_constant_is_constant() -> None:
    made = any_numbers(LocalAttention(8, 2))(torch.rand(1, 8, 1, 1).expand(1, 8, 6, 5))
    torch.testing.assert_close(made, made[..., :1, :1].expand_as(made))


def test_heads_share_the_width() -> None:
    with pytest.raises(ValueError, match="width 8 cannot be shared by 3 heads of attention"):
        iste.build(4, 1, replace(TINY, attention_heads=3))


# texture


@torch.no_grad()
def test_texture_of_a_pixels_centre_is_amplitude_and_phase() -> None:
    texture, features = any_numbers(Texture(6, 10)), torch.rand(1, 6, 4, 4)
    phases = texture.phases(torch.tensor([0.5, 0.4]))
    assert float(phases.min()) > 0
    assert float(phases.max()) < 2 * math.pi
    corner = every(centres(4, 1), centres(4, 1), 1, (4, 4)).corner(0)
    made = texture(texture.waves(features), phases, corner)
    torch.testing.assert_close(made, rows(texture.amplitude(features)) * torch.sin(phases))


# what is alike elsewhere


def scene(side: int = 6, scale: float = 2.5, channels: int = 8) -> tuple[Tensor, partial[Tensor], Points]:
    """Queries of two images, their texture, all voxels as keys."""
    texture, features = any_numbers(Texture(4, channels)), torch.randn(2, 4, side, side)
    waves, phases = texture.waves(features), texture.phases(torch.tensor([0.8, 0.8]))
    keys = every(centres(side, scale), centres(side, scale), 2, (side, side))
    return torch.randn(2 * side * side, channels), partial(texture, waves, phases), keys


@torch.no_grad()
def test_streamed_keys_are_all_keys_at_once() -> None:
    queries, texture, keys = scene()
    q = F.normalize(queries, dim=1).view(2, -1, 8)
    every_key = [
        (q @ F.normalize(texture(corner), dim=1).view(2, -1, 8).transpose(1, 2)).argmax(2) for corner in keys.corners()
    ]
    for block in (1, 7, 64, 10_000):
        for found, wanted in zip(best_keys(queries, texture, keys, block), every_key, strict=True):
            assert torch.equal(found, wanted), block


@torch.no_grad()
def test_a_scaled_copy_is_found_and_of_equals_the_lowest() -> None:
    """Keys that are the same point twice over: the first of them, in whichever blocks they come."""
    _, texture, keys = scene()
    wanted = [3, 40, 0, 224, 7]
    queries = 3 * texture(keys.corner(0)).view(2, -1, 8)[:, wanted]
    padded = queries.new_zeros(2, 36, 8)
    padded[:, :5] = queries
    twice = Points(keys.y.repeat(1, 2), keys.x.repeat(1, 2), keys.size)
    for block in (10, 225, 1000):
        best = best_keys(padded.view(-1, 8), texture, twice, block)[0]
        assert best[:, :5].tolist() == [wanted, wanted]
    found = texture(Points(keys.y.gather(1, best[:, :5]), keys.x.gather(1, best[:, :5]), keys.size).corner(0))
    likeness = F.cosine_similarity(queries.reshape(-1, 8), found, dim=1)
    torch.testing.assert_close(likeness, torch.ones_like(likeness))


def test_gradients_flow_through_likeness_and_texture() -> None:
    queries, texture, keys = scene()
    mixing = any_numbers(SelfTexture(8))
    queries.requires_grad_()
    sum(part.square().sum() for part in mixing(queries, texture, keys)).backward()
    assert queries.grad is not None
    assert queries.grad.all()
    assert all(p.grad is not None and p.grad.any() for p in (*mixing.parameters(), *texture.func.parameters()))


@torch.no_grad()
def test_likeness_is_of_full_precision_whatever_is_asked_for() -> None:
    network, lr = any_numbers(iste.build(2, 1, TINY)), torch.rand(1, 1, 8, 8)
    cell, keys = network.cell((2, 2), lr.device), network.lattice(lr, (2.0, 2.0))
    with torch.autocast("cpu", torch.bfloat16):
        *grids, waves, phases, _ = network.prepare(lr, cell, keys)
    assert {part.dtype for part in (waves, phases)} == {torch.float32}
    assert grids[0].dtype == torch.bfloat16


# the whole


def perceptron(layers: torch.nn.ModuleList, value: Tensor) -> Tensor:
    for number, layer in enumerate(layers):
        value = layer(value.relu() if number else value)
    return value


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("stride", [1, 3])
@torch.no_grad()
def test_the_formula(skip: bool, stride: int) -> None:
    """Point by point: each query compared with every key of its corner, nothing shared between points."""
    options = replace(TINY, key_stride=stride, bilinear_skip=skip)
    network, lr = any_numbers(iste.build(1.5, 1, options)), torch.rand(1, 1, 4, 6)
    sr, features = network.enlarge(lr), network.encoder(2 * lr - 1)
    queries, cell = rows(network.widen(network.local(features))), torch.tensor([2 / 1.5, 2 / 1.5])
    phases = 2 * math.pi * torch.sigmoid(network.texture.phase(cell))
    maps = [rows(layer(features)) for layer in (
        network.texture.amplitude, network.texture.frequency_y, network.texture.frequency_x
    )]  # fmt: skip

    def texture(corner: Corner) -> Tensor:
        a, fy, fx = (part[corner.index] for part in maps)
        return a * torch.sin(fy * corner.apart[:, :1] + fx * corner.apart[:, 1:] + phases)

    points = every(centres(4, 1.5), centres(6, 1.5), 1, (4, 6))
    keys = every(centres(4, 1.5)[::stride], centres(6, 1.5)[::stride], 1, (4, 6))
    total = torch.zeros(54, 1)
    for corner, key in zip(points.corners(), keys.corners(), strict=True):
        q, values = queries[corner.index], texture(key)
        likeness, best = (F.normalize(q, dim=1) @ F.normalize(values, dim=1).T).max(1)
        fused = q + likeness[:, None] * network.similar.mix(torch.cat([q, values[best]], 1))
        pixel = perceptron(network.pixel.layers, torch.cat([fused, corner.apart, cell.expand(54, 2)], 1))
        total += corner.weight * (pixel + perceptron(network.detail.layers, texture(corner)))
    wanted = total.view(1, 1, 6, 9) / 2 + 0.5
    if skip:
        wanted += F.interpolate(lr, (6, 9), mode="bilinear", align_corners=False) - 0.5
    torch.testing.assert_close(sr, wanted, atol=1e-5, rtol=0)


@torch.no_grad()
def test_voxels_smaller_than_trained_can_be_seen_as_trained() -> None:
    lr = torch.rand(1, 1, 6, 6)
    plain, limited = (any_numbers(iste.build(8, 1, replace(TINY, largest_scale=s))) for s in (0.0, 4.0))
    limited.load_state_dict(plain.state_dict())
    assert limited.cell((8.0, 2.0), lr.device).tolist() == [0.5, 1.0]
    assert plain.cell((8.0, 2.0), lr.device).tolist() == [0.25, 1.0]
    assert not torch.equal(plain.enlarge(lr), limited.enlarge(lr))


@pytest.mark.parametrize(("change", "message"), [
    ({"key_stride": 0}, "key_stride 0 makes no iste: use 1 or more"),
    ({"texture": 0}, "texture 0 makes no iste"),
    ({"largest_scale": -1.0}, "largest_scale -1.0 is no scale"),
])  # fmt: skip
def test_what_it_cannot_be(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        iste.build(4, 1, replace(TINY, **change))
