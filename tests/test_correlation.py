"""The correlation volume against naive loops, and the flow network that is built on it."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from emsr.layers.correlation import Correlation, correlate
from emsr.layers.correlation_flow import CorrelationFlow
from emsr.layers.flow import SpyNet
from emsr.models import gpemsr, published
from network_goldens import TINY


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(3)


def naive(a: Tensor, b: Tensor, radius: int) -> Tensor:
    """The definition, one number at a time."""
    batch, channels, height, width = a.shape
    out = a.new_zeros(batch, 2 * radius + 1, 2 * radius + 1, height, width)
    for n, i, j, y, x in torch.cartesian_prod(*map(torch.arange, out.shape)).tolist():
        row, column = y + i - radius, x + j - radius
        if 0 <= row < height and 0 <= column < width:
            out[n, i, j, y, x] = sum(a[n, c, y, x] * b[n, c, row, column] for c in range(channels))
    return out


@pytest.mark.parametrize(("size", "radius", "why"), [
    ((2, 3, 4, 5), 1, "ordinary"),
    ((1, 2, 3, 4), 3, "displacements beyond the image, which count 0"),
    ((1, 1, 1, 4), 2, "one row"),
    ((2, 2, 3, 3), 0, "no displacement"),
])  # fmt: skip
def test_correlation_and_its_gradients_are_those_of_a_loop(size: tuple[int, ...], radius: int, why: str) -> None:
    pairs = [[torch.randn(size, dtype=torch.float64, requires_grad=True) for _ in range(2)]]
    pairs.append([one.detach().clone().requires_grad_() for one in pairs[0]])
    found, wanted = correlate(*pairs[0], radius), naive(*pairs[1], radius)
    torch.testing.assert_close(found, wanted, msg=why)
    weights = torch.randn_like(found)
    for volume in (found, wanted):
        (volume * weights).sum().backward()
    for one, other in zip(*pairs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=why)


def test_a_shifted_image_is_most_alike_at_its_shift() -> None:
    b = torch.randn(1, 16, 12, 14)
    a = torch.roll(b, (-2, 1), (2, 3))  # a(p) = b(p + (2, -1))
    volume = correlate(a, b, 3)[0]
    assert (volume.flatten(0, 1).argmax(0)[3:-3, 3:-3] == (3 + 2) * 7 + (3 - 1)).float().mean() > 0.95


def test_the_layer_gives_means_in_float32() -> None:
    layer, a, b = Correlation(2), torch.randn(2, 8, 5, 6), torch.randn(2, 8, 5, 6)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(a.bfloat16(), b.bfloat16())
    assert found.shape == (2, layer.channels, 5, 6)
    assert found.dtype is torch.float32
    wanted = correlate(a.bfloat16().float(), b.bfloat16().float(), 2).flatten(1, 2) / 8
    torch.testing.assert_close(found, wanted)
    with pytest.raises(ValueError, match="radius -1 of a correlation volume is negative: use 0 or more"):
        Correlation(-1)


@pytest.mark.parametrize(("size", "reduction", "why"), [
    ((16, 24), 1, "sides that the levels divide"),
    ((13, 10), 1, "others"),
    ((32, 48), 4, "enlarged before, made coarser again"),
])  # fmt: skip
def test_flow_has_the_images_size_and_float32(size: tuple[int, int], reduction: int, why: str) -> None:
    network = CorrelationFlow(3, 4, 2, (8, 8), reduction)
    moved, fixed = torch.rand(2, 1, *size), torch.rand(2, 1, *size)
    with torch.autocast("cpu", torch.bfloat16):
        flow = network(moved, fixed)
    assert flow.shape == (2, 2, *size), why
    assert flow.dtype is torch.float32
    assert torch.equal(flow, network.between(network.pyramid(moved), network.pyramid(fixed), size))
    finest = network.coarse_to_fine(moved, fixed)[-1]
    assert finest.shape[-1] == -(-size[1] // (4 * reduction)) * 4
    assert len(network.coarse_to_fine(moved, fixed, 2)) == 2


def test_every_part_of_the_flow_network_has_a_gradient() -> None:
    network = CorrelationFlow(2, 4, 1, (8,), 1)
    network(torch.rand(1, 1, 12, 12), torch.rand(1, 1, 12, 12)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


def test_what_the_volume_takes_is_counted() -> None:
    from emsr.inference import cost

    options = replace(TINY, flow="correlation", flow_maps=4, flow_radius=1, flow_widths=())
    found = cost.of_network(gpemsr.build(8, 3, options), 3, 16)
    pixels = 16 * 16 + 8 * 8
    assert found.section.macs["flow features"] == 9 * (4 * (1 + 4) * 256 + 4 * (4 + 4) * 64)
    assert found.centre.macs["flow"] == 3 * pixels * (9 * 4 + 9 * (9 + 4 + 2) * 2), "the volume, then convolutions"
    assert "flow features" not in cost.of_network(gpemsr.build(8, 3, TINY), 3, 16).section.macs


@pytest.mark.parametrize(("change", "message"), [
    ({"flow": "correlations"}, "option flow 'correlations' is unknown; did you mean 'correlation'"),
    ({"flow": "correlation", "flow_maps": 0}, "flow_levels 2 and flow_maps 0 make no pyramid"),
    ({"flow": "correlation", "flow_radius": -1}, "radius -1 of a correlation volume is negative"),
    ({"flow_levels": 0}, "flow_levels 0 and flow_widths .* make no flow network: use 1 or more"),
    ({"flow_widths": (8, 0)}, r"and flow_widths \[8, 0\] make no flow network"),
    ({"flow_kernel": 4}, "flow_kernel 4 has no centre: use an odd number"),
    ({"flow_channels": 2}, "flow_channels 2 are neither 1 nor 3"),
])  # fmt: skip
def test_options_that_make_no_flow_network_are_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gpemsr.flow_network(replace(TINY, **change))


def test_weights_of_spynet_are_refused() -> None:
    options = replace(TINY, flow="correlation")
    with pytest.raises(ValueError, match="option flow is correlation, which has no use for weights of SpyNet"):
        published.spynet_state(Path("spynet.pth"), options)


@pytest.mark.parametrize("preset", ["published", "small"])
def test_both_presets_take_it(preset: str) -> None:
    options = replace(gpemsr.PRESETS[preset], flow="correlation")
    with FakeTensorMode():
        model = gpemsr.build(8, 3, options)
        shapes = [tuple(part.shape) for part in model.section(torch.empty(1, 1, 64, 64))[4:]]
        assert model(torch.empty(1, 3, 1, 64, 64)).shape == (1, 1, 512, 512)
    count, maps = options.flow_levels, options.flow_maps
    assert shapes == [(1, maps, 64 >> level, 64 >> level) for level in range(count)[::-1]], "lr, whatever flow_scale"


def test_cards_without_the_options_mean_spynet() -> None:
    stated = asdict(TINY)
    for name in ("flow", "flow_maps", "flow_radius"):
        del stated[name]
    assert gpemsr.Options(**stated) == TINY
    assert isinstance(gpemsr.flow_network(TINY), SpyNet)
