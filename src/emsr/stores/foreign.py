"""Chunked arrays of others, through tensorstore: what zarr and N5 share."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from emsr.places import kvstore
from emsr.stores.pieces import CACHE_BYTES, check_chunk, chunkwise
from emsr.stores.source import Source, Triple, one_line

MOST_METADATA = 2**26


def open_foreign(driver: str, folder: Path, fill: bool) -> ts.TensorStore:
    """Open an array; `fill` says whether chunks that are not stored read as fill value."""
    spec = {"driver": driver, "kvstore": kvstore(folder), "fill_missing_data_reads": fill}
    context = ts.Context({"cache_pool": {"total_bytes_limit": CACHE_BYTES}})
    try:
        array = ts.open(spec, open=True, read=True, context=context).result()
    except (ValueError, ZeroDivisionError) as error:
        said = said_of(error, folder)
        raise ValueError(f"{folder} cannot be opened as {driver.rstrip('3')} ({said}): {_mend(error)}") from None
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
        stored=partial(_any_stored, str(folder), strict),
        close=lambda: None,
        spec=array.spec(minimal_spec=True).to_json(),
        depth=chunk[0],
        stored_bytes=partial(_stored_bytes, folder),
    )


def check_written(folder: Path, names: Collection[str]) -> None:
    """Refuse an array with nothing below its folder but metadata, the files `names`, and empty folders."""
    if not any(entry.name not in names for entry in _files(folder)):
        raise ValueError(f"{folder} holds no data, nothing was ever written to it: write or copy it again")


def read_foreign(where: str, array: ts.TensorStore, start: Sequence[int], stop: Sequence[int]) -> np.ndarray:
    """Voxels of a box, C order, native byte order."""
    box = tuple(slice(low, high) for low, high in zip(start, stop, strict=True))
    try:
        return np.ascontiguousarray(array[box].read().result())
    except ValueError as error:
        raise _unread(where, f"voxels {tuple(start)} to {tuple(stop)}", error) from None


def _chunk(array: ts.TensorStore) -> Triple[int]:
    """Sides (z, y, x) of what is unpacked at once; an array without three axes is refused later."""
    z, y, x = (int(side or 1) for side in (1, 1, 1, *(array.chunk_layout.read_chunk.shape or ()))[-3:])
    return z, y, x


def _unread(where: str, what: str, error: ValueError) -> ValueError:
    """The refusal of voxels that tensorstore cannot read."""
    return ValueError(f"{where}: {what} cannot be read ({said_of(error, Path(where))}): {_mend(error)}")


def said_of(error: BaseException, folder: Path) -> str:
    """What tensorstore says of an array in `folder`, without what it was asked and with names from there on."""
    noise = r' \[(tensorstore_spec|source locations|os_error_code)=.*|Error opening "\w+" driver: '
    text = re.sub(noise, "", str(error), flags=re.DOTALL)
    return one_line(ValueError(text.replace(kvstore(folder)["path"], "")), 300)


def _mend(error: BaseException) -> str:
    """What to do about what tensorstore says."""
    denied = "PERMISSION_DENIED" in str(error)
    return "mend its permissions, or copy it again" if denied else "copy it again"


def _stored_bytes(folder: Path, enough: int) -> int:
    """Bytes of all files below an array's folder, metadata too; counts no further than `enough`."""
    total = 0
    for entry in _files(folder):
        total += entry.stat().st_size
        if total >= enough:
            break
    return total


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The files below a folder, one by one; links to nothing and to themselves are none."""
    folders = [str(folder)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir():
                        folders.append(entry.path)
                    elif entry.is_file():
                        yield entry


def _any_stored(where: str, strict: ts.TensorStore, z: int) -> bool:
    """Whether any chunk of section z is stored; `strict` raises for those that are not."""
    high, wide = (int(side or 1) for side in (strict.chunk_layout.read_chunk.shape or (1, 1))[-2:])
    for y in range(0, strict.shape[-2], high):
        for x in range(0, strict.shape[-1], wide):
            try:
                strict[z, y, x].read().result()
            except ValueError as error:
                if "NOT_FOUND" not in str(error):
                    raise _unread(where, f"section {z}", error) from None
            else:
                return True
    return False


def metadata(file: Path) -> dict[str, Any]:
    """A metadata document of somebody's array."""
    if (length := file.stat().st_size) > MOST_METADATA:
        raise ValueError(f"{file} of {length} bytes is no metadata of an array: copy the array again")
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON ({one_line(error)}): copy the array again") from None
    if not isinstance(document, dict):
        raise ValueError(f"{file} is no JSON object: copy the array again")
    return document
