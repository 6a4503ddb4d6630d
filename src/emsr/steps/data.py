"""Rules of data.smk: volumes as they lie on disk become arrays of emsr, and coarse images are made from fine ones."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsr.progress import progress
from emsr.steps.images import finish, layout
from emsr.steps.intensities import kept, mapping
from emsr.steps.sources import absent, admitted, check_shards, link, missing_sections, single_sections, unstored

if TYPE_CHECKING:
    import numpy as np
    import tensorstore as ts

    from emsr.geometry import Box
    from emsr.stores.ome import Layout
    from emsr.stores.source import Source

GROW_RESULT = 1
INGEST_RESULT = 1
DEGRADE_RESULT = 1
ENLARGE_RESULT = 1

log = logging.getLogger(__name__)


def grow(settings: dict[str, Any], out: Path) -> None:
    """Grow synthetic tissue with labels into an HDF5 file in CREMI layout.

    `settings`: shape (z, y, x), voxel_size_nm (z, y, x), seed.
    """
    from emsr import tissue
    from emsr.stores.hdf import write_volumes

    (depth, height, width), (z, y, x) = settings["shape"], settings["voxel_size_nm"]
    grown = tissue.grow((depth, height, width), (z, y, x), settings["seed"], progress=partial(_counted, depth))
    volumes: dict[str, np.ndarray] = {"volumes/raw": grown.raw, "volumes/labels/neuron_ids": grown.labels}
    write_volumes(Path(out), volumes, (z, y, x))


def ingest(settings: dict[str, Any], out: Path, *, workers: int = 1) -> None:
    """Copy a source into an OME-Zarr array beside the image card `out`, and judge its sections.

    `settings`: image ("hr", "lr", "labels" or "mask"), source (path, dataset, voxel_size_nm, mip, pattern, link),
    region, shard, chunk; hr, a source that labels must cover. Everything is checked before anything is written; shards
    that hold the right voxels already are left alone. With `link` the card names the source's own array and no voxel
    is copied; all are still read once, for their hashes and to judge the sections. With `intensity` (low and high, or
    percentiles, and `of` if they are another source's) grey levels are mapped to uint8; the card says by which limits.
    With the source's `membranes` (a grey level) labels are the objects of single sections, and the card says so.
    """
    out = Path(out)
    opened, used = admitted(settings, out)
    try:
        dtype = "uint64" if settings["image"] == "labels" else "uint8"
        laid = layout(settings, {**vars(used), "shape": used.box.shape, "dtype": dtype})
        check_shards(opened, laid)
        mapped = mapping(settings, opened, used.box, workers)
        place = link(opened, out) if settings["source"].get("link") else {}
        found = (
            unstored(opened, laid.shape[0]) if place else _copy(settings, opened, used.box, laid, mapped, out, workers)
        )
        missing = absent(opened, used.box, found)
    finally:
        opened.close()
    origin = {"path": opened.path, "dataset": opened.dataset, "format": opened.format, "region": settings["region"]}
    origin |= single_sections(settings["source"])
    card = {
        "source": origin,
        "degradation": None,
        "hr_shape": None,
        "missing": missing,
    }
    if settings["image"] == "mask":
        card |= {"damaged": {}, "damaged_parts": {}}  # empty sections are what a mask is for
    finish(out, laid, card | place | ({"intensity": mapped} if mapped else {}), workers)


def degrade(settings: dict[str, Any], hr: Path, out: Path, *, workers: int = 1) -> None:
    """Make the coarse image of a fine one, shard by shard: the same voxels as degrading whole sections gives.

    `settings`: scale, degradation (kernel, and optionally noise: seed, dose and read, or seed and estimate, the image
    card of a coarse image that shows the noise), shard, chunk. hr is cropped to a multiple of scale at the far ends of
    y and x. Damaged and missing sections stay what they are in hr.
    """
    from emsr.steps.degraded import degrade_shard, with_noise
    from emsr.stores.card import array_path, read_card
    from emsr.stores.shards import each, shard_boxes
    from emsr.stores.zarr import open_array, recreate

    hr, out, scale = Path(hr), Path(out), int(settings["scale"])
    fine_card = read_card(hr)
    laid = layout(settings, fine_card).coarser(scale)
    how = {"scale": scale, **with_noise(settings["degradation"])}
    fine = open_array(array_path(hr, fine_card))
    recreate(out.with_suffix(".zarr"), laid)
    array = open_array(out.with_suffix(".zarr"), write=True)
    each(partial(degrade_shard, fine, array, how), shard_boxes(array), workers, f"degrade x{scale}")
    card = {
        "source": {"path": hr.name, "dataset": None, "format": "card", "sha256": fine_card["sha256"]},
        "degradation": how,
        "hr_shape": [laid.shape[0], laid.shape[1] * scale, laid.shape[2] * scale],
        "missing": fine_card["missing"],
        "damaged": fine_card["damaged"],
        **kept(fine_card),
    }
    finish(out, laid, card, workers)


def enlarge(settings: dict[str, Any], lr: Path, out: Path, *, workers: int = 1) -> None:
    """Enlarge the coarse image by bicubic interpolation, shard by shard: the rival that needs no network.

    `settings`: scale, shard, chunk. The same voxels as enlarging whole sections gives. Damaged and missing sections
    stay what they are in lr.
    """
    from emsr.stores.card import array_path, read_card
    from emsr.stores.shards import each, shard_boxes
    from emsr.stores.zarr import open_array, recreate

    lr, out, scale = Path(lr), Path(out), int(settings["scale"])
    coarse_card = read_card(lr)
    laid = layout(settings, coarse_card).finer(scale)
    recreate(out.with_suffix(".zarr"), laid)
    coarse, array = open_array(array_path(lr, coarse_card)), open_array(out.with_suffix(".zarr"), write=True)
    each(partial(_enlarge_shard, coarse, array, scale), shard_boxes(array), workers, f"enlarge x{scale}")
    card = {
        "source": {"path": lr.name, "dataset": None, "format": "card", "sha256": coarse_card["sha256"]},
        **{"degradation": None, "hr_shape": None},
        "missing": coarse_card["missing"],
        "damaged": coarse_card["damaged"],
        **kept(coarse_card),
    }
    finish(out, laid, card, workers)


def _counted(total: int, items: Iterable[int]) -> Iterator[int]:
    """The items, with progress."""
    with progress(total, "grow tissue", "sections") as shown:
        for item in items:
            yield item
            shown.update(1)


def _copy(
    settings: dict[str, Any],
    source: Source,
    region: Box,
    laid: Layout,
    mapped: dict[str, Any] | None,
    out: Path,
    workers: int,
) -> list[int]:
    """Copy a region of a source into the array beside the card; gives the sections without anything to see."""
    from emsr.intensity import table
    from emsr.stores.shards import each, shard_boxes
    from emsr.stores.zarr import open_array, recreate

    recreate(out.with_suffix(".zarr"), laid)
    array = open_array(out.with_suffix(".zarr"), write=True)
    boxes = shard_boxes(array)
    grey = table(source.dtype, mapped["low"], mapped["high"]) if mapped else None
    empty = each(partial(_copy_shard, source, region, array, grey), boxes, workers, f"ingest {settings['image']}")
    judged = settings["image"] in ("hr", "lr") or source.made_from
    return missing_sections(source, region, boxes, empty) if judged else []


def _copy_shard(source: Source, region: Box, array: ts.TensorStore, grey: np.ndarray | None, box: Box) -> list[bool]:
    """Copy one shard, reading a chunk's depth at a time; says of each section whether its voxels are all equal.

    `grey` is what each grey level of the source becomes; None leaves them.
    """
    import numpy as np

    from emsr.stores.shards import chunk_shape, keep_or_write

    voxels = np.empty(box.shape, array.dtype.numpy_dtype)
    for z in range(0, box.shape[0], depth := chunk_shape(array)[0]):
        part = voxels[z : z + depth]
        low = [a + b for a, b in zip(region.start, (box.start[0] + z, *box.start[1:]), strict=True)]
        read = source.read(low, [a + b for a, b in zip(low, part.shape, strict=True)])
        part[...] = read if grey is None else grey[read]
    keep_or_write(array, box, voxels)
    return [bool((section == section[0, 0]).all()) for section in voxels]


def _enlarge_shard(coarse: ts.TensorStore, fine: ts.TensorStore, scale: int, box: Box) -> None:
    """One shard of the enlarged image, section by section, from its coarse voxels and two more on every side."""
    import numpy as np

    from emsr import degradation
    from emsr.geometry import Box, triple
    from emsr.stores.shards import keep_or_write, read_box

    (z, y, x), (end, bottom, right) = box.start, box.stop
    low, high = [max(0, side // scale - 2) for side in (y, x)], [-(-side // scale) + 2 for side in (bottom, right)]
    grown = Box((z, low[0], low[1]), (end, high[0], high[1]))
    grown = grown.intersect(Box((0, 0, 0), triple(list(coarse.shape))))
    inner = box.shifted(triple([-start for start in grown.scaled(scale).start])).slices[1:]
    keep_or_write(
        fine, box, np.stack([degradation.upsample(section, scale)[inner] for section in read_box(coarse, grown)])
    )
