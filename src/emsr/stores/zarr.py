"""OME-Zarr: creation and voxels of emsr's own arrays (0.5, sharded, tensorstore), and reading of others' 0.4 and 0.5.

A missing shard or chunk of an own array is an error and never black; each shard has one writer, which writes it whole.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from emsr.durable import read_json, write_json
from emsr.stores.ome import Layout, array_document, group_document, level_count
from emsr.stores.source import one_line

__all__ = ["Layout", "create", "level_count", "level_total", "open_array", "recreate", "write_box"]


def create(path: Path, layout: Layout) -> None:
    """Make group and level arrays at `path`, without voxels; nothing happens where the same already stands.

    Raises ValueError where something else stands there: nothing is overwritten.
    """
    path = Path(path)
    documents = _documents(path, layout)
    for file, document in documents.items():
        if file.exists() and read_json(file) != document:
            raise ValueError(f"{path} exists with another shape, layout or place: remove it, or write elsewhere")
    if path.exists() and not (path / "zarr.json").exists() and any(path.iterdir()) and not _own(path):
        raise ValueError(f"{path} exists and is not an array of emsr: remove it, or write elsewhere")
    for file, document in documents.items():
        if not file.exists():
            write_json(file, document)


def recreate(path: Path, layout: Layout) -> None:
    """As `create`; an array of emsr with another layout, which thus holds no longer, is removed first."""
    path = Path(path)
    try:
        create(path, layout)
    except ValueError:
        if path.is_symlink() or not _own(path):
            raise
        shutil.rmtree(path)
        create(path, layout)


def open_array(path: Path, level: int = 0, *, write: bool = False, cache_bytes: int = 0) -> ts.TensorStore:
    """Open a level of an own array, axes z, y, x; reading what was never written raises ValueError (NOT_FOUND).

    Read with `array[z0:z1, y0:y1, x0:x1].read().result()`, write whole shards with `write_box`. `cache_bytes` keeps
    decoded chunks for reads that overlap.
    """
    folder = Path(path) / str(level)
    if not (folder / "zarr.json").is_file():
        raise FileNotFoundError(f"{folder} is not a zarr array: run the step that makes it")
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{folder.absolute()}/"},
        "fill_missing_data_reads": False,
        "store_data_equal_to_fill_value": True,
    }
    context = ts.Context({"cache_pool": {"total_bytes_limit": cache_bytes}})
    try:
        return ts.open(spec, open=True, read=True, write=write, context=context).result()
    except ValueError as error:
        raise ValueError(f"{folder} cannot be opened ({one_line(error)}): remove it and make it again") from None


def write_box(array: ts.TensorStore, start: tuple[int, int, int], voxels: np.ndarray) -> None:
    """Write `voxels` (z, y, x) from corner `start` on, durable when this returns. The box must be whole shards."""
    box = tuple(slice(low, low + side) for low, side in zip(start, voxels.shape, strict=True))
    array[box].write(voxels).result()


def level_total(path: Path) -> int:
    """How many levels the multiscale at `path` names."""
    document = read_json(Path(path) / "zarr.json")
    return len(document["attributes"]["ome"]["multiscales"][0]["datasets"])


def _documents(path: Path, layout: Layout) -> dict[Path, dict[str, Any]]:
    """Every metadata file of an array; the group's comes last: when it stands, all do."""
    levels = {path / str(level) / "zarr.json": array_document(layout, level) for level in range(layout.levels)}
    return {**levels, path / "zarr.json": group_document(layout, path.stem)}


def _own(path: Path) -> bool:
    """Whether `create` made what stands at `path`, or began to."""
    if not (path / "zarr.json").exists():
        return all(entry.name.isdigit() and not (entry / "c").exists() for entry in path.iterdir())
    return "emsr" in read_json(path / "zarr.json").get("attributes", {})
