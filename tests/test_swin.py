"""The trunk of SwinIR: its size, its windows, its mask, its mirrored edges."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from emsr.layers.swin import FULL, SwinLayer, SwinSizes, SwinTrunk, displacements, mirrored_to, shift_mask
from network_goldens import any_numbers

PUBLISHED = SwinSizes(180, 6, 6, 6, 8, 2, 0.1)
TINY = SwinSizes(12, 1, 2, 2, 4, 2, 0.0)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(4)


def test_published_counts() -> None:
    with torch.device("meta"):
        trunks = [SwinTrunk(channels, 64, PUBLISHED) for channels in (1, 3)]
    assert [sum(p.numel() for p in trunk.parameters()) for trunk in trunks] == [11_599_804, 11_603_044]


@torch.no_grad()
def test_features_lie_on_the_grid_of_the_image() -> None:
    trunk = any_numbers(SwinTrunk(1, 5, TINY))
    for y, x in ((8, 4), (7, 9), (3, 1)):
        features = trunk(torch.rand(2, 1, y, x))
        assert features.shape == (2, 5, y, x)
        assert torch.isfinite(features).all()


@torch.no_grad()
def test_what_is_added_is_the_mirror_image() -> None:
    image = torch.arange(10.0).view(1, 1, 2, 5)
    made = mirrored_to(image, 8)
    assert made[0, 0, 0].tolist() == [0, 1, 2, 3, 4, 3, 2, 1]
    assert made[0, 0, :, 0].tolist() == [0, 5, 0, 5, 0, 5, 0, 5]
    assert torch.equal(mirrored_to(made, 8), made)
    trunk, other = any_numbers(SwinTrunk(1, 5, TINY)), torch.rand(1, 1, 6, 7)
    assert torch.equal(trunk(mirrored_to(other, 4))[..., :6, :7], trunk(other))


@pytest.mark.parametrize("shift", [0, 2])
@torch.no_grad()
def test_a_layer_is_attention_within_windows(shift: int) -> None:
    """Window by window, with torch's own attention, of pixels that are neighbours in the image and not only rolled."""
    side, embedding = TINY.window, TINY.embedding
    layer, x = any_numbers(SwinLayer(TINY, shift, 0.0)), torch.randn(1, 8, 12, embedding)
    made = layer(x, displacements(side, x.device), shift_mask(8, 12, side, x.device))
    theirs = nn.MultiheadAttention(embedding, TINY.heads, batch_first=True).eval()
    own = layer.attention
    theirs.load_state_dict({
        "in_proj_weight": own.qkv.weight, "in_proj_bias": own.qkv.bias,
        "out_proj.weight": own.project.weight, "out_proj.bias": own.project.bias,
    })  # fmt: skip
    normal, mixed = layer.normal1(x), torch.zeros_like(x)
    starts = [range(-shift, end, side) for end in (8, 12)] if shift else [range(0, end, side) for end in (8, 12)]
    for top in starts[0]:
        for left in starts[1]:
            ys, xs = (range(max(0, a), min(a + side, end)) for a, end in ((top, 8), (left, 12)))
            places = [(y, x_) for y in ys for x_ in xs]
            tokens = torch.stack([normal[0, y, x_] for y, x_ in places])[None]
            bias = torch.stack([torch.stack([
                own.bias[(qy - ky + side - 1) * (2 * side - 1) + qx - kx + side - 1] for ky, kx in places
            ]) for qy, qx in places])  # fmt: skip
            said, _ = theirs(tokens, tokens, tokens, attn_mask=bias.permute(2, 0, 1))
            for number, (y, x_) in enumerate(places):
                mixed[0, y, x_] = said[0, number]
    wanted = x + mixed
    wanted = wanted + layer.mlp(layer.normal2(wanted))
    torch.testing.assert_close(made, wanted, atol=1e-5, rtol=1e-4)


def test_nothing_is_left_of_what_is_masked() -> None:
    assert torch.tensor([0.0, FULL]).softmax(0)[1] < 1e-40


@torch.no_grad()
def test_it_knows_where_windows_begin_and_nothing_else() -> None:
    """Far from the edges, a shift by a whole window changes nothing; another does."""
    trunk, image = any_numbers(SwinTrunk(1, 5, TINY)).double(), torch.rand(1, 1, 40, 40).double()
    whole, moved, odd = (trunk(image[..., start:, start:]) for start in (0, 4, 3))
    inside = slice(16, 20)
    torch.testing.assert_close(moved[..., inside, inside], whole[..., 20:24, 20:24], atol=1e-9, rtol=0)
    assert (odd[..., inside, inside] - whole[..., 19:23, 19:23]).abs().max() > 1e-4


def test_layers_are_skipped_in_training_alone() -> None:
    layer, x = any_numbers(SwinLayer(TINY, 0, 0.5)), torch.randn(64, 4, 4, TINY.embedding)
    beside = (displacements(4, x.device), shift_mask(4, 4, 4, x.device))
    assert torch.equal(layer(x, *beside), layer(x, *beside))
    layer.train()
    kept = [bool((made - own).abs().max()) for made, own in zip(layer(x, *beside), x, strict=True)]
    assert 0.5 < sum(kept) / 64 < 0.95  # three of four: of two parts each is skipped by half
