"""Sections that are stored in pieces (strips, tiles, images, large chunks): each is unpacked once while it is read.

Also how large a piece of any format, a chunk too, may be.
"""

from __future__ import annotations

import itertools
import math
import tempfile
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

Key = tuple[int, int, int]  # section, row and column of a piece
Pieces = Callable[[Key], np.ndarray]
Read = Callable[[Sequence[int], Sequence[int]], np.ndarray]

KEPT_BYTES = 512 * 2**20
KEPT_PIECES = 32  # at least: sections of a shard and of the next one
LARGE_BYTES = KEPT_BYTES // KEPT_PIECES
CACHE_BYTES = 2**27  # unpacked chunks that array libraries keep, because reads of shards share them
MOST_PACKED = 2**16  # no codec packs voxels tighter; a file that declares more is torn
HARMLESS_BYTES = 64 * 2**20
MOST_BYTES = 2**31  # that are unpacked at once, whatever is stored


def once(unpack: Pieces, piece_bytes: int) -> Pieces:
    """`unpack`, so that several threads ask once for a piece while it is among the last used.

    Half a GiB of pieces is kept in memory; of those larger than 16 MiB, 32 are kept in files without a name in the
    folder for temporary files, so that a section of any size is unpacked once and not once for every shard.
    """
    large = piece_bytes > LARGE_BYTES
    kept = lru_cache(max(KEPT_PIECES, KEPT_BYTES // max(1, piece_bytes)))(_mapped(unpack) if large else unpack)
    locks = [threading.Lock() for _ in range(64)]

    def ask(key: Key) -> np.ndarray:
        with locks[hash(key) % len(locks)]:
            return kept(key)

    return ask


def window(piece: Pieces, z: int, sides: tuple[int, int], out: np.ndarray, corner: tuple[int, int]) -> None:
    """Fill `out` (y, x) with voxels of section z from `corner` on; pieces are `sides` large, less at the far ends."""
    (rows, columns), (y, x), (high, wide) = sides, corner, out.shape
    for row in range(y // rows, -(-(y + high) // rows)):
        for column in range(x // columns, -(-(x + wide) // columns)):
            top, left = max(y - row * rows, 0), max(x - column * columns, 0)
            part = piece((z, row, column))[top : y + high - row * rows, left : x + wide - column * columns]
            down, right = row * rows + top - y, column * columns + left - x
            out[down : down + part.shape[0], right : right + part.shape[1]] = part


def chunkwise(read: Read, shape: Sequence[int], chunk: Sequence[int], dtype: np.dtype) -> Read:
    """`read` of an array (z, y, x) that is stored in chunks, so that none is unpacked for every shard that touches it.

    Of small ones the caches of the array's library hold a shard's. Others, for example whole sections, are read one by
    one and kept as pieces.
    """
    chunk_bytes = math.prod(chunk) * dtype.itemsize
    if len(shape) != 3 or chunk_bytes * KEPT_PIECES <= CACHE_BYTES:
        return read

    def unpack(key: Key) -> np.ndarray:
        low = [number * side for number, side in zip(key, chunk, strict=True)]
        return read(low, [min(a + side, whole) for a, side, whole in zip(low, chunk, shape, strict=True)])

    piece = once(unpack, chunk_bytes)

    def box(start: Sequence[int], stop: Sequence[int]) -> np.ndarray:
        voxels = np.empty([high - low for low, high in zip(start, stop, strict=True)], dtype)
        axes = list(zip(start, stop, chunk, strict=True))
        z, y, x = (range(low // side, -(-high // side)) for low, high, side in axes)
        for key in itertools.product(z, y, x):
            first = [max(number * side, low) for number, (low, _, side) in zip(key, axes, strict=True)]
            last = [min((number + 1) * side, high) for number, (_, high, side) in zip(key, axes, strict=True)]
            to = tuple(slice(a - low, b - low) for a, b, low in zip(first, last, start, strict=True))
            of = zip(first, last, key, chunk, strict=True)
            voxels[to] = piece(key)[tuple(slice(a - n * side, b - n * side) for a, b, n, side in of)]
        return voxels

    return box


def check_packed(declared: int, stored: int, where: str) -> None:
    """ValueError where so few stored bytes cannot be so many bytes of voxels, or where these are too many at once."""
    if stored < 1 or declared > max(HARMLESS_BYTES, MOST_PACKED * stored):
        raise ValueError(f"{where} declares {declared} bytes of voxels but stores {stored}: copy or write it again")
    if declared > MOST_BYTES:
        raise ValueError(
            f"{where} is {declared} bytes of voxels, more than 2 GiB which are unpacked at once: save it as tiled TIFF"
        )


def check_chunk(shape: Sequence[int | None], dtype: np.dtype, where: str) -> None:
    """Refuse chunks that are too large to be decoded in memory, whatever is stored."""
    if math.prod(int(side or 1) for side in shape) * dtype.itemsize > MOST_BYTES:
        raise ValueError(f"{where} has chunks {list(shape)} of {dtype}, more than 2 GiB each: write smaller chunks")


def _mapped(unpack: Pieces) -> Pieces:
    """`unpack` into a file without a name, mapped into memory, whose place on disk is free when nobody holds it."""

    def mapped(key: Key) -> np.ndarray:
        voxels = unpack(key)
        try:
            with tempfile.TemporaryFile(prefix="emsr-") as file:
                voxels.tofile(file)
                return np.memmap(file, voxels.dtype, "r", shape=voxels.shape)
        except OSError as error:
            raise OSError(
                f"{voxels.nbytes} bytes of an unpacked section or chunk cannot be kept in {tempfile.gettempdir()} "
                f"({error.strerror or error}): let TMPDIR name a folder with room for {KEPT_PIECES} of them"
            ) from None

    return mapped
