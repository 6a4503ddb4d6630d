"""Small good volumes of every format that emsr reads, and what it says of them once they are spoilt."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tensorstore as ts
import zarr

import chunked
import image_files
from emsr.commands.export import export
from emsr.steps.data import ingest

VOLUME = image_files.voxels()  # uint8, 5 x 40 x 50
LAYOUT = {"region": None, "shard": [4, 32, 32], "chunk": [2, 16, 16]}
SIZE: dict[str, Any] = {"voxel_size_nm": [40, 4, 4]}
RAW = {"dataset": "volumes/raw"}
FINE = {"shard": [32, 1024, 1024], "chunk": [16, 128, 128]}  # as config.yaml has it
COLOURS = np.stack([VOLUME] * 3, -1)
FLOATS, SIGNED = VOLUME.astype("f4"), VOLUME.astype("i1")
IMAGES = "images are uint8 or uint16: map its range to 0-255"
GZIPPED = gzip.compress(bytes(2**24)) * 256  # 4 GiB in 4 MB
Row = tuple[str, str, Callable[[Path], Path], dict[str, Any], str]  # format, case, file, what is stated, the line
WIDE = {"intensity": {"low": 0, "high": 60000}}


@dataclass(frozen=True)
class Format:
    """How a good volume is made below a folder, what a config states of it, and whether voxels lose detail."""

    make: Callable[[Path], Path]
    stated: dict[str, Any]
    lossy: bool = False


def settings(path: Path | str, **stated: Any) -> dict[str, Any]:
    """What ingest is told; image, region and intensity beside the keys of a source."""
    beside = {key: stated.pop(key) for key in ("image", "region", "intensity", "hr", "shard", "chunk") if key in stated}
    source = {"path": str(path), "dataset": None, "voxel_size_nm": None, **stated}
    return {"image": "hr", "source": source, **LAYOUT, **beside}


def hdf(folder: Path, voxels: Any = VOLUME, resolution: Any = (40.0, 4.0, 4.0), **how: Any) -> Path:
    path = folder / "x.h5"
    with h5py.File(path, "w") as file:
        made = file.create_dataset("volumes/raw", data=voxels, **how)
        if resolution is not None:
            made.attrs["resolution"] = resolution
    return path


def bare(folder: Path, version: int, voxels: np.ndarray = VOLUME, **how: Any) -> Path:
    path, chunks = folder / "x.zarr", (*(1,) * (voxels.ndim - 3), 2, 16, 16)[-voxels.ndim :]
    how = {"chunks": chunks, **how}
    zarr.create_array(path, shape=voxels.shape, dtype=voxels.dtype, zarr_format=version, **how)[...] = voxels
    return path


def ome(folder: Path, version: str, voxels: np.ndarray = VOLUME, axes: str = "zyx", **how: Any) -> Path:
    path, spatial = folder / "x.zarr", [{"name": name, "type": "space", "unit": "nanometer"} for name in axes[-3:]]
    named = [*({"name": name, "type": "channel"} for name in axes[:-3]), *spatial]
    steps = [{"type": "scale", "scale": [*(1.0,) * (len(axes) - 3), 40.0, 4.0, 4.0]}]
    said = [{"axes": named, "datasets": [{"path": "s0", "coordinateTransformations": steps}]}]
    old = version == "0.4"
    attributes = {"multiscales": said} if old else {"ome": {"version": "0.5", "multiscales": said}}
    group = zarr.create_group(path, zarr_format=2 if old else 3, attributes=attributes)
    how = {"chunks": (*(1,) * (voxels.ndim - 3), 2, 16, 16), **how}
    group.create_array("s0", shape=voxels.shape, dtype=voxels.dtype, **how)[...] = voxels
    return path


def n5(folder: Path, voxels: np.ndarray = VOLUME) -> Path:
    path, sides = folder / "x.n5", [*voxels.shape[::-1]]
    spec: dict[str, Any] = {"driver": "n5", "kvstore": {"driver": "file", "path": f"{path}/"}}
    spec["metadata"] = {"dimensions": sides, "blockSize": [16, 16, 2, 1][: len(sides)], "compression": {"type": "gzip"}}
    spec["metadata"]["dataType"] = voxels.dtype.name
    ts.open(spec, create=True).result()[...] = voxels.T
    return path


def precomputed(folder: Path, voxels: np.ndarray = VOLUME, **how: Any) -> Path:
    return chunked.precomputed(folder / "em", voxels, **how)


def sharded(folder: Path) -> Path:
    path = folder / "em"
    spec: dict[str, Any] = {"driver": "neuroglancer_precomputed", "kvstore": {"driver": "file", "path": f"{path}/"}}
    spec["multiscale_metadata"] = {"type": "image", "data_type": "uint8", "num_channels": 1}
    packed = {"minishard_index_encoding": "gzip", "data_encoding": "gzip", "hash": "identity", "preshift_bits": 1}
    kind = {"@type": "neuroglancer_uint64_sharded_v1", "minishard_bits": 1, "shard_bits": 1, **packed}
    spec["scale_metadata"] = {"size": [50, 40, 5], "resolution": [4, 4, 40], "chunk_size": [16, 16, 2]}
    spec["scale_metadata"] |= {"encoding": "raw", "sharding": kind}
    ts.open(spec, create=True).result()[..., 0] = VOLUME.T
    return path


def own(folder: Path) -> Path:
    """An array of emsr itself."""
    (folder / "own").mkdir()
    ingest(settings(hdf(folder / "own"), **RAW), folder / "own/hr.json")
    return folder / "own/hr.zarr"


def exported(folder: Path, form: str, name: str, **how: Any) -> Path:
    export(own(folder).with_suffix(".json"), folder / name, format=form, **how)
    return folder / name


FORMATS = {
    "HDF5 in CREMI layout": Format(hdf, RAW),
    "HDF5 in chunks": Format(lambda p: hdf(p, resolution=None, chunks=(2, 16, 16), compression="gzip"), RAW | SIZE),
    "TIFF": Format(lambda p: image_files.tiff(p / "x.tif"), SIZE),
    "TIFF page by page": Format(lambda p: image_files.pages(p / "x.tif", VOLUME, compression="zlib"), SIZE),
    "BigTIFF": Format(lambda p: image_files.tiff(p / "x.tif", bigtiff=True, compression="zlib"), SIZE),
    "tiled TIFF": Format(lambda p: image_files.tiff(p / "x.tif", tile=(16, 16), compression="zlib"), SIZE),
    "OME-TIFF": Format(lambda p: image_files.tiff(p / "x.tif", ome=True, metadata={"axes": "ZYX"}), SIZE),
    "ImageJ TIFF": Format(lambda p: image_files.tiff(p / "x.tif", imagej=True, metadata={"axes": "ZYX"}), SIZE),
    "folder of TIFF": Format(lambda p: image_files.folder(p / "f", name="{}.tif"), SIZE),
    "folder of PNG": Format(lambda p: image_files.folder(p / "f", name="{}.png"), SIZE),
    "folder of JPEG": Format(lambda p: image_files.folder(p / "f", name="{}.jpg", quality=95), SIZE, lossy=True),
    "OME-Zarr 0.4": Format(lambda p: ome(p, "0.4"), {}),
    "OME-Zarr 0.5": Format(lambda p: ome(p, "0.5"), {}),
    "OME-Zarr 0.5 in shards": Format(lambda p: ome(p, "0.5", shards=(4, 32, 32)), {}),
    "zarr 2": Format(lambda p: bare(p, 2), SIZE),
    "zarr 3": Format(lambda p: bare(p, 3), SIZE),
    "N5": Format(n5, SIZE),
    "MRC": Format(lambda p: image_files.mrc(p / "x.mrc"), SIZE | WIDE),
    "precomputed": Format(precomputed, {}),
    "precomputed, gzip": Format(lambda p: precomputed(p, compress="gzip"), {}),
    "precomputed, JPEG": Format(lambda p: precomputed(p, encoding="jpeg"), {}, lossy=True),
    "precomputed in shards": Format(sharded, {}),
    "an array of emsr": Format(own, {}),
    "export to precomputed": Format(lambda p: exported(p, "precomputed", "out"), {}),
    "export to precomputed in shards": Format(lambda p: exported(p, "precomputed", "out", sharded=True), {}),
    "export to OME-Zarr 0.4": Format(lambda p: exported(p, "ome-zarr-0.4", "out"), {}),
    "export to N5": Format(lambda p: exported(p, "n5", "out"), {}),
    "export to CREMI": Format(lambda p: exported(p, "cremi", "out.h5"), RAW),
    "export to TIFF": Format(lambda p: exported(p, "tiff", "out.tif"), {}),
    "export to a folder of TIFF": Format(lambda p: exported(p, "tiff", "out"), SIZE),
}


def refused(path: Path, stated: dict[str, Any], out: Path, reason: str = "") -> str:
    """The line that ingest refuses a source with; it names the source and the mend, and no card is there."""
    with pytest.raises((ValueError, OSError), match=reason or None) as refusal:
        ingest(settings(path, **stated), out / "hr.json")
    line = str(refusal.value)
    assert line.isprintable(), "one line, and nothing that a terminal would obey"
    assert str(path) in line
    assert re.search(r".: .*[a-z]{3}", line.partition(str(path))[2]), "a mend comes last"
    assert not (out / "hr.json").exists()
    return line


@contextlib.contextmanager
def little_memory(spare: int = 2**30) -> Iterator[None]:
    """At most so many bytes more than now, where Linux says how many that are."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    now = int(statm.read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
    resource.setrlimit(resource.RLIMIT_AS, (now + spare, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def edited(path: Path, name: str, change: Callable[[Any], Any]) -> Path:
    """A volume whose JSON file `name` is changed in place by `change`, or replaced by what that gives."""
    said = json.loads((path / name).read_text())
    new = change(said)
    (path / name).write_text(json.dumps(said if new is None else new))
    return path


def spoilt(path: Path, file: str, change: Callable[[bytes], bytes]) -> Path:
    """A volume with other bytes in one of its files."""
    (path / file).write_bytes(change((path / file).read_bytes()))
    return path


def torn(path: Path, file: str, length: int = 40) -> Path:
    """A volume of whose file only so many bytes are left."""
    return spoilt(path, file, lambda content: content[:length])


def without(path: Path, *files: str) -> Path:
    """A volume without the files that match; at least one does."""
    found = [file for pattern in files for file in path.glob(pattern) if file.is_file()]
    assert found
    for file in found:
        file.unlink()
    return path


def ids(rows: list[Row]) -> list[str]:
    return [f"{form}, {case}" for form, case, *_ in rows]


def check_row(row: Row, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One line, soon, with little memory, nothing printed and nothing written."""
    _, _, make, stated, reason = row
    path, began = make(folder), time.monotonic()
    with little_memory():
        refused(path, stated, folder / "out", reason)
    assert time.monotonic() - began < 20, "a hundred times what it takes"
    assert not (folder / "out").exists()
    assert capfd.readouterr().out == ""
