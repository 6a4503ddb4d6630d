"""OME-Zarr 0.4 (zarr v2) for what does not read 0.5: levels 0, 1, ... as in emsr's own arrays, in unsharded chunks."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from emsr.durable import write_json
from emsr.stores.export import Sink, Target, chunked, is_labels, only
from emsr.stores.ome import Layout, group_document

COMPRESSOR = {"id": "blosc", "cname": "zstd", "clevel": 5, "shuffle": 1, "blocksize": 0}


def target(laid: Layout, caution: str = "") -> Target:
    """All levels."""
    return Target(laid, partial(_create, laid, caution), partial(_opened, laid), resumes=True)


def wrote(path: Path) -> bool:
    """Whether what stands at `path` looks like an export, with nothing of others in it."""
    return (path / ".zattrs").is_file() and only(path, r"\.zgroup|\.zattrs|\d+")


def _create(laid: Layout, caution: str, path: Path) -> None:
    multiscale = group_document(laid, path.stem)["attributes"]["ome"]["multiscales"][0]
    attributes: dict[str, Any] = {"multiscales": [{**multiscale, "version": "0.4"}]}
    if is_labels(laid):
        attributes["image-label"] = {"version": "0.4"}
    if caution:
        attributes["caution"] = caution
    for level in range(laid.levels):
        write_json(path / str(level) / ".zarray", _array(laid, level))
    write_json(path / ".zattrs", attributes)
    write_json(path / ".zgroup", {"zarr_format": 2})


def _array(laid: Layout, level: int) -> dict[str, Any]:
    return {
        "zarr_format": 2,
        "shape": list(laid.level_shape(level)),
        "chunks": list(laid.chunk),
        "dtype": np.dtype(laid.dtype).newbyteorder("<").str,
        "compressor": COMPRESSOR,
        "fill_value": 0,
        "order": "C",
        "filters": None,
        "dimension_separator": "/",
    }


def _opened(laid: Layout, path: Path, level: int, _write: bool) -> AbstractContextManager[Sink]:
    return chunked("zarr", path / str(level), laid.shard, lambda array: array)
