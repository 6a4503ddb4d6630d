"""What ingest knows of a source before it copies a voxel: whether it fits, and where it is used in place."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emsr.stores.admission import Admitted
    from emsr.stores.source import Source

log = logging.getLogger(__name__)


def admitted(settings: dict[str, Any], out: Path) -> tuple[Source, Admitted]:
    """The opened source and the part of it that is used, after every check."""
    from emsr import places
    from emsr.stores import open_stated, probe
    from emsr.stores.admission import admit, check_declared, check_same_shape
    from emsr.stores.link import check_link

    stated = settings["source"]
    local, array = places.local(stated["path"]), out.with_suffix(".zarr").absolute()
    path = None if local is None else local.absolute()
    if path is not None and (path.is_relative_to(array) or array.is_relative_to(path)):
        raise ValueError(f"source {stated['path']} and result {array.name} lie in one another: choose other results")
    opened = open_stated(stated)
    try:
        used = admit(opened, settings["image"], stated["voxel_size_nm"], settings["region"], settings.get("intensity"))
        if settings.get("hr"):
            hr = open_stated(settings["hr"])
            hr.close()
            check_same_shape(opened, hr)
        if stated.get("link"):
            check_link(opened, settings["image"], settings["region"])
        probe(opened, used.box)
        check_declared(opened, settings["image"], used.box, settings["shard"], settings["chunk"])
        if opened.caution:
            log.warning("%s: %s", opened.path, opened.caution)
    except BaseException:
        opened.close()
        raise
    return opened, used


def link(source: Source, out: Path) -> dict[str, str]:
    """Write the link to a source beside its card; gives the card's key that names it."""
    from emsr.stores.link import SUFFIX, write_link

    file = out.with_suffix(SUFFIX)
    write_link(file, source)
    return {"array": file.name}


def made_of(settings: dict[str, Any], source: Source) -> dict[str, Any]:
    """All that the voxels of an ingested array depend on: settings, state of what is read, and what it declares."""
    stated, other = settings["source"], (settings.get("intensity") or {}).get("of")
    return {
        "settings": {**settings, "source": {key: stated[key] for key in stated if key != "fingerprint"}},
        "source": [_state(one["path"]) for one in (stated, other) if one],
        "metadata": [
            *(source.format, source.dataset, source.shape, source.dtype.str),
            *(source.voxel_size_nm, source.translation_nm, source.corner_nm),
        ],
    }


def refuse_changed(settings: dict[str, Any], before: dict[str, Any]) -> None:
    """After the last voxel was read: ValueError where a source is not in the state that `made_of` saw `before`."""
    stated, other = settings["source"], (settings.get("intensity") or {}).get("of")
    for one, state in zip([each for each in (stated, other) if each], before["source"], strict=True):
        if _state(one["path"]) != state:
            raise ValueError(f"{one['path']} changed while it was read: run again when nothing writes to it")


def absent(source: Source, first: int, z: int) -> str | None:
    """Why section z of an array is empty, whose first one is section `first` of the source; None if it is not.

    Nothing was ever stored for it, or, of membranes, no object was found.
    """
    if source.stored(first + z):
        return None
    return "unlabelled" if source.made_from and source.made_from.stored(first + z) else "missing"


def single_sections(stated: dict[str, Any]) -> dict[str, Any]:
    """What the card of labels that are made from membranes says of that."""
    from emsr.stores.membranes import LEAST_PIXELS

    level = stated.get("membranes")
    return {"membranes": {"level": level, "least_pixels": LEAST_PIXELS}} if level else {}


def _state(place: str) -> Any:
    """What says that a source is another one than before: size and time stamp of files, the info behind an address."""
    from emsr import places
    from emsr.fingerprints import fingerprint
    from emsr.stores import precomputed

    path = places.local(place)
    if path is None:
        return precomputed.fingerprint(place)
    return fingerprint(path) if path.is_dir() else [path.stat().st_size, path.stat().st_mtime_ns]
