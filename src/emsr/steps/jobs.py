"""What the steps with jobs share: a job computes the shards that lack a record, writes them, and leaves its mark."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsr import durable, memory, plan, scales
from emsr.geometry import Triple, triple
from emsr.plan import read_within
from emsr.shards import parse_job, shard_name, shards_of_job
from emsr.steps.attempts import attempt

if TYPE_CHECKING:
    from emsr.inference.meter import Meter
    from emsr.inference.records import Records
    from emsr.inference.stream import Network
    from emsr.inference.volumetric import VolumeNetwork
    from emsr.stores.ome import Layout

CACHE_BYTES = 128 * 2**20  # decoded chunks of the input that the windows of one row share
log = logging.getLogger(__name__)


def allocated(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What `allocate` wrote; ValueError if that was with other settings, or is something else."""
    from emsr.inference.allocation import without_result

    stated: dict[str, Any] = durable.read_json(path)
    wanted = without_result(settings)
    if not isinstance(stated, dict) or not {"settings", "settings_sha256"} <= stated.keys():
        raise ValueError(f"{path} allocates nothing: delete it and run allocate again")
    if stated["settings_sha256"] != plan.settings_sha256(wanted):
        raise ValueError(f"{path} was made with settings {stated['settings']}, not {wanted}: run allocate again")
    return stated


def make_array(path: Path, document: Mapping[str, Any], settings: Mapping[str, Any], dtype: str) -> None:
    """The array that a document of `allocate…` states, without voxels; one level. OSError where it cannot fit."""
    from emsr.stores.ome import Layout
    from emsr.stores.zarr import recreate

    size, corner = tuple(document["voxel_size_nm"]), tuple(document["translation_nm"])
    channels = document.get("channels", 0)
    sides = triple(document["shape"]), dtype, triple(document["shard"]), triple(settings["chunk"])
    laid = Layout(*sides, size, corner, channels=channels)
    check_room(path, laid, document)
    recreate(path, laid)


def check_room(path: Path, laid: Layout, document: Mapping[str, Any]) -> None:
    """OSError, in one line, where a new array and the records of its shards fit on the disk by no means."""
    from emsr.stores import room

    if path.is_dir():
        return
    need = room.total(room.of_shards(path.stem, laid, 1)[:2], path.name)
    zeros = replace(need, least=need.files * room.BLOCK)
    room.check_room(path, zeros if read_within(document) else need)


def run_job(settings: dict, allocate: Path, job: str, out: Path, *, workers: int) -> None:
    """Compute the shards of one job ("2-of-5") that have no record that holds, and write its mark.

    The mark names the job's shards and their hashes: nothing but what inputs determine. Time, memory and attempts stand
    beside it in `<job>.stats.json`. A job without shards writes a mark without shards. Shards that are skipped are
    written as zeros.
    """
    from emsr.inference.extent import without_extent
    from emsr.inference.records import Records

    clock = time.perf_counter()
    stated = allocated(allocate, settings)
    number, n = parse_job(job)
    records = Records(allocate, stated, plan.settings_sha256(without_extent(settings)))
    mine = shards_of_job(records.grid, number, n, records.within)
    open_ones = [index for index in mine if records.settled(index) is None]
    outside = [index for index in open_ones if index in records.skipped]
    todo = [index for index in open_ones if index not in records.skipped]
    have = len(mine) - len(open_ones)
    log.info("job %s: %d shards to compute, %d to leave empty, %d have records", job, len(todo), len(outside), have)
    with attempt(out, records, mine, todo) as stats:
        leave_empty(records, outside)
        if todo:
            stats.add(_compute(allocate, stated, records, mine, workers))
        write_mark(out, job, stated, records, mine)
        stats.add({"state": "finished", "seconds": round(time.perf_counter() - clock, 3), "peak_rss_mb": peak_rss_mb()})


def write_mark(out: Path, job: str, allocated: Mapping[str, Any], records: Records, mine: list[Triple]) -> None:
    """The mark of a job whose shards all have records."""
    records.refuse_orphan()
    settled = {shard_name(index): records.settled(index) for index in mine}
    if gone := [name for name, record in settled.items() if record is None]:
        raise ValueError(
            f"shard {gone[0]} of {records.array.name} lost its record while job {job} made others: run it again"
        )
    shards = {name: record["sha256"] for name, record in settled.items() if record}
    stated = {key: allocated[key] for key in ("array", "weights_sha256")}
    durable.write_sealed(
        out, {"schema": 1, "job": job, "settings_sha256": records.settings_sha256, "shards": shards, **stated}
    )


def relative(path: Path, folder: Path) -> str:
    """How a document in `folder` names `path`, so that `located` finds it also where a folder above is a link."""
    return os.path.relpath(path.resolve(), folder.resolve())


def located(folder: Path, path: str) -> Path:
    """What a document in `folder` names as `path`."""
    return (folder.resolve() / path).resolve()


def write_proof(allocate: Path, settings: Mapping[str, Any], marks: list[Path]) -> None:
    """Beside `allocate`: the marks that a whole was proved by, for `proved`."""
    named = [os.path.relpath(mark, allocate.parent) for mark in marks]
    durable.write_sealed(allocate.parent / "proof.json", {"schema": 1, "settings": settings, "marks": named})
    durable.sweep(allocate.parent)


