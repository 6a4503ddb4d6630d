"""A source that is used where it lies: a small file, `<image>.link`, says how tensorstore reads its voxels z, y, x."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorstore as ts

from emsr.durable import SchemaError, read_json, write_sealed
from emsr.stores.source import Source, one_line

SCHEMA = 1
SUFFIX = ".link"
MOST_BAND_BYTES = 2**28


def check_link(source: Source, image: str, region: Sequence[Sequence[int]] | None) -> None:
    """Refuse, in one line that says why, a source of `image` ("hr", "lr" or "labels") that has to be copied."""
    reason = None
    if image == "labels":
        reason = "labels become uint64"
    elif region is not None:
        reason = "region cuts it"
    elif source.spec is None:
        reason = f"{source.format} is not read in place" if "://" not in source.path else "it is not on disk"
    elif source.dtype.name != "uint8":
        reason = f"it is {source.dtype}"
    if reason is None:
        reason = _unreadable(source)
    if reason is not None:
        raise ValueError(f"{source.path}: {source.dataset} cannot be linked, {reason}: leave link out, to copy it")


def write_link(file: Path, source: Source) -> None:
    """Write the link to an opened source."""
    write_sealed(file, {"schema": SCHEMA, **(source.spec or {})})


def open_link(file: Path, cache_bytes: int) -> ts.TensorStore:
    """Open a linked array, axes z, y, x, for reading; ValueError, in one line, where it is not what it was."""
    context = ts.Context({"cache_pool": {"total_bytes_limit": cache_bytes}})
    try:
        return ts.open(read_spec(file), open=True, read=True, context=context).result()
    except SchemaError:
        raise
    except ValueError as error:
        raise ValueError(f"{file}: its source cannot be opened ({one_line(error)}): ingest it again") from None


def read_spec(file: Path) -> dict[str, Any]:
    """How tensorstore reads a linked array."""
    spec: dict[str, Any] = read_json(file, SCHEMA)
    spec.pop("schema", None)
    return spec


def _unreadable(source: Source) -> str | None:
    """Why tensorstore cannot read the source in place, if so."""
    try:
        array = ts.open(source.spec, open=True, read=True).result()
        array[0, 0, 0].read().result()
    except ValueError as error:
        return f"tensorstore cannot read it ({one_line(error)})"
    depth, height, _ = (int(side or 1) for side in array.chunk_layout.read_chunk.shape or (1, 1, 1))
    if math.prod((depth, height, array.shape[2])) > MOST_BAND_BYTES:
        return f"a row of its chunks, {depth} x {height} x {array.shape[2]} voxels, is too large for memory"
    return None
