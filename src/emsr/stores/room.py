"""What arrays and small files take on disk at most, and what is free: bytes and files, which are inodes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path

from emsr.geometry import ShardGrid, triple
from emsr.stores.ome import Layout

BLOCK = 4096
"""Bytes that file systems give out at a time, at the least: a small file takes as many."""
FRAME = 32  # bytes that zstd adds to a chunk that does not compress, besides three for each of its blocks
ZSTD_BLOCK = 2**17
RUN = 8  # bytes of a run of zeros between voxels
INDEX_ENTRY, CHECKSUM = 16, 4  # bytes of a chunk in the index of a shard, and of the index's crc32c
ITEMSIZE = {"uint8": 1, "bool": 1, "uint16": 2, "uint32": 4, "uint64": 8, "float32": 4}
LEAST_OF_IDS = 1 / 200
"""Of ids (fragments, segments, labels) far fewer bytes are written than voxels have, hardly fewer than this part."""
LEAST_OF_GREY = 1 / 10
"""The same of grey levels and affinities."""


@dataclass(frozen=True)
class Room:
    """What something takes on disk: at most `bytes`, hardly less than `least` of them, and `files`."""

    name: str
    bytes: int
    least: int
    files: int


def of_array(name: str, layout: Layout) -> Room:
    """An array with all its levels: a file for each shard of each level, one of metadata for each level and for all.

    The most that it takes is that of voxels which do not compress, as noise does not.
    """
    shapes = [layout.level_shape(level) for level in range(layout.levels)]
    sizes = [size for shape in shapes for size in _shards(layout, triple(list(shape)))]
    total = sum(count * size for count, size in sizes)
    files, part = sum(count for count, _ in sizes), _least(layout.dtype)
    metadata = layout.levels + 1
    files += metadata
    return Room(name, total + metadata * BLOCK, max(int(total * part), files * BLOCK), files)


def _least(dtype: str) -> float:
    return LEAST_OF_IDS if dtype in ("uint32", "uint64") else LEAST_OF_GREY


def _shards(layout: Layout, shape: tuple[int, int, int]) -> Iterator[tuple[int, int]]:
    """How many shards of a level take how many bytes: whole ones, and those that the volume's ends crop.

    A chunk that an end crops is stored whole, with zeros, of which each run takes a few bytes.
    """
    of_voxel = ITEMSIZE[layout.dtype] * max(1, layout.channels)
    added = FRAME + 3 * -(-prod(layout.chunk) * of_voxel // ZSTD_BLOCK)
    index = INDEX_ENTRY * prod(edge // part for edge, part in zip(layout.shard, layout.chunk, strict=True)) + CHECKSUM
    axes = [_along(*sides) for sides in zip(shape, layout.shard, strict=True)]
    for (a, z), (b, y), (c, x) in product(*axes):
        _, rows, columns = (-(-side // edge) for side, edge in zip((z, y, x), layout.chunk, strict=True))
        ends = (y if x % layout.chunk[2] else 0) + (columns if y % layout.chunk[1] else 0)
        lines = max(1, layout.channels) * z * ends
        chunks = -(-z // layout.chunk[0]) * rows * columns
        yield a * b * c, blocks(z * y * x * of_voxel + chunks * added + RUN * lines + index)


def _along(length: int, shard: int) -> list[tuple[int, int]]:
    """Along one axis, how many shards have how many voxels."""
    whole, rest = divmod(length, shard)
    return [(shards, side) for shards, side in ((whole, shard), (1, rest)) if shards and side]


def of_files(name: str, files: int, bytes_each: int) -> Room:
    """So many small files of at most so many bytes."""
    return Room(name, files * blocks(bytes_each), files * BLOCK, files)


def of_shards(name: str, layout: Layout, jobs: int) -> list[Room]:
    """An array whose shards are made by jobs: with a record for each shard, marks and stats of jobs."""
    shards = prod(ShardGrid(triple(list(layout.shape)), triple(list(layout.shard))).counts)
    each = -(-shards // jobs)
    return [
        of_array(name, layout),
        of_files(f"{name} records", shards, RECORD),
        of_files(f"{name} jobs", 4 * jobs, FIXED + OF_SHARD * each),  # a mark, stats, a log, a benchmark
    ]


RECORD = 1500  # bytes
FIXED, OF_SHARD = 2500, 100  # bytes of a mark, and of each shard that it names


def blocks(size: int) -> int:
    """Bytes that a file of `size` bytes takes."""
    return -(-size // BLOCK) * BLOCK


def total(rooms: Iterable[Room], name: str = "all") -> Room:
    """The sum."""
    found = list(rooms)
    bytes_, least, files = (sum(getattr(one, key) for one in found) for key in ("bytes", "least", "files"))
    return Room(name, bytes_, least, files)


@dataclass(frozen=True)
class Free:
    """What is free where something will be written; `files` is None where the file system counts none."""

    folder: Path
    bytes: int
    files: int | None


def free(path: Path) -> Free:
    """What is free for this user on the file system of `path`, or of the nearest folder above that exists."""
    folder = next(one for one in (path.absolute(), *path.absolute().parents) if one.is_dir())
    found = os.statvfs(folder)
    return Free(folder, found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None)


def check_room(path: Path, need: Room) -> None:
    """OSError, in one line, where what is needed at `path` fits by no means: too few bytes or too few files free."""
    have = free(path)
    if need.least > have.bytes:
        raise OSError(
            f"{need.name} needs {size(need.least)} to {size(need.bytes)} of disk and {have.folder} has "
            f"{size(have.bytes)} free: free some, or write elsewhere (results in the config)"
        )
    if have.files is not None and need.files > have.files:
        raise OSError(
            f"{need.name} needs {need.files:,} files and {have.folder} can hold {have.files:,} more: make shards "
            "larger, remove files, or write elsewhere (results in the config)"
        )


def size(count: float) -> str:
    """Bytes as people read them."""
    gib = 2**30
    return f"{count / gib:.2f} GiB" if count >= gib / 10 else f"{count / 2**20:.1f} MiB"
