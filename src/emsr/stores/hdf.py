"""HDF5: CREMI layout (`resolution` and `offset` in nm, z y x, on the dataset) and any other dataset of three axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import h5py
import numpy as np

from emsr.durable import settle
from emsr.stores.pieces import CACHE_BYTES, Read, check_chunk, chunkwise
from emsr.stores.source import Source, Triple, first_bytes, one_line, open_file, triple

SLACK = 2**16  # bytes that a chunk may grow by when it is packed, beside its own size
SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5")
CACHE_SLOTS = 100_003  # of HDF5's cache of chunks: a prime, far more than chunks in it


def recognises(path: Path) -> bool:
    """Whether `path` looks like HDF5, by its name or its first bytes."""
    if path.suffix.lower() in SUFFIXES:
        return True
    return path.is_file() and first_bytes(path, 8) == b"\x89HDF\r\n\x1a\n"


def open_source(path: Path, dataset: str | None) -> Source:
    """Open a dataset for reading; ValueError or FileNotFoundError, in one line, for what cannot be a volume."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not an HDF5 file: name the file")
    open_file(path).close()  # says what is denied or empty better than HDF5
    try:
        file = h5py.File(path, "r", rdcc_nbytes=CACHE_BYTES, rdcc_nslots=CACHE_SLOTS)
    except OSError as error:
        reason = one_line(error)
        unclean = "already open for write" in reason
        mend = "end its writer, or clear its mark by h5clear -s" if unclean else "copy it again"
        raise ValueError(f"{path} cannot be opened as HDF5 ({reason}): {mend}") from None
    try:
        return _source(path, file, _dataset(path, file, dataset))
    except RuntimeError as error:  # names, attributes or lists of chunks that lie outside of the file
        file.close()
        raise ValueError(f"{path} is damaged ({one_line(error)}): copy it again") from None
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
    _refuse_links(path, file, name)
    try:
        found = file[name]
    except (KeyError, OSError, ValueError, RuntimeError):
        raise ValueError(f"{path} has no dataset {name}: it has {_listing(file)}") from None
    if not isinstance(found, h5py.Dataset):
        kind = "a group" if isinstance(found, h5py.Group) else "a type"
        raise ValueError(f"{path}: {name} is {kind}, not a dataset: name one of {_listing(file)}")
    if found.file.filename != file.filename:
        raise ValueError(f"{path}: {name} is a link to the file {found.file.filename}: name that file instead")
    if found.external or found.is_virtual:
        raise ValueError(f"{path}: {name} keeps its voxels in other files: copy them into one file (h5repack)")
    if found.dtype.kind == "O" or found.shape is None:
        raise ValueError(f"{path}: {name} holds {found.dtype} and no voxels: name a dataset of grey levels or labels")
    if found.size and not found.id.get_storage_size():
        raise ValueError(f"{path}: {name} holds no data, nothing was ever written to it: write or copy it again")
    return found


def _refuse_links(path: Path, file: h5py.File, name: str) -> None:
    """ValueError where a dataset lies behind a link to another file, which is not even opened."""
    parts = name.strip("/").split("/")
    for end in range(1, len(parts) + 1):
        link = file.get("/".join(parts[:end]), getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise ValueError(f"{path}: {name} is a link to the file {link.filename}: name that file instead")


def _source(path: Path, file: h5py.File, dataset: h5py.Dataset) -> Source:
    """What the dataset says about itself, and its readers."""
    where = f"{path}: {dataset.name}"
    _check_stored(where, dataset)
    size = offset = None
    corner = triple(np.atleast_1d(dataset.attrs.get("offset", (0.0, 0.0, 0.0))), "offset", where)
    if "resolution" in dataset.attrs:
        size = triple(np.atleast_1d(dataset.attrs["resolution"]), "resolution", where, positive=True)
        offset = (corner[0] + size[0] / 2, corner[1] + size[1] / 2, corner[2] + size[2] / 2)
    shape, chunk = tuple(dataset.shape or ()), dataset.chunks or (1, 1, 1)
    read = chunkwise(partial(_read, where, dataset), shape, chunk, dataset.dtype.newbyteorder("="))
    return Source(
        path=str(path),
        dataset=str(dataset.name),
        format="hdf",
        shape=shape,
        dtype=dataset.dtype,
        voxel_size_nm=size,
        translation_nm=offset,
        read=_after(cache(partial(_check_chunks, where, dataset)), read),
        stored=partial(_stored, dataset),
        close=file.close,
        corner_nm=corner,
        depth=chunk[0],
        stored_bytes=lambda enough: int(dataset.id.get_storage_size()),
    )


def _check_stored(where: str, dataset: h5py.Dataset) -> None:
    """ValueError for filters that are not installed and chunks that take more memory than they should."""
    created = dataset.id.get_create_plist()
    for code, *_, title in map(created.get_filter, range(created.get_nfilters())):
        if not h5py.h5z.filter_avail(code):
            known = f"filter {code} {title.decode(errors='replace')}".strip()
            raise ValueError(f"{where} is packed by {known}, which is not installed: use gzip (h5repack -f GZIP=4)")
    if dataset.chunks:
        check_chunk(dataset.chunks, dataset.dtype, where)


def _after(check: Callable[[], None], read: Read) -> Read:
    """`read`, after a check that takes 10 microseconds a chunk and is not made before a voxel is wanted."""

    def checked(start: Sequence[int], stop: Sequence[int]) -> np.ndarray:
        check()
        return read(start, stop)

    return checked


def _check_chunks(where: str, dataset: h5py.Dataset) -> None:
    """ValueError for a chunk that is stored in many more bytes than it has, and so may unpack to anything."""
    if not dataset.chunks:
        return
    whole, largest = math.prod(dataset.chunks) * dataset.dtype.itemsize, [0]

    def see(chunk: h5py.h5d.StoreInfo) -> None:
        largest[0] = max(largest[0], chunk.size)

    dataset.id.chunk_iter(see)
    if largest[0] > 2 * whole + SLACK:
        raise ValueError(f"{where} has a chunk of {largest[0]} bytes for {whole} of voxels: copy or write it again")


def _read(where: str, dataset: h5py.Dataset, start: Sequence[int], stop: Sequence[int]) -> np.ndarray:
    """Voxels of a box, native byte order."""
    try:
        voxels = dataset[tuple(slice(low, high) for low, high in zip(start, stop, strict=True))]
    except (OSError, RuntimeError) as error:
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
