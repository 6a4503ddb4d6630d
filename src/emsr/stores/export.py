"""What the formats of others have in common for writing: levels of an own array on their way out, and their proof."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from emsr.geometry import Box, ShardGrid, Triple, triple
from emsr.places import kvstore
from emsr.stores.ome import Layout
from emsr.stores.sections import SectionHashes
from emsr.stores.shards import each

# what each has: target(laid, caution, **options), whose files say the caution unless it is "", wrote(path) for what it
# may have written, and maybe OPTIONS and LARGEST_ID
FORMATS = {
    "precomputed": "export_precomputed",
    "ome-zarr-0.4": "export_ome",
    "cremi": "export_cremi",
    "tiff": "export_tiff",
    "n5": "export_n5",
}
Read = Callable[[Box], np.ndarray]


@dataclass(frozen=True)
class Sink:
    """One level in another format. Boxes are z, y, x from its first voxel on.

    `write(box, voxels)` takes the boxes of the grid of `unit`, from several threads at once.
    """

    unit: Triple
    write: Callable[[Box, np.ndarray], None]
    read: Read


@dataclass(frozen=True)
class Target:
    """How a volume will lie in another format.

    `laid` has the levels and the data type that the format takes, finest level first. `create(path)` makes what holds
    no voxels; `opened(path, level, write)` is a level's sink. `resumes` says that `create` leaves alone what it made
    before, and that a sink tells a unit that was never written from any other; `need` are the bytes that voxels take
    where that is known.
    """

    laid: Layout
    create: Callable[[Path], None]
    opened: Callable[[Path, int, bool], AbstractContextManager[Sink]]
    resumes: bool = False
    need: int = 0


def below(laid: Layout, level: int) -> Layout:
    """The layout whose finest level is `level` of another."""
    (vz, vy, vx), (tz, ty, tx) = laid.level_scale(level), laid.level_translation(level)
    return replace(
        laid,
        shape=laid.level_shape(level),
        voxel_size_nm=(vz, vy, vx),
        translation_nm=(tz, ty, tx),
        levels=laid.levels - level,
    )


def corner_nm(laid: Layout) -> tuple[float, float, float]:
    """Corner of the first voxel, which all levels share."""
    z, y, x = (at - size / 2 for at, size in zip(laid.translation_nm, laid.voxel_size_nm, strict=True))
    return z, y, x


def voxel_bytes(laid: Layout) -> int:
    """Bytes of the voxels of all levels, uncompressed."""
    return sum(math.prod(laid.level_shape(level)) for level in range(laid.levels)) * np.dtype(laid.dtype).itemsize


def only(folder: Path, pattern: str) -> bool:
    """Whether the names of all entries of a folder, which has some, match a regular expression."""
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    return bool(names) and all(re.fullmatch(pattern, name) for name in names)


def is_labels(laid: Layout) -> bool:
    """Whether the voxels are ids."""
    return laid.dtype in ("uint32", "uint64")


def chunked(
    driver: str, folder: Path, shard: Triple | None, view: Callable[[ts.TensorStore], ts.TensorStore], **how: Any
) -> AbstractContextManager[Sink]:
    """A level that tensorstore writes and reads, whose metadata stand in `folder` already.

    `view` gives it the axes z, y, x from 0 on; `shard` is what is written at once, None for one file of the format. All
    chunks are stored, also those of zeros, and one that lacks is an error.
    """
    spec = {
        "driver": driver,
        "kvstore": kvstore(folder),
        "fill_missing_data_reads": False,
        "store_data_equal_to_fill_value": True,
        **how,
    }
    array = view(ts.open(spec, open=True, read=True, write=True).result())
    unit = shard or triple(list(array.chunk_layout.write_chunk.shape or ()))

    def write(box: Box, voxels: np.ndarray) -> None:
        array[box.slices].write(voxels).result()

    def read(box: Box) -> np.ndarray:
        voxels: np.ndarray = array[box.slices].read().result()
        return voxels

    return nullcontext(Sink(unit, write, read))


def copy(own: Read, sink: Sink, shape: Triple, begun: bool, workers: int, label: str) -> int:
    """Write a level, unit by unit, each of them read whole; a worker holds one, or two of a level that was `begun`.

    Of such a level units that hold the right voxels already are left alone; says how many were written.
    """

    def write(box: Box) -> bool:
        voxels = own(box)
        if begun and _holds(sink, box, voxels):
            return False
        sink.write(box, voxels)
        return True

    return sum(each(write, ShardGrid(shape, sink.unit).boxes(), workers, label))


def _holds(sink: Sink, box: Box, voxels: np.ndarray) -> bool:
    """Whether a unit can be read and has these voxels."""
    try:
        return np.array_equal(sink.read(box), voxels)
    except ValueError:
        return False


def section_hashes(read: Read, laid: Layout, level: int, dtype: str, workers: int, label: str) -> list[str]:
    """Hashes of the sections of a level as `stores.sections` makes them, of its voxels as `dtype`."""
    (depth, height, width), (deep, high, _) = laid.level_shape(level), laid.chunk

    def of_slab(slab: Box) -> list[str]:
        hashes = SectionHashes(slab.shape[0])
        for part in ShardGrid(slab.shape, (deep, high, width)).boxes():
            hashes.add(read(part.shifted(slab.start)).astype(dtype, copy=False))
        return hashes.result()

    slabs = ShardGrid((depth, height, width), (deep, height, width)).boxes()
    return [value for slab in each(of_slab, slabs, workers, label) for value in slab]


def check_same(stated: Sequence[str], found: Sequence[str], what: str) -> None:
    """ValueError, with the first section that differs, unless two lists of hashes are equal."""
    for z, pair in enumerate(zip(stated, found, strict=True)):
        if pair[0] != pair[1]:
            raise ValueError(f"section {z} {what}: make the array again, or write to another disk")
