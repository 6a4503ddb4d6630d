"""LIIF: its size and its formula."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import tiny_networks
from emsr.models import liif
from network_goldens import any_numbers

TINY = tiny_networks.options("liif")
COLOUR_SHIFTS = 24  # of the released EDSR: two frozen 1x1 convolutions of RGB, which are no parameters of ours


def count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("preset", "parameters"), [("published", 1_567_323 - COLOUR_SHIFTS), ("swinir", 11_949_927)])
def test_published_counts_of_colour_images(preset: str, parameters: int) -> None:
    with torch.device("meta"):
        network = liif.Liif(4, 1, liif.PRESETS[preset], channels=3)
    assert count(network) == parameters
    assert count(network.decoder) == 346_883


@pytest.mark.parametrize(("blocks", "halo"), [(16, 36), (2, 8)])
def test_how_far_it_sees(blocks: int, halo: int) -> None:
    assert liif.build(2, 1, replace(TINY, blocks=blocks)).halo == halo
    assert liif.build(2, 1, replace(TINY, encoder="swinir", embedding=12, groups=1, layers=1)).halo is None


def plain(network: liif.Liif, lr: Tensor, y: float, x: float, cell: tuple[float, float]) -> float:
    """The grey level at one point, one corner after the other, features beyond the edge being those of the edge."""
    features = F.unfold(network.encoder(2 * lr - 1), 3, padding=1).view(-1, *lr.shape[-2:])
    total = 0.0
    low = (int((y - 0.5) // 1), int((x - 0.5) // 1))
    corners = [(low[0] + a, low[1] + b) for a in (0, 1) for b in (0, 1)]
    for i, j in corners:
        apart = (y - (i + 0.5), x - (j + 0.5))
        opposite = (1 - abs(apart[0])) * (1 - abs(apart[1]))
        here = features[:, min(max(i, 0), lr.shape[-2] - 1), min(max(j, 0), lr.shape[-1] - 1)]
        value = torch.cat([here, torch.tensor([2 * apart[0], 2 * apart[1], *cell])])
        for number, layer in enumerate(network.decoder.layers):
            value = layer(value.relu() if number else value)
        total += opposite * float(value)
    return total / 2 + 0.5


@torch.no_grad()
def test_the_formula() -> None:
    network, lr = any_numbers(liif.build((2.5, 4), 1, TINY)), torch.rand(1, 1, 4, 5)
    sr = network.enlarge(lr)
    assert sr.shape == (1, 1, 10, 20)
    for row, column in ((0, 0), (4, 7), (9, 19), (0, 19), (5, 2)):
        said = plain(network, lr, (row + 0.5) / 2.5, (column + 0.5) / 4, (2 / 2.5, 2 / 4))
        assert float(sr[0, 0, row, column]) == pytest.approx(said, abs=1e-5), (row, column)


@torch.no_grad()
def test_at_scale_one_each_pixel_speaks_alone() -> None:
    """Centres coincide: the perceptron of a pixel's own features, no displacement and a whole cell; edges too."""
    network, lr = any_numbers(liif.build(1, 1, TINY)), torch.rand(1, 1, 6, 5)
    features = F.unfold(network.encoder(2 * lr - 1), 3, padding=1)[0].T
    value = torch.cat([features, torch.tensor([0.0, 0.0, 2.0, 2.0]).expand(30, 4)], 1)
    for number, layer in enumerate(network.decoder.layers):
        value = layer(value.relu() if number else value)
    torch.testing.assert_close(network.enlarge(lr), value.view(1, 1, 6, 5) / 2 + 0.5, atol=1e-6, rtol=0)
