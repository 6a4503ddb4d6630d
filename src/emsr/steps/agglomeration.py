"""Rule agglomerate of segment.smk: one region graph, one history of merges."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emsr import durable, plan
from emsr.geometry import Box, ShardGrid, triple
from emsr.shards import shard_name
from emsr.steps.proof import PROVED

AGGLOMERATE_RESULT = 1
MEMORY_MB = 7000  # what the rule asks for with two threads

log = logging.getLogger(__name__)


def agglomerate(settings: dict, fragments: Path, out: Path, *, workers: int, memory_mb: int = MEMORY_MB) -> None:
    """Merge fragments by mean affinity: region graph of each shard, their sum, every merge up to `until`.

    `settings`: method ("exact", or "waterz", as published, with 256 bins), until (the largest threshold that can be
    asked for), affinities (path of their card). `fragments` is what `prove_fragments` wrote. Beside `out`, in the
    folder of its name without suffix: `graph/<shard>.npz` (edges u, v, count, sum; first voxel of each fragment), and
    `history.npz` (merges, first voxels). A shard's graph that stands on disk for the same place and voxels is not made
    again; files of other shards are removed.
    `memory_mb` (10^6 bytes) decides whether the graph is agglomerated in memory or over files: the same bytes.
    """
    import numpy as np

    from emsr.segmentation.lookup import merged_first_voxels
    from emsr.steps import graph_files
    from emsr.steps.parts import kept
    from emsr.stores import tables

    of, near = (durable.read_object(Path(card), *PROVED) for card in (fragments, settings["affinities"]))
    folder = out.with_suffix("")
    files = _graphs(settings, (fragments, of), near, folder / "graph", workers)
    first = merged_first_voxels(tables.part(file, "first") for file in files)
    method, until = settings["method"], float(settings["until"])
    history = graph_files.history(method, until, files, first["fragment"], folder / "scratch", memory_mb)
    for left in (folder, folder / "graph"):
        durable.sweep(left)
    tables.save(folder / "history.npz", merges=history.merges, first=first, until=np.array(history.until))
    edges = sum(map(graph_files.edge_count, files))
    counts = {"fragments": len(first), "edges_of_shards": edges, "merges": len(history.merges)}
    log.info("agglomeration: %s", counts)
    keys = ("shape", "shard", "voxel_size_nm", "translation_nm", "damaged", "missing", "image_sha256")
    fixed = {"history": f"{folder.name}/history.npz", "method": method, "until": settings["until"]}
    place = {"fragments": os.path.relpath(fragments, out.parent), "fragments_sha256": of["sha256"]}
    stated = {"schema": 1, **fixed, **place, **{key: of[key] for key in keys}, **kept(of), "counts": counts}
    durable.write_sealed(out, {**stated, "sha256": tables.digest(tables.parts(folder / "history.npz"))})


def _graphs(
    settings: Mapping[str, Any],
    fragments: tuple[Path, Mapping[str, Any]],
    affinities: Mapping[str, Any],
    folder: Path,
    workers: int,
) -> list[Path]:
    """The file of the graph of every shard that was not skipped, in raster order of the shards."""
    import numpy as np

    from emsr.inference.records import OF_NOTHING
    from emsr.segmentation.graph import read_graph
    from emsr.segmentation.lookup import first_voxels
    from emsr.steps import graph_files
    from emsr.stores import tables
    from emsr.stores.shards import each, read_box
    from emsr.stores.zarr import open_array

    path, of = fragments
    grid = ShardGrid(triple(of["shape"]), triple(of["shard"]))
    ids = open_array((path.parent / of["array"]).resolve())
    near = open_array((Path(settings["affinities"]).parent / affinities["array"]).resolve())
    made = [index for index in grid.indices if of["shards"][shard_name(index)] != OF_NOTHING]

    def make(box: Box) -> Path:
        name, inputs = shard_name(grid.holding(box.start)), _inputs(grid, box, of, affinities)
        file = folder / f"{name}.npz"
        if graph_files.is_of(file, inputs):
            return file
        edges = read_graph(box, lambda part: read_box(ids, part), lambda part: read_box(near, part))
        first = first_voxels(read_box(ids, box), box, grid.shape)
        tables.save(file, edges=edges, first=first, inputs=np.array(inputs))
        return file

    files = each(make, list(map(grid.box, made)), workers, "region graph")
    for old in set(folder.glob("*.npz")) - set(files):  # of another layout of shards
        old.unlink()
    return files


def _inputs(grid: ShardGrid, box: Box, fragments: Mapping[str, Any], affinities: Mapping[str, Any]) -> str:
    """The hash of where a shard lies and of all voxels that its graph is made from, those of lower neighbours too."""
    own = grid.holding(box.start)
    low = triple([max(number - 1, 0) for number in own])
    near = Box(low, triple([number + 1 for number in own])).indices()
    named = [shard_name(index) for index in near]
    voxels = [[fragments["shards"][name], affinities["shards"][name]] for name in named]
    return plan.settings_sha256([grid.shape, box.start, box.stop, voxels])
