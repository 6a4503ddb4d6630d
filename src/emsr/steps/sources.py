"""What ingest knows of a source before it copies a voxel: whether it fits, and where it is used in place."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emsr.geometry import Box
    from emsr.stores.admission import Admitted
    from emsr.stores.ome import Layout
    from emsr.stores.source import Source

log = logging.getLogger(__name__)

MOST_SHARDS = 2**21  # of one array: each is a task of one graph


def admitted(settings: dict[str, Any], out: Path) -> tuple[Source, Admitted]:
    """The opened source and the part of it that is used, after every check."""
    from emsr import places
    from emsr.stores import open_stated, probe
    from emsr.stores.admission import admit, check_same_shape
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
        if opened.caution:
            log.warning("%s: %s", opened.path, opened.caution)
    except BaseException:
        opened.close()
        raise
    return opened, used


def check_shards(source: Source, laid: Layout) -> None:
    """Refuse a volume that is cut into more shards than one graph can hold, for example one that declares nonsense."""
    from emsr.geometry import ShardGrid

    if (shards := math.prod(ShardGrid(laid.shape, laid.shard).counts)) > MOST_SHARDS:
        raise ValueError(
            f"{source.path}: {source.dataset} of shape {list(laid.shape)} makes {shards} shards of {list(laid.shard)} "
            f"voxels, at most {MOST_SHARDS} are planned: enlarge ingest.shard, or state a region"
        )


def link(source: Source, out: Path) -> dict[str, str]:
    """Write the link to a source beside its card; gives the card's key that names it."""
    from emsr.stores.link import SUFFIX, write_link

    file = out.with_suffix(SUFFIX)
    write_link(file, source)
    return {"array": file.name}


def unstored(source: Source, depth: int) -> list[int]:
    """Sections that nothing was ever stored for."""
    return [z for z in range(depth) if not source.stored(z)]


def missing_sections(source: Source, region: Box, boxes: list[Box], empty: list[list[bool]]) -> list[int]:
    """Sections (z of the array) without anything to see because nothing was ever stored for them."""
    filled = {
        box.start[0] + z for box, flags in zip(boxes, empty, strict=True) for z, flag in enumerate(flags) if not flag
    }
    return [z for z in range(region.shape[0]) if z not in filled and not source.stored(region.start[0] + z)]


def absent(source: Source, region: Box, missing: list[int]) -> dict[str, str]:
    """Those sections as a card lists them: nothing was stored for them, or, of membranes, no object was found."""
    stored = (source.made_from or source).stored
    return {str(z): "unlabelled" if stored(region.start[0] + z) else "missing" for z in missing}


def single_sections(stated: dict[str, Any]) -> dict[str, Any]:
    """What the card of labels that are made from membranes says of that."""
    from emsr.stores.membranes import LEAST_PIXELS

    level = stated.get("membranes")
    return {"membranes": {"level": level, "least_pixels": LEAST_PIXELS}} if level else {}
