"""Sections that are stored in pieces (strips, tiles, whole images): each is unpacked once while its box is read."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from functools import lru_cache

import numpy as np

Key = tuple[int, int, int]  # section, row and column of a piece
Pieces = Callable[[Key], np.ndarray]

KEPT_BYTES = 512 * 2**20
KEPT_PIECES = 32  # at least: sections of a shard and of the next one
LARGE_BYTES = KEPT_BYTES // KEPT_PIECES
MOST_PACKED = 2**16  # no codec packs voxels tighter; a file that declares more is torn
HARMLESS_BYTES = 64 * 2**20


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


def check_packed(declared: int, stored: int, where: str) -> None:
    """ValueError where so few stored bytes cannot be so many bytes of voxels."""
    if stored < 1 or declared > max(HARMLESS_BYTES, MOST_PACKED * stored):
        raise ValueError(f"{where} declares {declared} bytes of voxels but stores {stored}: copy or write it again")


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
                f"{voxels.nbytes} bytes of an unpacked section cannot be kept in {tempfile.gettempdir()} "
                f"({error.strerror or error}): let TMPDIR name a folder with room for {KEPT_PIECES} of them"
            ) from None

    return mapped
