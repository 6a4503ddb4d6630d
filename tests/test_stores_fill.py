"""Work on arrays shard by shard: boxes are begun in their order, and quick sums are right."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from emsr.damage import NEAR_LIMIT, SectionAccumulator
from emsr.geometry import Box
from emsr.stores.pyramid import halve
from emsr.stores.shards import each


def voxels(shape: tuple[int, ...], dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(0).integers(0, 5 if dtype == "uint64" else 256, shape).astype(dtype)


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
