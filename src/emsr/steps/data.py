"""Rules of data.smk: volumes as they lie on disk become arrays of emsr, and coarse images are made from fine ones."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsr import scales
from emsr.progress import progress
from emsr.steps.images import finish, layout, unfinished
from emsr.steps.intensities import kept, mapping
from emsr.steps.sources import absent, admitted, link, made_of, refuse_changed, single_sections

if TYPE_CHECKING:
    import numpy as np
    import tensorstore as ts

    from emsr.geometry import Box
    from emsr.scales import Scale
    from emsr.stores.fill import Making
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
    region, shard, chunk; hr, a source that labels must cover. Everything is checked before anything is written. Shards
    that a killed run made of the same are not made again, others are written only where voxels differ. With `link` the
    card names the source's own array and no voxel is copied; all are still read once, for their hashes and to judge the
    sections. With `intensity` (low and high, or percentiles, and `of` if they are another source's) grey levels are
    mapped to uint8; the card says by which limits. With the source's `membranes` (a grey level) labels are the objects
    of single sections, and the card says so.
    """
    from emsr.stores.fill import fill

    out, image, linked = Path(out), settings["image"], settings["source"].get("link")
    opened, used = admitted(settings, out)
    try:
        dtype = "uint64" if image == "labels" else "uint8"
        laid = layout(settings, {**vars(used), "shape": used.box.shape, "dtype": dtype})
        made = made_of(settings, opened)
        journal = unfinished(out, made, opened.versions)
        if "intensity" not in journal.found:
            journal.found["intensity"] = mapping(settings, opened, used.box, workers)
        mapped = journal.found["intensity"]
        origin = {"path": opened.path, "dataset": opened.dataset, "format": opened.format, "region": settings["region"]}
        origin |= single_sections(settings["source"])
        card: dict[str, Any] = {"source": origin, "degradation": None, "hr_shape": None, "missing": {}}
        card |= {"intensity": mapped} if mapped else {}
        card |= {"damaged": {}, "damaged_parts": {}} if image == "mask" else {}  # empty sections are what a mask is for
        if linked:
            card, levels = card | link(opened, out), 1
        else:
            making = _copying(opened, used.box, laid, mapped, f"ingest {image}")
            levels = fill(out.with_suffix(".zarr"), laid, making, journal, workers)
        refuse_changed(settings, made)
        judged = linked or image in ("hr", "lr") or opened.made_from
        finish(out, laid, card, workers, levels, partial(absent, opened, used.box.start[0]) if judged else None)
        journal.close()
    finally:
        opened.close()


def degrade(settings: dict[str, Any], hr: Path, out: Path, *, workers: int = 1) -> None:
    """Make the coarse image of a fine one, shard by shard: the same voxels as degrading whole sections gives.

    `settings`: scale, degradation (kernel, and optionally noise: seed, dose and read, or seed and estimate, the image
    card of a coarse image that shows the noise), shard, chunk. hr is cropped to a multiple of scale at the far ends of
    y and x; at a real scale to the largest rounded one, and a coarse voxel is as large as makes both extents equal.
    Damaged and missing sections stay what they are in hr. Shards that a killed run made of the same hr are not
    made again.
    """
    from emsr.steps.degraded import degraded, with_noise
    from emsr.stores.card import array_path, read_card
    from emsr.stores.fill import Making, fill
    from emsr.stores.zarr import open_array

    hr, out, scale = Path(hr), Path(out), scales.of(settings["scale"])
    fine_card = read_card(hr)
    laid = layout(settings, fine_card).coarser(scale)
    how = {"scale": scales.stated(scale), **with_noise(settings["degradation"])}
    journal = unfinished(out, {"settings": settings, "hr": fine_card["sha256"], "degradation": how})
    fine = open_array(array_path(hr, fine_card))
    make = partial(degraded, fine, laid, how)
    levels = fill(out.with_suffix(".zarr"), laid, Making(make, f"degrade x{scales.name(scale)}"), journal, workers)
    card = {
        "source": {"path": hr.name, "dataset": None, "format": "card", "sha256": fine_card["sha256"]},
        "degradation": how,
        "hr_shape": [laid.shape[0], *scales.fine_plane(laid.shape[1:], scale)],
        "missing": fine_card["missing"],
        "damaged": fine_card["damaged"],
        **kept(fine_card),
    }
    finish(out, laid, card, workers, levels)
    journal.close()


