"""What super-resolving a volume will take, from the plan that will run: work, memory and files of each job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from emsr.geometry import Box, Triple
from emsr.inference.cost import Cost
from emsr.inference.run import Task, layers, tasks
from emsr.inference.stream import entering
from emsr.plan import Plan
from emsr.scales import pair
from emsr.shards import jobs

SUM_BYTES = 4  # of a voxel of a shard that windows are summed in


@dataclass(frozen=True)
class Work:
    """What a job computes: sections that enter windows, centres that are made, the most of both that it holds at once.

    `windows` is the unit of progress and also counts centres without data. `ring` is the most sections that a window
    keeps, `sums_bytes` the most that shards under way take; `voxels` are those of sr in its shards.
    """

    shards: int = 0
    voxels: int = 0
    windows: int = 0
    sections: int = 0
    centres: int = 0
    ring: int = 0
    sums_bytes: int = 0

    def macs(self, cost: Cost) -> int:
        """Multiply-accumulates of all that enters and of all that is made."""
        return self.sections * cost.section.total + self.centres * cost.centre.total


def of_jobs(plan: Plan, n: int, workers: int, skipped: frozenset[Triple] = frozenset()) -> list[Work]:
    """The work of each of `n` jobs with `workers` threads, if no shard has a record yet; `skipped` shards are none."""
    dealt = [[index for box in mine for index in box.indices()] for mine in jobs(plan.grid, n, plan.within)]
    return [of_shards(plan, [index for index in mine if index not in skipped], workers) for mine in dealt]


def of_shards(plan: Plan, shards: Sequence[Triple], workers: int) -> Work:
    """The work of computing these shards in one job."""
    found: Counter[str] = Counter(shards=len(shards), voxels=sum(plan.grid.box(index).size for index in shards))
    ring = sums = 0
    seen: dict[tuple[int, ...], tuple[int, int, int]] = {}
    for layer in layers(shards):
        todo = tasks(plan, layer, workers)
        for task in todo:
            if task.starts not in seen:
                seen[task.starts] = _streamed(plan, task.starts)
            sections, centres, held = seen[task.starts]
            found.update(windows=len(task.starts), sections=sections, centres=centres)
            ring = max(ring, held)
        sums = max(sums, _most_under_way(plan, todo, workers + 1))
    return Work(**found, ring=ring, sums_bytes=SUM_BYTES * sums)


def _streamed(plan: Plan, starts: Sequence[int]) -> tuple[int, int, int]:
    """Of one column of windows: how many sections enter, how many centres are made, most sections in the ring.

    Clips have all their sections at once, and make them all.
    """
    if plan.depth > 1:
        return plan.depth * len(starts), plan.depth * len(starts), plan.depth
    last_use, most = entering(plan, starts), 0
    ring: set[int] = set()
    for z in starts:
        ring |= set(plan.table[z] or ())
        most = max(most, len(ring))
        ring = {section for section in ring if last_use[section] > z}
    return len(last_use), sum(plan.table[z] is not None for z in starts), most


def _most_under_way(plan: Plan, todo: Sequence[Task], ahead: int) -> int:
    """The most voxels of shards that are touched and not whole while `ahead` tasks are under way."""
    waiting = Counter(index for task in todo for index in task.shards)
    sizes = {index: plan.grid.box(index).size for index in waiting}
    under_way: set[Triple] = set()
    voxels = most = 0
    for number in range(len(todo)):
        for task in todo[number + ahead - 1 if number else 0 : number + ahead]:
            voxels += sum(sizes[index] for index in task.shards if index not in under_way)
            under_way |= set(task.shards)
        most = max(most, voxels)
        for index in todo[number].shards:
            waiting[index] -= 1
            if not waiting[index]:
                under_way.remove(index)
                voxels -= sizes[index]
    return most


def one_pass(plan: Plan, cost: Cost, skipped: frozenset[Triple] = frozenset()) -> float:
    """Multiply-accumulates of one pass without windows: each section of the made shards once, and each centre."""
    area = 0
    for index in (Box((0, 0, 0), plan.grid.counts) if plan.within is None else plan.within).indices():
        box = plan.grid.box(index)
        if index not in skipped:
            made = sum(plan.table[z] is not None for z in range(box.start[0], box.stop[0]))
            area += made * prod(box.shape[1:])
    return area / (plan.window**2 * prod(pair(plan.scale))) * (cost.section.total + cost.centre.total)
