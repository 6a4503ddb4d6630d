"""Networks of real scales: sizes, coordinates, blocks, windows; and the enlargement by coordinates that they share."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import tiny_networks
from emsr import plugins
from emsr.inference import cost
from emsr.layers.implicit import Points, bilinear, centres, every
from emsr.models import real_scale
from emsr.training import schedule
from network_goldens import any_numbers, card

RANGED = [name for name in tiny_networks.NAMES if plugins.has(plugins.file_of("models", name), "SCALE_RANGE")]
MODULES = {name: plugins.load("models", name) for name in RANGED}
NAMES = [name for name in RANGED if "encoder" in plugins.fields(plugins.file_of("models", name), "Options")]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(11)


def drawn(name: str, scale: Any, **changes: Any) -> Any:
    options = tiny_networks.options(name)
    return any_numbers(MODULES[name].build(scale, 1, options.__class__(**{**vars(options), **changes})))


# coordinates


@pytest.mark.parametrize("scale", [1.0, 2, 3.7, 16])
def test_between_centres_is_bilinear(scale: float) -> None:
    """The shares of the four corners are torch's, also at the last row and column."""
    image, sides = torch.rand(2, 3, 7, 5), (round(7 * scale), round(5 * scale))
    points = every(centres(7, scale), centres(5, scale), 2, (7, 5))
    made = bilinear(image, points).view(2, *sides, 3).permute(0, 3, 1, 2)
    torch.testing.assert_close(made, F.interpolate(image, sides, mode="bilinear", align_corners=False))
    weights = torch.stack([corner.weight for corner in points.corners()])
    torch.testing.assert_close(weights.sum(0), torch.ones_like(weights[0]))
    assert float(weights.min()) >= 0


def test_corners_are_exact_far_from_the_beginning() -> None:
    """Of an axis of ten million pixels, where float32 knows no halves."""
    side, at = 10_000_000, 9_999_990.75
    points = Points(torch.tensor([[at]], dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64) + 0.5, (side, 1))
    found = [(int(corner.index), corner.apart[0].tolist(), float(corner.weight)) for corner in points.corners()]
    assert found[0] == (9_999_990, [0.5, 0.0], 0.75)
    assert found[2] == (9_999_991, [-1.5, 0.0], 0.25)
    assert found[1][2] == found[3][2] == 0


def test_voxels_lie_where_the_agreement_says() -> None:
    assert centres(16, 3.7).tolist() == [(j + 0.5) * 16 / 59 for j in range(59)]
    torch.testing.assert_close(centres(5, 2), (torch.arange(10, dtype=torch.float64) + 0.5) / 2)


# the networks


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_any_scale_and_any_size(name: str) -> None:
    lr = torch.rand(1, 1, 1, 16, 16)
    for scale, size in ((3.7, (59, 59)), ((50 / 16, 71 / 16), (50, 71)), (1, (16, 16))):
        network = drawn(name, scale)
        assert network.scale == scale
        assert network(lr).shape == (1, 1, *size)
        assert torch.isfinite(network(lr)).all()


@pytest.mark.parametrize("name", NAMES)
def test_weights_serve_every_scale(name: str) -> None:
    shapes = [{k: v.shape for k, v in drawn(name, scale).state_dict().items()} for scale in (2, 3.7, (1.5, 16))]
    assert shapes[0] == shapes[1] == shapes[2]


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_blocks_of_points_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, lr = drawn(name, (2.3, 3.1)), torch.rand(1, 1, 1, 9, 8)
    whole = network(lr)
    for block in (1, 60):
        monkeypatch.setattr(real_scale, "BLOCK", block)
        torch.testing.assert_close(network(lr), whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_rows_and_columns_that_are_asked_for(name: str) -> None:
    """What else is asked for changes no voxel; points that are drawn are seen alike."""
    network, lr = drawn(name, 2.5, **({"key_stride": 1} if name == "iste" else {})), torch.rand(2, 1, 8, 6)
    y, x = centres(8, 2.5), centres(6, 2.5)
    whole = network.centre([(lr,)])
    assert torch.equal(whole, network.centre([(lr,)], at=(y, x)))
    assert network.centre([(lr,)], at=(y[:0], x[:0])).shape == (2, 1, 0, 0)
    part = network.centre([(lr,)], at=(y[3:9], x[7:8]))
    torch.testing.assert_close(part, whole[..., 3:9, 7:8], atol=1e-6, rtol=0)
    points = every(y, x, 2, (8, 6))
    said = network.sample(lr, points.y, points.x, (2.5, 2.5))
    torch.testing.assert_close(said.view(2, 1, 20, 15), whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "iste"])