def leave_empty(records: Records, indices: list[Triple]) -> None:
    """Write and record shards that are skipped: zeros, so that what is not there is never taken for what is lost."""
    import numpy as np

    from emsr.stores.zarr import open_array, write_box

    if not indices:
        return
    target = open_array(records.array, write=True)
    for index in indices:
        box = records.grid.box(index)
        records.begin(index)
        write_box(target, box.start, np.zeros((*target.shape[:-3], *box.shape), target.dtype.numpy_dtype))
        records.skip(index)


def _compute(
    allocate: Path, allocated: Mapping[str, Any], records: Records, mine: list[Triple], workers: int
) -> dict[str, Any]:
    """Compute, write and record those of a job's shards that lack a record, each as soon as it is whole."""
    import torch

    from emsr.inference import allocation
    from emsr.inference.devices import choose_device, claimed
    from emsr.inference.meter import Meter
    from emsr.inference.run import count_windows, run
    from emsr.models import checkpoint
    from emsr.stores.shards import read_box
    from emsr.stores.zarr import open_array, write_box

    device, made = choose_device(allocated["device"]), plan.read_plan(allocated)
    records.refuse_mixture(mine, device)
    card, lr = (located(allocate.parent, path) for path in (allocated["card"], allocated["lr"]["array"]))
    allocation.check_unchanged(checkpoint.load_card(card), card, allocated)
    source = open_array(lr, cache_bytes=CACHE_BYTES)
    target = open_array(records.array, write=True)
    todo = [index for index in mine if index not in records.skipped and records.holding(index) is None]
    windows, voxels, meter = count_windows(made, todo, workers), 0, Meter()
    with claimed(device) as where, _progress(allocated, windows) as shown:
        network, accelerators = _network(card, where, allocated)
        made_by = {"device": device, "torch": torch.__version__, **accelerators}
        for index, shard in run(network, made, todo, lambda box: read_box(source, box), workers, shown, meter):
            with meter.counting("write"):
                records.begin(index)
                write_box(target, made.grid.box(index).start, shard)
                sha256 = hashlib.sha256(shard.data).hexdigest()
                records.finish(index, sha256, made_by)
            voxels += made.grid.box(index).size
    meter.add("network", network.seconds)
    if 0 < meter.in_flight < workers:
        log.warning("memory ran out: %d of %d windows were in flight at the end", meter.in_flight, workers)
    return {"voxels": voxels, "windows": windows, "device": device, **_spent(meter, voxels, workers), **accelerators}


def _spent(meter: Meter, voxels: int, workers: int) -> dict[str, Any]:
    """Where the time of a job went: seconds of all workers together, of which "stall" is what they were not at work.

    "network_share" is the part of their time that they were in the network; writing is the main thread's.
    """
    have = meter.wall * workers
    stall = max(0.0, have - meter.seconds["network"] - meter.seconds["blend"])
    parts = {name: meter.seconds[name] for name in ("network", "blend", "read", "write")} | {"stall": stall}
    return {
        **{f"{name}_seconds": round(seconds, 3) for name, seconds in parts.items()},
        "compute_seconds": round(meter.wall, 3),
        "network_share": round(meter.seconds["network"] / have, 4) if have else None,
        "voxels_per_second": round(voxels / meter.wall, 1) if meter.wall else None,
        "workers": workers,
        "in_flight": meter.in_flight,
    }


def _progress(allocated: Mapping[str, Any], windows: int) -> Any:
    from emsr.progress import progress

    return progress(windows, "predicting affinities" if allocated.get("channels") else "super-resolving", "windows")


def _network(card: Path, device: str, allocated: Mapping[str, Any]) -> tuple[Network | VolumeNetwork, dict[str, Any]]:
    """The network as inference calls it, by section, or by volume where it gives several channels or sees clips; and,
    where accelerators compute layers of it, "accelerators": which.
    """
    from emsr.inference import clips
    from emsr.inference.deviation import sampled
    from emsr.inference.flight import OutOfMemory, told_apart
    from emsr.inference.stream import Network
    from emsr.inference.volumetric import VolumeNetwork
    from emsr.layers.accelerators import accelerate
    from emsr.models import checkpoint

    kind = VolumeNetwork if allocated.get("channels") or allocated.get("depth") else Network
    try:
        with told_apart():
            used_at = None if allocated.get("channels") else scales.of(allocated["scale"])
            module = checkpoint.load(card, device, used_at=used_at)
            if not allocated.get("channels"):
                clips.check_network(checkpoint.load_card(card), module)
            used = accelerate(module, allocated["settings"].get("accelerators") or {})
            if samples := allocated["settings"].get("samples"):
                module = sampled(module, samples, card)
            network = kind(module, device, allocated["precision"])
    except OutOfMemory as shortage:
        raise ValueError(
            f"the weights of {card} do not fit the memory of {device} ({shortage}): end what else holds it, or take "
            "another device"
        ) from None
    return network, {"accelerators": used} if used else {}


def peak_rss_mb() -> float:
    """Largest resident memory of this process so far, in MiB."""
    return round(memory.peak_bytes() / 2**20, 1)
