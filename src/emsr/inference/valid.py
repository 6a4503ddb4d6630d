"""Which voxels of sr were made from whole data, and which with stand-ins for what was not there."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from emsr.geometry import Box, Triple
from emsr.inference.clips import seen, shown
from emsr.plan import Plan, Table

NOTHING, STAND_INS, WHOLE = 0, 1, 2
"""Values of valid.zarr: not made (skipped, or no data), made with stand-ins, made from whole data."""


def stand_ins(plan: Plan, step: int, damaged: Collection[int]) -> dict[int, str]:
    """Sections that are not made from whole data, and why.

    "missing": it has no data; "damaged": its own are damaged; "neighbour": another section stands for a damaged or
    missing one; "end": the end section stands for those past an end; "mirrored": the volume is smaller than a window
    and mirrored. `step` is how many sections neighbours lie apart. In clips all sections of a window are neighbours.
    """
    mirrored = min(plan.lr_shape[1:]) < plan.window or plan.lr_shape[0] < plan.depth
    found = {
        z: (_in_clips(plan, z, damaged) if plan.depth > 1 else _reason(plan.table, z, step, damaged))
        or ("mirrored" if mirrored else "")
        for z in range(len(plan.table))
    }
    return {z: reason for z, reason in found.items() if reason}


def _reason(table: Table, z: int, step: int, damaged: Collection[int]) -> str:
    named, n = table[z], len(table)
    if named is None:
        return "missing"
    if z in damaged:
        return "damaged"
    wanted = [z + (place - len(named) // 2) * step for place in range(len(named))]
    if any(have != min(max(want, 0), n - 1) for have, want in zip(named, wanted, strict=True)):
        return "neighbour"
    return "end" if wanted[0] < 0 or wanted[-1] >= n else ""


def _in_clips(plan: Plan, z: int, damaged: Collection[int]) -> str:
    if plan.table[z] is None:
        return "missing"
    if z in damaged:
        return "damaged"
    return "neighbour" if any(shown(plan, other) != other for other in seen(plan, z, z + 1)) else ""


def codes(reasons: Mapping[int, str], depth: int) -> list[int]:
    """The value of each section's voxels that were made."""
    values = {"missing": NOTHING, "": WHOLE}
    return [values.get(reasons.get(z, ""), STAND_INS) for z in range(depth)]


def skipped_parts(plan: Plan, skipped: Collection[Triple], box: Box) -> list[Box]:
    """The parts of a box of lr voxels that hold a voxel of a skipped shard."""
    fine, parts = plan.grids.finer(box), []
    low = [first // edge for first, edge in zip(fine.start, plan.shard, strict=True)]
    high = [-(-last // edge) for last, edge in zip(fine.stop, plan.shard, strict=True)]
    for index in Box((low[0], low[1], low[2]), (high[0], high[1], high[2])).indices():
        if index in skipped:
            parts.append(plan.grids.coarser(plan.grid.box(index)).intersect(box))
    return parts


def stand_in_parts(plan: Plan, damaged_parts: Mapping[str, Sequence[Any]], box: Box) -> list[Box]:
    """The parts of a box of lr voxels that are made from damaged parts of a section: their own, or those of neighbours.

    `damaged_parts` are boxes [[y0, y1], [x0, x1]] by section.
    """
    found = []
    for z in range(box.start[0], box.stop[0]):
        places = seen(plan, z, z + 1) if plan.depth > 1 else ()
        for named in {shown(plan, place) for place in places} or set(plan.table[z] or ()):
            for (top, bottom), (left, right) in damaged_parts.get(str(named), ()):
                found.append(Box((z, top, left), (z + 1, bottom, right)).intersect(box))
    return found
