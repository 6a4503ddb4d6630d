"""MRC: one volume or stack of sections, read in place; lengths in angstrom, bytes signed as the header says.

Sources: Cheng et al., MRC2014, J. Struct. Biol. 192, 146 (2015); IMOD's mrc_format.txt for what IMOD's stamp changes.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from mrcfile.mrcinterpreter import MrcInterpreter
from mrcfile.utils import data_dtype_from_header, data_shape_from_header, spacegroup_is_volume_stack

from emsr.stores.source import (
    Source,
    Triple,
    first_bytes,
    one_line,
    open_file,
    refuse_dataset,
    single_precision,
    triple,
)

SUFFIXES = (".mrc", ".mrcs", ".rec", ".st", ".map", ".ali")
HEADER_BYTES, EXTENDED = 1024, 92  # length; where the length of the extended header stands
IMOD, SIGNED, AS_STANDARD = 1146047817, 1, 4  # stamp; flags: bytes are signed, origin has the sign of MRC2014
ANGSTROM_NM = 0.1
UNSTATED = (1.0, 1.0, 1.0)  # angstrom: what programs write that know no voxel size


def recognises(path: Path) -> bool:
    """Whether `path` is a file that looks like MRC, by its name or its map stamp."""
    return path.is_file() and (path.suffix.lower() in SUFFIXES or first_bytes(path, HEADER_BYTES)[208:212] == b"MAP ")


def open_source(path: Path, dataset: str | None) -> Source:
    """Open a volume for reading; ValueError or OSError, in one line, for what is not one volume (z, y, x).

    Signed bytes, which MRC2014 means by mode 0, are read as uint8 with 128 added: the order of grey levels stays.
    """
    refuse_dataset(path, dataset)
    with open_file(path) as stream:
        try:
            header = _header(stream.read(HEADER_BYTES))
            dtype, shape = data_dtype_from_header(header), data_shape_from_header(header)
        except Exception as error:  # a damaged header raises anything
            raise ValueError(f"{path} cannot be opened as MRC ({one_line(error)}): copy it again") from None
        _check(path, header, shape, os.fstat(stream.fileno()).st_size, dtype)
    voxels = np.memmap(path, dtype, "r", HEADER_BYTES + int(header.nsymbt), shape)
    shifted = dtype == np.int8 and _signed(header)
    native = np.dtype(np.uint8) if dtype == np.int8 else dtype.newbyteorder("=")
    size = _voxel_size(path, header)
    corner = _corner(path, header, size)
    return Source(
        path=str(path),
        dataset="data",
        format="mrc",
        shape=shape,
        dtype=native,
        voxel_size_nm=size,
        translation_nm=None,
        read=partial(_read, voxels, native, shifted),
        stored=lambda z: True,
        close=lambda: None,
        corner_nm=corner,
        caution="its bytes are signed, so 128 is added to each" if shifted else None,
    )


def _header(content: bytes) -> np.recarray:
    """The header, without the extended one behind it, which mrcfile would read whatever its length."""
    before, length, after = content[:EXTENDED], content[EXTENDED : EXTENDED + 4], content[EXTENDED + 4 :]
    header = MrcInterpreter(iostream=io.BytesIO(before + bytes(len(length)) + after), header_only=True).header
    header.flags.writeable = True
    header.nsymbt = np.frombuffer(length, header.nx.dtype)[0]
    return header


def _check(path: Path, header: np.recarray, shape: tuple[int, ...], file_bytes: int, dtype: np.dtype) -> None:
    """Refuse volume stacks, exchanged axes, and files that are shorter than they say."""
    if spacegroup_is_volume_stack(header.ispg):
        raise ValueError(f"{path} holds several volumes (space group {int(header.ispg)}): save the one that is meant")
    axes = [int(header[name]) for name in ("mapc", "mapr", "maps")]
    if axes not in ([1, 2, 3], [0, 0, 0]):
        raise ValueError(f"{path}: columns, rows and sections are axes {axes} and not x, y, z [1, 2, 3]: rewrite it")
    extended = int(header.nsymbt)
    needed = HEADER_BYTES + extended + math.prod(shape) * dtype.itemsize
    if min(*shape, extended + 1) < 1 or file_bytes < needed:
        behind = f" behind {extended} bytes of extended header" if extended else ""
        raise ValueError(
            f"{path} declares {list(shape)} {dtype}{behind}, which {file_bytes} bytes cannot hold: copy it again"
        )


def _imod_flags(header: np.recarray) -> int | None:
    """IMOD's flags, bytes 156 to 159; None where IMOD did not write the file, whose stamp is before them."""
    stamp, flags = np.frombuffer(header.extra2.tobytes()[40:48], header.nx.dtype)
    return int(flags) if stamp == IMOD else None


def _signed(header: np.recarray) -> bool:
    """Whether bytes are signed: by MRC2014 they are, IMOD says it."""
    flags = _imod_flags(header)
    return flags is None or bool(flags & SIGNED)


def _voxel_size(path: Path, header: np.recarray) -> Triple[float] | None:
    """z, y, x in nm; None where the header leaves it out or says what programs write that do not know it."""
    counts = [int(header[name]) for name in ("mz", "my", "mx")]
    lengths = [float(header.cella[name]) for name in ("z", "y", "x")]
    if min(counts) < 1 or lengths == [0, 0, 0]:
        return None
    sides = tuple(length / count for length, count in zip(lengths, counts, strict=True))
    if sides == UNSTATED:
        return None
    return triple([single_precision(side * ANGSTROM_NM) for side in sides], "voxel size", str(path), positive=True)


def _corner(path: Path, header: np.recarray, size: Triple[float] | None) -> Triple[float]:
    """Corner of the first voxel in nm: MRC does not say which part of it the origin is, so it is taken for the corner.

    Without an origin the first grid point counts. IMOD states where zero lies as seen from the first voxel, which is
    the other sign, unless its flag says not.
    """
    flags = _imod_flags(header)
    sign = 1 if flags is None or flags & AS_STANDARD else -1
    corner = [sign * float(header.origin[name]) * ANGSTROM_NM for name in ("z", "y", "x")]
    if size and not any(corner):
        starts = [int(header[name]) for name in ("nzstart", "nystart", "nxstart")]
        corner = [start * side for start, side in zip(starts, size, strict=True)]
    return triple(map(single_precision, corner), "origin", str(path))


def _read(voxels: np.ndarray, dtype: np.dtype, shifted: bool, start: Sequence[int], stop: Sequence[int]) -> np.ndarray:
    """Voxels of a box, in native byte order; signed bytes with 128 added."""
    box = voxels[tuple(slice(low, high) for low, high in zip(start, stop, strict=True))]
    if box.dtype == np.int8:
        grey = box.view(np.uint8)
        return np.ascontiguousarray(grey ^ np.uint8(128) if shifted else grey)
    return np.ascontiguousarray(box, dtype)
