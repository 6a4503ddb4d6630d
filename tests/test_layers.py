"""Layers against the naive code of the formula they implement."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emsr.layers.attention import NonLocal, SectionAttention
from emsr.layers.blocks import ResidualBlock, group_norm
from emsr.layers.deform import DeformableConv, sample_taps
from emsr.layers.features import Vgg19, patch_cosine
from emsr.layers.flow import SpyNet, warp
from emsr.layers.prior import PriorFusion


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(3)


def corner(image: Tensor, y: int, x: int) -> float:
    """A pixel, 0 outside."""
    inside = 0 <= y < image.shape[0] and 0 <= x < image.shape[1]
    return float(image[y, x]) if inside else 0.0


def bilinear(image: Tensor, y: float, x: float) -> float:
    """Between the four pixels around (y, x)."""
    top, left = math.floor(y), math.floor(x)
    dy, dx = y - top, x - left
    rows = [(top, 1 - dy), (top + 1, dy)]
    return sum(wy * wx * corner(image, row, col) for row, wy in rows for col, wx in [(left, 1 - dx), (left + 1, dx)])


def naive_taps(x: Tensor, offsets: Tensor, mask: Tensor, groups: int) -> Tensor:
    channels, height, width = x.shape
    out = torch.zeros(channels, 9, height, width)
    moves = offsets.reshape(groups, 9, 2, height, width)
    for c, tap, y, col in torch.cartesian_prod(*map(torch.arange, out.shape)).tolist():
        group = c * groups // channels
        dy, dx = moves[group, tap, :, y, col].tolist()
        seen = bilinear(x[c], y + tap // 3 - 1 + dy, col + tap % 3 - 1 + dx)
        out[c, tap, y, col] = seen * mask.reshape(groups, 9, height, width)[group, tap, y, col]
    return out


@pytest.mark.parametrize(("height", "width", "size", "why"), [
    (5, 4, 1.0, "ordinary displacements"),
    (4, 5, 6.0, "far outside the image, which counts 0"),
    (1, 3, 0.7, "one row"),
])  # fmt: skip
def test_deformable_taps(height: int, width: int, size: float, why: str) -> None:
    groups, x = 2, torch.randn(4, height, width)
    offsets, mask = size * torch.randn(groups * 18, height, width), torch.rand(groups * 9, height, width)
    found = sample_taps(x[None], offsets[None], mask[None])[0]
    torch.testing.assert_close(found, naive_taps(x, offsets, mask, groups), atol=1e-5, rtol=0, msg=why)


def test_deformable_convolution_starts_as_half_a_convolution() -> None:
    """Offsets start at zero and weights at sigmoid(0)."""
    layer, x = DeformableConv(8, 4), torch.randn(2, 8, 5, 6)
    wanted = 0.5 * F.conv2d(x, layer.weight, padding=1) + layer.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(layer(x, torch.randn_like(x)), wanted, atol=1e-5, rtol=0)


def test_deformable_convolution_has_gradients() -> None:
    layer = DeformableConv(4, 2).double()
    x = torch.randn(1, 4, 3, 4, dtype=torch.float64, requires_grad=True)
    offsets = (torch.randn(1, 36, 3, 4, dtype=torch.float64) * 0.3 + 0.11).requires_grad_()
    mask = torch.rand(1, 18, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(sample_taps, (x, offsets, mask))
    layer.float()(x.float(), x.float()).sum().backward()
    assert layer.offsets.weight.grad is not None


def test_sampling_offsets_stay_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = DeformableConv(8, 4), torch.randn(1, 8, 6, 6)
    nn.init.normal_(layer.offsets.weight, std=0.2)
    seen: list[torch.dtype] = []
    sample = F.grid_sample

    def watched(image: Tensor, grid: Tensor, **rest: object) -> Tensor:
        seen.append(grid.dtype)
        return sample(image, grid, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(F, "grid_sample", watched)
    with torch.autocast("cpu", torch.bfloat16):
        layer(x, x.bfloat16())
    assert seen == [torch.float32]


def test_warp_samples_at_the_displaced_place() -> None:
    image, flow = torch.randn(1, 1, 6, 7), torch.zeros(1, 2, 6, 7)
    flow[:, 0], flow[:, 1] = 2.0, -1.0  # dx, dy
    torch.testing.assert_close(warp(image, flow)[0, 0, 1:, :-2], image[0, 0, :-1, 2:], atol=1e-5, rtol=0)
    torch.testing.assert_close(warp(image, flow)[0, 0, 2, -2:], image[0, 0, 1, -1:].expand(2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(32, 32), (20, 28), (7, 5)])
def test_flow_has_the_images_size_and_float32(size: tuple[int, int]) -> None:
    network = SpyNet(4, (8, 8), 3, channels=1)
    with torch.autocast("cpu", torch.bfloat16):
        flow = network(torch.rand(2, 1, *size), torch.rand(2, 1, *size))
    assert flow.shape == (2, 2, *size)
    assert flow.dtype is torch.float32


def test_non_local_is_softmax_attention() -> None:
    layer, x = NonLocal(8, group_norm(4, 0)), torch.randn(2, 8, 3, 5)
    normal = layer.norm(x)
    q, k, v = (part(normal).flatten(2) for part in (layer.q, layer.k, layer.v))  # (batch, channels, positions)
    weights = torch.softmax(q.transpose(1, 2) @ k / 8**0.5, -1)
    mixed = (v @ weights.transpose(1, 2)).view(x.shape)
    torch.testing.assert_close(layer(x), x + layer.project(mixed), atol=1e-5, rtol=0)


def test_section_attention_takes_any_odd_number_of_sections() -> None:
    for sections in (1, 3, 5):
        fused = SectionAttention(8, sections)([torch.randn(2, 8, 8, 12) for _ in range(sections)])
        assert fused.shape == (2, 8, 8, 12)


@pytest.mark.parametrize(("groups", "group_channels", "channels", "found"), [
    (32, 0, 64, 32),  # published
    (0, 8, 96, 12),  # small
    (0, 8, 4, 1),  # fewer channels than a group
])  # fmt: skip
def test_group_norm(groups: int, group_channels: int, channels: int, found: int) -> None:
    norm = group_norm(groups, group_channels)(channels)
    assert (norm.num_groups, norm.eps) == (found, 1e-6)


@pytest.mark.parametrize(("groups", "group_channels"), [(0, 0), (4, 4)])
def test_group_norm_wants_one_of_two(groups: int, group_channels: int) -> None:
    with pytest.raises(ValueError, match="set one of them"):
        group_norm(groups, group_channels)


def test_residual_block_ends_in_relu_before_the_sum() -> None:
    block, x = ResidualBlock(8, 16, group_norm(4, 0)), torch.randn(1, 8, 4, 4)
    assert (block(x) - block.skip(x) >= -1e-6).all()


def naive_cosine(a: Tensor, b: Tensor, patch: int) -> Tensor:
    rows, columns = a.shape[-2] // patch, a.shape[-1] // patch
    patches = [F.normalize(F.unfold(image, patch, stride=patch), dim=1, eps=1e-12) for image in (a, b)]
    return (patches[0] * patches[1]).sum(1).view(-1, 1, rows, columns)


def test_patch_cosine_is_that_of_flattened_patches() -> None:
    a, b = torch.randn(2, 3, 8, 12), torch.randn(2, 3, 8, 12)
    torch.testing.assert_close(patch_cosine(a, b, 4), naive_cosine(a, b, 4), atol=1e-6, rtol=0)
    assert (patch_cosine(a * 0, b, 4) == 0).all(), "an empty patch is like nothing"


def test_grey_vgg_is_that_of_a_repeated_image() -> None:
    grey, image = Vgg19("relu1_2", normalise=False), torch.rand(1, 1, 8, 8)
    colour = nn.Conv2d(3, 64, 3, padding=1)
    colour.weight.data = torch.randn(64, 3, 3, 3)
    grey.layers[0].load_state_dict({"weight": colour.weight.data.sum(1, keepdim=True), "bias": colour.bias.data})
    torch.testing.assert_close(grey.layers[:1](image), colour(image.expand(1, 3, 8, 8)), atol=1e-4, rtol=0)


def test_prior_fusion_masks_what_it_does_not_believe() -> None:
    """With a mask of nearly zero the reference cannot matter."""
    fusion = PriorFusion(4, (5, 6), blocks=1)
    nn.init.zeros_(fusion.mask.conv3.weight)
    lr, similarity = torch.randn(1, 4, 4, 4), torch.rand(1, 1, 1, 1)
    references = [torch.randn(1, 5, 8, 8), torch.randn(1, 6, 4, 4)]
    changed = [torch.randn_like(one) for one in references]
    for bias, same in ((-1e4, True), (1.0, False)):
        nn.init.constant_(fusion.mask.conv3.bias, bias)
        moved = (fusion(lr, references, similarity) - fusion(lr, changed, similarity)).abs().max()
        assert (moved < 1e-6) == same


ATTEND = """
import torch
from emsr.layers.attention import NonLocal, SelfAttention
from emsr.layers.blocks import group_norm

def status(key):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key)) / 1024

network = {network}
with torch.inference_mode():
    network(torch.rand(1, 32, 8, 8))
    before = status("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts anew
    network(torch.rand(1, 32, 96, 96))
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured by Linux")
@pytest.mark.parametrize("network", ["NonLocal(32, group_norm(32, 0))", "SelfAttention(32, True)"])
def test_attention_holds_no_map_of_all_pairs(network: str) -> None:
    """9216 positions: a map of their pairs takes 324 MiB, each of the tensors of one number a position 1.1 MiB."""
    code = ATTEND.replace("{network}", network)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 60
