"""TIFF: one page or many, classic or Big, strips or tiles, compressed or not; OME-TIFF and ImageJ say voxel sizes."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from emsr.stores.pieces import Key, Pieces, once, window
from emsr.stores.source import (
    Source,
    Triple,
    first_bytes,
    nanometres,
    one_line,
    open_file,
    refuse_dataset,
    refusing,
    single_precision,
    triple,
)
from emsr.stores.tiff_series import (
    check_places,
    check_series,
    is_whole,
    plain_sections,
    real_pages,
    refuse_cut,
    says_ome,
)

SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
JPEG = (6, 7, 33007, 34892)
UNITLESS = ("", "pixel", "pixels", "px", "reference frame", "null")
STRIP_BYTES = 2**20  # of the pieces that contiguous voxels are read in

Unpack = Callable[[bytes, int], np.ndarray]
Lengths = tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Stack:
    """Sections of a TIFF: `shape` is z, y, x, or y, x of a single page.

    `sides` are rows and columns of a piece, `places` offset and bytes of each piece of each section, row by row,
    `unpack` gives voxels (y, x) of a piece from its bytes and its number, `lengths` are the sides of a voxel (z, y, x)
    with their units. `packed` says whether pieces may take fewer bytes than their voxels.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    sides: tuple[int, int]
    places: tuple[tuple[tuple[int, int], ...], ...]
    unpack: Unpack
    lengths: Lengths | None
    lossy: bool
    packed: bool

    @property
    def piece_bytes(self) -> int:
        """Bytes of the voxels of one piece."""
        return math.prod(self.sides) * self.dtype.itemsize

    def sides_of(self, number: int) -> tuple[int, int]:
        """Rows and columns of the piece of that number that lie in its section."""
        (height, width), (rows, columns) = self.shape[-2:], self.sides
        row, column = divmod(number, -(-width // columns))
        return min(rows, height - row * rows), min(columns, width - column * columns)

    def piece(self, key: Key) -> np.ndarray:
        """Voxels (y, x) of a piece: its section, row and column; ValueError where it cannot be unpacked."""
        z, row, column = key
        number = row * -(-self.shape[-1] // self.sides[1]) + column
        offset, count = self.places[z][number]
        try:
            with self.path.open("rb") as stream:
                stream.seek(offset)
                voxels = self.unpack(stream.read(count), number)
            high, wide = self.sides_of(number)
            return np.ascontiguousarray(voxels[:high, :wide].reshape(high, wide), self.dtype)
        except Exception as error:  # a damaged file makes decoders raise anything
            where = f"{self.path}: piece {number} of section {z}"
            raise ValueError(f"{where} cannot be read ({one_line(error)}): copy the file again") from None


def recognises(path: Path) -> bool:
    """Whether `path` is a file that looks like TIFF, by its name or its first bytes."""
    return path.is_file() and (path.suffix.lower() in SUFFIXES or first_bytes(path, 4) in MAGIC)


def open_source(path: Path, dataset: str | None) -> Source:
    """Open a stack for reading; ValueError or OSError, in one line, for what is not one grey volume (z, y, x)."""
    refuse_dataset(path, dataset)
    stack = scan(path)
    piece = once(stack.piece, stack.piece_bytes)
    return Source(
        path=str(path),
        dataset="pages",
        format="tiff",
        shape=stack.shape,
        dtype=stack.dtype,
        voxel_size_nm=_voxel_size(stack),
        translation_nm=None,
        read=partial(_read, stack, piece),
        stored=lambda z: True,
        close=lambda: None,
        caution="its pages are compressed by JPEG, which loses detail" if stack.lossy else None,
    )


def scan(path: Path) -> Stack:
    """What the headers of a TIFF say, no voxel unpacked; ValueError or OSError where that is no grey stack."""
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it only logs is refused here, in one line
    with open_file(path) as stream:
        file_bytes = os.fstat(stream.fileno()).st_size
        with _damaged(path):
            file = tifffile.TiffFile(stream, name=str(path))
            whole = is_whole(file)
        if not whole:
            refuse_cut(path)
        with refusing(str(path)):
            ome = says_ome(path, file)
        with _damaged(path):
            found = list(file.series)
        with refusing(str(path)):
            check_series(path, found, ome, file_bytes)
            stack = _stack(path, file, found[0])
            check_places(stack, file_bytes)
    return stack


@contextmanager
def _damaged(path: Path) -> Iterator[None]:
    """One line for whatever tifffile raises for a damaged file."""
    try:
        yield
    except Exception as error:
        reason = one_line(error) or type(error).__name__
        raise ValueError(f"{path} cannot be opened as TIFF ({reason}): copy it again") from None


def _stack(path: Path, file: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> Stack:
    """Where the pieces of each section lie."""
    page, (height, width) = series.keyframe, series.shape[-2:]
    unpack: Unpack
    if firsts := plain_sections(series):
        row_bytes = width * series.dtype.itemsize
        rows = min(height, max(1, STRIP_BYTES // row_bytes))
        sides, unpack = (rows, width), partial(_plain, series.dtype.newbyteorder(file.byteorder), width)
        strips = [(top * row_bytes, min(rows, height - top) * row_bytes) for top in range(0, height, rows)]
        places = [[(first + offset, count) for offset, count in strips] for first in firsts]
    else:
        sides, unpack = (page.chunks[-2], page.chunks[-1]), partial(_decoded, page.decode, page.jpegtables)
        places = [list(zip(one.dataoffsets, one.databytecounts, strict=True)) for one in real_pages(series)]
    return Stack(
        path=path,
        shape=tuple(series.shape),
        dtype=series.dtype.newbyteorder("="),
        sides=sides,
        places=tuple(map(tuple, places)),
        unpack=unpack,
        lengths=_ome_lengths(file.ome_metadata) if file.ome_metadata else _imagej_lengths(file),
        lossy=page.compression in JPEG,
        packed=page.compression != 1 or page.bitspersample != 8 * series.dtype.itemsize,
    )


def _plain(dtype: np.dtype, width: int, data: bytes, number: int) -> np.ndarray:
    """Rows of voxels that lie in the file as they are."""
    return np.frombuffer(data, dtype).reshape(-1, width)


def _decoded(decode: Callable[..., Any], tables: bytes | None, data: bytes, number: int) -> np.ndarray:
    """A strip or tile, by tifffile and imagecodecs."""
    voxels: np.ndarray = decode(data, number, jpegtables=tables)[0][0, :, :, 0]
    return voxels


def _read(stack: Stack, piece: Pieces, start: Sequence[int], stop: Sequence[int]) -> np.ndarray:
    """Voxels of a box (z, y, x)."""
    voxels = np.empty([high - low for low, high in zip(start, stop, strict=True)], stack.dtype)
    for z, section in enumerate(voxels, start[0]):
        window(piece, z, stack.sides, section, (start[1], start[2]))
    return voxels


def _voxel_size(stack: Stack) -> Triple[float] | None:
    """z, y, x in nm; None where not all three are stated with a unit."""
    if stack.lengths is None or any(unit in UNITLESS for _, unit in stack.lengths):
        return None
    where = str(stack.path)
    sides = [single_precision(length * nanometres(unit, where)) for length, unit in stack.lengths]
    return triple(sides, "voxel size", where, positive=True)


def _ome_lengths(text: str) -> Lengths | None:
    """PhysicalSizeZ, Y and X of OME-XML with their units, micrometres unless stated."""
    pixels = next(node for node in ElementTree.fromstring(text).iter() if node.tag.endswith("}Pixels"))
    stated = [(pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm")) for axis in "ZYX"]
    known = tuple((float(length), unit) for length, unit in stated if length is not None)
    return known if len(known) == 3 else None


def _imagej_lengths(file: tifffile.TiffFile) -> Lengths | None:
    """Spacing of sections and inverse of pixels per unit; ImageJ writes the unit's micro sign escaped."""
    said, tags = file.imagej_metadata or {}, file.pages.first.tags
    across = [tags[name].value for name in ("YResolution", "XResolution") if name in tags]
    if "spacing" not in said or "unit" not in said or len(across) < 2 or any(pixels == 0 for pixels, _ in across):
        return None
    unit = str(said["unit"]).replace("\\u00B5", "µ")
    return (float(said["spacing"]), unit), *((units / pixels, unit) for pixels, units in across)
