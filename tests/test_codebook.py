"""The codebook against the naive code of what it does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from emsr.layers import codebook as codes
from emsr.layers.codebook import Codebook


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def latents(batch: int = 2, width: int = 6, side: int = 4) -> Tensor:
    return torch.randn(batch, width, side, side)


def test_nearest_entry() -> None:
    book, z = Codebook(11, 6), latents()
    vectors = z.permute(0, 2, 3, 1).reshape(-1, 6)
    wanted = [(book.entries.detach() - vector).square().sum(1).argmin() for vector in vectors]
    assert book.nearest(z).flatten().tolist() == [int(index) for index in wanted]


def test_quantisation_loss_and_straight_through_gradient() -> None:
    book, z = Codebook(5, 6), latents().requires_grad_()
    made = book(z, commitment=0.25)
    squared = (made.latents - z).square().mean()
    torch.testing.assert_close(made.loss, 1.25 * squared)
    torch.testing.assert_close(made.latents, book.lookup(made.indices))
    made.latents.sum().backward(retain_graph=True)
    torch.testing.assert_close(z.grad, torch.ones_like(z))
    (gradient,) = torch.autograd.grad(made.loss, book.entries)
    assert gradient.abs().sum() > 0


def test_averaged_entries_take_no_gradient() -> None:
    book = Codebook(5, 6, "average")
    assert not list(book.parameters())
    z = latents()
    made = book(z, commitment=0.03)
    torch.testing.assert_close(made.loss, 0.03 * (made.latents - z).square().mean())


def test_update_is_the_moving_average_of_what_chose_an_entry() -> None:
    book, z = Codebook(3, 6, "average"), latents()
    indices = torch.randint(0, 2, (2, 4, 4))  # entry 2 is never chosen
    counts, sums = book.counts.clone(), book.sums.clone()
    vectors, chosen = z.permute(0, 2, 3, 1).reshape(-1, 6), indices.flatten()
    for _ in range(2):
        book.update(z, indices, decay=0.9)
        for entry in range(3):
            mine = vectors[chosen == entry]
            counts[entry] = 0.9 * counts[entry] + 0.1 * len(mine)
            sums[entry] = 0.9 * sums[entry] + 0.1 * mine.sum(0)
    torch.testing.assert_close(book.entries, sums / counts[:, None])
    assert book.idle.tolist() == [0, 0, 2]


def test_restart_moves_only_entries_unused_for_long() -> None:
    book, z = Codebook(4, 6, "average"), latents()
    book.idle.copy_(torch.tensor([0, 64, 63, 70]))
    before = book.entries.clone()
    assert book.restart(z, 64, generator()) == 2
    assert torch.equal(book.entries[[0, 2]], before[[0, 2]])
    vectors = z.permute(0, 2, 3, 1).reshape(-1, 6)
    assert all((vectors == book.entries[entry]).all(1).any() for entry in (1, 3))
    assert book.idle.tolist() == [0, 0, 63, 0]
    assert book.restart(z, 64, generator()) == 0


def test_kmeans_finds_separate_clusters() -> None:
    centres = 10 * torch.eye(4)
    vectors = (centres[:, None] + 0.1 * torch.randn(4, 50, 4)).flatten(0, 1)
    found = codes.kmeans(vectors, 12, generator())
    distances = torch.cdist(centres, found).min(1).values
    assert (distances < 0.5).all()


def test_kmeans_is_determined_by_its_generator() -> None:
    vectors = torch.randn(200, 5)
    first, again, other = (codes.kmeans(vectors, 8, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_kmeans_of_too_few_vectors() -> None:
    with pytest.raises(ValueError, match="3 latents cannot initialise 4 entries"):
        codes.kmeans(torch.randn(3, 2), 4, generator())


def test_kmeans_without_separate_vectors_keeps_finite_entries() -> None:
    book = Codebook(8, 6, "average")
    book.initialise(torch.ones(20, 6), generator())
    assert torch.isfinite(book.entries).all()


@pytest.mark.parametrize(("counts", "used", "perplexity"), [
    ([5, 5, 5, 5], 1.0, 4.0),  # uniform
    ([9, 0, 0, 0], 0.25, 1.0),  # collapsed
    ([0, 0, 0, 0], 0.0, 1.0),  # nothing seen
])  # fmt: skip
def test_usage(counts: list[int], used: float, perplexity: float) -> None:
    assert codes.usage(torch.tensor(counts)) == pytest.approx((used, perplexity))


def test_unknown_learning() -> None:
    with pytest.raises(ValueError, match="codebook_learning 'ema' is unknown"):
        Codebook(4, 4, "ema")  # type: ignore[arg-type]
