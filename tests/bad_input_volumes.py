"""Bad inputs 1 to 24: volumes in one file or array, in HDF5 and zarr."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bad_input import Row, source
from bad_sources import (
    COLOURS,
    FINE,
    FLOATS,
    RAW,
    SIGNED,
    SIZE,
    VOLUME,
    bare,
    edited,
    hdf,
    own,
    precomputed,
    torn,
    without,
)
from emsr.durable import read_json
from emsr.stores.zarr import open_array
from image_files import cut
from test_bad_sources import bomb, partly, partly_hdf, raw, vast_chunk, vast_hdf, virtual

BRACKETS = r"(?<= \()(?!\d).*(?=\): )"  # what a library says, as lines of emsr quote it
MADE = ("out", r"out/hr\.(zarr|unfinished).*")  # of an array that is not finished: it has no card


def ingested(folder: Path, image: str = "hr") -> np.ndarray:
    """The voxels that ingest made, read section by section, for few files may be open at a time."""
    array = open_array(folder / f"out/{image}.zarr")
    return np.stack([array[z].read().result() for z in range(array.shape[0])])


def same(expected: Any, image: str = "hr", **card: Any) -> Callable[[Path], None]:
    """That ingest made exactly these voxels, and says this of them."""

    def right(folder: Path) -> None:
        np.testing.assert_array_equal(ingested(folder, image), expected)
        found = read_json(folder / f"out/{image}.json")
        assert {key: found[key] for key in card} == card

    return right


def unclosed(folder: Path) -> Path:
    """What is left of HDF5 whose writer was killed: here a copy of a file that is still open."""
    with h5py.File(folder / "open.h5", "w", libver="latest") as file:
        file.create_dataset("volumes/raw", data=VOLUME).attrs["resolution"] = (40.0, 4.0, 4.0)
        file.flush()
        shutil.copy(folder / "open.h5", folder / "x.h5")
    (folder / "open.h5").unlink()
    return folder / "x.h5"


def flipped(folder: Path, number: int, **how: Any) -> Path:
    """One bit of a stored chunk is another."""
    path = hdf(folder, chunks=(1, 40, 50), **how)
    with h5py.File(path) as file:
        offset = file["volumes/raw"].id.get_chunk_info(number).byte_offset
    content = bytearray(path.read_bytes())
    content[offset + 100] ^= 8
    path.write_bytes(content)
    return path


def loop(file: h5py.File) -> None:
    file["volumes/raw"], file["volumes/other"] = h5py.SoftLink("/volumes/other"), h5py.SoftLink("/volumes/raw")
    file["volumes/third"] = np.ones((2, 2, 2), "u1")


def linked(file: h5py.File) -> None:
    file["volumes"] = h5py.ExternalLink("/etc/hostname", "/")


def external(file: h5py.File) -> None:
    file.create_dataset("volumes/raw", (1, 2, 2), "u1", external="/etc/hostname")


def chunks(*sides: int, **document: Any) -> Callable[[dict[str, Any]], None]:
    """zarr.json with other sides of chunks, and other keys."""

    def change(said: dict[str, Any]) -> None:
        said["chunk_grid"]["configuration"].update({"chunk_shape": sides} if sides else {})
        said.update(document)

    return change


def second(said: dict[str, Any]) -> dict[str, Any]:
    """A document of zarr 2 in the place of one of zarr 3."""
    kind = {"zarr_format": 2, "dtype": "|u1", "order": "C", "compressor": None, "filters": None, "fill_value": 0}
    return {**kind, "shape": said["shape"], "chunks": [2, 16, 16]}


def sixteen(folder: Path, **how: Any) -> Path:
    return hdf(folder, VOLUME.astype("u2") * 200, **how)


def mapped(low: float, high: float) -> np.ndarray:
    return np.asarray(np.clip(np.rint((VOLUME * 200.0 - low) / (high - low) * 255), 0, 255), np.uint8)


WIDE = {"intensity": {"low": 1000, "high": 42000}}
NAN = np.where(VOLUME > 9, FLOATS, np.nan).astype("f4")
ZARR3 = "cannot be opened as zarr .*(?=: copy)"

ROWS = [
    source(1, "HDF5 cut in half", lambda p: cut(hdf(p), 0.5), RAW, hides=BRACKETS),
    source(2, "HDF5 of 0 bytes", lambda p: cut(hdf(p), 0), RAW),
    source(3, "HDF5 that its writer did not close", unclosed, RAW, hides=BRACKETS),
    source(4, "HDF5, a flipped bit in the first chunk, packed", lambda p: flipped(p, 0, compression="gzip"), RAW,
           hides=BRACKETS),
    source(4, "HDF5, a flipped bit in the first chunk, with a checksum", lambda p: flipped(p, 0, fletcher32=True), RAW,
           hides=BRACKETS),
    source(4, "HDF5, a flipped bit further in", lambda p: flipped(p, 2, compression="gzip"), RAW, only=("ingest",),
           hides=BRACKETS, may=MADE),
    Row(4, "HDF5, a flipped bit where nothing is packed or summed",
        not_made="the file holds nothing that would tell: it is another volume, as good as the first"),
    source(5, "a dataset that is not there", hdf, {"dataset": "volumes/ram"}),
    source(6, "a group in place of a dataset", hdf, {"dataset": "volumes"}),
    source(7, "HDF5, soft links in a circle", raw(loop), RAW),
    source(8, "HDF5, a link to another file", raw(linked), RAW),
    source(8, "HDF5, voxels in another file", raw(external), RAW),
    source(8, "HDF5, a virtual dataset", raw(virtual), RAW),
    source(9, "64 TiB in 1 kB", raw(vast_hdf), RAW),
    source(9, "64 TiB in 1 kB, large shards", raw(vast_hdf), RAW | FINE),
    source(9, "a chunk of 3 GiB in 1 kB", raw(vast_chunk), RAW),
    source(9, "a chunk that unpacks to more than it declares", raw(bomb), RAW | SIZE),
    source(10, "HDF5 that was never written",
           raw(lambda file: file.create_dataset("volumes/raw", (5, 9, 9), "u1", chunks=True)), RAW),
    source(10, "HDF5, chunks that were never written: the file's value, and a section of it is missing",
           raw(partly_hdf), RAW | SIZE, code=0, only=("ingest",),
           then=lambda p: same(filled(), missing={"3": "missing"})(p)),
    source(11, "zarr.json cut", lambda p: torn(bare(p, 3), "zarr.json"), SIZE, hides=BRACKETS),
    source(12, "an unknown codec", lambda p: edited(bare(p, 3), "zarr.json", lambda d: d["codecs"]
           .append({"name": "rot13"})), SIZE, hides=BRACKETS),
    source(12, "a key that zarr 3 does not have", lambda p: edited(bare(p, 3), "zarr.json", chunks(surprise=1)), SIZE,
           hides=BRACKETS),
    source(12, "a document of zarr 2 in zarr.json", lambda p: edited(bare(p, 3), "zarr.json", second), SIZE),
    source(13, "chunks of nothing", lambda p: edited(bare(p, 3), "zarr.json", chunks(0, 16, 16)), SIZE, hides=BRACKETS),
    source(13, "an axis below 0", lambda p: edited(bare(p, 3), "zarr.json", chunks(shape=[5, -40, 50])), SIZE,
           hides=BRACKETS),
    source(14, "an axis of length 0, HDF5", lambda p: hdf(p, VOLUME[:0]), RAW),
    source(14, "an axis of length 0, zarr", lambda p: bare(p, 3, VOLUME[:0]), SIZE),
    source(15, "a chunk of emsr's own array is gone", lambda p: without(own(p), "0/c/0/0/0"), {}, hides=BRACKETS),
    source(15, "a chunk of precomputed is gone", lambda p: without(precomputed(p), "4_5_40/5-21_6-22_7-11"), {}),
    source(15, "a chunk of someone's zarr is gone: the format's value",
           lambda p: without(bare(p, 3), "c/1/1/1"), SIZE, code=0, only=("ingest",),
           then=lambda p: same(without_chunk())(p)),
    source(16, "a shard of 0 bytes", lambda p: torn(bare(p, 3, shards=(4, 32, 32)), "c/0/0/0", 0), SIZE,
           hides=BRACKETS),
    source(16, "a shard of 0 bytes further in", lambda p: torn(bare(p, 3, shards=(2, 32, 32)), "c/1/0/0", 0), SIZE,
           only=("ingest",), hides=BRACKETS, may=MADE),
    source(16, "a shard of 0 bytes of emsr's own array", lambda p: torn(own(p), "0/c/0/0/0", 0), {}, hides=BRACKETS),
    source(17, "float32 beyond 0 to 255", lambda p: hdf(p, FLOATS * 1000), RAW),
    source(17, "float32 from 0 to 1", lambda p: hdf(p, FLOATS / 255), RAW),
    source(18, "float32 with NaN", lambda p: hdf(p, NAN), RAW),
    source(18, "a voxel size of infinity", lambda p: hdf(p, resolution=(np.inf, 4.0, 4.0)), RAW),
    source(19, "uint16 with stated limits", sixteen, RAW | WIDE, code=0, only=("ingest",),
           then=same(mapped(1000, 42000), dtype="uint8")),
    source(19, "uint16 without a stated range", sixteen, RAW),
    source(19, "limits outside the range of uint16", sixteen, RAW | {"intensity": {"low": -9.0, "high": 0.0}}),
    source(20, "int8", lambda p: hdf(p, SIGNED), RAW),
    source(20, "complex", lambda p: hdf(p, VOLUME.astype("c8")), RAW),
    source(20, "bool", lambda p: hdf(p, VOLUME > 9), RAW),
    source(20, "text", lambda p: hdf(p, ["a", "b"]), RAW),
    source(20, "object, zarr 2", lambda p: edited(bare(p, 2), ".zarray", lambda d: d.update(dtype="|O")), SIZE,
           hides=BRACKETS),
    source(21, "RGB", lambda p: hdf(p, COLOURS), RAW),
    source(21, "a section of RGB", lambda p: hdf(p, COLOURS[0]), RAW),
    source(21, "two channels", lambda p: bare(p, 3, np.stack([VOLUME] * 2)), SIZE),
    source(22, "one section", lambda p: hdf(p, VOLUME[0]), RAW),
    source(23, "big-endian images", lambda p: sixteen(p, dtype=">u2"), RAW | WIDE, code=0, only=("ingest",),
           then=same(mapped(1000, 42000))),
    source(23, "big-endian zarr", lambda p: bare(p, 2, (VOLUME.astype(">u2") * 200).astype(">u2")), SIZE | WIDE, code=0,
           only=("ingest",), then=same(mapped(1000, 42000))),
    source(24, "Fortran order", lambda p: bare(p, 2, order="F"), SIZE, code=0, only=("ingest",), then=same(VOLUME)),
]  # fmt: skip


def filled() -> np.ndarray:
    """The voxels of `partly_hdf`."""
    expected = np.full_like(VOLUME, 7)
    partly(lambda *box: expected.__setitem__(box, VOLUME[box]))
    return expected


def without_chunk() -> np.ndarray:
    expected = VOLUME.copy()
    expected[2:4, 16:32, 16:32] = 0
    return expected
