"""What the headers of a TIFF say: whether the file is whole and one grey stack, and where its plain voxels begin."""

from __future__ import annotations

import itertools
import math
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tifffile

from emsr.stores.pieces import check_packed

if TYPE_CHECKING:
    from emsr.stores.tiff import Stack

SECTIONS = "ZIQ"  # names of an axis along which pages are sections: z, a sequence, and what a file does not name
MEANINGS = {"T": "times", "C": "channels", "S": "colours"}
MOST_PLANES = 2**24
PRIVATE, IMAGEJ = 32768, (50838, 50839)  # private tags may point anywhere; ImageJ's are read


def is_whole(file: tifffile.TiffFile) -> bool:
    """Whether the chain of pages has an end and its values lie in the file; in a file that was cut they do not."""
    if len(file.pages) == 0:
        return False
    return _directory_end(file, file.pages[0].offset) is not None and _directory_end(file, file.pages[-1].offset) == 0


def says_ome(path: Path, file: tifffile.TiffFile) -> bool:
    """Whether OME-XML describes the pages of this file, and not only names another file that does.

    ValueError where it declares so many planes that tifffile would only count them.
    """
    text = file.pages.first.description or ""
    if not file.is_ome or "<BinaryOnly" in text:
        return False
    sizes = re.findall(r'\bSize[ZCT]="(\d+)"', text.partition("<Pixels")[2].partition(">")[0])
    if (planes := math.prod(map(int, sizes))) > MOST_PLANES:
        raise ValueError(f"{path}: its OME-XML declares {planes} planes, {len(file.pages)} are there: save it again")
    return True


def check_series(path: Path, found: list[tifffile.TiffPageSeries], ome: bool, file_bytes: int) -> None:
    """Refuse what is cut, spread over files, or not one grey volume; `ome` as `says_ome` before series were asked."""
    if not found or any(page is None for page in found[0].pages):
        refuse_cut(path)
    if len(found) > 1:
        shapes = " and ".join(str(list(one.shape)) for one in found[:3])
        raise ValueError(f"{path} holds {len(found)} images of different kinds ({shapes}): keep one stack a file")
    (series,) = found
    page = series.keyframe
    if series.is_multifile:
        raise ValueError(f"{path} keeps sections in other files: save the stack as one file")
    if ome and series.kind != "ome":
        raise ValueError(f"{path}: its OME-XML does not describe its {len(series.pages)} pages: save the stack again")
    if series.axes not in ("YX", *(f"{axis}YX" for axis in SECTIONS)):
        said = ", ".join(f"{axis} ({MEANINGS[axis]})" if axis in MEANINGS else axis for axis in series.axes)
        mend = ", and save times that are sections as z" if "T" in series.axes else ""
        raise ValueError(f"{path} has axes {said} of {list(series.shape)}: keep one grey channel as (z, y, x){mend}")
    if page.photometric != tifffile.PHOTOMETRIC.MINISBLACK:
        name = getattr(page.photometric, "name", page.photometric)
        raise ValueError(f"{path}: grey levels are stored as {name}, not as 0 for black: convert it to plain grey")
    if page.compression not in tifffile.TIFF.DECOMPRESSORS:
        raise ValueError(f"{path}: compression {page.compression} is unknown: save it with deflate or none")
    firsts = plain_sections(series)
    if firsts and max(firsts) + _section_bytes(series) > file_bytes:
        raise ValueError(f"{path} is cut, it does not hold {list(series.shape)} voxels: copy it again")


def check_places(stack: Stack, file_bytes: int) -> None:
    """Refuse sections whose pieces are not all in the file, or are far too small for what they declare."""
    pieces = math.prod(-(-whole // side) for whole, side in zip(stack.shape[-2:], stack.sides, strict=True))
    for z, places in enumerate(stack.places):
        if len(places) != pieces:
            raise ValueError(
                f"{stack.path}: section {z} of {list(stack.shape)} lists {len(places)} pieces of {list(stack.sides)}, "
                f"it needs {pieces}: save the stack again, all pages cut alike"
            )
    if len(stack.places) != math.prod(stack.shape[:-2]):
        refuse_cut(stack.path)
    for z, places in enumerate(stack.places):
        for number, (offset, count) in enumerate(places):
            if count == 0:
                raise ValueError(
                    f"{stack.path}: piece {number} of section {z} was never written (0 bytes), and TIFF does not say "
                    "what is there: write it again, all of it"
                )
            least = 1 if stack.packed else math.prod(stack.sides_of(number)) * stack.dtype.itemsize
            if offset < 8 or count < least or offset + count > file_bytes:
                shape = list(stack.shape)
                raise ValueError(f"{stack.path} is cut, it does not hold all of section {z} of {shape}: copy it again")
            check_packed(stack.piece_bytes, count, f"{stack.path}: a piece of section {z}")


def refuse_cut(path: Path) -> None:
    """Say that pages are not in the file."""
    raise ValueError(f"{path} is cut, pages that it names are not in it: copy it again")


def plain_sections(series: tifffile.TiffPageSeries) -> Sequence[int]:
    """Where the voxels of each section begin in the file if they lie there as they are; else nothing.

    A page's own strips say so, not those of the first: writers may put them anywhere.
    """
    pages = real_pages(series)
    if not series.keyframe.is_final or not all(_one_run(page, _section_bytes(series)) for page in pages):
        return ()
    if series.dataoffset is not None:
        total = math.prod(series.shape) * series.dtype.itemsize
        return range(series.dataoffset, series.dataoffset + total, _section_bytes(series))
    return [page.dataoffsets[0] for page in pages]


def real_pages(series: tifffile.TiffPageSeries) -> list[Any]:
    """The pages that the file has."""
    return [page for page in series.pages if page is not None]


def _section_bytes(series: tifffile.TiffPageSeries) -> int:
    return math.prod(series.shape[-2:]) * int(series.dtype.itemsize)


def _one_run(page: Any, least: int) -> bool:
    """Whether the strips of a page follow one another and hold at least so many bytes."""
    places = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    joined = all(first + count == then for (first, count), (then, _) in itertools.pairwise(places))
    return joined and sum(count for _, count in places) >= least


def _directory_end(file: tifffile.TiffFile, offset: int) -> int | None:
    """Where the page after the one whose tags stand at `offset` stands, 0 for none; None if the file ends before."""
    form, stream = file.tiff, file.filehandle

    def numbers(layout: str) -> tuple[Any, ...]:
        return struct.unpack(layout, stream.read(struct.calcsize(layout)))

    try:
        stream.seek(offset)
        (tags,) = numbers(form.tagnoformat)
        for _ in range(tags):
            code, kind = numbers(form.tagformat1)
            count, value = numbers(form.tagformat2)
            held = count * struct.calcsize(form.byteorder + tifffile.TIFF.DATA_FORMATS.get(kind, "0s"))
            (place,) = struct.unpack(form.offsetformat, value)
            if held > form.tagoffsetthreshold and (code < PRIVATE or code in IMAGEJ) and place + held > stream.size:
                return None
        (following,) = numbers(form.offsetformat)
    except struct.error:
        return None
    return int(following)
