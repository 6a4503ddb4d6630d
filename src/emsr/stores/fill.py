"""Level 0 of a new array, shard by shard, and level 1 on the way, so that no voxel is read back for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import tensorstore as ts

from emsr.geometry import Box, Triple, triple
from emsr.stores.journal import Journal
from emsr.stores.ome import Layout
from emsr.stores.pyramid import halve
from emsr.stores.shards import each, keep_or_write, read_box, shard_boxes, shard_shape
from emsr.stores.zarr import open_array, recreate

Make = Callable[[Box], np.ndarray]


@dataclass(frozen=True)
class Making:
    """How the shards of an array are made: `voxels` gives those of a box of level 0, `label` is for progress.

    Shards that share a run of `depth` sections are made one after the other, because those sections are read together.
    """

    voxels: Make
    label: str
    depth: int = 1


def fill(path: Path, layout: Layout, making: Making, journal: Journal, workers: int) -> int:
    """Create the array at `path` and fill level 0 and, if its shards have even sides, level 1; says how many levels.

    A shard that the `journal` names is read back and not made, unless it is missing or damaged on disk. A worker holds
    one shard of both levels and what making one needs.
    """
    recreate(path, layout)
    fine = open_array(path, write=True)
    shard, sides = partial(_shard, fine, making.voxels, journal), shard_shape(fine)

    def alone(box: Box) -> None:
        shard(box)

    with journal.open():
        if layout.levels == 1 or sides[1] % 2 or sides[2] % 2:
            each(alone, _ordered(shard_boxes(fine), sides, making.depth), workers, making.label)
            return 1
        coarse = open_array(path, 1, write=True)
        boxes = _ordered(shard_boxes(coarse), sides, making.depth)
        each(partial(_quad, shard, fine, coarse), boxes, workers, making.label)
        return 2


def _ordered(boxes: Iterable[Box], sides: Triple, depth: int) -> list[Box]:
    """Boxes of shards in raster order, but by columns within each layer of shards that share `depth` sections."""
    deep = -(-depth // sides[0]) * sides[0]
    return sorted(boxes, key=lambda box: (box.start[0] // deep, *box.start[1:], box.start[0]))


def _quad(shard: Make, fine: ts.TensorStore, coarse: ts.TensorStore, box: Box) -> None:
    """A shard of level 1 and, one by one, the four of level 0 below it."""
    voxels, sides = np.empty(box.shape, coarse.dtype.numpy_dtype), shard_shape(fine)
    whole = box.scaled(2).intersect(Box((0, 0, 0), triple(list(fine.shape))))
    for y in range(whole.start[1], whole.stop[1], sides[1]):
        for x in range(whole.start[2], whole.stop[2], sides[2]):
            part = Box((whole.start[0], y, x), (whole.stop[0], y + sides[1], x + sides[2])).intersect(whole)
            half = halve(shard(part))
            top, left = y // 2 - box.start[1], x // 2 - box.start[2]
            voxels[:, top : top + half.shape[1], left : left + half.shape[2]] = half
    keep_or_write(coarse, box, voxels)


def _shard(fine: ts.TensorStore, make: Make, journal: Journal, box: Box) -> np.ndarray:
    """Voxels of a shard that stands on disk, durably, when this returns."""
    if box.start in journal.done:
        try:
            return read_box(fine, box)
        except ValueError:
            pass  # removed or damaged since
    voxels = make(box)
    keep_or_write(fine, box, voxels)
    journal.add(box)
    return voxels
