"""OME-Zarr: creation and voxels of emsr's own arrays (0.5, sharded, tensorstore), and reading of others' 0.4 and 0.5.

A missing shard or chunk of an own array is an error and never black; each shard has one writer, which writes it whole.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from emsr.durable import PARTIAL, check_schema, read_json, sweep, write_json
from emsr.places import kvstore
from emsr.stores.foreign import check_written, metadata, open_foreign, said_of, source_of
from emsr.stores.link import SUFFIX, open_link
from emsr.stores.ome import (
    AXES,
    SCHEMA,
    Layout,
    Multiscale,
    array_document,
    group_document,
    level_count,
    parse_multiscale,
)
from emsr.stores.source import Source, one_line, triple
from emsr.stores.waiting import clear

NOTHING = "no array at all"
METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
__all__ = ["Layout", "create", "level_count", "level_total", "open_array", "recreate", "write_box"]


def create(path: Path, layout: Layout) -> None:
    """Make group and level arrays at `path`, without voxels; nothing happens where the same already stands.

    Raises ValueError where something else stands there: nothing is overwritten.
    """
    path = Path(path)
    documents = _documents(path, layout)
    stale = {child / "zarr.json" for child in path.glob("[0-9]*")} - set(documents)
    for file, document in documents.items():
        if stale or (file.exists() and read_json(file) != document):
            raise ValueError(f"{path} exists with another shape, layout or place: remove it, or write elsewhere")
    if path.exists() and not (path / "zarr.json").exists() and any(path.iterdir()) and not _own(path):
        raise ValueError(f"{path} exists and is not an array of emsr: remove it, or write elsewhere")
    for file, document in documents.items():
        if not file.exists():
            write_json(file, document)
            sweep(file.parent)


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
    """Open a level of an own array, axes (c,) z, y, x; reading what was never written raises ValueError (NOT_FOUND).

    Read with `array[z0:z1, y0:y1, x0:x1].read().result()`, write whole shards with `write_box`. `cache_bytes` keeps
    decoded chunks for reads that overlap. A path that ends in .link is that of a source which is used in place.
    """
    if Path(path).suffix == SUFFIX:
        return open_link(Path(path), cache_bytes)
    folder = Path(path) / str(level)
    if not (folder / "zarr.json").is_file():
        raise FileNotFoundError(f"{folder} is not a zarr array: run the step that makes it")
    if (Path(path) / "zarr.json").is_file():
        _stated(Path(path))
    spec = {
        "driver": "zarr3",
        "kvstore": kvstore(folder),
        "fill_missing_data_reads": False,
        "store_data_equal_to_fill_value": True,
    }
    context = ts.Context({"cache_pool": {"total_bytes_limit": cache_bytes}})
    try:
        return ts.open(spec, open=True, read=True, write=write, context=context).result()
    except ValueError as error:
        raise ValueError(f"{folder} cannot be opened ({one_line(error)}): remove it and make it again") from None


def write_box(array: ts.TensorStore, start: tuple[int, int, int], voxels: np.ndarray) -> None:
    """Write `voxels` (z, y, x), or (c, z, y, x), from corner `start` (z, y, x) on; durable when this returns.

    The box must be whole shards, with all channels. What stood there leaves no trace: of a shard that the end of the
    volume crops, tensorstore would keep what lies past the end, and fail where it is damaged. Raises OSError, in one
    line, where the disk does not take them.
    """
    try:
        _write_box(array, start, voxels)
    except ValueError as error:
        raise _unwritten(array, start, error) from None


def _write_box(array: ts.TensorStore, start: tuple[int, int, int], voxels: np.ndarray) -> None:
    sides = [int(side or 1) for side in array.chunk_layout.write_chunk.shape or ()][-3:]
    cropped = any(length % side for length, side in zip(voxels.shape[-3:], sides, strict=True))
    for number in np.ndindex(*(-(-length // side) for length, side in zip(voxels.shape[-3:], sides, strict=True))):
        place = [n + low // side for n, low, side in zip(number, start, sides, strict=True)]
        key = "/".join(map(str, ("c", *[0] * (array.ndim - 3), *place)))
        if array.kvstore:
            clear(Path(array.kvstore.path, key))
            if cropped:
                array.kvstore.write(key, None).result()
    z, y, x = (slice(low, low + side) for low, side in zip(start, voxels.shape[-3:], strict=True))
    array[..., z, y, x].write(voxels).result()


def _unwritten(array: ts.TensorStore, start: tuple[int, int, int], error: ValueError) -> OSError:
    """The line for voxels that cannot be written, with the mend."""
    folder = Path(array.kvstore.path if array.kvstore else "array")
    reason = said_of(error, folder)
    full = any(word in reason for word in ("RESOURCE_EXHAUSTED", "No space", "quota", "too large"))
    mend = "free some, and run again: what is finished is kept" if full else "mend that, and run again"
    return OSError(f"{folder}: voxels from {start} on cannot be written ({reason}): {mend}")


def level_total(path: Path) -> int:
    """How many levels the multiscale at `path` names."""
    document = read_json(Path(path) / "zarr.json")
    return len(document["attributes"]["ome"]["multiscales"][0]["datasets"])


def recognises(path: Path) -> bool:
    """Whether `path` is a folder of zarr, version 2 or 3."""
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray", ".zattrs"))


def open_source(path: Path, dataset: str | None) -> Source:
    """Open somebody's array for reading: OME-Zarr 0.4 or 0.5, the finest level or the one named, or a bare array.

    A chunk that is not stored is the fill value, as the format says, but an error in an array of emsr. Leading axes of
    length 1 (time, channel) are dropped. Raises ValueError or OSError, in one line, for what cannot be a volume.
    """
    folder = path / dataset.strip("/") if dataset else path
    if not folder.resolve().is_relative_to(path.resolve()) or not recognises(folder):
        raise ValueError(f"{path} has no dataset {dataset}: it has {_listing(path)}")
    found = parse_multiscale(_attributes(folder), str(folder))
    level = 0
    if found is None and folder != path and (above := parse_multiscale(_attributes(folder.parent), str(folder.parent))):
        if folder.name in above.paths:
            found, level = above, above.paths.index(folder.name)
    elif found is not None:
        folder = folder / found.paths[0]
        if not folder.resolve().is_relative_to(path.resolve()):
            raise ValueError(f"{path}: its level {found.paths[0]} lies outside: mend the OME-Zarr metadata")
    for file in (place / name for place in (path, folder) for name in METADATA[:-1]):
        if file.is_file():
            metadata(file)  # tensorstore does not read all of them, but a torn one means a torn copy
    if not any((folder / name).is_file() for name in (".zarray", "zarr.json")) or _kind(folder) != "array":
        named = _listing(path)
        mend = f"name as dataset one of {named}" if named != NOTHING else "it holds none either, name another folder"
        raise ValueError(f"{folder} is a group, not an array: {mend}")
    return _source(path, folder, found, level)


def _source(path: Path, folder: Path, found: Multiscale | None, level: int) -> Source:
    """What an array and the multiscale around it say, and its readers."""
    driver = "zarr" if (folder / ".zarray").is_file() else "zarr3"
    own = "emsr" in _attributes(folder.parent)  # which stores every chunk, so that one which lacks was lost
    array, strict = (open_foreign(driver, folder, fill and not own) for fill in (True, False))
    check_written(folder, METADATA)
    extra = 0
    while array.ndim > 3 and array.shape[0] == 1:
        array, strict, extra = array[0], strict[0], extra + 1
    size = shift = None
    if found is not None:
        if found.axes[extra:] != AXES and array.ndim == 3:
            raise ValueError(f"{folder}: axes are {', '.join(found.axes)}: rewrite it with axes z, y, x")
        if array.ndim == 3 and not math.isnan(sum(found.scales_nm[level][extra:])):
            size = triple(found.scales_nm[level][extra:], "scale", str(folder), positive=True)
            shift = triple(found.translations_nm[level][extra:], "translation", str(folder))
    return source_of("zarr", (path, folder), (array, strict), size, shift)


def _attributes(folder: Path) -> dict[str, Any]:
    """User attributes of a group or array of version 2 or 3; empty where there are none."""
    for name in ("zarr.json", ".zattrs"):
        if (folder / name).is_file():
            document = metadata(folder / name)
            attributes = document.get("attributes", {}) if name == "zarr.json" else document
            return attributes if isinstance(attributes, dict) else {}
    return {}


def _kind(folder: Path) -> str:
    """ "array" or "group"; ValueError for a document of another version than its name says."""
    if not (folder / "zarr.json").is_file():
        return "array"
    document = metadata(folder / "zarr.json")
    if (version := document.get("zarr_format")) != 3:
        raise ValueError(
            f"{folder / 'zarr.json'} states zarr_format {version!a}, but that name is of version 3: write .zarray and "
            "the like, or copy it again"
        )
    return str(document.get("node_type"))


def _listing(path: Path, most: int = 12) -> str:
    """Names of the arrays below a folder, three levels deep."""
    folders = (folder for depth in ("*", "*/*", "*/*/*") for folder in sorted(path.glob(depth)) if folder.is_dir())
    names = [str(f.relative_to(path)) for f in folders if (f / ".zarray").is_file() or _v3_array(f)]
    if not names:
        return NOTHING
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _v3_array(folder: Path) -> bool:
    """Whether a folder is an array of version 3."""
    return (folder / "zarr.json").is_file() and _kind(folder) == "array"


def _documents(path: Path, layout: Layout) -> dict[Path, dict[str, Any]]:
    """Every metadata file of an array; the group's comes last: when it stands, all do."""
    levels = {path / str(level) / "zarr.json": array_document(layout, level) for level in range(layout.levels)}
    return {**levels, path / "zarr.json": group_document(layout, path.stem)}


def _own(path: Path) -> bool:
    """Whether `create` made what stands at `path`, or began to."""
    if not (path / "zarr.json").exists():
        made = (entry for entry in path.iterdir() if not PARTIAL.fullmatch(entry.name))
        return all(entry.name.isdigit() and not (entry / "c").exists() for entry in made)
    return _stated(path) is not None


def _stated(path: Path) -> Any:
    """What emsr says of itself in the metadata of an array; None where it says nothing. SchemaError for a form that
    this emsr does not know.
    """
    attributes = read_json(path / "zarr.json").get("attributes", {})
    stated = attributes.get("emsr") if isinstance(attributes, dict) else None
    check_schema(path / "zarr.json", stated, SCHEMA)
    return stated
