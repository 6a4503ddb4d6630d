"""Chunked arrays of others, through tensorstore: what zarr and N5 share."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from emsr.stores.pieces import CACHE_BYTES, chunkwise
from emsr.stores.source import Source, Triple, one_line

MOST_CHUNK_BYTES = 2**31


def open_foreign(driver: str, folder: Path, fill: bool) -> ts.TensorStore:
    """Open an array; `fill` says whether chunks that are not stored read as fill value."""
    kvstore = {"driver": "file", "path": f"{folder.absolute()}/"}
    spec = {"driver": driver, "kvstore": kvstore, "fill_missing_data_reads": fill}
    context = ts.Context({"cache_pool": {"total_bytes_limit": CACHE_BYTES}})
    try:
        array = ts.open(spec, open=True, read=True, context=context).result()
    except (ValueError, ZeroDivisionError) as error:
        kind = driver.rstrip("3")
        raise ValueError(f"{folder} cannot be opened as {kind} ({one_line(error)}): copy it again") from None
    check_chunk(array.chunk_layout.read_chunk.shape or (), array.dtype.numpy_dtype, str(folder))
    return array


def source_of(
    form: str,
    place: tuple[Path, Path],
    arrays: tuple[ts.TensorStore, ts.TensorStore],
    size: Triple[float] | None,
    shift: Triple[float] | None,
) -> Source:
    """The volume in `place`, its path and the array's folder below it; `arrays` are it with and without fill value."""
    (path, folder), (array, strict) = place, arrays
    shape, chunk = tuple(array.shape), _chunk(array)
    return Source(
        path=str(path),
        dataset=str(folder.relative_to(path)),
        format=form,
        shape=shape,
        dtype=array.dtype.numpy_dtype,
        voxel_size_nm=size,
        translation_nm=shift,
        read=chunkwise(partial(read_foreign, str(folder), array), shape, chunk, array.dtype.numpy_dtype),
        stored=partial(any_stored, strict),
        close=lambda: None,
        spec=array.spec(minimal_spec=True).to_json(),
        depth=chunk[0],
    )


def check_chunk(shape: Sequence[int | None], dtype: np.dtype, where: str) -> None:
    """Refuse chunks that are too large to be decoded in memory, whatever is stored."""
    if math.prod(int(side or 1) for side in shape) * dtype.itemsize > MOST_CHUNK_BYTES:
        raise ValueError(f"{where} has chunks {list(shape)} of {dtype}, more than 2 GiB each: write smaller chunks")


def check_written(folder: Path, names: Collection[str]) -> None:
    """Refuse an array with nothing in its folder but metadata, the files `names`."""
    with os.scandir(folder) as entries:
        if all(entry.name in names for entry in entries):
            raise ValueError(f"{folder} holds no data, nothing was ever written to it: write or copy it again")


def read_foreign(where: str, array: ts.TensorStore, start: Sequence[int], stop: Sequence[int]) -> np.ndarray:
    """Voxels of a box, C order, native byte order."""
    box = tuple(slice(low, high) for low, high in zip(start, stop, strict=True))
    try:
        return np.ascontiguousarray(array[box].read().result())
    except ValueError as error:
        place = f"voxels {tuple(start)} to {tuple(stop)}"
        raise ValueError(f"{where}: {place} cannot be read ({one_line(error)}): copy it again") from None


def _chunk(array: ts.TensorStore) -> Triple[int]:
    """Sides (z, y, x) of what is unpacked at once; an array without three axes is refused later."""
    z, y, x = (int(side or 1) for side in (1, 1, 1, *(array.chunk_layout.read_chunk.shape or ()))[-3:])
    return z, y, x


def any_stored(strict: ts.TensorStore, z: int) -> bool:
    """Whether any chunk of section z is stored; `strict` raises for those that are not."""
    high, wide = (int(side or 1) for side in (strict.chunk_layout.read_chunk.shape or (1, 1))[-2:])
    for y in range(0, strict.shape[-2], high):
        for x in range(0, strict.shape[-1], wide):
            try:
                strict[z, y, x].read().result()
            except ValueError as error:
                if "NOT_FOUND" not in str(error):
                    raise
            else:
                return True
    return False


def metadata(file: Path) -> dict[str, Any]:
    """A metadata document of somebody's array."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not JSON ({one_line(error)}): copy the array again") from None
    if not isinstance(document, dict):
        raise ValueError(f"{file} is no JSON object: copy the array again")
    return document
