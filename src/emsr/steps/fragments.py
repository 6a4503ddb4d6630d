"""Fragments of segment.smk: an array made empty, cut job by job from affinities, and proved whole."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsr import durable, plan
from emsr.geometry import Box, ShardGrid, Triple, triple
from emsr.shards import parse_job, shard_name, shards_of_job
from emsr.steps import jobs, proof
from emsr.steps.attempts import attempt

if TYPE_CHECKING:
    import numpy as np

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
    from emsr.inference import extent
    from emsr.inference.allocation import without_result
    from emsr.segmentation.fragments import BlockGrid
    from emsr.steps.parts import kept

    of = durable.read_object(affinities, *proof.PROVED)
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
        **extent.of_image(ShardGrid(shape, shard), of),
        "inputs_sha256": layer_hashes(of, grid),
        "shard_inputs_sha256": shard_hashes(of, grid),
        "array": f"{name}.zarr",
        "records": f"{name}.records",
        "settings": shared,
        "settings_sha256": plan.settings_sha256(shared),
    }
    jobs.make_array(out.parent / document["array"], document, settings, "uint64")
    durable.write_sealed(out, document)


def layer_hashes(affinities: Mapping[str, Any], grid: BlockGrid) -> list[str]:
    """For each layer of shards the hash of the shards of affinities that its blocks read, halos included."""
    shards = ShardGrid(triple(affinities["shape"]), triple(affinities["shard"]))
    deep, hashes = shards.shard[0], []
    for layer in range(shards.counts[0]):
        box = shards.box((layer, 0, 0))
        low, high = max(box.start[0] - grid.halo[0], 0), min(box.stop[0] + grid.halo[0], shards.shape[0])
        read = range(low // deep, -(-high // deep))
        layers = Box((read.start, 0, 0), (read.stop, *shards.counts[1:]))
        named = [shard_name(index) for index in layers.indices()]
        voxels, left = [affinities["shards"][name] for name in named], affinities.get("skipped")
        hashes.append(plan.settings_sha256([voxels, left["runs"]] if left else voxels))
    return hashes


def shard_hashes(affinities: Mapping[str, Any], grid: BlockGrid) -> dict[str, str]:
    """For each shard the hash of the shards of affinities that its blocks read, halos included, by name.

    Of an image that was made in part also of what of it was not made there.
    """
    from emsr.inference.extent import Skipped

    shards, left = ShardGrid(triple(affinities["shape"]), triple(affinities["shard"])), Skipped.of(affinities)
    found = {}
    for index in shards.indices:
        read = _grown(shards.box(index), grid)
        low = [first // edge for first, edge in zip(read.start, shards.shard, strict=True)]
        high = [-(-last // edge) for last, edge in zip(read.stop, shards.shard, strict=True)]
        named = [shard_name(near) for near in Box(triple(low), triple(high)).indices()]
        voxels = [[name, affinities["shards"][name]] for name in named]
        found[shard_name(index)] = plan.settings_sha256([voxels, left.touching(read) if left else []])
    return found


def _grown(box: Box, grid: BlockGrid) -> Box:
    """A box with the halo of its blocks, as far as the volume reaches."""
    low = [first - by for first, by in zip(box.start, grid.halo, strict=True)]
    high = [last + by for last, by in zip(box.stop, grid.halo, strict=True)]
    return Box(triple(low), triple(high)).intersect(Box((0, 0, 0), grid.shape))


def fragments(settings: dict, allocate: Path, job: str, out: Path, *, workers: int) -> None:
    """Cut the shards of one job into fragments, uint64 (z, y, x) with 0 for background, and write the job's mark.

    What of the image was not made is background.
    """
    from emsr.inference.records import Records
    from emsr.stores.shards import each

    clock = time.perf_counter()
    stated = jobs.allocated(allocate, settings)
    number, n = parse_job(job)
    records = Records(allocate, stated, plan.settings_sha256(settings))
    mine = shards_of_job(records.grid, number, n, records.within)
    open_ones = [index for index in mine if records.settled(index) is None]
    todo = {records.grid.box(index): index for index in open_ones if index not in records.skipped}
    with attempt(out, records, mine, list(todo.values())) as stats:
        jobs.leave_empty(records, [index for index in open_ones if index in records.skipped])
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
    import numpy as np

    from emsr.segmentation.fragments import BlockGrid, fragments_in, watershed
    from emsr.segmentation.mutex import mutex_watershed
    from emsr.steps.left_out import of_images
    from emsr.stores.shards import read_box
    from emsr.stores.zarr import open_array, write_box

    path = jobs.located(allocate.parent, stated["affinities"])
    try:
        of = durable.read_object(path, *proof.PROVED)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; remove {allocate} before, so that it is needed") from None
    source, target = open_array((path.parent / of["array"]).resolve()), open_array(records.array, write=True)
    grid = BlockGrid(triple(of["shape"]), triple(settings["block"]), triple(settings["halo"]))
    method = {"watershed": watershed, "mutex": mutex_watershed}[settings["method"]]
    left_out = of_images([{key: of[key] for key in ("shape", "skipped")}]) if of.get("skipped") else None

    def made_of_image(box: Box) -> np.ndarray:
        assert left_out is not None
        return left_out.counted(np.ones(box.shape, bool), box)

    def cut(box: Box, index: Triple) -> None:
        mask = made_of_image if left_out else None
        made = fragments_in(box, grid, lambda part: read_box(source, part), method, mask)
        records.begin(index)
        write_box(target, box.start, made)
        records.finish(index, hashlib.sha256(made.tobytes()).hexdigest(), {"device": "cpu"})

    return cut


def prove_fragments(settings: dict, allocate: Path, marks: list[Path], out: Path, *, workers: int) -> None:
    """Prove that every shard of fragments is there, whole, and of one kind, as `prove_affinities` does."""
    proof.prove(settings, allocate, marks, out, workers)
