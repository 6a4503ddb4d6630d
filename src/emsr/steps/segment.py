"""Rule segment of segment.smk: segments at a threshold, from a finished agglomeration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emsr import durable
from emsr.geometry import Box, ShardGrid, triple

SEGMENT_RESULT = 1
MEMORY_MB = 4000  # what the rule asks for with two threads


def segment(
    settings: dict, agglomeration: Path, threshold: Path, out: Path, *, workers: int, memory_mb: int = MEMORY_MB
) -> None:
    """Segments at a threshold: a lookup table of the history, and the relabelling of each shard of fragments.

    `settings`: chunk. `threshold` is what `choose_threshold` wrote: 1 - mean affinity below which fragments are merged.
    `out` is the image card of the segments, uint64, numbered from 1 by first voxel in raster order; 0 is background.
    Another threshold needs nothing but this step. Raises ValueError where `memory_mb` (10^6 bytes) is too little.
    """
    from emsr.segmentation.lookup import lookup, relabelled
    from emsr.segmentation.memory import check_lookup
    from emsr.steps.segment_history import AGGLOMERATED, open_merged, read_threshold
    from emsr.stores.ome import Layout, level_count
    from emsr.stores.pyramid import pyramid
    from emsr.stores.sections import section_sha256
    from emsr.stores.shards import each, keep_or_write, read_box, shard_boxes
    from emsr.stores.zarr import open_array, recreate

    of, (value, chosen_by) = durable.read_object(agglomeration, *AGGLOMERATED), read_threshold(threshold)
    grid = ShardGrid(triple(of["shape"]), triple(of["shard"]))
    voxels = min(workers, len(grid.indices)) * grid.box((0, 0, 0)).size
    check_lookup(of["counts"]["fragments"], voxels, memory_mb, "segment")
    merged = open_merged(agglomeration)
    table = lookup(merged.history, merged.first, value)
    sides = grid.shape, "uint64", grid.shard, triple(settings["chunk"])
    space = tuple(of["voxel_size_nm"]), tuple(of["translation_nm"])
    path = out.with_suffix(".zarr")
    recreate(path, Layout(*sides, *space, levels=level_count(of["shape"])))
    array = open_array(path, write=True)

    def make(box: Box) -> None:
        keep_or_write(array, box, relabelled(read_box(merged.fragments, box), table))

    each(make, shard_boxes(array), workers, "segments")
    pyramid(path, workers)
    hashes, count = section_sha256(path, workers), int(table.segment.max())
    at = {"threshold": value, "threshold_source": chosen_by}
    _write_card(out, of, {**at, "section_sha256": hashes, "segments": count})


def _write_card(out: Path, of: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    from emsr.steps.parts import kept
    from emsr.stores.card import write_card

    keys = ("shape", "voxel_size_nm", "translation_nm", "damaged", "missing")
    fixed = {"array": out.with_suffix(".zarr").name, "dtype": "uint64", "degradation": None, "hr_shape": None}
    source = {"format": "agglomeration", "sha256": of["sha256"], "image_sha256": of["image_sha256"]}
    image = {key: of[key] for key in keys} | kept(of)
    write_card(out, {**fixed, **image, "source": source, "method": of["method"], **found})
