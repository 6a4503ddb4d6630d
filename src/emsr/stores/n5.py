"""N5: axes x, y, z on disk, read as z, y, x; place and voxel size as Janelia's tools and BigDataViewer write them.

`resolution` (nm unless `units` says otherwise) and `pixelResolution` are of full resolution, `downsamplingFactors` of a
level come on top; `translate` is the centre of the first voxel. COSEM's `transform` is of the level itself. Attributes
are those of the array, else of the groups above it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emsr.stores.foreign import check_written, metadata, open_foreign, source_of
from emsr.stores.source import Source, Triple, nanometres, one_line, triple

FILE = "attributes.json"
LEVEL = re.compile(r"s(\d+)")
Place = tuple[Triple[float] | None, Triple[float] | None]


def recognises(path: Path) -> bool:
    """Whether `path` is a folder of N5; groups need no file of their own."""
    return path.is_dir() and (path.suffix == ".n5" or any((path / one / FILE).is_file() for one in (".", "s0")))


def open_source(path: Path, dataset: str | None) -> Source:
    """Open an array for reading; of a group with levels s0, s1, ... the finest.

    A block that is not stored is 0, as the format says. A last axis of length 1 (channel) is dropped. Raises
    ValueError, in one line, for what cannot be a volume.
    """
    folder = path / dataset.strip("/") if dataset else path
    if not folder.resolve().is_relative_to(path.resolve()) or not folder.is_dir():
        raise ValueError(f"{path} has no dataset {dataset}: it has {_listing(path)}")
    if not _is_array(folder) and _is_array(folder / "s0"):
        folder = folder / "s0"
    if not _is_array(folder):
        raise ValueError(f"{folder} is a group, not an array: name as dataset one of {_listing(path)}")
    array, strict = (open_foreign("n5", folder, fill).T for fill in (True, False))
    check_written(folder, (FILE,))
    while array.ndim > 3 and array.shape[0] == 1:
        array, strict = array[0], strict[0]
    size, shift = _place(path, folder)
    return source_of("n5", (path, folder), (array, strict), size, shift)


def _place(path: Path, folder: Path) -> Place:
    """Voxel size and centre of the first voxel in nm, z y x; None for what no attribute states."""
    above = [folder, *(parent for parent in folder.parents if parent.is_relative_to(path))]
    documents = [metadata(one / FILE) if (one / FILE).is_file() else {} for one in above]
    where = str(folder)
    try:
        if transform := documents[0].get("transform"):
            return _transform(transform, where)
        size = _full_resolution(_first(documents, "pixelResolution"), documents, where)
        if size is None:
            return None, None
        factors = triple(reversed(_factors(documents, folder.name)), "downsamplingFactors", where, positive=True)
        voxel = (size[0] * factors[0], size[1] * factors[1], size[2] * factors[2])
        if (stated := documents[0].get("translate")) is None:
            return voxel, None
        unit = _unit_nm(documents, where) or 1.0
        return voxel, triple((unit * float(one) for one in reversed(stated)), "translate", where)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        if where in str(error):
            raise
        reason = one_line(error)
        raise ValueError(f"{where}: its attributes are not as N5 tools write them ({reason}): mend {FILE}") from None


def _full_resolution(stated: Any, documents: list[dict[str, Any]], where: str) -> Triple[float] | None:
    """Voxel size at full resolution in nm; None where no length with a unit is stated."""
    what = "pixelResolution" if stated is not None else "resolution"
    unit = _unit_nm(documents, where)
    numbers = stated["dimensions"] if isinstance(stated, dict) else _first(documents, "resolution")
    if numbers is None or unit is None:
        return None
    return triple((unit * float(one) for one in reversed(numbers)), what, where, positive=True)


def _unit_nm(documents: list[dict[str, Any]], where: str) -> float | None:
    """Length of the unit of `pixelResolution` or `units`; None for pixels, which have no length."""
    stated = _first(documents, "pixelResolution")
    units = [stated.get("unit")] if isinstance(stated, dict) else _first(documents, "units") or ["nm"]
    known = {str(unit) for unit in units if unit not in (None, "", "pixel", "px")}
    if len(known) > 1:
        raise ValueError(f"{where}: units {sorted(known)} differ from axis to axis: write one unit in {FILE}")
    return nanometres(known.pop(), where) if known else None


def _factors(documents: list[dict[str, Any]], name: str) -> list[float]:
    """Downsampling x, y, z of a level: its own, or that of its number in a list of the groups above."""
    if own := documents[0].get("downsamplingFactors"):
        return [float(one) for one in own]
    listed = _first(documents[1:], "downsamplingFactors") or _first(documents[1:], "scales")
    level = LEVEL.fullmatch(name)
    if not (listed and level):
        return [1.0, 1.0, 1.0]
    return [float(one) for one in listed[int(level[1])]]


def _transform(stated: dict[str, Any], where: str) -> Place:
    """Voxel size and centre of the first voxel of COSEM's transform, whose axes are named."""
    units = [nanometres(str(unit), where) for unit in stated["units"]]
    order = [list(stated["axes"]).index(axis) for axis in "zyx"]
    size, shift = ([float(stated[key][at]) * units[at] for at in order] for key in ("scale", "translate"))
    return triple(size, "scale", where, positive=True), triple(shift, "translate", where)


def _first(documents: list[dict[str, Any]], key: str) -> Any:
    """The value of `key` in the first document that has it."""
    return next((document[key] for document in documents if document.get(key) is not None), None)


def _is_array(folder: Path) -> bool:
    """Whether a folder is an array and no group."""
    return (folder / FILE).is_file() and "dimensions" in metadata(folder / FILE)


def _arrays(path: Path) -> Iterator[str]:
    """Names of the arrays below a folder, four levels deep."""
    for depth in ("*", "*/*", "*/*/*", "*/*/*/*"):
        for file in path.glob(f"{depth}/{FILE}"):
            if _is_array(file.parent):
                yield str(file.parent.relative_to(path))


def _listing(path: Path, most: int = 12) -> str:
    """Names of the arrays below a folder."""
    names = sorted(_arrays(path))
    if not names:
        return "no array at all"
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
