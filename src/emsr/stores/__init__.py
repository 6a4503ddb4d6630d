"""Arrays on disk, one file a format; a format's name is its module's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from emsr import places, plugins
from emsr.geometry import Box
from emsr.stores.source import Source, refusing

Result = TypeVar("Result")

FORMATS = ("zarr", "n5", "precomputed", "hdf", "tiff", "mrc", "images")
SELDOM = ("mip", "pattern")  # keys of a source that only some formats know; those name them in OPTIONS


def open_source(path: Path | str, dataset: str | None = None, format_name: str | None = None, **options: Any) -> Source:
    """Open a volume for reading by the named format, or by the first that recognises it.

    `options` go to the format; None is as if it were not stated. Raises FileNotFoundError or ValueError, in one line,
    for what cannot be a volume.
    """
    address, local = str(path), places.local(str(path))
    if places.is_address(address):
        places.check_address(address)
        format_name = "precomputed"
    place = address if local is None else local
    with refusing(str(place)):
        if local is not None and (fault := places.fault(local)):
            if fault == places.MISSING:
                raise FileNotFoundError(f"{local} {fault}: correct the path in the config")
            raise OSError(f"{local} {fault}")
        name = format_name or _recognised(Path(path), dataset)
        module = plugins.load("stores", name)
        stated = {key: value for key, value in options.items() if value is not None}
        if strange := sorted(set(stated) - set(getattr(module, "OPTIONS", ()))):
            raise ValueError(f"{path}: {strange[0]} means nothing for format {name}: leave it out")
        source: Source = module.open_source(place, dataset, **stated)
    counted = source.stored_bytes and _refusing(source, source.stored_bytes)
    return replace(
        source, read=_refusing(source, source.read), stored=_refusing(source, source.stored), stored_bytes=counted
    )


def _refusing(source: Source, function: Callable[..., Result]) -> Callable[..., Result]:
    """A reader of a source that raises nothing but refusals."""

    def refusing_reader(*given: Any) -> Result:
        with refusing(source.path):
            return function(*given)

    return refusing_reader


def open_stated(stated: Mapping[str, Any]) -> Source:
    """Open a source as the config states it: path, dataset, what else its format knows, and what is made of it."""
    seldom = {key: stated.get(key) for key in SELDOM}
    source = open_source(stated["path"], stated.get("dataset"), **seldom)
    if stated.get("membranes") is None:
        return source
    from emsr.stores.membranes import labelled

    try:
        return labelled(source, stated["membranes"])
    except BaseException:
        source.close()
        raise


def probe(source: Source, box: Box) -> None:
    """Read the first and the last voxel of a box: what is missing or damaged there is known before all is read.

    What is computed from another source is not computed for that: the voxels of the other are read.
    """
    stored = source.made_from or source
    for corner in (box.start, [side - 1 for side in box.stop]):
        stored.read(corner, [side + 1 for side in corner])


def _recognised(path: Path, dataset: str | None) -> str:
    """The name of the first format that recognises `path`."""
    if name := _format(path):
        return name
    inside = path / dataset.strip("/") if dataset else path
    if inside != path and (name := _format(inside)):
        raise ValueError(f"{path} does not say what it is, but {inside} is {name}: write that as path, dataset: null")
    raise ValueError(f"{path} is of no format that emsr reads ({', '.join(FORMATS)}): convert it to one of them")


def _format(path: Path) -> str | None:
    return next((name for name in FORMATS if plugins.load("stores", name).recognises(path)), None)
