"""Whether a job keeps the machine busy: time in the network, windows in flight, reading and writing, memory.

python benchmarks/pipeline.py [--json] [--rounds 3] [--folder FOLDER]

One job of gpemsr `small` at x8 with one and with two windows in flight, in turn: voxels/s, and the share of the
workers' time that was in the network. Reading and writing alone: what a job reads (every window, overlaps and halo too)
and writes (with hashes and durable records), against one plain tensorstore copy of an array as large as sr. Peak memory
of a process that super-resolves a volume and one 8 times as deep (bicubic, so that it is quick). A ratio is the median
of the rounds, extremes in brackets.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from emsr import plan
from emsr.durable import read_json
from emsr.inference.records import Records
from emsr.inference.run import layers, tasks
from emsr.inference.stream import column_boxes
from emsr.steps import superresolve as steps
from emsr.steps.jobs import CACHE_BYTES
from emsr.stores.shards import read_box, shard_boxes
from emsr.stores.zarr import open_array, write_box
from project import Project, grey, weights

SCALE, WINDOW, OVERLAP = 8, 64, 8
LR = (12, 120, 232)  # 2 x 4 columns of windows
COPIED = (32, 384, 384)  # lr of the copy: 302 million voxels of sr
FLAT = (128, 256, 256)  # lr of the smaller volume: four layers of shards, so that caches have filled


def spread(ratios: list[float]) -> dict[str, Any]:
    """Median and every round."""
    return {"ratio": round(statistics.median(ratios), 3), "ratios": [round(ratio, 3) for ratio in ratios]}


def busy(folder: Path, rounds: int) -> dict[str, Any]:
    """Two windows in flight against one."""
    card = weights(folder, "gpemsr", SCALE, WINDOW)
    found: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    for number in range(rounds):
        for workers, took in found.items():
            made = Project(folder / f"{number}.{workers}", card, OVERLAP)
            made.folder.mkdir()
            made.write_lr(LR)
            took.append(made.run(workers)["stats"])
            shutil.rmtree(made.folder)
    speeds = {n: [stats["voxels_per_second"] for stats in took] for n, took in found.items()}
    shares = {n: round(statistics.median(stats["network_share"] for stats in took), 4) for n, took in found.items()}
    return {
        "two_in_flight_over_one": spread([two / one for one, two in zip(speeds[1], speeds[2], strict=True)]),
        "voxels_per_second": {str(n): round(statistics.median(speed)) for n, speed in speeds.items()},
        "network_share": {str(n): share for n, share in shares.items()},
        "stall_share": {
            str(n): round(statistics.median(s["stall_seconds"] / s["compute_seconds"] / n for s in took), 4)
            for n, took in found.items()
        },
    }


def copying(folder: Path, rounds: int) -> dict[str, Any]:
    """What a job reads and writes, without network and blending, against a plain copy of an array like sr."""
    made = Project(folder / "copied", weights(folder, "bicubic", SCALE, WINDOW), OVERLAP)
    made.folder.mkdir()
    made.write_lr(COPIED)
    allocation = made.folder / "sr" / "allocate.json"
    stated = {**made.settings, "result": steps.ALLOCATE_RESULT}
    steps.allocate(stated, made.folder / "lr.json", made.card, allocation)
    allocated = read_json(allocation)
    how, lr = plan.read_plan(allocated), open_array(made.folder / "lr.zarr", cache_bytes=CACHE_BYTES)
    array = (allocation.parent / allocated["array"]).resolve()
    layer = grey(how.shard)  # (z, y, x) that every shard holds
    source_path = made.folder / "source.zarr"
    shutil.copytree(array, source_path)
    source = open_array(source_path, write=True)
    for box in shard_boxes(source):
        write_box(source, box.start, layer[tuple(slice(side) for side in box.shape)])
    source = open_array(source_path)
    empty = made.folder / "empty.zarr"
    shutil.copytree(array, empty)

    def target() -> ts.TensorStore:
        shutil.rmtree(array)
        shutil.copytree(empty, array)
        return open_array(array, write=True)

    def plain() -> None:
        target().write(source).result()

    def of_job() -> None:
        into = target()
        shutil.rmtree(made.folder / "records", ignore_errors=True)
        records = Records(allocation, allocated, plan.settings_sha256({}))
        shutil.rmtree(records.folder, ignore_errors=True)
        for some in layers(how.grid.indices):
            for task in tasks(how, some, 1):
                for box in column_boxes(how, task.corner, task.starts):
                    read_box(lr, box)
        for index in how.grid.indices:
            box = how.grid.box(index)
            shard = np.ascontiguousarray(layer[tuple(slice(side) for side in box.shape)])
            records.begin(index)
            write_box(into, box.start, shard)
            records.finish(index, hashlib.sha256(shard.data).hexdigest(), {"device": "cpu", "torch": "none"})

    plain()
    took = [(_seconds(plain), _seconds(of_job)) for _ in range(rounds)]
    voxels = float(np.prod(how.shape))
    return {
        **spread([copy / job for copy, job in took]),
        "plain_voxels_per_second": round(voxels / statistics.median(copy for copy, _ in took)),
        "job_voxels_per_second": round(voxels / statistics.median(job for _, job in took)),
    }


def memory() -> dict[str, Any]:
    """Peak of a process that makes a volume, and of one that makes another 8 times as deep."""
    peaks = {}
    for times in (1, 8):
        command = [sys.executable, __file__, "--peak", str(times)]
        peaks[times] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {"ratio": round(peaks[8] / peaks[1], 3), "peak_mb": {str(times): peak for times, peak in peaks.items()}}


def peak(times: int) -> float:
    """Peak MiB of this process after it super-resolved a volume."""
    with tempfile.TemporaryDirectory() as folder:
        made = Project(Path(folder), weights(Path(folder), "bicubic", 4, WINDOW), OVERLAP)
        made.write_lr((FLAT[0] * times, *FLAT[1:]))
        return float(made.run(2)["stats"]["peak_rss_mb"])


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def lines(found: dict[str, Any]) -> Iterator[str]:
    """What was found, for people."""

    def ratio(one: dict[str, Any]) -> str:
        return f"{one['ratio']:.2f} [{min(one['ratios']):.2f}-{max(one['ratios']):.2f}]"

    one, copied, held = found["busy"], found["copying"], found["memory"]
    yield f"two windows in flight over one: {ratio(one['two_in_flight_over_one'])}; voxels/s {one['voxels_per_second']}"
    yield f"share of the workers' time in the network: {one['network_share']}; stalled: {one['stall_share']}"
    yield (
        f"reading and writing of a job hold {ratio(copied)} of a plain copy of sr "
        f"({copied['plain_voxels_per_second']:,} voxels/s)"
    )
    yield f"peak memory of a volume 8 times as deep: {held['ratio']:.3f} times, {held['peak_mb']} MiB"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where arrays lie while this runs")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    stated = parser.parse_args()
    if stated.peak:
        print(peak(stated.peak))
        return 0
    with tempfile.TemporaryDirectory(dir=stated.folder) as folder:
        found = {"busy": busy(Path(folder), stated.rounds), "copying": copying(Path(folder), stated.rounds)}
    found["memory"] = memory()
    print(json.dumps(found, indent=1) if stated.json else "\n".join(lines(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
