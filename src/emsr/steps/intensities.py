"""How ingest maps the grey levels of a source: limits that are stated, or found in a histogram of all its voxels."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from emsr.geometry import Box, Triple
    from emsr.stores.source import Source

log = logging.getLogger(__name__)


def mapping(settings: dict[str, Any], source: Source, box: Box, workers: int) -> dict[str, Any] | None:
    """What the card of a mapped image says of it: dtype of the source, low, high, and the percentiles that gave them.

    None where nothing is mapped. Percentiles are those of the voxels of `box`, or of the whole source `of` where the
    settings name one; sections without anything to see do not count. Raises ValueError, in one line, where they cannot
    be limits.
    """
    stated = settings.get("intensity")
    if stated is None:
        return None
    dtype = source.dtype.name
    if "percentiles" in stated:
        low, high, place = _found(settings, source, box, workers)
        made = {"dtype": dtype, "low": low, "high": high, "percentiles": stated["percentiles"], "of": place}
    else:
        made = {"dtype": dtype, "low": stated["low"], "high": stated["high"]}
    log.info("%s: %s is mapped to uint8: %s", source.path, dtype, made)
    return made


def kept(card: dict[str, Any]) -> dict[str, Any]:
    """The statement of a card, if there is one, for the card of an image that is made of its voxels."""
    return {key: card[key] for key in ("intensity",) if key in card}


def _found(settings: dict[str, Any], source: Source, box: Box, workers: int) -> tuple[int, int, str]:
    """Limits at the percentiles that the settings ask for, and the source that has them."""
    from emsr import intensity
    from emsr.stores import open_stated
    from emsr.stores.admission import admit

    stated, other = settings["intensity"], settings["intensity"].get("of")
    counted = open_stated(other) if other else source
    try:
        if other:
            box = admit(counted, "lr", other["voxel_size_nm"], None, stated).box
        if counted.dtype != source.dtype:
            raise ValueError(
                f"{source.path} is {source.dtype}, {counted.path} {counted.dtype}, so percentiles of one are no limits "
                "for the other: state intensity beside each source"
            )
        try:
            return *intensity.percentiles(
                _histogram(counted, box, settings, workers), stated["percentiles"]
            ), counted.path
        except ValueError as error:
            raise ValueError(f"{counted.path}: {counted.dataset}: {error}") from None
    finally:
        if other:
            counted.close()


def _histogram(source: Source, box: Box, settings: dict[str, Any], workers: int) -> np.ndarray:
    """How many voxels of a box have each grey level, int64, without sections that are the same everywhere."""
    import numpy as np

    from emsr.geometry import ShardGrid, triple
    from emsr.stores.shards import each

    levels = np.iinfo(source.dtype).max + 1
    total, lock = np.zeros(levels, np.int64), threading.Lock()
    part = triple([settings["chunk"][0], *settings["shard"][1:]])
    grid = ShardGrid(box.shape, (part[0], *box.shape[1:]))

    def count(slab: Box) -> None:
        found = _count(source, slab.shifted(box.start), part, levels)
        with lock:
            total[:] += found

    each(count, [grid.box(index) for index in grid.indices], workers, "grey levels")
    if not total.any():
        raise ValueError("every section is the same everywhere, so it has no percentiles: state low and high")
    return total


def _count(source: Source, slab: Box, part: Triple, levels: int) -> np.ndarray:
    """The histogram of a few sections, read part by part."""
    import numpy as np

    from emsr.geometry import ShardGrid

    counts = np.zeros((slab.shape[0], levels), np.int64)
    grid = ShardGrid(slab.shape, part)
    for box in map(grid.box, grid.indices):
        place = box.shifted(slab.start)
        for section, voxels in zip(counts, source.read(place.start, place.stop), strict=True):
            section += np.bincount(voxels.ravel(), minlength=levels)
    return counts[np.count_nonzero(counts, axis=1) > 1].sum(axis=0)
