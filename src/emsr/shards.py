"""Bookkeeping of shards: which job makes which, what their records are called, and the marks that a proof stands on."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emsr import durable
from emsr.geometry import Box, ShardGrid, Triple, triple


def parse_job(job: str) -> tuple[int, int]:
    """ "2-of-5" is job 1 (counted from 0) of 5."""
    match = re.fullmatch(r"(\d+)-of-(\d+)", job)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(f"job {job!r} is not I-of-N with 1 <= I <= N: write it like 1-of-2")
    return int(match[1]) - 1, int(match[2])


def all_marks(marks: Sequence[Path]) -> list[Path]:
    """Marks of all jobs: those given, or, given a single one such as 1-of-900.json, all that belong with it.

    A command line holds at most 128 KiB, which is fewer than 2,000 long paths.
    """
    if len(marks) != 1:
        return list(marks)
    _, n = parse_job(marks[0].stem)
    return [marks[0].with_name(f"{number}-of-{n}.json") for number in range(1, n + 1)]


def jobs(grid: ShardGrid, n: int, within: Box | None = None) -> tuple[tuple[Box, ...], ...]:
    """The shards of each of `n` jobs: boxes of shard numbers, one shard deep in z, each shard in exactly one job.

    Dealt out are all shards, or those of the box `within` of shard numbers.

    Layers of shards are dealt out in order, so that every job has its n-th part of them; a layer that several jobs
    share is halved recursively across its longer side. With fewer jobs than layers a job has several boxes; a job
    without shards has none.
    """
    dealt = within or Box((0, 0, 0), grid.counts)
    depth, height, width = dealt.shape
    boxes: list[list[Box]] = [[] for _ in range(n)]
    for layer in range(depth):
        # in units of 1/n layers this layer is [layer*n, layer*n + n) and job j is [j*depth, j*depth + depth)
        first, last = layer * n, layer * n + n
        sharing = range(first // depth, -(-last // depth))
        shares = [min(last, (job + 1) * depth) - max(first, job * depth) for job in sharing]
        plane = Box((layer, 0, 0), (layer + 1, height, width)).shifted(dealt.start)
        for job, box in zip(sharing, _bisect(plane, shares, grid.shard), strict=True):
            if box.size:
                boxes[job].append(box)
    return tuple(tuple(mine) for mine in boxes)


def shards_of_job(grid: ShardGrid, number: int, n: int, within: Box | None) -> list[Triple]:
    """The shards of one of `n` jobs: its boxes of those `within`, and each n-th of the others, which are skipped."""
    mine = [index for box in jobs(grid, n, within)[number] for index in box.indices()]
    if within is None:
        return mine
    inside = set(within.indices())
    return mine + [index for index in grid.indices if index not in inside][number::n]


def _bisect(box: Box, shares: Sequence[int], shard: Triple) -> list[Box]:
    """Cut a layer of shards into one box per share, sizes in proportion, by halving across the longer side."""
    if len(shares) == 1:
        return [box]
    half = len(shares) // 2
    axis = 1 if box.shape[1] * shard[1] >= box.shape[2] * shard[2] else 2
    part, whole = sum(shares[:half]), sum(shares)
    cut = box.start[axis] + (2 * box.shape[axis] * part + whole) // (2 * whole)
    low, high = list(box.stop), list(box.start)
    low[axis] = high[axis] = cut
    left, right = Box(box.start, triple(low)), Box(triple(high), box.stop)
    return [*_bisect(left, shares[:half], shard), *_bisect(right, shares[half:], shard)]


def shard_name(index: Triple) -> str:
    """File name (without suffix) of a shard's record."""
    return "_".join(map(str, index))


def index_of(name: str, grid: ShardGrid) -> Triple | None:
    """The shard of a name; None where the grid has none of it."""
    try:
        z, y, x = map(int, name.split("_"))
    except ValueError:
        return None
    inside = all(0 <= at < count for at, count in zip((z, y, x), grid.counts, strict=True))
    return (z, y, x) if inside and shard_name((z, y, x)) == name else None


def proved(proof: Path, settings: Mapping[str, Any]) -> list[str] | None:
    """The marks that a finished `stitch` with these settings was made from; None where there is no such proof.

    A workflow asks for `proved(proof, settings) or gather(...)`: as long as the settings hold, the marks recorded are
    the ones to have, however many jobs the config now names, so that another number of jobs reruns nothing. Marks are
    recorded relative to the proof's folder and given relative to it again. SchemaError for a proof of a form that this
    emsr does not know.
    """
    try:
        recorded = durable.read_json(proof)
        marks = recorded["marks"] if recorded["settings"] == json.loads(json.dumps(settings)) else []
        paths = [str(Path(proof).parent / mark) for mark in marks]
    except durable.SchemaError:
        raise
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return paths or None
