"""A rule of data.smk: labels of hr that was imaged apart from lr follow it onto lr's grid, never interpolated."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import tensorstore as ts

    from emsr.geometry import Box

REGISTER_LABELS_RESULT = 1

CACHE_BYTES = 256 * 2**20  # decoded chunks of labels
BLOCK = 256  # voxels along y and x that are looked up at once
Matrix = list[list[float]]

log = logging.getLogger(__name__)


def register_labels(settings: dict[str, Any], labels: Path, registered: Path, out: Path, *, workers: int = 1) -> None:
    """Bring labels of hr onto the grid of registered hr, by the transform of each section that its card states.

    A voxel takes the id of the voxel of hr that its centre lies in; ids are neither averaged nor rounded, whatever
    their size. `settings`: shard, chunk. Voxels whose place hr does not show are 0, and so are sections that were not
    registered, which are listed as missing. Raises ValueError, before anything is written, where the labels have
    another number of sections.
    """
    from emsr.steps.images import finish, layout
    from emsr.stores.card import array_path, read_card
    from emsr.stores.shards import each, shard_boxes
    from emsr.stores.zarr import open_array, recreate

    labels, out, cards = Path(labels), Path(out), (read_card(labels), read_card(registered))
    ids, image = cards
    if ids["shape"][0] != image["shape"][0]:
        raise ValueError(
            f"{labels} has {ids['shape'][0]} sections, {registered} {image['shape'][0]}: run register again"
        )
    found = image["registration"]["sections"]
    places = {int(z): row["to_hr"] for z, row in found.items() if row["state"] == "registered"}
    missing = image["missing"] | ids["missing"]

    laid = layout(settings, {**image, "dtype": "uint64"})
    recreate(out.with_suffix(".zarr"), laid)
    array = open_array(out.with_suffix(".zarr"), write=True)
    source = open_array(array_path(labels, ids), cache_bytes=CACHE_BYTES)
    each(partial(_write_shard, source, array, places), shard_boxes(array), workers, "register labels")
    origin = {key: ids["source"][key] for key in ("membranes",) if key in ids["source"]}
    card = {
        "source": {"path": labels.name, "dataset": None, "format": "card", "sha256": ids["sha256"], **origin},
        **{"degradation": None, "hr_shape": None},
        "missing": dict(sorted(missing.items(), key=lambda row: int(row[0]))),
        "covered": image["covered"],
        "registered_sha256": image["sha256"],
    }
    finish(out, laid, card, workers)


def _write_shard(source: ts.TensorStore, array: ts.TensorStore, places: Mapping[int, Matrix], box: Box) -> None:
    """One shard of registered labels, block by block; 0 in sections that have no place in hr."""
    import numpy as np

    from emsr.geometry import ShardGrid
    from emsr.stores.shards import keep_or_write

    ids = np.zeros(box.shape, np.uint64)
    for part in ShardGrid(box.shape, (1, BLOCK, BLOCK)).boxes():
        z = box.start[0] + part.start[0]
        if z in places:
            ids[part.slices] = looked_up(source, places[z], part.shifted(box.start))
    keep_or_write(array, box, ids)


def looked_up(source: ts.TensorStore, place: Matrix, box: Box) -> np.ndarray:
    """The ids (1, y, x) of a box of one section: those of the voxels of ``source`` that its voxels' centres lie in.

    ``place`` are rows y and x of the matrix that takes (y, x, 1) of a voxel to its place in ``source``, in voxels; 0
    lies beyond it.
    """
    import numpy as np

    from emsr.geometry import Box, triple
    from emsr.stores.shards import read_box

    rows, columns = (np.arange(low, high) for low, high in zip(box.start[1:], box.stop[1:], strict=True))
    y, x = (np.floor(a * rows[:, None] + b * columns + c + 0.5).astype(np.int64) for a, b, c in place)
    height, width = (int(side) for side in source.shape[1:])
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    found = np.zeros(box.shape, np.uint64)
    if inside.any():
        top, left, bottom, right = (int(pick(along[inside])) for pick in (np.min, np.max) for along in (y, x))
        z = box.start[0]
        seen = read_box(source, Box(triple([z, top, left]), triple([z + 1, bottom + 1, right + 1])))[0]
        found[0][inside] = seen[y[inside] - top, x[inside] - left]
    return found
