"""Sparse attention against softmax over all positions, and what the reference does wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from emsr.layers.sparse_attention import SparseAttention, buckets
from emsr.models import nlsn
from network_goldens import any_numbers


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(11)


def attention(chunk: int, rounds: int = 4, width: int = 8) -> Any:
    return any_numbers(SparseAttention(width, rounds, chunk)).double()


def full(module: Any, x: Tensor) -> Tensor:
    """x + softmax(q k) v over all positions, keys of unit length."""
    query, value = module.match(x).flatten(2).mT, module.value(x).flatten(2).mT
    keys = query / query.norm(dim=-1, keepdim=True)
    return x + ((query @ keys.mT).softmax(-1) @ value).mT.reshape(x.shape)


@pytest.mark.parametrize(("y", "x", "chunk", "why"), [
    (8, 8, 64, "one chunk"),
    (8, 8, 144, "fewer positions than a chunk: the reference has no bucket and fails"),
    (8, 8, 32, "two chunks: previous and next are the same one, which counts once"),
    (6, 8, 16, "three chunks: each sees all"),
    (7, 7, 36, "two chunks, the second filled up: what fills it counts nothing"),
    (5, 5, 10, "three chunks, the last filled up"),
])  # fmt: skip
@torch.no_grad()
def test_of_few_chunks_it_is_full_attention(y: int, x: int, chunk: int, why: str) -> None:
    module, image = attention(chunk), torch.randn(2, 8, y, x, dtype=torch.float64)
    torch.testing.assert_close(module(image), full(module, image), atol=1e-13, rtol=0, msg=why)


@torch.no_grad()
def test_of_many_chunks_each_position_sees_its_neighbours_in_the_order_of_codes() -> None:
    chunk, rounds, image = 6, 2, torch.randn(1, 8, 5, 8, dtype=torch.float64)  # seven chunks, the last of four
    module = attention(chunk, rounds)
    query, value = module.match(image).flatten(2)[0].T, module.value(image).flatten(2)[0].T
    keys = query / query.norm(dim=-1, keepdim=True)
    found, totals = [], []
    for rotation in module.rotations:
        half = buckets(40, chunk) // 2
        codes = [int(torch.cat([row @ rotation[:, :half], -(row @ rotation[:, :half])]).argmax()) for row in query]
        order = sorted(range(40), key=lambda i: codes[i])
        chunks = [order[first : first + chunk] for first in range(0, 40, chunk)]
        made, total = torch.empty(40, 8, dtype=torch.float64), torch.empty(40, dtype=torch.float64)
        for i, own in enumerate(chunks):
            seen = own + chunks[i - 1] + chunks[(i + 1) % len(chunks)]
            for position in own:
                scores = keys[seen] @ query[position]
                total[position] = scores.logsumexp(0)
                made[position] = scores.softmax(0) @ value[seen]
        found.append(made)
        totals.append(total)
    share = torch.stack(totals).softmax(0)[..., None]
    expected = image + (torch.stack(found) * share).sum(0).T.reshape(image.shape)
    torch.testing.assert_close(module(image), expected, atol=1e-13, rtol=0)
    assert (expected - full(module, image)).abs().max() > 1e-4, "it is sparse"


@torch.no_grad()
def test_rotations_stay_through_calls_copies_and_files() -> None:
    module, image = SparseAttention(16, 4, 9), torch.randn(1, 16, 12, 12)
    made = module(image)
    assert torch.equal(made, module(image))
    other = SparseAttention(16, 4, 9, seed=1)
    assert not torch.equal(module.rotations, other.rotations)
    other.load_state_dict(module.state_dict())
    assert torch.equal(made, other(image))


@torch.no_grad()
def test_permuted_positions_are_permuted_where_one_chunk_holds_them() -> None:
    module = attention(64)
    tokens, order = torch.randn(1, 49, 2, dtype=torch.float64), torch.randperm(49)
    values = torch.randn(1, 49, 8, dtype=torch.float64)
    made = module.attend(tokens, values)
    torch.testing.assert_close(module.attend(tokens[:, order], values[:, order]), made[:, order], atol=1e-13, rtol=0)


def test_codes_take_no_gradient_and_autocast_changes_nothing() -> None:
    module, image = SparseAttention(8, 2, 9), torch.randn(1, 8, 9, 9, requires_grad=True)
    made = module(image)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module(image), made)
    made.sum().backward()
    assert all(bool(parameter.grad.any()) for parameter in module.parameters() if parameter.grad is not None)
    names = [name for name, _ in module.named_parameters()]
    assert names == ["match.weight", "match.bias", "value.weight", "value.bias"]


@pytest.mark.parametrize(("positions", "count"), [(64, 2), (143, 2), (144, 2), (3 * 144, 4), (10**6, 128)])
def test_buckets(positions: int, count: int) -> None:
    assert buckets(positions, 144) == count


@pytest.mark.parametrize(("width", "count"), [(64, 13_392), (256, 213_312)])
def test_size(width: int, count: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in SparseAttention(width).parameters()) == count


# NLSN


@pytest.mark.parametrize(("scale", "count"), [(2, 41_796_187), (4, 44_156_507)])
def test_colour_images_have_the_published_parameters(scale: int, count: int) -> None:
    """Theirs count the two fixed shifts of the mean, 12 numbers each, which are an option here."""
    with torch.device("meta"):
        network = nlsn.build(scale, 1, nlsn.PRESETS["published"], channels=3)
    assert sum(p.numel() for p in network.parameters()) + 24 == count


def test_where_attention_stands() -> None:
    with torch.device("meta"):
        body = nlsn.build(4, 1, nlsn.PRESETS["published"]).body
    kinds = [type(part).__name__ for part in body]
    assert kinds == ["SparseAttention", *["Sequential", "SparseAttention"] * 4]
    assert [len(part) for part in body if isinstance(part, torch.nn.Sequential)] == [8, 8, 8, 8]


@torch.no_grad()
def test_without_attention_it_is_edsr() -> None:
    from emsr.models import edsr

    options = nlsn.Options(width=8, blocks=4, every=2, hashes=1, chunk=9, res_scale=0.5, attention_scale=0.0, mean=0.4)
    network = any_numbers(nlsn.build(4, 1, options))
    rival = edsr.build(4, 1, edsr.Options(width=8, blocks=4, res_scale=0.5, mean=0.4))
    own = network.state_dict()
    names = {f"blocks.{i}": f"body.{1 + 2 * (i // 2)}.{i % 2}" for i in range(4)}
    for name, tensor in rival.state_dict().items():
        block = ".".join(name.split(".")[:2])
        tensor.copy_(own[name.replace(block, names[block]) if block in names else name])
    lr = torch.rand(1, 1, 1, 9, 7)
    torch.testing.assert_close(network(lr), rival(lr), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("scale", "change", "message"), [
    (3, {}, "scale 3 is not one of nlsn's: use one of 2, 4, 8, 16"),
    (4, {"width": 6}, "sparse attention of width 6, hashes 4 and chunk 48 cannot be: use a width that is a multiple"),
    (4, {"chunk": 0}, "hashes 4 and chunk 0 cannot be"),
    (4, {"every": 0}, "every 0 make no nlsn"),
    (4, {"attention_scale": float("nan")}, "attention_scale nan is no factor"),
    (4, {"mean": 2.0}, r"mean 2\.0 is outside \[0, 1\]"),
])  # fmt: skip
def test_what_it_cannot_be(scale: int, change: dict[str, Any], message: str) -> None:
    from dataclasses import replace

    with pytest.raises(ValueError, match=message):
        nlsn.build(scale, 1, replace(nlsn.PRESETS["small"], **change))
