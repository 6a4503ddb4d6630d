"""`emsr status`: how far the jobs of volumes are. Reads alone, also while jobs write."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emsr.commands.recorded import Recorded
    from emsr.geometry import Box, ShardGrid

SILENT_SECONDS = 150.0
"""A job that works renews its stats twice a minute (`emsr.steps.attempts`); after this it counts as stopped."""
STATES = ("finished", "running", "failed", "stopped")
READERS = 16  # a network file system answers many at once
BATCH = 4096  # records that are asked for ahead
LEFT, DONE, SKIPPED = range(3)
Json = Mapping[str, Any]


def status(results: Path, *, volume: str | None = None, json: bool = False) -> None:
    """Say how far super-resolution, affinities and fragments are: shards and jobs, throughput, time left.

    RESULTS is the results folder of a config; `--volume` names one of its volumes. A shard counts as done when its
    record holds: it is of the settings, weights and inputs of now, and its voxels are there (`emsr verify` reads them).
    A running job is one that was heard of in the last two and a half minutes; one that fell silent counts as stopped,
    one that ended with an error as failed, and both with the shards that they did not make. Time left is for the jobs
    that run now. `--json` writes a list with one object an array. Writes nothing, and takes no lock.
    """
    from emsr.commands.recorded import allocations, open_allocation

    found: list[dict[str, Any]] = []
    for name, allocate in allocations(results, volume):
        try:
            found.append(of_array(open_allocation(name, allocate), time.time()))
        except (OSError, ValueError) as error:
            found.append({"volume": name, "allocate": str(allocate), "error": " ".join(str(error).split())})
    text = _json(found) if json else "".join(f"{line}\n" for one in found for line in lines(one))
    sys.stdout.write(text or f"no array of {results} is allocated yet\n")


def _json(found: list[dict[str, Any]]) -> str:
    return dumps(found, indent=1, sort_keys=True) + "\n"


def of_array(array: Recorded, now: float) -> dict[str, Any]:
    """How far one array is; `now` is the time, in seconds since 1970, by which jobs are running or stopped."""
    shards = _shards(array)
    jobs = _jobs(array, shards, now)
    left = shards.states.count(LEFT)
    return {
        "volume": array.volume,
        "array": array.label,
        "step": array.step,
        "shards": {
            "all": len(shards.states),
            "done": shards.states.count(DONE),
            "skipped": shards.states.count(SKIPPED),
            "running": _held(jobs, ("running",), shards),
            "failed": _held(jobs, ("failed", "stopped"), shards),
        },
        "jobs": _counts(jobs),
        "proved": array.card.is_file() and not left,
        **_pace(jobs, shards.voxels_left() if left else 0),
        "failures": [{key: job[key] for key in ("job", "attempt", "reason")} for job in jobs if job["reason"]],
    }


@dataclass(frozen=True)
class _Shards:
    """Of each shard of a grid, in raster order, whether it is done: a byte a shard."""

    grid: ShardGrid
    states: bytes

    def state(self, name: str) -> int | None:
        """Of a shard by its name; None where the grid has none of it."""
        from emsr.shards import index_of

        index = index_of(name, self.grid)
        return None if index is None else self.states[self.grid.number(index)]

    def size(self, name: str) -> int:
        """The voxels of a shard of the grid."""
        z, y, x = map(int, name.split("_"))
        return self.grid.box((z, y, x)).size

    def voxels_left(self) -> int:
        """The voxels of all shards that are still to be made."""
        numbers = (number for number, state in enumerate(self.states) if state == LEFT)
        return sum(self.grid.box(self.grid.index(number)).size for number in numbers)


def _shards(array: Recorded) -> _Shards:
    """What the records say, of which few are held at a time."""
    records, grid = array.records, array.records.grid
    boxes, states = iter(grid.boxes()), bytearray()

    def state(box: Box) -> int:
        index = grid.holding(box.start)
        record = records.settled(index)
        if record and "skipped" not in record:
            return DONE
        return SKIPPED if index in records.skipped else LEFT

    with ThreadPoolExecutor(READERS) as pool:
        while batch := list(islice(boxes, BATCH)):
            states.extend(pool.map(state, batch))
    return _Shards(grid, bytes(states))


def _jobs(array: Recorded, shards: _Shards, now: float) -> list[dict[str, Any]]:
    """The jobs that began, of the number of jobs that was last in use."""
    from emsr.commands.recorded import stats_of

    seen = [
        (file.stat().st_mtime, int(match[2]), file, found)
        for file, match, found in stats_of(array.allocate.parent / "jobs")
        if found.get("array", array.records.array.name) == array.records.array.name
    ]
    of = max(seen, key=lambda one: one[0])[1] if seen else 0
    return [_job(array, file, found, shards, now - heard) for heard, n, file, found in seen if n == of]


def _job(array: Recorded, file: Path, stats: Json, shards: _Shards, silent: float) -> dict[str, Any]:
    """One job by its stats; `silent` is for how many seconds nothing was heard of it."""
    state, job = str(stats.get("state")), file.name.removesuffix(".stats.json")
    named = [name for name in stats.get("computed", ()) if shards.state(name) is not None]
    reason, seconds = stats.get("reason") if state == "failed" else None, stats.get("seconds")
    if state == "running" and silent > SILENT_SECONDS:
        state, reason = "stopped", f"not heard of for {silent / 60:.0f} minutes: killed, or out of reach"
    if state == "running":
        named_done = [name for name in named if shards.state(name) == DONE]
        seconds = max(0.0, time.time() - float(stats.get("started", time.time())))
    else:
        named_done = named
    if state == "finished" and not array.is_mine(array.marks.get(file.with_name(f"{job}.json"))):
        state = "waiting"  # its mark was removed, so it will run again
    made = sum(map(shards.size, named_done))
    measured = stats.get("voxels_per_second") or (made / seconds if made and seconds else None)
    return {
        "job": job,
        "state": state,
        "attempt": int(stats.get("attempt", 1)),
        "reason": reason,
        "shards": named,
        "rate": measured if state in ("running", "finished") else None,
    }


def _counts(jobs: Sequence[Json]) -> dict[str, int]:
    """Jobs by state, and how many attempts failed."""
    total = int(jobs[0]["job"].rpartition("-")[2]) if jobs else 0
    counts = {state: sum(job["state"] == state for job in jobs) for state in STATES}
    ended_well = ("finished", "running", "waiting")
    failed = sum(job["attempt"] - (job["state"] in ended_well) for job in jobs)
    return {"all": total, **counts, "waiting": total - sum(counts.values()), "failed_attempts": failed}


def _held(jobs: Sequence[Json], states: Collection[str], shards: _Shards) -> int:
    """How many of the shards that are left belong to jobs in one of these states."""
    named = {name for job in jobs if job["state"] in states for name in job["shards"]}
    return sum(shards.state(name) == LEFT for name in named)


def _pace(jobs: Sequence[Json], left: int) -> dict[str, float | None]:
    """Voxels and seconds left, and voxels a second of the jobs that run: each its own, or the mean of others."""
    known = [job["rate"] for job in jobs if job["rate"]]
    mean = sum(known) / len(known) if known else None
    paces = [job["rate"] or mean for job in jobs if job["state"] == "running"]
    pace = sum(one for one in paces if one) if paces and mean else None
    seconds = left / pace if pace else (0.0 if not left else None)
    return {
        "voxels_left": left,
        "voxels_per_second": round(pace, 1) if pace else None,
        "voxels_per_second_of_a_job": round(mean, 1) if mean else None,
        "seconds_left": None if seconds is None else round(seconds, 1),
    }


# -- lines ------------------------------------------------------------------------------------------------------------


def lines(found: Json) -> Iterator[str]:
    """What people read of one array."""
    if "error" in found:
        yield f"{found['volume']}: {found['error']}"
        return
    shards, jobs = found["shards"], found["jobs"]
    wanted = shards["all"] - shards["skipped"]
    parts = [f"{shards[key]:,} {key}" for key in ("running", "failed", "skipped") if shards[key]]
    whole = ", proved whole" if found["proved"] else ""
    percent = 100 * shards["done"] / wanted if wanted else 100.0
    head = f"{shards['done']:,} of {wanted:,} shards done ({int(percent * 10) / 10} %)"
    yield f"{found['array']}: {', '.join([head, *parts])}{whole}"
    if jobs["all"]:
        states = [f"{jobs[key]:,} {key}" for key in (*STATES, "waiting") if jobs[key]]
        tried = f"; {jobs['failed_attempts']:,} attempts failed" if jobs["failed_attempts"] else ""
        yield f"    jobs {jobs['all']:,}: {', '.join(states)}{tried}"
    if found["voxels_left"]:
        yield f"    {_pace_line(found)}"
    for one in found["failures"]:
        yield f"    job {one['job']}, attempt {one['attempt']}: {one['reason']}"


def _pace_line(found: Json) -> str:
    if (pace := found["voxels_per_second"]) is not None:
        return f"{pace / 1e6:,.3f} million voxels/s, {_duration(found['seconds_left'])} left"
    if (of_job := found["voxels_per_second_of_a_job"]) is not None:
        work = found["voxels_left"] / of_job
        return f"nothing runs; a job makes {of_job / 1e6:,.3f} million voxels/s: {_duration(work)} of jobs left"
    return "time left is not known: no shard was timed yet"


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.0f} s"
