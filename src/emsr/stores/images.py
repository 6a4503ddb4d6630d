"""A folder of sections, one TIFF, PNG or JPEG each: numbers in names are places, and gaps in them missing sections."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from emsr.numbering import KINDS, image_names, kind, numbered
from emsr.stores import tiff
from emsr.stores.pieces import Key, Pieces, check_packed, once, window
from emsr.stores.source import Source, one_line, open_file, refuse_dataset

OPTIONS = ("pattern",)
DTYPES: dict[str, np.dtype[Any]] = {"L": np.dtype(np.uint8), "I;16": np.dtype(np.uint16)}  # by Pillow's modes
LAYOUTS = ("L", "I;16B")  # of grey PNG voxels that are stored as they are: 2 and 4 bits would be stretched

Scan = Callable[[Path], tiff.Stack]


@dataclass(frozen=True)
class Header:
    """What a section says without its voxels: sides (y, x), type, bytes of what is unpacked at once, lost detail."""

    shape: tuple[int, ...]
    dtype: np.dtype
    piece_bytes: int
    lossy: bool

    def check(self, file: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
        """ValueError for a section of another size or type."""
        if (shape, dtype) != (self.shape, self.dtype):
            raise ValueError(
                f"{file} is {list(shape)} {dtype}, other sections are {list(self.shape)} {self.dtype}: "
                "all need the same size and type, pad or convert it"
            )


@dataclass(frozen=True)
class Sections:
    """File of each section that there is, the first being section 0, and the header that all share."""

    files: dict[int, Path]
    header: Header


def recognises(path: Path) -> bool:
    """Whether `path` is a folder that holds images, or one of them."""
    return bool(image_names(path)) if path.is_dir() else path.suffix.lower() in KINDS


def open_source(path: Path, dataset: str | None, pattern: str | None = None) -> Source:
    """Open the sections of a folder; ValueError, in one line, where names or headers do not make one grey volume.

    `pattern` is a file name with {z} in the place of the number; without it, names differ in one number only.
    """
    refuse_dataset(path, dataset)
    if not path.is_dir():
        raise ValueError(f"{path} is one section, not a volume: name the folder of the sections")
    sections = _sections(path, numbered(path, pattern))
    header, scan = sections.header, lru_cache(64)(tiff.scan)
    piece = once(partial(_piece, sections, scan), header.piece_bytes)
    return Source(
        path=str(path),
        dataset=pattern or "sections",
        format="images",
        shape=(max(sections.files) + 1, *header.shape),
        dtype=header.dtype,
        voxel_size_nm=None,
        translation_nm=None,
        read=partial(_read, sections, scan, piece),
        stored=lambda z: z in sections.files,
        close=lambda: None,
        caution="its sections are compressed by JPEG, which loses detail" if header.lossy else None,
    )


def _sections(folder: Path, names: dict[int, str]) -> Sections:
    """The files as sections; ValueError where most are missing or their headers differ."""
    first, last = min(names), max(names)
    if last - first >= 2 * len(names):
        raise ValueError(
            f"{folder}: of the numbers {first} to {last} only {len(names)} have an image, so most sections would be "
            "missing: number the files by ones, or correct the pattern"
        )
    files = {number - first: folder / name for number, name in names.items()}
    header = _header(files[0])
    for file in files.values():
        other = _header(file)
        header.check(file, other.shape, other.dtype)
    return Sections(files, header)


def _header(file: Path) -> Header:
    """What one section says; ValueError or OSError where it is no grey image."""
    if not file.is_file():
        raise ValueError(f"{file} is not a file, or a link to nothing: mend or remove it")
    if kind(file.name) == "TIFF":
        stack = tiff.scan(file)
        if len(stack.shape) > 2:
            raise ValueError(f"{file} holds {stack.shape[0]} pages: keep one section a file, or name it as the source")
        return Header(stack.shape, stack.dtype, stack.piece_bytes, stack.lossy)
    with _opened(file) as image:
        shape, mode, layout = (image.height, image.width), image.mode, image.tile[0].args
    jpeg = kind(file.name) == "JPEG"
    if mode not in DTYPES or not (jpeg or layout in LAYOUTS):
        raise ValueError(f"{file} is of mode {mode} ({layout}), not grey of 8 or 16 bits: convert it to grey")
    declared = math.prod(shape) * DTYPES[mode].itemsize
    check_packed(declared, file.stat().st_size, str(file))
    return Header(shape, DTYPES[mode], declared, jpeg)


@contextmanager
def _opened(file: Path) -> Iterator[ImageFile.ImageFile]:
    """A PNG or JPEG whose header was read; sections may be larger than what Pillow takes for an attack."""
    reader = PngImageFile if kind(file.name) == "PNG" else JpegImageFile
    with open_file(file) as stream:
        try:
            yield reader(stream)
        except Exception as error:  # Pillow raises anything for a damaged file
            raise ValueError(f"{file} cannot be read as {kind(file.name)} ({one_line(error)}): copy it again") from None


def _piece(sections: Sections, scan: Scan, key: Key) -> np.ndarray:
    """Voxels (y, x) of a piece of a section: of a strip or tile, or all of a PNG or JPEG."""
    z, row, column = key
    file = sections.files[z]
    if kind(file.name) == "TIFF":
        return scan(file).piece((0, row, column))
    with _opened(file) as image:
        voxels = np.asarray(image)
    sections.header.check(file, voxels.shape, voxels.dtype)
    return voxels


def _sides(sections: Sections, scan: Scan, z: int) -> tuple[int, int]:
    """Sides of the pieces of a section, which differ between TIFFs."""
    file, header = sections.files[z], sections.header
    if kind(file.name) != "TIFF":
        return header.shape[0], header.shape[1]
    stack = scan(file)
    header.check(file, stack.shape, stack.dtype)
    return stack.sides


def _read(sections: Sections, scan: Scan, piece: Pieces, start: Sequence[int], stop: Sequence[int]) -> np.ndarray:
    """Voxels of a box (z, y, x); those of missing sections are 0."""
    voxels = np.zeros([high - low for low, high in zip(start, stop, strict=True)], sections.header.dtype)
    for z, section in enumerate(voxels, start[0]):
        if z in sections.files:
            window(piece, z, _sides(sections, scan, z), section, (start[1], start[2]))
    return voxels
