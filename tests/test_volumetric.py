"""Networks of volumes through the engine: windows in three dimensions, halos, several channels."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from emsr.geometry import Triple
from emsr.inference.blend import LARGEST_IN_VOLUMES, PER_GREY, STEPS, plan_weights, total_weights
from emsr.inference.run import count_windows, run
from emsr.inference.volumetric import VolumeNetwork, mirrored, window_voxels
from emsr.plan import Plan

SHAPE = (11, 29, 26)
TABLE = tuple((z,) for z in range(SHAPE[0]))


class Counter:
    """A progress that counts."""

    def __init__(self) -> None:
        self.done = 0

    def update(self, n: int = 1) -> None:
        self.done += n

    def note(self, text: str) -> None:
        pass


class Place(nn.Module):
    """Three channels that depend on where in its window a voxel lies, as zero padding makes any network do."""

    def forward(self, image: Tensor) -> Tensor:
        depth, height, width = image.shape[2:]
        ramp = torch.linspace(0.5, 1, depth)[:, None, None] * torch.linspace(0.5, 1, height)[:, None]
        return torch.cat([image * ramp, image * torch.linspace(1, 0.5, width), image], 1)


class Valid(nn.Module):
    """Convolutions without padding: 2 sections and 3 pixels are used up on each side."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.convolution = nn.Conv3d(1, 3, (5, 7, 7))
        with torch.no_grad():
            self.convolution.weight.uniform_(0, 2 / (5 * 7 * 7), generator=generator)
            self.convolution.bias.zero_()

    def forward(self, image: Tensor) -> Tensor:
        made: Tensor = self.convolution(image)
        return made


def volume(shape: Triple = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def plan(**changes: Any) -> Plan:
    base = Plan(SHAPE, 1, 12, 4, (4, 16, 16), TABLE, depth=5, depth_overlap=2, channels=3)
    return replace(base, **changes)


def whole(module: nn.Module, how: Plan, voxels: np.ndarray, workers: int = 1) -> np.ndarray:
    out = np.empty((how.channels, *how.shape), np.uint8)
    network, seen = VolumeNetwork(module, "cpu", "float32"), Counter()
    for index, shard in run(network, how, how.grid.indices, lambda box: voxels[box.slices], workers, seen):
        out[(slice(None), *how.grid.box(index).slices)] = shard
    assert seen.done == count_windows(how, how.grid.indices, workers)
    return out


def naive(module: nn.Module, how: Plan, voxels: np.ndarray) -> np.ndarray:
    """Every window once, summed in Python's order."""
    sums = np.zeros((how.channels, *how.shape), np.int64)
    weights = np.zeros(how.shape, np.int64)
    line = [plan_weights(how, axis).astype(np.int64) for axis in range(3)]
    block = line[0][:, None, None] * line[1][:, None] * line[2]
    for z, y, x in itertools.product(how.starts(0), how.starts(1), how.starts(2)):
        image = window_voxels(how, (z, y, x), lambda box: voxels[box.slices])
        with torch.no_grad():
            made = module(torch.from_numpy(image)[None, None].float() / 255)[0].clamp(0, 1)
        steps = (made * STEPS).round().numpy().astype(np.int64)
        box = tuple(slice(a, min(a + b, n)) for a, b, n in zip((z, y, x), block.shape, how.shape, strict=True))
        part = tuple(slice(0, s.stop - s.start) for s in box)
        sums[(slice(None), *box)] += (steps * block)[(slice(None), *part)]
        weights[box] += block[part]
    return ((sums + weights * (PER_GREY // 2)) // (weights * PER_GREY)).astype(np.uint8)


def test_the_engine_blends_as_a_naive_sum_does() -> None:
    assert np.array_equal(whole(Place(), plan(), volume()), naive(Place(), plan(), volume()))


@pytest.mark.parametrize(("shard", "workers"), [((4, 16, 16), 3), ((11, 29, 26), 2), ((1, 8, 32), 1)])
def test_voxels_depend_on_no_bookkeeping(shard: Triple, workers: int) -> None:
    expected = whole(Place(), plan(), volume())
    assert np.array_equal(whole(Place(), plan(shard=shard), volume(), workers), expected)


def test_valid_windows_equal_the_whole_volume_at_once() -> None:
    """Windows without overlap, each with the halo that the convolutions use up: no seam, whatever the grid."""
    module, how = Valid(), plan(depth=3, depth_overlap=0, window=8, overlap=0, halo=(2, 3, 3))
    padded = np.pad(volume(), [(2, 2), (3, 3), (3, 3)], mode="reflect")
    with torch.no_grad():
        expected = module(torch.from_numpy(padded)[None, None].float() / 255)[0].numpy() * 255
    made = whole(module, how, volume())
    assert np.abs(made - expected).max() <= 0.5 + 1 / PER_GREY


def test_a_volume_smaller_than_its_window_is_mirrored() -> None:
    small = volume((2, 5, 1))
    how = plan(lr_shape=(2, 5, 1), table=((0,), (1,)), shard=(4, 16, 16))
    assert np.array_equal(whole(Place(), how, small), naive(Place(), how, small))
    seen = window_voxels(how, (0, 0, 0), lambda box: small[box.slices])
    assert np.array_equal(seen, np.pad(small, [(0, 3), (0, 7), (0, 0)], "reflect").repeat(12, axis=2))


def test_mirrored_positions_are_those_of_numpy() -> None:
    for length, first, last in [(7, -6, 12), (3, -9, 20), (1, -2, 3), (5, 0, 5)]:
        line = np.arange(length)
        widths = (max(0, -first), max(0, last - length))
        expected = np.pad(line, widths, "reflect") if length > 1 else np.zeros(sum(widths) + 1, int)
        assert np.array_equal(mirrored(min(first, 0), max(last, length), length), expected)


def test_damaged_sections_are_read_from_others_and_missing_ones_are_black() -> None:
    table = ((0,), (0,), None, (3,), *((z,) for z in range(4, 11)))
    seen = window_voxels(plan(table=table), (0, 0, 0), lambda box: volume()[box.slices])
    assert np.array_equal(seen[1], seen[0])
    assert not seen[2].any()
    assert np.array_equal(seen[3], volume()[3, :12, :12])


def test_sums_stay_within_int32() -> None:
    how = plan(depth=16, depth_overlap=12, window=16, overlap=12, lr_shape=(61, 61, 61))
    most = [int(total_weights(how, axis, 0, 61).max()) for axis in range(3)]
    assert max(most) <= LARGEST_IN_VOLUMES
    assert LARGEST_IN_VOLUMES**3 * (STEPS + PER_GREY // 2) < 2**31


def test_a_network_that_gives_another_shape_is_named() -> None:
    with pytest.raises(ValueError, match="another halo"):
        whole(Valid(), plan(), volume())


def test_numbers_that_are_none_are_refused() -> None:
    class Broken(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image.repeat(1, 3, 1, 1, 1) * float("nan")

    with pytest.raises(ValueError, match="NaN"):
        whole(Broken(), plan(), volume())
