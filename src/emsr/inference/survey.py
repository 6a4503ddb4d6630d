"""One pass over a finished volume, shard row by shard row: hashes, and what windows and jobs left visible.

Shards that were skipped are not read: they hold zeros, whose borders with what was made are no seams.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from emsr.geometry import Box, ShardGrid, Triple
from emsr.plan import Plan
from emsr.progress import Progress
from emsr.shards import jobs

Read = Callable[[Box], np.ndarray]
Check = Callable[[Triple, str], None]


@dataclass(frozen=True)
class Survey:
    """`section_sha256`: of each section's raw voxels in raster order, whatever the shards. `steepness`: for axes y and
    x, the sum over the volume of |voxel p - voxel p-1| for each p.
    """

    section_sha256: list[str]
    steepness: tuple[np.ndarray, np.ndarray]


def survey(
    grid: ShardGrid,
    read: Read,
    workers: int,
    progress: Progress,
    check: Check,
    skipped: Collection[Triple] = frozenset(),
) -> Survey:
    """Read every voxel once but those of `skipped` shards; `check` is told the hash of each shard's voxels (C order),
    `progress` how many shards were read.

    Memory: two rows of shards (depth x shard y x whole x), and for each worker the differences of one section of a row
    (4 bytes a voxel).
    """
    _, height, width = grid.shape
    sections: list[str] = []
    steep = (np.zeros(height, np.int64), np.zeros(width, np.int64))
    layers_made = {index[0] for index in Box((0, 0, 0), grid.counts).indices() if index not in skipped}
    black = ""
    with ThreadPoolExecutor(workers) as pool:
        for layer in range(grid.counts[0]):
            if layer not in layers_made:
                black = black or _of_zeros(height, width)
                sections += [black] * grid.box((layer, 0, 0)).shape[0]
                progress.update(grid.counts[1] * grid.counts[2])
                continue
            hashes = [hashlib.sha256() for _ in range(grid.box((layer, 0, 0)).shape[0])]
            last = None
            for row, top, blocks, made in _rows(grid, layer, read, pool, skipped):
                for index, sha256 in blocks.items():
                    check(index, sha256)
                list(pool.map(lambda pair: pair[0].update(pair[1]), zip(hashes, row, strict=True)))
                _add_steepness(steep, row, last, top, made, pool)
                last = row[:, -1].copy(), made
                del row
                progress.update(grid.counts[2])
            sections += [digest.hexdigest() for digest in hashes]
    return Survey(sections, steep)


def _of_zeros(height: int, width: int) -> str:
    """The hash of a section without a voxel that was made."""
    digest, line = hashlib.sha256(), bytes(width)
    for _ in range(height):
        digest.update(line)
    return digest.hexdigest()


def _rows(
    grid: ShardGrid, layer: int, read: Read, pool: Executor, skipped: Collection[Triple]
) -> Iterator[tuple[np.ndarray, int, dict[Triple, str], np.ndarray]]:
    """Each row of shards of a layer as one array, where it starts along y, the hashes of its shards that were made, and
    for each x whether its voxels were.
    """
    for number in range(grid.counts[1]):
        indices = [(layer, number, column) for column in range(grid.counts[2])]
        boxes = {index: grid.box(index) for index in indices}
        blocks = {index: np.ascontiguousarray(read(boxes[index])) for index in indices if index not in skipped}
        hashes = pool.map(lambda block: hashlib.sha256(block).hexdigest(), blocks.values())
        named = dict(zip(blocks, hashes, strict=True))
        made = np.concatenate([np.full(box.shape[2], index in blocks) for index, box in boxes.items()])
        row = np.concatenate([_or_zeros(blocks.get(index), box) for index, box in boxes.items()], axis=2)
        del blocks
        yield row, boxes[indices[0]].start[1], named, made
        del row


def _or_zeros(block: np.ndarray | None, box: Box) -> np.ndarray:
    return np.zeros(box.shape, np.uint8) if block is None else block


def _add_steepness(
    steep: tuple[np.ndarray, np.ndarray],
    row: np.ndarray,
    last: tuple[np.ndarray, np.ndarray] | None,
    top: int,
    made: np.ndarray,
    pool: Executor,
) -> None:
    """Add a row of shards; `last` is the line (z, x) above it, for every section, and for each x whether it was made.

    `made` says the same of the row. Between what was made and what was not there is no steepness.
    """
    if last is not None:
        line, made_above = last
        steep[0][top] += (np.abs(row[:, 0].astype(np.int16) - line) * (made & made_above)).sum(dtype=np.int64)
    for along_y, along_x in pool.map(_steepness, row):
        steep[0][top + 1 : top + 1 + len(along_y)] += along_y
        steep[1][1:] += along_x * (made[1:] & made[:-1])


def _steepness(section: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of absolute differences to the voxel before, along y and along x, of one section (y, x)."""
    signed = section.astype(np.int16)
    along_y = np.abs(np.diff(signed, axis=0)).sum(axis=1, dtype=np.int64)
    along_x = np.abs(np.diff(signed, axis=1)).sum(axis=0, dtype=np.int64)
    return along_y, along_x


def window_borders(plan: Plan, axis: int) -> list[int]:
    """Where a window starts or ends inside the sr volume, along axis 1 (y) or 2 (x)."""
    along = plan.axis(axis)
    edges = [edge for start in plan.starts(axis) for edge in along.finer(start, start + plan.window)]
    return _inside(plan, axis, edges)


def shard_borders(plan: Plan, axis: int) -> list[int]:
    """Where a shard starts inside the sr volume."""
    return _inside(plan, axis, [number * plan.shard[axis] for number in range(plan.grid.counts[axis])])


def job_borders(plan: Plan, axis: int, n: int) -> list[int]:
    """Where a box of one of `n` jobs starts inside the sr volume."""
    boxes = [box for job in jobs(plan.grid, n, plan.within) for box in job]
    return _inside(plan, axis, [box.start[axis] * plan.shard[axis] for box in boxes])


def _inside(plan: Plan, axis: int, borders: Sequence[int]) -> list[int]:
    return sorted({border for border in borders if 0 < border < plan.shape[axis]})


def seam_score(steepness: np.ndarray, borders: Sequence[int], scale: int) -> float | None:
    """How much steeper the volume is across borders than one lr pixel beside them; 1 is a border that leaves no trace.

    The neighbours compared with lie `scale` sr voxels away on both sides, because steepness has the period of the lr
    pixels, at a real scale about. None where there is no border, or no steepness beside it.
    """
    usable = [border for border in borders if border - scale >= 1 and border + scale < len(steepness)]
    across = sum(int(steepness[border]) for border in usable)
    beside = sum(int(steepness[border - scale]) + int(steepness[border + scale]) for border in usable)
    return round(2 * across / beside, 4) if beside else None
