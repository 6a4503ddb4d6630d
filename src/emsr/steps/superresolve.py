"""Super-resolution of a volume: `allocate` says what will be made, each `superresolve` makes the shards of a job,
`stitch` proves that they are a whole.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from emsr import durable, plan
from emsr.geometry import Triple, triple
from emsr.shards import all_marks
from emsr.steps import extent, jobs

ALLOCATE_RESULT = 1
SUPERRESOLVE_RESULT = 1
STITCH_RESULT = 1

log = logging.getLogger(__name__)


def allocate(settings: dict, lr: Path, card: Path, out: Path, *, accept_mismatch: bool = False) -> None:
    """Make the empty sr array of a volume and say, in a small JSON, what each of its sections is made from.

    `settings`: overlap (lr pixels), shard, chunk (sr voxels z, y, x), precision, device, and optionally window (lr
    pixels; else the card's), pilot (lr voxels, [[z0, z1], [y0, y1], [x0, x1]]), mask (an image card) and scale
    (another than the card's, where the model has a range of them): shards that lie outside the pilot, or hold no tissue
    of the mask, are skipped. With samples (count, temperature, seed) the array holds how far samples of sr lie apart,
    in quarters of a grey level. `lr` is the image card of the coarse volume,
    `card` that of the weights. The array lies beside the folder of `out` and is named by all that its voxels depend on
    but the voxels of the input. Raises ValueError, before anything is written, for weights that do not fit the volume
    or settings that fit neither; for an lr that is unlike those that the weights were trained on too, unless
    `accept_mismatch` makes that a warning.
    """
    import torch

    from emsr.inference import allocation
    from emsr.inference.deviation import sampled
    from emsr.models import checkpoint
    from emsr.steps.compared import compare
    from emsr.stores.card import array_path, read_card

    image, weights = read_card(lr), checkpoint.load_card(card)
    used = allocation.at_scale(weights, card, settings.get("scale"))
    allocation.check_weights(used, card, image, lr)
    made = allocation.make_plan(settings, used, image)
    skipped = extent.stated(settings, made, allocation.space(image, made.scale))
    checkpoint.load_state(card, weights)
    if samples := settings.get("samples"):
        with torch.device("meta"):
            sampled(checkpoint.network(weights), samples, card)
    compare(weights, card, image, lr, accept_mismatch)
    if made.window != (seen := weights.get("window")):
        log.warning("window %d was not seen by validation (%s was): see the seam score", made.window, seen or "none")
    if caution := weights.get("caution"):
        log.warning("%s: %s", card, caution)
    name, folder = allocation.array_name(settings, weights, made), out.parent
    document = allocation.document(settings, weights, image, made) | skipped
    document["lr"]["array"] = jobs.relative(array_path(lr, image), folder)
    document |= {"array": f"../{name}.zarr", "records": f"../{name}.records", "card": jobs.relative(card, folder)}
    _make_array(folder.parent / f"{name}.zarr", document, triple(settings["chunk"]))
    durable.write_sealed(out, document)


def _make_array(path: Path, document: Mapping[str, Any], chunk: Triple) -> None:
    """The array with all its levels, without voxels; where it stands already, only its place in space is written.

    OSError, before anything is written, where it cannot fit.
    """
    from emsr.stores.ome import Layout, group_document, level_count
    from emsr.stores.zarr import recreate

    shape, shard = triple(document["shape"]), triple(document["shard"])
    size, corner = tuple(document["voxel_size_nm"]), tuple(document["translation_nm"])
    layout = Layout(shape, "uint8", shard, chunk, size, corner, level_count(shape))
    jobs.check_room(path, layout, document)
    if (path / "zarr.json").is_file():
        durable.write_json(path / "zarr.json", group_document(layout, path.stem))
    recreate(path, layout)


def superresolve(settings: dict, allocate: Path, job: str, out: Path, *, workers: int) -> None:
    """Compute the shards of one job ("2-of-5") that have no record that holds, and write its mark.

    The mark names the job's shards and their hashes: nothing but what inputs determine. Time, memory and attempts stand
    beside it in `<job>.stats.json`. A job without shards writes a mark without shards.
    """
    jobs.run_job(settings, allocate, job, out, workers=workers)


def stitch(settings: dict, allocate: Path, marks: list[Path], out: Path, *, workers: int) -> None:
    """Prove that every shard is there and whole, score the seams, build the pyramid; write the image card of sr.

    Reads all voxels that were made once, a row of shards at a time. `out` is the image card of the result with its root
    hash, which depends neither on shards nor on jobs; beside it a link `sr.zarr` to the array, and `valid.zarr` on the
    grid of lr: 0 for what was not made, 1 for what was made with stand-ins for damaged or absent data, 2 for the rest.
    `proof.json` beside `allocate` says which marks this was made from; a single mark of several stands for all of them.
    Raises ValueError for a shard that is lacking or not the recorded one, and for shards of different settings or
    devices.
    """
    from emsr.inference import proof
    from emsr.inference.records import Records
    from emsr.inference.survey import survey
    from emsr.progress import progress
    from emsr.stores.pyramid import pyramid
    from emsr.stores.shards import read_box
    from emsr.stores.zarr import open_array

    clock = time.perf_counter()
    refuse_taken(out.with_suffix(".zarr"))
    marks = all_marks(marks)
    allocated = jobs.allocated(allocate, settings)
    named = proof.read_marks(marks, allocated, plan.read_grid(allocated))
    records = Records(allocate, allocated, named.settings_sha256)
    shards = proof.whole(records, named)
    array, empty = open_array(records.array), shards.skipped
    with progress(len(shards), "checking shards", "shards") as shown:
        check = partial(proof.check_shard, records, shards, named)
        surveyed = survey(records.grid, lambda box: read_box(array, box), workers, shown, check, empty)
    made = plan.read_plan(allocated)
    pyramid(records.array, workers, extent.any_made(made, empty) if len(empty) else None)
    statement = proof.statement(made, surveyed, shards)
    if left := proof.skipped(records, empty):
        statement["skipped"] = left
        log.warning("%d of %d shards are skipped: sr is 0 there", left["shards"], len(shards))
    statement["valid"] = _validity(out, allocate, allocated, empty, workers)
    log.info("%d shards are whole, seams %s", len(shards), statement["seams"])
    link(records.array, out.with_suffix(".zarr"))
    _write_card(out, allocated, statement)
    jobs.write_proof(allocate, settings, marks)
    stats: dict[str, Any] = {"seconds": round(time.perf_counter() - clock, 3), "peak_rss_mb": jobs.peak_rss_mb()}
    stats |= {"schema": durable.SCHEMA, "job_seams": proof.job_seams(made, surveyed, len(marks))}
    durable.write_json(allocate.parent / "stitch.stats.json", stats)


def _validity(
    out: Path, allocate: Path, allocated: Mapping[str, Any], empty: Collection[Triple], workers: int
) -> dict[str, Any]:
    """Write valid.zarr; what the card says of it: the sections that were not made from whole data, and why."""
    from emsr.inference import valid

    made, card = plan.read_plan(allocated), durable.read_json(jobs.located(allocate.parent, allocated["card"]))
    reasons = valid.stand_ins(made, card.get("section_step", 1), set(map(int, allocated["lr"]["damaged"])))
    path = out.with_name("valid.zarr")
    extent.write_valid(path, allocated, valid.codes(reasons, made.lr_shape[0]), empty, workers)
    return {"array": path.name, "sections": {str(z): reason for z, reason in reasons.items()}}


def refuse_taken(name: Path) -> None:
    """ValueError where something that is no link has the name of a link."""
    if name.exists() and not name.is_symlink():
        raise ValueError(f"{name} is not a link: move it away, stitch makes a link to the array of that name")


def link(target: Path, name: Path) -> None:
    """Point the symbolic link `name` to `target`, in one step; ValueError where something else has the name."""
    refuse_taken(name)
    fresh = name.with_name(f".{name.name}.{os.getpid()}.link")
    fresh.symlink_to(os.path.relpath(target.resolve(), name.parent.resolve()))
    fresh.replace(name)
    durable.sync_folder(name.parent)


def _write_card(out: Path, allocated: Mapping[str, Any], statement: Mapping[str, Any]) -> None:
    from emsr.steps.intensities import kept
    from emsr.steps.parts import finer
    from emsr.stores.card import write_card

    image = {key: allocated[key] for key in ("shape", "voxel_size_nm", "translation_nm")}
    lr = {key: allocated["lr"][key] for key in ("damaged", "missing", "source")} | kept(allocated["lr"])
    lr |= finer(allocated["lr"], plan.read_plan(allocated).grids)
    fixed = {"array": out.with_suffix(".zarr").name, "dtype": "uint8", "degradation": None, "hr_shape": None}
    made_by = ("card_sha256", "weights_sha256", "settings_sha256", "precision", "scale", "window", "overlap")
    invalid = sorted(map(int, lr["missing"]))
    made = {key: allocated[key] for key in (*made_by, "caution") if key in allocated}
    if samples := allocated["settings"].get("samples"):
        made["samples"] = samples
    write_card(out, {**fixed, **image, **lr, **made, **statement, "invalid": invalid})
