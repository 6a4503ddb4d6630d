"""Fragments are a function of affinities, block and halo; every fragment is one connected piece of one block."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.metrics import variation_of_information

from emsr.geometry import Box, ShardGrid, Triple
from emsr.segmentation.fragments import BlockGrid, fragments_in, global_ids, pieces, watershed
from emsr.segmentation.mutex import mutex_watershed
from segmentable import cells, noise, reader, same_partition


def by_shards(affinities: np.ndarray, grid: BlockGrid, shard: Triple, cut: Callable = watershed) -> np.ndarray:
    """All fragments of a volume, shard by shard in a shuffled order."""
    volume = np.zeros(grid.shape, np.uint64)
    boxes = list(ShardGrid(grid.shape, shard).boxes())
    random.Random(7).shuffle(boxes)
    for box in boxes:
        volume[box.slices] = fragments_in(box, grid, reader(affinities), cut)
    return volume


@pytest.mark.parametrize("cut", [watershed, mutex_watershed])
@settings(max_examples=12)
@given(st.integers(0, 99), st.tuples(*[st.integers(1, 3)] * 3), st.tuples(*[st.integers(0, 4)] * 3))
def test_shards_and_their_order_change_nothing(cut: Callable, seed: int, blocks: Triple, halo: Triple) -> None:
    grid = BlockGrid((3, 21, 26), (1, 6, 8), halo)
    whole = Box((0, 0, 0), grid.shape)
    affinities = noise(grid.shape, seed)
    shard = (blocks[0], 6 * blocks[1], 8 * blocks[2])
    assert np.array_equal(by_shards(affinities, grid, shard, cut), fragments_in(whole, grid, reader(affinities), cut))


@settings(max_examples=12)
@given(st.integers(0, 99), st.integers(0, 5))
def test_a_fragment_is_one_piece_of_one_block(seed: int, halo: int) -> None:
    grid = BlockGrid((2, 20, 17), (1, 8, 8), (0, halo, halo))
    found = fragments_in(Box((0, 0, 0), grid.shape), grid, reader(noise(grid.shape, seed)))
    assert (found > 0).all()
    for fragment in np.unique(found):
        where = found == fragment
        assert ndimage.label(where)[1] == 1  # 6 neighbours
        number = (int(fragment) - 1) // 64
        assert where[grid.grid.box(grid.grid.indices[number]).slices].sum() == where.sum()


def test_a_block_of_a_whole_section_gives_the_published_fragments() -> None:
    affinities = cells((3, 40, 50), 1)
    grid = BlockGrid((3, 40, 50), (1, 40, 50))
    found = fragments_in(Box((0, 0, 0), grid.shape), grid, reader(affinities))
    assert same_partition(found, watershed(affinities))


def test_watershed_cuts_at_the_membrane() -> None:
    affinities = np.full((3, 2, 5, 9), 250, np.uint8)
    affinities[1:, 0, :, 4] = 20  # a membrane across the first section
    affinities[0] = 0  # z has no part in it
    labels = watershed(affinities)
    assert [len(np.unique(section)) for section in labels] == [2, 1]
    assert len(np.unique(labels[0, :, :4])) == len(np.unique(labels[0, :, 5:])) == 1
    assert not set(labels[0].ravel()) & set(labels[1].ravel())


def test_seeds_need_a_surface_below_a_half() -> None:
    """y + x = 255 is a surface of exactly 0.5 and no place for a seed; 256 is."""
    affinities = np.zeros((3, 1, 1, 7), np.uint8)
    affinities[1, 0, 0] = [255, 128, 127, 127, 127, 128, 255]
    affinities[2, 0, 0] = 128
    assert len(np.unique(watershed(affinities))) == 2
    affinities[1, 0, 0, 2:5] = 128
    assert len(np.unique(watershed(affinities))) == 1


def test_what_a_crop_leaves_apart_is_told_apart() -> None:
    """A bow whose two arms lie in one block and whose bend does not is two fragments there, and one without blocks."""
    affinities = np.full((3, 1, 3, 12), 250, np.uint8)
    affinities[1:, 0, 1, :8] = 0
    affinities[1, 0, 2, :8] = 0
    bow = np.zeros((1, 3, 12), np.int64)
    bow[0, [0, 2]] = 1
    bow[0, :, 8:] = 1
    grid = BlockGrid((1, 3, 12), (1, 3, 6))
    found = fragments_in(Box((0, 0, 0), grid.shape), grid, reader(affinities), lambda read: bow[..., : read.shape[3]])
    assert found[0, 0, 0] == 1
    assert found[0, 2, 0] == 2
    assert pieces(bow).max() == 1
    assert pieces(np.array([[[7, 0], [0, 7]]])).tolist() == [[[1, 0], [0, 2]]]  # a corner does not connect


def test_ids_follow_the_block_and_the_first_voxel() -> None:
    numbers = pieces(np.array([[[5, 5, 9], [0, 9, 9]], [[5, 0, 9], [3, 3, 3]]]))
    assert numbers.tolist() == [[[1, 1, 2], [0, 2, 2]], [[1, 0, 2], [3, 3, 3]]]
    grid = BlockGrid((2, 4, 6), (2, 2, 3))
    assert global_ids(numbers, grid, (0, 1, 1)).tolist() == (numbers + (numbers > 0) * 3 * 12).tolist()
    assert global_ids(numbers, grid, (0, 1, 1)).dtype == np.uint64


def test_where_the_mask_is_false_there_is_background() -> None:
    affinities = cells((2, 24, 24), 3)
    tissue = np.ones((2, 24, 24), np.uint8)
    tissue[0] = 0
    tissue[1, :, 12:] = 0
    grid = BlockGrid((2, 24, 24), (1, 12, 12), (0, 4, 4))
    found = fragments_in(Box((0, 0, 0), grid.shape), grid, reader(affinities), mask=reader(tissue))
    assert np.array_equal(found > 0, tissue > 0)


def test_a_halo_brings_blocks_closer_to_whole_sections() -> None:
    """VOI in bits against whole sections; blocks cannot be equal, and the cut of a fragment at a border is a split."""
    shape = (4, 160, 160)
    affinities = cells(shape, 5, size=12)
    whole = watershed(affinities)
    voi = {}
    for halo in (0, 24):
        grid = BlockGrid(shape, (1, 80, 80), (0, halo, halo))
        found = fragments_in(Box((0, 0, 0), shape), grid, reader(affinities)).astype(np.int64)
        cut = pieces(whole * 8 + found // (80 * 80 + 1) % 4 + 1)  # whole sections, cut at the borders of blocks
        voi[halo] = sum(variation_of_information(cut, found))
    assert voi[24] < voi[0] / 2
    assert voi[24] < 0.05


BAD_GRIDS = [
    ((4, 8, 8), (1, 0, 8), (0, 0, 0), "at least one voxel"),  # a block of nothing
    ((4, 8, 8), (1, 8, 8), (0, -1, 0), "not negative"),  # a halo that cuts the block itself
    ((2**22, 2**22, 2**21), (1, 2**21, 2**21), (0, 0, 0), "uint64"),  # ids that wrap around
]


@pytest.mark.parametrize(("shape", "block", "halo", "reason"), BAD_GRIDS)
def test_bad_grids_are_refused(shape: Triple, block: Triple, halo: Triple, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        BlockGrid(shape, block, halo)


def test_a_shard_that_cuts_a_block_is_refused() -> None:
    grid = BlockGrid((4, 20, 20), (1, 8, 8))
    assert grid.blocks(Box((0, 16, 8), (1, 20, 16))) == ((0, 2, 1),)  # the volume's end may
    for box in (Box((0, 0, 0), (1, 12, 8)), Box((0, 4, 0), (1, 8, 8))):
        with pytest.raises(ValueError, match="let block divide shard"):
            grid.blocks(box)


def test_more_fragments_than_uint32_are_refused() -> None:
    grid = BlockGrid((1, 70000, 70000), (1, 70000, 70000))
    assert global_ids(np.array([2**32 - 1]), grid, (0, 0, 0)) == 2**32 - 1
    with pytest.raises(ValueError, match=r"block \(0, 0, 0\) holds 4294967296 fragments.*lower block"):
        global_ids(np.array([2**32]), grid, (0, 0, 0))


BAD_AFFINITIES = [
    (np.zeros((3, 2, 4, 4), np.float32), "float32, not uint8: store round"),  # as the network gives them
    (np.full((3, 2, 4, 4), np.nan), "float64 with 96 values that are NaN or infinite"),  # a network that broke
    (np.zeros((2, 2, 4, 4), np.uint8), r"not \(3, z, y, x\)"),  # a channel is missing
    (np.zeros((3, 4, 4), np.uint8), r"not \(3, z, y, x\)"),  # a single section without its axis
    (np.zeros((3, 0, 4, 4), np.uint8), "with voxels"),  # an empty box
]


@pytest.mark.parametrize(("affinities", "reason"), BAD_AFFINITIES)
def test_bad_affinities_are_refused(affinities: np.ndarray, reason: str) -> None:
    for cut in (watershed, mutex_watershed):
        with pytest.raises(ValueError, match=reason):
            cut(affinities)


def test_a_reader_of_other_boxes_is_refused() -> None:
    grid = BlockGrid((2, 8, 8), (1, 8, 8))
    with pytest.raises(ValueError, match=r"\(3, 2, 8, 8\) were read for a box of \(1, 8, 8\)"):
        fragments_in(Box((0, 0, 0), (1, 8, 8)), grid, lambda _: np.zeros((3, 2, 8, 8), np.uint8))


def test_a_section_of_membrane_or_of_tissue_is_one_fragment() -> None:
    for value in (0, 255):
        assert np.array_equal(watershed(np.full((3, 1, 6, 6), value, np.uint8)), np.ones((1, 6, 6)))
