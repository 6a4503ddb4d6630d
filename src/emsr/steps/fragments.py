"""Fragments of segment.smk: an array made empty, cut job by job from affinities, and proved whole."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsr import durable, plan
from emsr.geometry import Box, ShardGrid, Triple, triple
from emsr.steps import jobs, proof

if TYPE_CHECKING:
    from emsr.inference.records import Records
    from emsr.segmentation.fragments import BlockGrid

ALLOCATE_FRAGMENTS_RESULT = 1
FRAGMENTS_RESULT = 1
PROVE_FRAGMENTS_RESULT = 1


def allocate_fragments(settings: dict, affinities: Path, out: Path) -> None:
    """Make the empty array of fragments and say what each of its shards is made from.

    `settings`: method ("watershed", as published, or "mutex"), block and halo (voxels z, y, x; whole blocks make up a
    shard), chunk. `affinities` is what `prove_affinities` wrote.
    """
    from emsr.inference.allocation import without_result
    from emsr.segmentation.fragments import BlockGrid
    from emsr.steps.parts import kept

    of = durable.read_json(affinities)
    shape, shard = triple(of["shape"]), triple(of["shard"])
    grid = BlockGrid(shape, triple(settings["block"]), triple(settings["halo"]))
    grid.blocks(ShardGrid(shape, shard).box((0, 0, 0)))
    shared = without_result(settings)
    name = "fragments-" + plan.settings_sha256([shared, of["shape"], of["shard"]])[:12]
    document = {
        "schema": 1,
        "affinities": jobs.relative(affinities, out.parent),
        "lr": {"sha256": of["image_sha256"], "damaged": of["damaged"], "missing": of["missing"]} | kept(of),
        **{key: of[key] for key in ("shape", "shard", "voxel_size_nm", "translation_nm", "weights_sha256")},
        "inputs_sha256": layer_hashes(of, grid),
        "array": f"{name}.zarr",
        "records": f"{name}.records",
        "settings": shared,
        "settings_sha256": plan.settings_sha256(shared),
    }
    jobs.make_array(out.parent / document["array"], document, settings, "uint64")
    durable.write_json(out, document)


def layer_hashes(affinities: Mapping[str, Any], grid: BlockGrid) -> list[str]:
    """For each layer of shards the hash of the shards of affinities that its blocks read, halos included."""
    shards = ShardGrid(triple(affinities["shape"]), triple(affinities["shard"]))
    deep, hashes = shards.shard[0], []
    for layer in range(shards.counts[0]):
        box = shards.box((layer, 0, 0))
        low, high = max(box.start[0] - grid.halo[0], 0), min(box.stop[0] + grid.halo[0], shards.shape[0])
        read = range(low // deep, -(-high // deep))
        named = [plan.shard_name(index) for index in shards.indices if index[0] in read]
        hashes.append(plan.settings_sha256([affinities["shards"][name] for name in named]))
    return hashes


def fragments(settings: dict, allocate: Path, job: str, out: Path, *, workers: int) -> None:
    """Cut the shards of one job into fragments, uint64 (z, y, x) with 0 for background, and write the job's mark."""
    from emsr.inference.records import Records
    from emsr.stores.shards import each

    clock = time.perf_counter()
    stated = jobs.allocated(allocate, settings)
    number, n = plan.parse_job(job)
    records = Records(allocate, stated, plan.settings_sha256(settings))
    mine = [index for box in plan.jobs(records.grid, n)[number] for index in box.indices()]
    todo = {records.grid.box(index): index for index in mine if records.holding(index) is None}
    stats = jobs.Stats(out.with_suffix(".stats.json"), job, mine, list(todo.values()))
    if todo:
        cut = _cutter(allocate, stated, settings, records)
        each(lambda box: cut(box, todo[box]), list(todo), workers, "cutting fragments")
    jobs.write_mark(out, job, stated, records, mine)
    spent = {"seconds": round(time.perf_counter() - clock, 3), "peak_rss_mb": jobs.peak_rss_mb()}
    stats.add({"state": "finished", **spent})


def _cutter(
    allocate: Path, stated: Mapping[str, Any], settings: Mapping[str, Any], records: Records
) -> Callable[[Box, Triple], None]:
    """What makes, writes and records one shard of fragments."""
    from emsr.segmentation.fragments import BlockGrid, fragments_in, watershed
    from emsr.segmentation.mutex import mutex_watershed
    from emsr.stores.shards import read_box
    from emsr.stores.zarr import open_array, write_box

    path = jobs.located(allocate.parent, stated["affinities"])
    of = durable.read_json(path)
    source, target = open_array((path.parent / of["array"]).resolve()), open_array(records.array, write=True)
    grid = BlockGrid(triple(of["shape"]), triple(settings["block"]), triple(settings["halo"]))
    method = {"watershed": watershed, "mutex": mutex_watershed}[settings["method"]]

    def cut(box: Box, index: Triple) -> None:
        made = fragments_in(box, grid, lambda part: read_box(source, part), method)
        records.begin(index)
        write_box(target, box.start, made)
        records.finish(index, hashlib.sha256(made.tobytes()).hexdigest(), {"device": "cpu"})

    return cut


def prove_fragments(settings: dict, allocate: Path, marks: list[Path], out: Path, *, workers: int) -> None:
    """Prove that every shard of fragments is there, whole, and of one kind, as `prove_affinities` does."""
    proof.prove(settings, allocate, marks, out, workers)
