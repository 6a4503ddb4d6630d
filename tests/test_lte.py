"""LTE: its size, what it is without its perceptron, and gratings that it is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import tiny_networks
from emsr.layers.implicit import centres
from emsr.models import lte
from network_goldens import any_numbers

TINY = tiny_networks.options("lte")
COLOUR_SHIFTS = 24  # of the released EDSR: two frozen 1x1 convolutions of RGB, which are no parameters of ours


@pytest.mark.parametrize(("preset", "parameters"), [("published", 1_714_267 - COLOUR_SHIFTS), ("swinir", 12_096_871)])
def test_published_counts_of_colour_images(preset: str, parameters: int) -> None:
    with torch.device("meta"):
        network = lte.Lte(4, 1, lte.PRESETS[preset], channels=3)
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    assert sum(sizes.values()) == parameters
    assert sum(size for name, size in sizes.items() if not name.startswith("encoder")) == 493_827


@pytest.mark.parametrize("scale", [2, 3.7, (2.5, 4)])
@torch.no_grad()
def test_without_its_perceptron_it_is_bilinear(scale: Any) -> None:
    network, lr = any_numbers(lte.build(scale, 1, TINY)), torch.rand(2, 1, 9, 8)
    for parameter in network.decoder.layers[-1].parameters():
        parameter.zero_()
    sr = network.enlarge(lr)
    wanted = F.interpolate(lr, sr.shape[-2:], mode="bilinear", align_corners=False)
    torch.testing.assert_close(sr, wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", [2.0, 3.7, (2.5, 7.0)])
@pytest.mark.parametrize("cycles", [(1, 0), (0, 2), (1, 3)])
@torch.no_grad()
def test_a_grating_that_it_is_told(scale: Any, cycles: tuple[int, int]) -> None:
    """Frequencies of whole cycles a pixel, the first amplitude 1 and a perceptron that passes it on."""
    network = lte.build(scale, 1, replace(TINY, hidden=(4,)))
    for parameter in network.parameters():
        parameter.zero_()
    network.frequency.bias[0], network.frequency.bias[TINY.texture // 2] = cycles
    network.amplitude.bias[0] = 1
    first, last = network.decoder.layers
    first.weight[0, 0] = first.bias[0] = last.weight[0, 0] = 1  # 1 keeps it above 0
    last.bias[0] = -1
    lr = torch.full((1, 1, 5, 6), 0.5)
    along_y, along_x = scale if isinstance(scale, tuple) else (scale, scale)
    y, x = centres(5, along_y)[:, None] - 0.5, centres(6, along_x) - 0.5
    wave = torch.cos(2 * torch.pi * (cycles[0] * y + cycles[1] * x)).float()
    torch.testing.assert_close(network.enlarge(lr)[0, 0], wave / 2 + 0.5, atol=1e-5, rtol=0)


def test_textures_in_pairs() -> None:
    with pytest.raises(ValueError, match="texture 7 is not cosines and sines in pairs"):
        lte.build(4, 1, replace(TINY, texture=7))
