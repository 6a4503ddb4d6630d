"""The lines of `emsr plan`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from emsr import durable, scales
from emsr.stores.room import Room, free, size, total

if TYPE_CHECKING:
    from emsr.geometry import Triple
    from emsr.inference.cost import Cost
    from emsr.inference.forecast import Work
    from emsr.plan import Plan

CACHE_BYTES = 128 * 2**20  # decoded lr of a job


def sides(shape: Triple) -> str:
    """z x y x x."""
    return " x ".join(map(str, shape))


def operations(count: float) -> str:
    """Multiply-accumulates as people read them."""
    for power, unit in ((15, "P"), (12, "T"), (9, "G")):
        if count >= 10**power:
            return f"{count / 10**power:,.2f} {unit}MAC"
    return f"{count / 10**6:,.2f} MMAC"


def volume_lines(made: Plan, each: list[Work], skipped: int) -> Iterator[str]:
    """Shapes, windows, shards and the largest job."""
    yield f"volume      lr {sides(made.lr_shape)}, sr {sides(made.shape)} voxels, x{scales.name(made.scale)}"
    down, across = (len(made.starts(axis)) for axis in (1, 2))
    yield f"windows     {made.window} lr pixels, overlap {made.overlap}: {down} x {across} over a section"
    left = f", {skipped:,} skipped" if skipped else ""
    yield f"shards      {sides(made.shard)} sr voxels: {sum(work.shards for work in each):,}{left}"
    most = max(each, key=lambda work: (work.windows, work.sections))
    yield (
        f"jobs        {len(each)}; the largest has {most.shards:,} shards, for which {most.sections:,} sections enter "
        f"windows and {most.centres:,} centres are made"
    )


def work_lines(cost: Cost, each: list[Work], once: float) -> Iterator[str]:
    """Operations of all jobs, and of what parts; `once` are those of one pass without windows."""
    total, most = (how(work.macs(cost) for work in each) for how in (sum, max))
    relative = f", {total / once:.3f} times one pass without windows" if once else ""
    yield f"operations  {operations(total)}{relative}; the largest job {operations(most)}"
    sections, centres = (sum(getattr(work, key) for work in each) for key in ("sections", "centres"))
    for name, call, times in (("section", cost.section, sections), ("centre", cost.centre, centres)):
        parts = ", ".join(f"{part} {macs / 1e9:.3g}" for part, macs in call.macs.items())
        yield f"a {name:<10}{times:,} in windows, each {operations(call.total)}{': ' if parts else ''}{parts}"
    sampling = cost.section.sampling + cost.centre.sampling
    yield f"sampling    {operations(sampling)} more for a section and a centre"


def memory_lines(cost: Cost, each: list[Work], workers: int) -> Iterator[str]:
    """What a job holds: sums of shards, and for each worker a ring of sections and the tensors of a call."""
    ring, sums = max(work.ring for work in each), max(work.sums_bytes for work in each)
    held, call = _window_bytes(cost, each)
    yield f"memory      a window in flight {size(held + call)}: {ring} sections {size(held)}, a call {size(call)}"
    yield (
        f"memory      a job with {workers} in flight {size(_job_bytes(cost, each, workers))}: also sums of shards "
        f"{size(sums)}, cached lr {size(CACHE_BYTES)}, weights {size(cost.weight_bytes)}"
    )


def _window_bytes(cost: Cost, each: list[Work]) -> tuple[int, int]:
    """What a window in flight holds: its sections, and the tensors of a call."""
    held = max(work.ring for work in each) * cost.section.result_bytes
    return held, max(cost.section.peak_bytes, cost.centre.peak_bytes - held)


def _job_bytes(cost: Cost, each: list[Work], workers: int) -> int:
    sums = max(work.sums_bytes for work in each)
    return sums + CACHE_BYTES + cost.weight_bytes + workers * sum(_window_bytes(cost, each))


def sample_lines(count: int, cost: Cost, each: list[Work], workers: int) -> Iterator[str]:
    """What the jobs of ``count`` samples take beside those of sr; `cost` is that of sr."""
    from emsr.inference.cost import of_samples

    drawn = of_samples(cost, count)
    total, most = (how(work.macs(drawn) for work in each) for how in (sum, max))
    yield (
        f"samples     {count} of each centre in {len(each)} jobs more, beside those of sr: {operations(total)}, the "
        f"largest job {operations(most)}"
    )
    yield f"samples     such a job with {workers} in flight {size(_job_bytes(drawn, each, workers))}"


def disk_lines(rooms: Sequence[Room], results: Path | None) -> Iterator[str]:
    """What each array takes at most, all together, and what is free below the results folder."""
    for room in [*rooms, total(rooms)]:
        yield f"disk        {room.name}: at most {size(room.bytes)}, {room.files:,} files"
    if results is not None:
        have = free(results)
        files = "" if have.files is None else f", and room for {have.files:,} files"
        yield f"disk        free in {have.folder}: {size(have.bytes)}{files}"


def time_lines(
    made: Plan, each: list[Work], workers: int, rate: float | None, stats: Path | None, samples: int = 0
) -> Iterator[str]:
    """Hours of jobs, where a rate or what a finished job took is known; also of jobs of ``samples``, if any."""
    if stats is not None:
        a_window = _seconds_a_window(made, workers, stats)
        seconds = [work.windows * a_window for work in each]
    elif rate is not None:
        if not rate > 0:
            raise ValueError(f"rate {rate} makes no voxel: state how many sr voxels a job makes in a second")
        seconds = [work.voxels / rate for work in each]
    else:
        return
    total, longest = sum(seconds) / 3600, max(seconds) / 3600
    yield f"time        {total:,.2f} hours of jobs, the longest {longest:,.2f}"
    if samples:
        yield f"time        about {samples * total:,.2f} hours more for samples, the longest {samples * longest:,.2f}"


def _seconds_a_window(made: Plan, workers: int, stats: Path) -> float:
    """What a window took in a finished job; ValueError for a job of other windows, of another number of them in flight,
    or that computed none.
    """
    took = durable.read_json(stats)
    if not isinstance(took, dict) or took.get("state") != "finished" or not took.get("windows"):
        raise ValueError(f"{stats} is not of a finished job that computed windows: name one that is")
    if (in_flight := took.get("workers", workers)) != workers:
        raise ValueError(
            f"{stats} is of a job with {in_flight} windows in flight, these have {workers}: state --workers {in_flight}"
        )
    allocated = stats.parent.parent / "allocate.json"
    if allocated.is_file():
        stated = durable.read_json(allocated)
        if (stated.get("settings") or {}).get("samples"):
            raise ValueError(f"{stats} is of a job that drew samples: name one of sr, those of samples follow from it")
        scale = scales.of(stated["scale"])
        if (stated["window"], scale) != (made.window, made.scale):
            raise ValueError(
                f"{stats} is of windows of {stated['window']} at x{scales.name(scale)}, these are of {made.window} at "
                f"x{scales.name(made.scale)}: name a job of equal windows"
            )
    return float(took["seconds"]) / float(took["windows"])
