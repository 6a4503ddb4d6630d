"""Coarser levels of an array, made from level 0: each halves y and x, z stays."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import tensorstore as ts

from emsr.geometry import Box, ShardGrid, triple
from emsr.stores.shards import chunk_shape, each, keep_or_write, read_box, shard_boxes
from emsr.stores.zarr import level_total, open_array


def pyramid(path: Path, workers: int, any_made: Callable[[Box], bool] | None = None, levels: int = 1) -> None:
    """Fill the levels of the array at `path` but for the first `levels`, which are there: means of 2 x 2 voxels for
    images, the most frequent id for labels.

    `any_made` says of a box of level 0 whether it may hold anything but 0; other boxes are not read.
    Bytes depend on level 0 alone. A worker holds one shard and what one row of its chunks is made from. Shards that
    hold the right voxels already are not written again.
    """
    for level in range(levels, level_total(path)):
        fine, coarse = open_array(path, level - 1), open_array(path, level, write=True)
        whole = Box((0, 0, 0), triple(list(open_array(path).shape)))

        def empty(box: Box, level: int = level, whole: Box = whole) -> bool:
            return any_made is not None and not any_made(box.scaled(2**level).intersect(whole))

        each(partial(_make_shard, fine, coarse, empty), shard_boxes(coarse), workers, f"level {level}")


def differing(path: Path, workers: int) -> list[tuple[int, Box]]:
    """Level and box of every shard of the coarser levels that lacks, or holds other voxels than the level below gives.

    A shard below which something cannot be read is not among them. Memory is that of `pyramid`.
    """
    found: list[tuple[int, Box]] = []
    for level in range(1, level_total(path)):
        fine, coarse = open_array(path, level - 1), open_array(path, level)
        boxes = shard_boxes(coarse)
        same = each(partial(_same, fine, coarse), boxes, workers, f"checking level {level}")
        found += [(level, box) for box, holds in zip(boxes, same, strict=True) if not holds]
    return found


def _same(fine: ts.TensorStore, coarse: ts.TensorStore, box: Box) -> bool:
    """Whether a shard of the coarse level holds what the fine one gives, as far as that can be read."""
    try:
        wanted = _coarser(fine, coarse, box)
    except (OSError, ValueError):
        return True
    try:
        return np.array_equal(read_box(coarse, box), wanted)
    except (OSError, ValueError):
        return False


def halve(voxels: np.ndarray) -> np.ndarray:
    """(z, y, x) to (z, y/2, x/2), rounded up; the last row or column of an odd side stands for itself.

    uint8 and uint16 give the mean of four, rounded half up; other integers, which are ids, the most frequent of the
    four, of several the first in raster order.
    """
    _, y, x = voxels.shape
    even = np.pad(voxels, ((0, 0), (0, y % 2), (0, x % 2)), mode="edge") if y % 2 or x % 2 else voxels
    if voxels.dtype == np.uint8:
        return _mean_bytes(even)
    four = even[:, ::2, ::2], even[:, ::2, 1::2], even[:, 1::2, ::2], even[:, 1::2, 1::2]
    return _mean(*four) if voxels.dtype == np.uint16 else _mode(*four)


def _mean_bytes(even: np.ndarray) -> np.ndarray:
    """Mean of four bytes, rounded half up; two along x are added as the halves of one number, which is quicker."""
    pairs = np.ascontiguousarray(even).view("<u2")
    across = (pairs >> 8) + (pairs & 255)
    total = across[:, ::2] + across[:, 1::2]
    total += 2
    total >>= 2
    return total.astype(np.uint8)


def _mean(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Mean of four, rounded half up."""
    total = a.astype(np.uint32)
    for other in (b, c, d):
        total += other
    total += 2
    total >>= 2
    return total.astype(a.dtype)


def _mode(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Most frequent of four: the first value that occurs twice, else the first."""
    first = (a == b) | (a == c) | (a == d)
    second = (b == c) | (b == d)
    return np.where(first, a, np.where(second, b, np.where(c == d, c, a)))


def _make_shard(fine: ts.TensorStore, coarse: ts.TensorStore, empty: Callable[[Box], bool], box: Box) -> None:
    """One shard of the coarse level is written."""
    blank = empty(box)
    voxels = np.zeros(box.shape, coarse.dtype.numpy_dtype) if blank else _coarser(fine, coarse, box)
    keep_or_write(coarse, box, voxels)


def _coarser(fine: ts.TensorStore, coarse: ts.TensorStore, box: Box) -> np.ndarray:
    """Voxels of one shard of the coarse level, from chunk-sized parts of the fine one."""
    voxels = np.zeros(box.shape, coarse.dtype.numpy_dtype)
    bounds = Box((0, 0, 0), triple(list(fine.shape)))
    parts = ShardGrid(box.shape, (*chunk_shape(coarse)[:2], box.shape[2]))
    for part in map(parts.box, parts.indices):
        voxels[part.slices] = halve(read_box(fine, part.shifted(box.start).scaled(2).intersect(bounds)))
    return voxels
