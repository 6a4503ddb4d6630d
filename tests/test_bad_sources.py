"""Bad input of HDF5 and zarr: one line that names the source, why and the mend, before anything is written.

The tables have a row for each format and case that can be: truncated, empty, wrong axes, wrong type, missing chunk,
huge declared size, RGB, sections of different sizes. N5 and precomputed are in test_bad_sources_blocks.py; TIFF, PNG,
JPEG and MRC in test_bad_sources_images.py; files cut at many lengths, exports of emsr among them, in
test_bad_sources_cut.py; what may not be read, and the command line, in test_bad_sources_denied.py; servers (http, s3)
that send half, nothing or no permission in test_stores_remote.py. Cases that cannot be:

- sections of different sizes in one array (HDF5, zarr, N5, precomputed, MRC): it has one shape;
- wrong axes of precomputed and of a folder: always x, y, z and channels; always y, x;
- a missing chunk as an error in HDF5, zarr and N5, which give it a value (`FILLED` below), and in MRC, which has none;
- complex, bool and object in N5 and precomputed: the formats have none.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tensorstore as ts
import zarr

from bad_sources import (
    COLOURS,
    FINE,
    FLOATS,
    GZIPPED,
    IMAGES,
    RAW,
    SIGNED,
    SIZE,
    VOLUME,
    Row,
    bare,
    check_row,
    edited,
    hdf,
    ids,
    ome,
    own,
    settings,
    spoilt,
    torn,
    without,
)
from emsr.durable import read_json
from emsr.steps.data import ingest
from emsr.stores.zarr import open_array
from image_files import cut


def raw(make: Callable[[h5py.File], object]) -> Callable[[Path], Path]:
    def made(folder: Path) -> Path:
        with h5py.File(folder / "x.h5", "w") as file:
            make(file)
        return folder / "x.h5"

    return made


def vast_hdf(file: h5py.File) -> None:
    """64 TiB, of which one voxel was written."""
    made = file.create_dataset("volumes/raw", (2**14, 2**16, 2**16), "u1", chunks=(8, 64, 64))
    made.attrs["resolution"], made[0, 0, 0] = (40.0, 4.0, 4.0), 1


def vast_chunk(file: h5py.File) -> None:
    made = file.create_dataset("volumes/raw", (9, 2**16, 2**16), "u1", chunks=(1, 2**16, 3 * 2**14))
    made.id.write_direct_chunk((0, 0, 0), b"1")


def bomb(file: h5py.File) -> None:
    """A chunk of 10 kB that unpacks to 64 MB."""
    made = file.create_dataset("volumes/raw", VOLUME.shape, "u1", chunks=VOLUME.shape, compression="gzip")
    packer = zlib.compressobj(0)
    made.id.write_direct_chunk((0, 0, 0), packer.compress(bytes(2**26)) + packer.flush())


def unknown_filter(file: h5py.File) -> None:
    how = {"chunks": VOLUME.shape, "compression": 32099, "allow_unknown_filter": True}
    made = file.create_dataset("volumes/raw", VOLUME.shape, "u1", **how)
    made.id.write_direct_chunk((0, 0, 0), VOLUME.tobytes())


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((2, 2, 2), "u1")
    layout[...] = h5py.VirtualSource("/etc/hostname", "x", (2, 2, 2))
    file.create_virtual_dataset("volumes/raw", layout)


def vast_zarr(folder: Path, shape: tuple[int, ...] = (2**14, 2**16, 2**16)) -> Path:
    zarr.create_array(folder / "x", shape=shape, chunks=(1, 64, 64), dtype="u1")[0, :64, :64] = 1
    return folder / "x"


HDF: list[Row] = [
    ("HDF5", "truncated", lambda p: cut(hdf(p), 0.5), RAW, r"opened as HDF5 \(.*truncated file.*\): copy it again"),
    ("HDF5", "empty", lambda p: cut(hdf(p), 0), RAW, r"is empty \(0 bytes\): copy it again"),
    ("HDF5", "an axis of length 0", lambda p: hdf(p, VOLUME[:0]), RAW, r"\[0, 40, 50\] holds no voxel: an axis"),
    ("HDF5", "two axes", lambda p: hdf(p, VOLUME[0]), RAW, "is one section, not a volume: stack sections to"),
    ("HDF5", "four axes", lambda p: hdf(p, VOLUME[None]), RAW, r"has 4 axes: keep one channel as \(z, y, x\)"),
    ("HDF5", "axes reversed", hdf, {**RAW, "voxel_size_nm": [4, 4, 40]}, r"\(reversed axes\?\): correct the one"),
    ("HDF5", "RGB volume", lambda p: hdf(p, COLOURS), RAW, "has 4 axes: keep one channel"),
    ("HDF5", "RGB section", lambda p: hdf(p, COLOURS[0]), RAW, "looks like RGB, colour last: convert it to grey"),
    ("HDF5", "float", lambda p: hdf(p, FLOATS), RAW, f"is float32, {IMAGES}"),
    ("HDF5", "signed", lambda p: hdf(p, SIGNED), RAW, f"is int8, {IMAGES}"),
    ("HDF5", "complex", lambda p: hdf(p, VOLUME.astype("c8")), RAW, f"is complex64, {IMAGES}"),
    ("HDF5", "bool", lambda p: hdf(p, VOLUME > 9), RAW, f"is bool, {IMAGES}"),
    ("HDF5", "text", lambda p: hdf(p, ["a", "b"]), RAW, "holds object and no voxels: name a dataset of grey levels"),
    ("HDF5", "nothing at all", lambda p: hdf(p, h5py.Empty("u1")), RAW, "holds uint8 and no voxels: name a dataset"),
    ("HDF5", "records", lambda p: hdf(p, np.ones((4, 4, 4), "u1,u1")), RAW, f", {IMAGES}"),
    ("HDF5", "never written", raw(lambda f: f.create_dataset("volumes/raw", (5, 9, 9), "u1", chunks=True)), RAW,
     "holds no data, nothing was ever written to it: write or copy it again"),
    ("HDF5", "64 TiB in 1 kB", raw(vast_hdf), RAW, "17179869184 shards of .*: enlarge ingest.shard, or state a region"),
    ("HDF5", "64 TiB, large shards", raw(vast_hdf), RAW | FINE,
     "declares 70368744177664 bytes of voxels, but only 32768 are stored: copy it again, or state a region"),
    ("HDF5", "chunks of 3 GiB", raw(vast_chunk), RAW, "has chunks .* of uint8, more than 2 GiB each: write smaller"),
    ("HDF5", "a chunk that unpacks to more than it declares", raw(bomb), RAW | SIZE,
     r"has a chunk of 6\d{7} bytes for 10000 of voxels: copy or write it again"),
    ("HDF5", "another filter", raw(unknown_filter), RAW, "packed by filter 32099, which is not installed: use gzip"),
    ("HDF5", "a link to a file", raw(lambda f: f.__setitem__("volumes", h5py.ExternalLink("/etc/hostname", "/"))), RAW,
     "volumes/raw is a link to the file /etc/hostname: name that file instead"),
    ("HDF5", "voxels of a file", raw(lambda f: f.create_dataset("volumes/raw", (1, 2, 2), "u1",
     external="/etc/hostname")), RAW, r"keeps its voxels in other files: copy them into one file"),
    ("HDF5", "a virtual dataset", raw(virtual), RAW, r"keeps its voxels in other files: copy them into one file"),
    ("HDF5", "another resolution", lambda p: hdf(p, resolution="40 nm"), RAW, "cannot be understood .*: mend its meta"),
]  # fmt: skip
ZARR: list[Row] = [
    ("zarr 2", "truncated", lambda p: torn(bare(p, 2), ".zarray"), SIZE, "is not JSON .*: copy"),
    ("zarr 3", "truncated", lambda p: torn(bare(p, 3), "zarr.json"), SIZE, "is not JSON .*: copy"),
    ("zarr 2", "empty", lambda p: torn(bare(p, 2), ".zarray", 0), SIZE, "is not JSON .*: copy"),
    ("zarr 3", "empty", lambda p: torn(bare(p, 3), "zarr.json", 0), SIZE, "is not JSON .*: copy"),
    ("zarr 3", "an empty folder", lambda p: (p / "x").mkdir() or p / "x", SIZE, "is of no format .*: convert it"),
    ("zarr 2", "half a chunk", lambda p: torn(bare(p, 2), "0.0.0", 9), SIZE, '"0.0.0": .*: copy it'),
    ("zarr 3", "half a chunk", lambda p: torn(bare(p, 3), "c/0/0/0", 9), SIZE, '"c/0/0/0": .*: copy it'),
    ("zarr 3", "a bomb", lambda p: spoilt(bare(p, 3, compressors=zarr.codecs.GzipCodec()), "c/0/0/0",
     lambda b: GZIPPED), SIZE, "End of data expected; at byte .*: copy it again"),
    ("zarr 2", "two axes", lambda p: bare(p, 2, VOLUME[0]), SIZE, "is one section, not a volume: stack"),
    ("zarr 3", "two channels", lambda p: bare(p, 3, np.stack([VOLUME] * 2)), SIZE, "has 4 axes: keep one channel"),
    ("zarr 3", "RGB", lambda p: bare(p, 3, COLOURS, chunks=(2, 16, 16, 3)), SIZE, "has 4 axes: keep one channel"),
    ("zarr 2", "RGB section", lambda p: bare(p, 2, COLOURS[0]), SIZE, "looks like RGB, colour last"),
    ("zarr 3", "an axis of length 0", lambda p: bare(p, 3, VOLUME[:0]), SIZE, "holds no data, .*: write or copy it"),
    ("zarr 2", "an axis below 0", lambda p: edited(bare(p, 2), ".zarray", lambda d: d.update(shape=[5, -1, 50])), SIZE,
     'cannot be opened as zarr .*"shape".*: copy it again'),
    ("zarr 3", "chunks of nothing", lambda p: edited(bare(p, 3), "zarr.json", lambda d: d["chunk_grid"]["configuration"]
     .update(chunk_shape=[0, 16, 16])), SIZE, r"cannot be opened as zarr .*: copy it again"),
    ("zarr 3", "chunks of 2 PiB", lambda p: edited(bare(p, 3), "zarr.json", lambda d: d["chunk_grid"]["configuration"]
     .update(chunk_shape=[2**17] * 3)), SIZE, "more than 2 GiB each: write smaller|cannot be opened .*: copy it again"),
    ("zarr 3", "an unknown codec", lambda p: edited(bare(p, 3), "zarr.json", lambda d: d["codecs"]
     .append({"name": "rot13"})), SIZE, '"rot13" is not registered.*: copy it'),
    ("zarr 2", "an unknown type", lambda p: edited(bare(p, 2), ".zarray", lambda d: d.update(dtype="|O")), SIZE,
     r'"dtype".*: copy it again'),
    ("zarr 2", "float", lambda p: bare(p, 2, FLOATS), SIZE, f"is float32, {IMAGES}"),
    ("zarr 3", "signed", lambda p: bare(p, 3, SIGNED), SIZE, f"is int8, {IMAGES}"),
    ("zarr 3", "complex", lambda p: bare(p, 3, VOLUME.astype("c8")), SIZE, f"is complex64, {IMAGES}"),
    ("zarr 2", "bool", lambda p: bare(p, 2, VOLUME > 9), SIZE, f"is bool, {IMAGES}"),
    ("zarr 2", "nothing stored", lambda p: without(bare(p, 2), "*.*.*"), SIZE, "holds no data, .*: write or copy it"),
    ("zarr 3", "10^12 sections", lambda p: vast_zarr(p, (10**12, 64, 64)), SIZE, "1000000000000 shards of .*: enlarge"),
    ("zarr 3", "64 TiB, large shards", vast_zarr, SIZE | FINE, "declares 70368744177664 bytes .* are stored: copy it"),
    ("zarr 3", "a shard of 2^48 chunks", lambda p: edited(bare(p, 3, shards=(4, 32, 32)), "zarr.json", lambda d: (
     d.update(shape=[2**16] * 3), d["chunk_grid"]["configuration"].update(chunk_shape=[2**16] * 3),
     d["codecs"][0]["configuration"].update(chunk_shape=[1, 1, 1]), d)[-1]), SIZE, "opened as zarr .*: copy it again"),
    ("OME-Zarr 0.4", "truncated", lambda p: torn(ome(p, "0.4"), ".zattrs", 40), {}, "is not JSON .*: copy"),
    ("OME-Zarr 0.5", "truncated", lambda p: torn(ome(p, "0.5"), "zarr.json", 40), {}, "is not JSON .*: copy"),
    ("OME-Zarr 0.4", "axes reversed", lambda p: ome(p, "0.4", axes="xyz"), {}, "axes are x, y, z: rewrite it with"),
    ("OME-Zarr 0.5", "axes reversed", lambda p: ome(p, "0.5", axes="xyz"), {}, "axes are x, y, z: rewrite it with"),
    ("OME-Zarr 0.5", "fewer axes than it has", lambda p: ome(p, "0.5", axes="yx"), {}, r"for each of 2 axes\): mend"),
    ("OME-Zarr 0.5", "RGB", lambda p: ome(p, "0.5", np.stack([VOLUME] * 3), "czyx"), {}, "has 4 axes: keep one"),
    ("OME-Zarr 0.4", "float", lambda p: ome(p, "0.4", FLOATS), {}, f"is float32, {IMAGES}"),
    ("OME-Zarr 0.5", "no level", lambda p: edited(ome(p, "0.5"), "zarr.json", lambda d: d["attributes"]["ome"]
     ["multiscales"][0].update(datasets=[])), {}, r"multiscales are wrong \(they name no level\): mend the OME-Zarr"),
    ("OME-Zarr 0.5", "a level outside", lambda p: edited(ome(p, "0.5"), "zarr.json", lambda d: d["attributes"]["ome"]
     ["multiscales"][0]["datasets"][0].update(path="../../x")), {}, "its level ../../x lies outside: mend the OME"),
    ("OME-Zarr 0.4", "no multiscale", lambda p: edited(ome(p, "0.4"), ".zattrs", lambda d: {"multiscales": 5}), {},
     "multiscales are wrong .*: mend the OME-Zarr metadata"),
    ("OME-Zarr 0.5", "nothing stored", lambda p: without(ome(p, "0.5"), "s0/c/*/*/*"), {}, "no data, .*: write or"),
    ("an array of emsr", "a shard is lost", lambda p: without(own(p), "0/c/0/0/0"), {}, '"c/0/0/0".*: copy it again'),
]  # fmt: skip


@pytest.mark.parametrize("row", HDF + ZARR, ids=ids(HDF + ZARR))
def test_a_bad_source_is_one_line_before_anything_is_written(tmp_path, capfd, row):
    check_row(row, tmp_path, capfd)


# what was never stored, where the format gives it a value


def partly(write: Callable[..., None]) -> None:
    """All of sections 0, 2 and 4, a chunk of section 1, nothing of section 3."""
    for z in (0, 2, 4):
        write(slice(z, z + 1), slice(0, 40), slice(0, 50))
    write(slice(1, 2), slice(0, 16), slice(0, 16))


def partly_hdf(file: h5py.File) -> None:
    made = file.create_dataset("volumes/raw", VOLUME.shape, "u1", chunks=(1, 16, 16), fillvalue=7)
    partly(lambda *box: made.__setitem__(box, VOLUME[box]))


def partly_zarr(folder: Path, version: int, **how: Any) -> Path:
    how = {"shape": VOLUME.shape, "chunks": (1, 16, 16), "dtype": "u1", "fill_value": 7, **how}
    made = zarr.create_array(folder / "x", zarr_format=version, **how)
    partly(lambda *box: made.__setitem__(box, VOLUME[box]))
    return folder / "x"


def partly_n5(folder: Path) -> Path:
    spec = {"driver": "n5", "kvstore": {"driver": "file", "path": f"{folder}/x/"}}
    how = {"dimensions": [50, 40, 5], "blockSize": [16, 16, 1], "dataType": "uint8", "compression": {"type": "raw"}}
    made = ts.open({**spec, "metadata": how}, create=True).result().T
    partly(lambda *box: made.__setitem__(box, VOLUME[box]))
    return folder / "x"


FILLED = [
    ("HDF5", raw(partly_hdf), RAW, 7),
    ("zarr 2", lambda p: partly_zarr(p, 2), {}, 7),
    ("zarr 3", lambda p: partly_zarr(p, 3), {}, 7),
    ("zarr 3 in shards", lambda p: partly_zarr(p, 3, shards=(1, 32, 32)), {}, 7),
    ("N5", partly_n5, {}, 0),
]


@pytest.mark.parametrize(("form", "make", "stated", "value"), FILLED, ids=[form for form, *_ in FILLED])
def test_what_was_never_stored_is_the_value_of_the_format_and_a_section_of_it_is_missing(
    tmp_path, form, make, stated, value
):
    ingest(settings(make(tmp_path), **stated, **SIZE), tmp_path / "out/hr.json")
    expected = np.full_like(VOLUME, value)
    partly(lambda *box: expected.__setitem__(box, VOLUME[box]))
    np.testing.assert_array_equal(open_array(tmp_path / "out/hr.zarr")[...].read().result(), expected)
    assert read_json(tmp_path / "out/hr.json")["missing"] == {"3": "missing"}
