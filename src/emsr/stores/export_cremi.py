"""CREMI HDF5: one level as volumes/raw or volumes/labels/neuron_ids; resolution and offset (corner) in nm, z y x."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from emsr.geometry import Box
from emsr.stores.export import Sink, Target, corner_nm, is_labels
from emsr.stores.ome import Layout


def target(laid: Layout) -> Target:
    """The finest level alone: the format has no others."""
    laid = replace(laid, levels=1)
    return Target(laid, partial(_create, laid), partial(_opened, laid))


def _name(laid: Layout) -> str:
    return "volumes/labels/neuron_ids" if is_labels(laid) else "volumes/raw"


def _create(laid: Layout, path: Path) -> None:
    chunk = tuple(min(pair) for pair in zip(laid.chunk, laid.shape, strict=True))
    with h5py.File(path, "x") as file:
        file.attrs["file_format"] = "0.2"
        how = {"chunks": chunk, "compression": "gzip", "track_times": False}
        stored = file.create_dataset(_name(laid), laid.shape, laid.dtype, **how)
        stored.attrs["resolution"] = np.asarray(laid.voxel_size_nm, np.float64)
        stored.attrs["offset"] = np.asarray(corner_nm(laid), np.float64)


@contextmanager
def _opened(laid: Layout, path: Path, _level: int, write: bool) -> Iterator[Sink]:
    with h5py.File(path, "r+" if write else "r") as file:
        dataset = file[_name(laid)]

        def put(box: Box, voxels: np.ndarray) -> None:
            dataset[box.slices] = voxels

        yield Sink(laid.shard, put, lambda box: dataset[box.slices])
