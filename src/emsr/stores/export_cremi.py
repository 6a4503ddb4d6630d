"""CREMI HDF5: one level as volumes/raw or volumes/labels/neuron_ids; resolution and offset (corner) in nm, z y x."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import h5py
import numpy as np

from emsr.geometry import Box
from emsr.stores.export import Sink, Target, corner_nm, is_labels
from emsr.stores.ome import Layout
from emsr.stores.source import one_line

NAMES = ("volumes/raw", "volumes/labels/neuron_ids")


def target(laid: Layout, caution: str = "") -> Target:
    """The finest level alone: the format has no others."""
    laid = replace(laid, levels=1)
    return Target(laid, partial(_create, laid, caution), partial(_opened, laid))


def wrote(path: Path) -> bool:
    """Whether what stands at `path` looks like an export, with nothing of others in it."""
    if not (path.is_file() and h5py.is_hdf5(path)):
        return False
    found: list[str] = []
    with h5py.File(path, "r") as file:
        file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
        return file.attrs.get("file_format") == "0.2" and len(found) == 1 and found[0] in NAMES


def _name(laid: Layout) -> str:
    return NAMES[is_labels(laid)]


def _create(laid: Layout, caution: str, path: Path) -> None:
    chunk = tuple(min(pair) for pair in zip(laid.chunk, laid.shape, strict=True))
    with _file(path, "x") as file:
        file.attrs["file_format"] = "0.2"
        how = {"chunks": chunk, "compression": "gzip", "track_times": False}
        stored = file.create_dataset(_name(laid), laid.shape, laid.dtype, **how)
        stored.attrs["resolution"] = np.asarray(laid.voxel_size_nm, np.float64)
        stored.attrs["offset"] = np.asarray(corner_nm(laid), np.float64)
        if caution:
            stored.attrs["caution"] = caution


@contextmanager
def _opened(laid: Layout, path: Path, _level: int, write: bool) -> Iterator[Sink]:
    with _file(path, "r+" if write else "r") as file:
        dataset = file[_name(laid)]

        def put(box: Box, voxels: np.ndarray) -> None:
            dataset[box.slices] = voxels

        yield Sink(laid.shard, put, lambda box: dataset[box.slices])
    if write:
        with path.open("rb") as stream:
            os.fsync(stream.fileno())


@contextmanager
def _file(path: Path, mode: Literal["x", "r+", "r"]) -> Iterator[h5py.File]:
    """An open file; OSError where closing it fails, because what HDF5 kept in memory found no room on disk."""
    try:
        with h5py.File(path, mode) as file:
            yield file
    except RuntimeError as error:
        raise OSError(one_line(error, 1000)) from error
