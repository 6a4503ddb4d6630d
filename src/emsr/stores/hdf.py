"""HDF5: CREMI layout (`resolution` and `offset` in nm, z y x, on the dataset) and any other dataset of three axes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from emsr.durable import settle
from emsr.stores.pieces import CACHE_BYTES, chunkwise
from emsr.stores.source import Source, Triple, first_bytes, one_line, triple

SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5")
CACHE_SLOTS = 100_003  # of HDF5's cache of chunks: a prime, far more than chunks in it


def recognises(path: Path) -> bool:
    """Whether `path` looks like HDF5, by its name or its first bytes."""
    if path.suffix.lower() in SUFFIXES:
        return True
    return path.is_file() and first_bytes(path, 8) == b"\x89HDF\r\n\x1a\n"


def open_source(path: Path, dataset: str | None) -> Source:
    """Open a dataset for reading; ValueError or FileNotFoundError, in one line, for what cannot be a volume."""
    if not path.is_file():
        raise ValueError(f"{path} is a folder, not an HDF5 file: name the file")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes): copy it again")
    try:
        file = h5py.File(path, "r", rdcc_nbytes=CACHE_BYTES, rdcc_nslots=CACHE_SLOTS)
    except OSError as error:
        raise ValueError(f"{path} cannot be opened as HDF5 ({one_line(error)}): copy it again") from None
    try:
        return _source(path, file, _dataset(path, file, dataset))
    except BaseException:
        file.close()
        raise


def write_volumes(path: Path, volumes: dict[str, np.ndarray], voxel_size_nm: Triple[float]) -> None:
    """Write datasets in CREMI layout: whole or not at all, by a temporary name. Offset is zero, so it is left out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_path = path.with_name(f".{path.name}.partial")
    with h5py.File(partial_path, "w") as file:
        file.attrs["file_format"] = "0.2"
        for name, voxels in volumes.items():
            chunk = tuple(min(side, most) for side, most in zip(voxels.shape, (16, 128, 128), strict=True))
            stored = file.create_dataset(name, data=voxels, chunks=chunk, compression="gzip", track_times=False)
            stored.attrs["resolution"] = np.asarray(voxel_size_nm, np.float64)
    settle(partial_path, path)


def _dataset(path: Path, file: h5py.File, name: str | None) -> h5py.Dataset:
    """The dataset called `name`; refuses what is absent, a group, or kept in other files."""
    if name is None:
        raise ValueError(f"{path}: no dataset is stated: name one of {_listing(file)}")
    try:
        found = file[name]
    except (KeyError, OSError, ValueError, RuntimeError):
        raise ValueError(f"{path} has no dataset {name}: it has {_listing(file)}") from None
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"{path}: {name} is a group, not a dataset: name one of {_listing(file)}")
    if found.file.filename != file.filename:
        raise ValueError(f"{path}: {name} is a link to the file {found.file.filename}: name that file instead")
    if found.external or found.is_virtual:
        raise ValueError(f"{path}: {name} keeps its voxels in other files: copy them into one file (h5repack)")
    if found.dtype.kind != "O" and found.shape is not None and found.size and not found.id.get_storage_size():
        raise ValueError(f"{path}: {name} holds no data, nothing was ever written to it: write or copy it again")
    return found


def _source(path: Path, file: h5py.File, dataset: h5py.Dataset) -> Source:
    """What the dataset says about itself, and its readers."""
    where = f"{path}: {dataset.name}"
    size = offset = None
    corner = triple(np.atleast_1d(dataset.attrs.get("offset", (0.0, 0.0, 0.0))), "offset", where)
    if "resolution" in dataset.attrs:
        size = triple(np.atleast_1d(dataset.attrs["resolution"]), "resolution", where, positive=True)
        offset = (corner[0] + size[0] / 2, corner[1] + size[1] / 2, corner[2] + size[2] / 2)
    shape, chunk = tuple(dataset.shape or ()), dataset.chunks or (1, 1, 1)
    return Source(
        path=str(path),
        dataset=str(dataset.name),
        format="hdf",
        shape=shape,
        dtype=dataset.dtype,
        voxel_size_nm=size,
        translation_nm=offset,
        read=chunkwise(partial(_read, where, dataset), shape, chunk, dataset.dtype.newbyteorder("=")),
        stored=partial(_stored, dataset),
        close=file.close,
        corner_nm=corner,
        depth=chunk[0],
    )


def _read(where: str, dataset: h5py.Dataset, start: Sequence[int], stop: Sequence[int]) -> np.ndarray:
    """Voxels of a box, native byte order."""
    try:
        voxels = dataset[tuple(slice(low, high) for low, high in zip(start, stop, strict=True))]
    except OSError as error:
        box = f"voxels {tuple(start)} to {tuple(stop)}"
        raise ValueError(f"{where}: {box} cannot be read ({one_line(error)}): copy the file again") from None
    return np.ascontiguousarray(voxels, dtype=dataset.dtype.newbyteorder("="))


def _stored(dataset: h5py.Dataset, z: int) -> bool:
    """Whether any chunk of section z was ever written; a dataset without chunks is written as a whole."""
    if dataset.chunks is None:
        return True
    first = z - z % dataset.chunks[0]
    return bool(dataset.id.chunk_iter(lambda chunk: True if chunk.chunk_offset[0] == first else None))


def _listing(file: h5py.File, most: int = 12) -> str:
    """Names of the datasets there are."""
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    if not names:
        return "no dataset at all"
    return ", ".join(sorted(names)[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
