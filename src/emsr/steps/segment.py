"""From an image to segments: affinities and fragments job by job, one agglomeration, segments at a threshold."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsr import durable, plan
from emsr.geometry import Box, ShardGrid, Triple, triple
from emsr.steps import jobs

if TYPE_CHECKING:
    from emsr.inference.records import Records
    from emsr.segmentation.fragments import BlockGrid

ALLOCATE_AFFINITIES_RESULT = 1
AFFINITIES_RESULT = 1
PROVE_AFFINITIES_RESULT = 1
ALLOCATE_FRAGMENTS_RESULT = 1
FRAGMENTS_RESULT = 1
PROVE_FRAGMENTS_RESULT = 1

log = logging.getLogger(__name__)


def allocate_affinities(settings: dict, image: Path, card: Path, out: Path) -> None:
    """Make the empty array of affinities of an image and say, in a small JSON, what each of its shards is made from.

    `settings`: depth and window (voxels that the network sees at a time, halo included; null: the card's), overlap and
    depth_overlap (voxels that windows share; without effect where the network has a halo), shard, chunk, precision,
    device. `image` is an image card, `card` that of the weights. Raises ValueError, before anything is written, for
    weights and settings that do not fit.
    """
    from emsr.inference import affinities as settle
    from emsr.models import checkpoint
    from emsr.stores.card import array_path, read_card

    seen, weights = read_card(image), checkpoint.load_card(card)
    settle.check_weights(weights, card, seen, image)
    made = settle.make_plan(settings, weights, seen, checkpoint.network(weights).geometry)
    checkpoint.load_state(card, weights)
    name, folder = settle.array_name(settings, weights, made), out.parent
    document = settle.document(settings, weights, seen, made)
    document["lr"]["array"] = jobs.relative(array_path(image, seen), folder)
    document |= {"array": f"{name}.zarr", "records": f"{name}.records", "card": jobs.relative(card, folder)}
    make_array(folder / f"{name}.zarr", document, settings, "uint8")
    durable.write_json(out, document)


def make_array(path: Path, document: Mapping[str, Any], settings: Mapping[str, Any], dtype: str) -> None:
    """The array that a document of `allocate…` states, without voxels; one level."""
    from emsr.stores.ome import Layout
    from emsr.stores.zarr import recreate

    size, corner = tuple(document["voxel_size_nm"]), tuple(document["translation_nm"])
    channels = document.get("channels", 0)
    sides = triple(document["shape"]), dtype, triple(document["shard"]), triple(settings["chunk"])
    recreate(path, Layout(*sides, size, corner, channels=channels))


def affinities(settings: dict, allocate: Path, job: str, out: Path, *, workers: int) -> None:
    """Predict the affinities of the shards of one job ("2-of-5") that have no record that holds, and write its mark.

    Affinities are uint8 (3, z, y, x), 255 is 1: the edges from a voxel to its lower neighbour along z, y and x.
    """
    jobs.run_job(settings, allocate, job, out, workers=workers)


def prove_affinities(settings: dict, allocate: Path, marks: list[Path], out: Path, *, workers: int) -> None:
    """Prove that every shard of affinities is there, whole, and of one kind; `out` says where they lie and their hash.

    Reads all voxels once, a shard a worker at a time. `proof.json` beside `allocate` says which marks this was made
    from; a single mark of several stands for all of them.
    """
    _prove(settings, allocate, marks, out, workers)


def prove_fragments(settings: dict, allocate: Path, marks: list[Path], out: Path, *, workers: int) -> None:
    """As `prove_affinities`, of fragments."""
    _prove(settings, allocate, marks, out, workers)


def _prove(settings: dict, allocate: Path, marks: list[Path], out: Path, workers: int) -> None:
    from emsr.inference import proof
    from emsr.inference.records import Records

    marks = plan.all_marks(marks)
    stated, found = jobs.allocated(allocate, settings), {str(mark): durable.read_json(mark) for mark in marks}
    records = Records(allocate, stated, proof.one_settings(found, stated))
    shards = proof.whole(records, found)
    check_shards(records, shards, workers)
    hashes = {plan.shard_name(index): record["sha256"] for index, record in shards.items()}
    durable.write_json(out, card_of(out, records.array, stated, hashes))
    jobs.write_proof(allocate, settings, marks)


def allocate_fragments(settings: dict, affinities: Path, out: Path) -> None:
    """Make the empty array of fragments and say what each of its shards is made from.

    `settings`: method ("watershed", as published, or "mutex"), block and halo (voxels z, y, x; whole blocks make up a
    shard), chunk. `affinities` is what `prove_affinities` wrote.
    """
    from emsr.inference.allocation import without_result
    from emsr.segmentation.fragments import BlockGrid

    of = durable.read_json(affinities)
    shape, shard = triple(of["shape"]), triple(of["shard"])
    grid = BlockGrid(shape, triple(settings["block"]), triple(settings["halo"]))
    grid.blocks(ShardGrid(shape, shard).box((0, 0, 0)))
    shared, name = (
        without_result(settings),
        "fragments-" + plan.settings_sha256([settings, of["shape"], of["shard"]])[:12],
    )
    document = {
        "schema": 1,
        "affinities": jobs.relative(affinities, out.parent),
        "lr": {"sha256": of["image_sha256"], "damaged": of["damaged"], "missing": of["missing"]},
        **{key: of[key] for key in ("shape", "shard", "voxel_size_nm", "translation_nm", "weights_sha256")},
        "inputs_sha256": layer_hashes(of, grid),
        "array": f"{name}.zarr",
        "records": f"{name}.records",
        "settings": shared,
        "settings_sha256": plan.settings_sha256(shared),
    }
    make_array(out.parent / document["array"], document, settings, "uint64")
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


def check_shards(records: Any, shards: Mapping[Any, Mapping[str, Any]], workers: int) -> None:
    """Raise ValueError for the first shard whose voxels are not those of its record."""
    from emsr.stores.shards import each, read_box
    from emsr.stores.zarr import open_array

    array, of_box = open_array(records.array), {records.grid.box(index): index for index in shards}

    def same(box: Any) -> bool:
        voxels = read_box(array, box)
        return bool(hashlib.sha256(voxels.tobytes()).hexdigest() == shards[of_box[box]]["sha256"])

    for box, holds in zip(of_box, each(same, list(of_box), workers, "checking shards"), strict=True):
        if not holds:
            name, path = plan.shard_name(of_box[box]), records.path(of_box[box])
            raise ValueError(
                f"shard {name} of {records.array.name} does not hold the voxels of its record: remove {path} and the "
                "marks beside it, and run again"
            )


def card_of(out: Path, array: Path, stated: Mapping[str, Any], hashes: Mapping[str, str]) -> dict[str, Any]:
    """What is known of a proved array: where it lies, its space, the hash of each shard and one of them all."""
    space = ("shape", "shard", "voxel_size_nm", "translation_nm", "weights_sha256", "settings_sha256")
    image = {key: stated["lr"][key] for key in ("damaged", "missing")}
    return {
        "schema": 1,
        "array": jobs.relative(array, out.parent),
        **{key: stated[key] for key in space},
        **image,
        "image_sha256": stated["lr"]["sha256"],
        "shards": dict(hashes),
        "sha256": plan.settings_sha256(dict(hashes)),
    }