def enlarge(settings: dict[str, Any], lr: Path, out: Path, *, workers: int = 1) -> None:
    """Enlarge the coarse image by bicubic interpolation, shard by shard: the rival that needs no network.

    `settings`: scale, shard, chunk. The same voxels as enlarging whole sections gives. Damaged and missing sections
    stay what they are in lr. Shards that a killed run made of the same lr are not made again.
    """
    from emsr.stores.card import array_path, read_card
    from emsr.stores.fill import Making, fill
    from emsr.stores.zarr import open_array

    lr, out, scale = Path(lr), Path(out), scales.of(settings["scale"])
    coarse_card = read_card(lr)
    laid = layout(settings, coarse_card).finer(scale)
    journal = unfinished(out, {"settings": settings, "lr": coarse_card["sha256"]})
    make = partial(_enlarged, open_array(array_path(lr, coarse_card)), scale)
    levels = fill(out.with_suffix(".zarr"), laid, Making(make, f"enlarge x{scales.name(scale)}"), journal, workers)
    card = {
        "source": {"path": lr.name, "dataset": None, "format": "card", "sha256": coarse_card["sha256"]},
        **{"degradation": None, "hr_shape": None},
        "missing": coarse_card["missing"],
        "damaged": coarse_card["damaged"],
        **kept(coarse_card),
    }
    finish(out, laid, card, workers, levels)
    journal.close()


def _enlarged_by_ratio(coarse: ts.TensorStore, scale: Scale, box: Box) -> np.ndarray:
    """The same at a real scale."""
    import numpy as np

    from emsr import degradation, resampling
    from emsr.geometry import Box
    from emsr.stores.shards import read_box

    plane = int(coarse.shape[1]), int(coarse.shape[2])
    axes = scales.axes(plane, scales.fine_plane(plane, scale))
    wanted = (box.start[1], box.stop[1]), (box.start[2], box.stop[2])
    (top, bottom), (left, right) = (resampling.seen_by_fine(*line) for line in zip(axes, wanted, strict=True))
    sections = read_box(coarse, Box((box.start[0], top, left), (box.stop[0], bottom, right)))
    made = [resampling.enlarge(section, axes, (top, left), wanted) for section in sections]
    return degradation.restore(np.stack(made), np.dtype(np.uint8))


def _counted(total: int, items: Iterable[int]) -> Iterator[int]:
    """The items, with progress."""
    with progress(total, "grow tissue", "sections") as shown:
        for item in items:
            yield item
            shown.update(1)


def _copying(source: Source, region: Box, laid: Layout, mapped: dict[str, Any] | None, label: str) -> Making:
    """How a region of a source becomes the array of its voxels, with its grey levels `mapped`."""
    from emsr.intensity import table
    from emsr.stores.fill import Making

    grey = table(source.dtype, mapped["low"], mapped["high"]) if mapped else None

    def voxels(box: Box) -> np.ndarray:
        place = box.shifted(region.start)
        read = source.read(place.start, place.stop)
        return read.astype(laid.dtype, copy=False) if grey is None else grey[read]

    return Making(voxels, label, source.depth)


def _enlarged(coarse: ts.TensorStore, scale: Scale, box: Box) -> np.ndarray:
    """One shard of the enlarged image, section by section, from its coarse voxels and two more on every side."""
    if not isinstance(scale, int):
        return _enlarged_by_ratio(coarse, scale, box)
    import numpy as np

    from emsr import degradation
    from emsr.geometry import Box, triple
    from emsr.stores.shards import read_box

    (z, y, x), (end, bottom, right) = box.start, box.stop
    low, high = [max(0, side // scale - 2) for side in (y, x)], [-(-side // scale) + 2 for side in (bottom, right)]
    grown = Box((z, low[0], low[1]), (end, high[0], high[1]))
    grown = grown.intersect(Box((0, 0, 0), triple(list(coarse.shape))))
    inner = box.shifted(triple([-start for start in grown.scaled(scale).start])).slices[1:]
    return np.stack([degradation.upsample(section, scale)[inner] for section in read_box(coarse, grown)])