@torch.no_grad()
def test_windows_at_real_scales_are_the_whole(name: str) -> None:
    """A window is asked for the voxels of the whole whose centres it holds, where those lie in the whole."""
    network = drawn(name, 3.7)
    corner, side, halo = (3, 4), 2 * network.halo + 3, network.halo
    lr = torch.rand(1, 1, side + 6, side + 5)
    whole, window = network.centre([(lr,)]), lr[..., 3 : 3 + side, 4 : 4 + side]
    kept, at = [], []
    for length, first in zip(lr.shape[-2:], corner, strict=True):
        place = centres(length, 3.7)
        inside = (place >= first + halo) & (place < first + side - halo)
        kept.append(inside.nonzero()[:, 0])
        at.append(place[inside] - first)
    part = network.centre([(window,)], at=(at[0], at[1]))
    torch.testing.assert_close(part, whole[..., kept[0], :][..., kept[1]], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_with_the_encoder_of_swinir(name: str) -> None:
    """Any size, every parameter learned from drawn points, and no bound of what a voxel depends on."""
    sizes = {"embedding": 12, "groups": 1, "layers": 2, "heads": 2, "window": 4}
    network = drawn(name, 3.7, encoder="swinir", **sizes)
    assert network.halo is None
    assert network(torch.rand(1, 1, 1, 7, 9)).shape == (1, 1, 26, 33)
    y, x = (7 * torch.rand(2, 30, dtype=torch.float64) for _ in range(2))
    network.train().sample(torch.rand(2, 1, 7, 7), y, x, (2.0, 3.0)).square().sum().backward()
    for parameter, tensor in network.named_parameters():
        assert tensor.grad is not None, parameter
        assert torch.isfinite(tensor.grad).all(), parameter
        assert tensor.grad.any(), parameter


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [0.9, 16.5, (2.0, 17.0), float("nan"), math.inf])
def test_scales_that_there_are_not(name: str, scale: Any) -> None:
    with pytest.raises(ValueError, match=f"is not one of {name}'s: use a number from 1 to 16, or two of them"):
        MODULES[name].build(scale, 1, tiny_networks.options(name))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("change", "message"), [
    ({"encoder": "rdn"}, "encoder 'rdn' is unknown; choose one of edsr, swinir"),
    ({"width": 0}, "width 0 makes no encoder"),
    ({"drop_path": 1.0}, r"drop_path 1\.0 is no share"),
    ({"encoder": "swinir", "heads": 7}, "embedding 180 cannot be shared by 7 heads"),
    ({"hidden": (8, 0)}, r"hidden \[8, 0\] makes no decoder"),
    ({"hidden": ()}, r"hidden \[\] makes no decoder: use one or more layers of 1 or more"),
])  # fmt: skip
def test_options_that_it_cannot_have(name: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        drawn(name, 2, **change)


def test_what_the_published_network_takes_is_counted_without_memory() -> None:
    """At least the operations of its transformer layers, 8 channels^2 a pixel."""
    found = cost.of_card(card("iste", "image", 4, MODULES["iste"].PRESETS["published"]), 16)
    assert found.centre.macs["encoder"] > 36 * 8 * 180**2 * 16**2


# recipes


@pytest.mark.parametrize("name", NAMES)
def test_recipes_reach_the_scale_that_is_wanted(name: str) -> None:
    module = MODULES[name]
    found = {scale: module.stages("published", scale)[0] for scale in (2, 4, 8, (3.7, 12.5))}
    assert {scale: (stage.scales, stage.scales_drawn) for scale, stage in found.items()} == {
        2: ((1.0, 4.0), "uniform"),
        4: ((1.0, 4.0), "uniform"),
        8: ((1.0, 8.0), "logarithmic"),
        (3.7, 12.5): ((1.0, 12.5), "logarithmic"),
    }
    assert (found[4].objective, found[4].patch, found[4].samples) == ("scales", 48, 2304)


@pytest.mark.parametrize(("name", "preset", "batch", "rates"), [
    ("liif", "published", 16, {0: 1e-4, 199_999: 1e-4, 200_000: 5e-5, 400_000: 2.5e-5, 999_999: 6.25e-6}),
    ("liif", "swinir", 16, {0: 1e-4, 999_999: 6.25e-6}),
    ("lte", "published", 16, {0: 1e-4, 200_000: 5e-5}),
    ("lte", "swinir", 32, {0: 2e-4, 499_999: 2e-4, 500_000: 1e-4, 800_000: 5e-5, 900_000: 2.5e-5, 999_999: 1.25e-5}),
    ("iste", "published", 4, {0: 2e-4, 1_149_999: 2e-4, 1_150_000: 1e-4, 1_840_000: 5e-5, 2_299_999: 1.25e-5}),
    ("iste", "em", 16, {0: 2e-4, 150_000: 1e-4, 299_999: 1e-7}),
])  # fmt: skip
def test_published_rates(name: str, preset: str, batch: int, rates: dict[int, float]) -> None:
    (stage,) = MODULES[name].stages(preset, 4)
    assert stage.batch == batch
    assert {step: schedule.rate(stage, step) for step in rates} == pytest.approx(rates, rel=2e-3)
    if preset == "em":
        assert (stage.scales, stage.scales_drawn) == ((1, 16), "logarithmic")
