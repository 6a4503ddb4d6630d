"""Arrays filled shard by shard: level 1 on the way, in an order that unpacks nothing twice; quick sums are right."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from chunked import n5, precomputed
from emsr.damage import NEAR_LIMIT, SectionAccumulator
from emsr.geometry import Box
from emsr.stores import foreign, hdf, open_source, pieces
from emsr.stores import precomputed as stores_precomputed
from emsr.stores.fill import Making, fill
from emsr.stores.journal import Journal
from emsr.stores.ome import Layout
from emsr.stores.pyramid import halve, pyramid
from emsr.stores.shards import each
from emsr.stores.zarr import level_total, open_array


def layout(shape=(20, 101, 70), shard=(8, 32, 32), chunk=(4, 16, 16), dtype="uint8", levels=3) -> Layout:
    return Layout(shape, dtype, shard, chunk, (40.0, 4.0, 4.0), (20.0, 2.0, 2.0), levels)


def voxels(shape: tuple[int, ...], dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(0).integers(0, 5 if dtype == "uint64" else 256, shape).astype(dtype)


def levels(path: Path) -> list[np.ndarray]:
    return [open_array(path, level)[...].read().result() for level in range(level_total(path))]


LAYOUTS = [
    (layout(), 2, "shards of even sides"),
    (layout(dtype="uint64"), 2, "labels"),
    (layout(shard=(5, 33, 32), chunk=(5, 11, 16)), 1, "rows of a shard of odd height are shared"),
    (layout(shard=(5, 32, 35), chunk=(5, 16, 7)), 1, "and columns"),
    (layout(levels=1), 1, "one level"),
    (layout(shape=(3, 7, 5)), 2, "smaller than a chunk"),
    (layout(shape=(9, 65, 129)), 2, "one voxel more than shards"),
]


@pytest.mark.parametrize(("laid", "made", "why"), LAYOUTS, ids=[why for *_, why in LAYOUTS])
@pytest.mark.parametrize("depth", [1, 20])
def test_levels_are_those_of_the_whole_volume(tmp_path, laid, made, why, depth):
    path, volume = tmp_path / "x.zarr", voxels(laid.shape, laid.dtype)
    making = Making(lambda box: volume[box.slices], "test", depth)
    assert fill(path, laid, making, Journal(tmp_path / "x.json", {}), 2) == made
    pyramid(path, 2, levels=made)
    expected = volume
    for level in levels(path):
        np.testing.assert_array_equal(level, expected)
        expected = halve(expected)


CHUNKS = [
    (1, 32, 1, "a chunk a section"),
    (8, 32, 1, "as deep as shards"),
    (16, 32, 1, "deeper"),
    (40, 32, 1, "one chunk along z"),
    (13, 32, 2, "some lie across the borders of layers"),
    (1, 128, 1, "whole sections"),
    (8, 128, 1, "eight whole sections"),
]


@pytest.mark.parametrize(("depth", "side", "times", "why"), CHUNKS, ids=[why for *_, why in CHUNKS])
def test_what_is_stored_together_is_unpacked_once(tmp_path, depth, side, times, why):
    """The source keeps as many chunks as four shards beside one another need, whatever their depth."""
    unpacked, kept = [], OrderedDict()

    def read(box: Box) -> np.ndarray:
        sides = zip(box.start, box.stop, (depth, side, side), strict=True)
        for chunk in itertools.product(*(range(low // step, -(-high // step)) for low, high, step in sides)):
            if chunk not in kept:
                unpacked.append(chunk)
            kept[chunk] = True
            kept.move_to_end(chunk)
            while len(kept) > 4 * -(-8 // depth):
                kept.popitem(last=False)
        return np.zeros(box.shape, np.uint8)

    laid, journal = layout(shape=(40, 128, 128)), Journal(tmp_path / "x.json", {})
    fill(tmp_path / "x.zarr", laid, Making(read, "test", depth), journal, 1)
    assert len(unpacked) <= times * len(set(unpacked))


def test_boxes_are_begun_in_their_order():
    boxes, begun = [Box((z, 0, 0), (z + 1, 1, 1)) for z in range(1200)], []
    each(lambda box: begun.append(box.start[0]), boxes, 1, "test")
    assert begun == list(range(1200))


@given(shape=st.tuples(*[st.integers(1, 9)] * 3), dtype=st.sampled_from(["uint8", "uint16"]), seed=st.integers(0, 99))
def test_half_is_the_mean_of_four_rounded_half_up(shape, dtype, seed):
    fine = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    even = np.pad(fine, [(0, 0), (0, shape[1] % 2), (0, shape[2] % 2)], mode="edge").astype(np.int64)
    means = even.reshape(shape[0], even.shape[1] // 2, 2, even.shape[2] // 2, 2).mean(axis=(2, 4))
    made = halve(fine[:, ::-1][:, ::-1])
    assert made.dtype == dtype
    np.testing.assert_array_equal(made, np.floor(means + 0.5))


@given(shape=st.tuples(st.integers(1, 3), st.integers(1, 100), st.integers(1, 100)), rows=st.integers(1, 40))
def test_statistics_of_bands_are_those_of_the_section(shape, rows):
    volume = voxels(shape)
    accumulator = SectionAccumulator(shape[0], shape[1:])
    for top in range(0, shape[1], rows):
        accumulator.add(top, volume[:, top : top + rows])
    np.testing.assert_array_equal(accumulator.black, (volume <= NEAR_LIMIT).sum((1, 2)))
    np.testing.assert_array_equal(accumulator.saturated, (volume >= 255 - NEAR_LIMIT).sum((1, 2)))
    np.testing.assert_array_equal(accumulator.lowest, volume.min((1, 2)))
    np.testing.assert_array_equal(accumulator.highest, volume.max((1, 2)))
    for section, sums in zip(volume, accumulator.sums, strict=True):
        for (row, column), total in np.ndenumerate(sums):
            top, left = row * accumulator.block, column * accumulator.block
            assert section[top : top + accumulator.block, left : left + accumulator.block].sum() == total


@pytest.mark.parametrize("kind", ["zarr", "n5", "hdf", "precomputed"])
def test_a_chunk_that_is_as_large_as_a_section_is_unpacked_once(tmp_path, monkeypatch, kind):
    chunk, volume, path = (2, 50, 70), voxels((20, 101, 70)), tmp_path / "x"
    monkeypatch.setattr(pieces, "CACHE_BYTES", 0)
    if kind == "zarr":
        zarr.create_array(path, shape=volume.shape, chunks=chunk, dtype="u1")[:] = volume
    elif kind == "n5":
        n5(path, voxels=volume, blockSize=chunk[::-1])
    elif kind == "hdf":
        with h5py.File(path, "w") as file:
            file.create_dataset("raw", data=volume, chunks=chunk)
    else:
        precomputed(path, volume, chunk_size=chunk[::-1])
    unpacked, module = [], {"hdf": hdf, "precomputed": stores_precomputed}.get(kind, foreign)
    name = "_read" if kind == "hdf" else "read_foreign"
    read = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *given: unpacked.append(tuple(given[2])) or read(*given))
    source = open_source(path, "raw" if kind == "hdf" else None)
    making = Making(lambda box: source.read(box.start, box.stop), "test", source.depth)
    fill(tmp_path / "x.zarr", layout(shape=volume.shape, levels=2), making, Journal(tmp_path / "x.json", {}), 3)
    np.testing.assert_array_equal(levels(tmp_path / "x.zarr")[0], volume)
    assert sorted(unpacked) == list(itertools.product(range(0, 20, 2), (0, 50, 100), (0,)))
    np.testing.assert_array_equal(source.read((3, 49, 11), (6, 101, 12)), volume[3:6, 49:101, 11:12])
