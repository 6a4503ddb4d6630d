"""Operations and memory of a window: against the figures of the published network, and against sums by hand."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emsr.inference import cost
from emsr.layers.attention import NonLocal
from emsr.layers.blocks import group_norm
from emsr.models import gpemsr
from network_goldens import TINY, card

SECTIONS = 5
# spec C.11: multiply-accumulates of 1024 x 1024 hr and five sections as published; here each is done once a section or
# once a centre (the two flows of a pair being one), VGG sees one channel, so that less than stated is right
PUBLISHED = {
    8: {"features": 30, "indexer": 670, "decoder": 913, "look": 405, "prior fusion": 334}
    | {"flow": 838, "alignment": 69, "reconstruction": 102},
    16: {"features": 8, "indexer": 547, "decoder": 913, "look": 405, "prior fusion": 352}
    | {"flow": 210, "alignment": 17, "reconstruction": 94},
}
CALLS = {"features": 5, "indexer": 5, "decoder": 5, "look": 5, "prior fusion": 5, "flow": 2}


def published(scale: int, precision: str = "float32") -> cost.Cost:
    options = asdict(gpemsr.PRESETS["published"])
    stated = {"model": "gpemsr", "stage": "fusion", "scale": scale, "sections": SECTIONS, "options": options}
    return cost.of_card(stated, 1024 // scale, precision)


@pytest.mark.parametrize(("scale", "giga", "why"), [
    (8, 1069, "spec C.11: each section once, each centre once"),
    (16, 662, "the same at x16"),
])  # fmt: skip
def test_a_streamed_section_takes_what_it_needs(scale: int, giga: float, why: str) -> None:
    found = published(scale)
    total = (found.section.total + found.centre.total) / 1e9
    assert 0.95 * giga < total <= 1.05 * giga, why
    assert found.centre.sampling < 0.01 * found.centre.total


@pytest.mark.parametrize("scale", [8, 16])
def test_parts_take_what_they_take_in_the_published_network(scale: int) -> None:
    found = published(scale)
    parts = found.section.macs | found.centre.macs
    assert found.section.macs.keys().isdisjoint(found.centre.macs)
    assert set(parts) == {*gpemsr.Gpemsr.parts} - {"flow features"}, "every operation lies in a part that has a name"
    for part, stated in PUBLISHED[scale].items():
        once = stated / CALLS.get(part, 1)
        assert abs(parts[part] / 1e9 - once) < 0.035 * once + 0.1, (part, parts[part] / 1e9)


def test_half_precision_takes_the_same_operations_and_less_memory() -> None:
    full, half = published(8), published(8, "bfloat16")
    assert half.section.macs == full.section.macs
    assert half.centre.macs == full.centre.macs
    assert half.section.peak_bytes < full.section.peak_bytes


# sums by hand


class Every(nn.Module):
    """One of each operation, on a section of 1 x 8 x 8."""

    def __init__(self) -> None:
        super().__init__()
        self.widen = nn.Conv2d(1, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.up = nn.ConvTranspose2d(8, 2, 3, stride=2, padding=1, output_padding=1)
        self.inner = nn.Sequential(nn.Linear(16, 5))

    def forward(self, lr: Tensor) -> Tensor:
        x = self.up(self.grouped(self.widen(lr[:, 0])))  # (1, 2, 16, 16)
        x = x + F.interpolate(lr[:, 0], scale_factor=2, mode="bilinear")
        grid = torch.zeros(1, 4, 3, 2)
        mixed = x.flatten(1, 2) @ x.flatten(1, 2).transpose(1, 2)  # (1, 32, 16) @ (1, 16, 32)
        return F.grid_sample(x, grid, align_corners=False).sum() + self.inner(x).sum() + mixed.sum()


def test_operations_are_those_counted_by_hand() -> None:
    found = cost.of_network(Every(), 1, 8).centre
    assert found.macs == {
        "widen": 64 * 8 * 9,
        "grouped": 64 * 8 * 2 * 9,
        "up": 64 * 8 * 2 * 9,
        "inner": 2 * 16 * 16 * 5,
        "rest": 32 * 16 * 32,
    }
    assert found.sampling == 4 * 2 * 4 * 3 + 4 * 16 * 16, "four pixels for each value"


def test_attention_is_counted() -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attend = NonLocal(32, group_norm(8, 0))

        def forward(self, lr: Tensor) -> Tensor:
            return self.attend(lr[:, 0].expand(-1, 32, -1, -1))

    tokens = 12 * 12
    assert cost.of_network(Attending(), 1, 12).centre.total == 4 * 32 * 32 * tokens + 2 * tokens * tokens * 32


def test_the_way_back_of_attention_is_counted() -> None:
    attend, lr, tokens = NonLocal(32, group_norm(8, 0)), torch.rand(1, 32, 12, 12, requires_grad=True), 12 * 12
    with cost.counting() as counter:
        attend(lr).sum().backward()
    convolutions, product = 3 * 4 * 32 * 32 * tokens, tokens * tokens * 32
    assert cost.totals(counter)[0] == convolutions + (2 + 5) * product, "back: the scores again, and four products"


class Held(nn.Module):
    """Holds at most the section, which enters as a whole of its own, and three images of its size."""

    def section(self, lr: Tensor) -> tuple[Tensor, ...]:
        first = lr + 1
        second = first * 2
        third = second - first
        del first, second
        return (third, third[..., :4])

    def centre(self, states: list[tuple[Tensor, ...]]) -> Tensor:
        return states[0][0].relu_()


def test_memory_is_that_of_tensors_that_live_at_once() -> None:
    found = cost.of_network(Held(), 3, 16)
    image = 16 * 16 * 4
    assert found.section.peak_bytes == 4 * image
    assert found.section.result_bytes == image, "a view takes none"
    assert found.centre.peak_bytes == 3 * (image + 16 * 4 * 4), "states alone, for it works in place"


def test_a_network_on_its_way_through_training_stays_what_it_is() -> None:
    model: Any = gpemsr.build(8, 3, TINY)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    here = cost.of_network(model, 3, 16)
    assert here == cost.of_card(card("gpemsr", "fusion", 8, TINY), 16)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.isfinite(model(torch.rand(1, 3, 1, 16, 16))).all(), "no hook is left behind"
    assert not any(module._forward_hooks for module in model.modules())
