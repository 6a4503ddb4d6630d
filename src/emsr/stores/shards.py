"""Work on an array shard by shard: Dask runs a graph of one task a shard, so many at a time as there are workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Protocol, TypeVar

import dask.threaded
import numpy as np
import tensorstore as ts
from dask.callbacks import Callback

from emsr.geometry import Box, Boxes, ShardGrid, Triple, triple
from emsr.progress import Progress, progress
from emsr.stores.source import one_line
from emsr.stores.zarr import write_box

Result = TypeVar("Result")
BATCH = 4096  # a task of Dask holds 1.5 kB until its whole graph is done


class Counted(Protocol):
    """Boxes that may be made only as they are asked for, so many."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Box]: ...


def each(function: Callable[[Box], Result], boxes: Counted, workers: int, label: str) -> list[Result]:
    """`function` of every box, in the order of `boxes`, on at most `workers` threads; the first exception is raised.

    They are also begun in that order, so that what neighbouring boxes read is still in caches. Memory is what `workers`
    calls need at once plus the results, so a function returns little.
    """
    found: list[Result] = []
    left = iter(boxes)
    with progress(len(boxes), label, "boxes") as shown, _Shown(shown):
        while batch := list(islice(left, BATCH)):
            last = len(batch) - 1  # Dask begins with the greatest name
            graph = {f"{last - number:04}": (function, box) for number, box in enumerate(batch)}
            found += dask.threaded.get(graph, list(graph), num_workers=max(1, workers))
    return found


def chunk_shape(array: ts.TensorStore) -> Triple:
    """Shape of an own array's inner chunks."""
    return triple(list(array.chunk_layout.read_chunk.shape or ())[-3:])


def shard_shape(array: ts.TensorStore) -> Triple:
    """Shape of an own array's shards."""
    return triple(list(array.chunk_layout.write_chunk.shape or ())[-3:])


def shard_boxes(array: ts.TensorStore) -> Boxes:
    """Every shard of an own array, in raster order."""
    return ShardGrid(triple(list(array.shape)[-3:]), shard_shape(array)).boxes()


def read_box(array: ts.TensorStore, box: Box) -> np.ndarray:
    """Voxels of a box (z, y, x) of an own array, with all its channels.

    ValueError, in one line, where they are missing or damaged on disk.
    """
    try:
        voxels: np.ndarray = array[(..., *box.slices)].read().result()
    except ValueError as error:
        where = array.kvstore.path if array.kvstore else "the array"
        raise ValueError(
            f"voxels {box.start} to {box.stop} of {where} cannot be read ({one_line(error)}): "
            "run the step that makes this array again"
        ) from None
    return voxels


def keep_or_write(array: ts.TensorStore, box: Box, voxels: np.ndarray) -> bool:
    """Write a whole shard unless the same voxels stand there already; says whether it wrote."""
    try:
        if np.array_equal(array[(..., *box.slices)].read().result(), voxels):
            return False
    except ValueError:
        pass  # never written, or damaged on disk: both are mended by writing
    write_box(array, box.start, voxels)
    return True


class _Shown(Callback):
    """Tells the progress bar of every task that ended."""

    def __init__(self, shown: Progress) -> None:
        super().__init__()
        self.shown = shown

    def _posttask(self, key: Any, result: Any, dsk: Any, state: Any, worker_id: Any) -> None:
        self.shown.update(1)
