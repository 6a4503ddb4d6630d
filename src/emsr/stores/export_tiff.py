"""TIFF: one level as one BigTIFF or as a folder of sections, uncompressed, each file an OME-TIFF.

Voxel size is in the OME metadata (PhysicalSize, nm) and in the resolution tags; PositionX, Y and Z are the centre of
each section's first pixel. A caution is the description of the image. OME knows no uint64, so ids are stored as uint32.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile

from emsr.geometry import Box
from emsr.stores.export import Sink, Target, only, voxel_bytes
from emsr.stores.ome import Layout
from emsr.stores.source import first_bytes

LARGEST_ID = 2**32 - 1
CLASSIC = 2**32 - 2**25  # bytes of voxels that still leave room for the tags of a classic TIFF
SUFFIXES = (".tif", ".tiff")
BIGTIFF = (b"II+\0", b"MM\0+")  # first bytes
CENTIMETRE = 1e7  # nm
Mode = Literal["r+", "r"]


def target(laid: Layout, caution: str = "") -> Target:
    """The finest level alone; a path that ends in .tif or .tiff becomes one file, any other a folder."""
    laid = replace(laid, levels=1, dtype="uint32" if laid.dtype == "uint64" else laid.dtype)
    return Target(laid, partial(_create, laid, caution), partial(_opened, laid), need=voxel_bytes(laid))


def wrote(path: Path) -> bool:
    """Whether what stands at `path` looks like an export, with nothing of others in it."""
    if path.is_file():
        return path.suffix.lower() in SUFFIXES and first_bytes(path, 4) in BIGTIFF
    return only(path, r"\d{6,}\.tif")


def _create(laid: Layout, caution: str, path: Path) -> None:
    depth = laid.shape[0]
    if path.suffix.lower() in SUFFIXES:
        _make(laid, path, laid.shape, (0, depth), caution, bigtiff=True)
        return
    path.mkdir()
    plane = laid.shape[1:]
    bigtiff = plane[0] * plane[1] * np.dtype(laid.dtype).itemsize > CLASSIC
    for z in range(depth):
        _make(laid, _section(path, z), plane, (z, 1), caution, bigtiff)


def _section(path: Path, z: int) -> Path:
    return path / f"{z:06d}.tif"


def _make(
    laid: Layout, file: Path, shape: tuple[int, ...], sections: tuple[int, int], caution: str, bigtiff: bool
) -> None:
    """A file without voxels, its disk space taken, so that a full disk is an error here.

    `sections` are its first section and how many it has.
    """
    _, vy, vx = laid.voxel_size_nm
    said = {"Description": caution} if caution else {}
    tifffile.memmap(
        file,
        shape=shape,
        dtype=laid.dtype,
        ome=True,
        bigtiff=bigtiff,
        photometric="minisblack",
        resolution=(CENTIMETRE / vx, CENTIMETRE / vy),
        resolutionunit="CENTIMETER",
        metadata={"axes": "ZYX"[-len(shape) :], **said, **_physical(laid, *sections)},
    )
    with file.open("r+b") as stream:
        os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)


def _physical(laid: Layout, first: int, depth: int) -> dict[str, Any]:
    """Voxel size of a file and the place of its sections, as tifffile takes them."""
    found: dict[str, Any] = {"Plane": {}}
    for axis, size, at in zip("ZYX", laid.voxel_size_nm, laid.translation_nm, strict=True):
        places = [at + (first + z) * size if axis == "Z" else at for z in range(depth)]
        found |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "nm"}
        found["Plane"] |= {f"Position{axis}": places, f"Position{axis}Unit": ["nm"] * depth}
    return found


@contextmanager
def _opened(laid: Layout, path: Path, _level: int, write: bool) -> Iterator[Sink]:
    """A file is mapped for one box at a time: what was written does not stay in memory."""
    mode: Mode = "r+" if write else "r"
    whole = path.is_file()
    sink = _one_file(laid, path, mode) if whole else _folder(laid, path, mode)
    yield sink
    for file in ([path] if whole else path.iterdir()) if write else ():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())


def _one_file(laid: Layout, path: Path, mode: Mode) -> Sink:
    stored = tifffile.memmap(path, mode="r")
    mapped = partial(np.memmap, path, stored.dtype, mode, stored.offset, laid.shape)

    def put(box: Box, voxels: np.ndarray) -> None:
        mapped()[box.slices] = voxels

    return Sink(laid.shard, put, lambda box: np.array(mapped()[box.slices]))


def _folder(laid: Layout, path: Path, mode: Mode) -> Sink:
    def mapped(box: Box) -> Iterator[np.ndarray]:
        """The part of each section that a box has."""
        for z in range(box.start[0], box.stop[0]):
            yield tifffile.memmap(_section(path, z), mode=mode)[box.slices[1:]]

    def put(box: Box, voxels: np.ndarray) -> None:
        for stored, section in zip(mapped(box), voxels, strict=True):
            stored[:] = section

    return Sink(laid.shard, put, lambda box: np.stack([np.array(part) for part in mapped(box)]))
