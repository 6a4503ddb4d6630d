"""The correlation volume against naive loops, and the flow network that is built on it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from emsr.layers.correlation import Correlation, correlate


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
