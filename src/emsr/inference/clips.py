"""Clips: windows of several sections that a network super-resolves at once, on a grid along z as along y and x."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from emsr.plan import Plan, Table, nearest_good, settings_sha256


def of_card(card: Mapping[str, Any]) -> tuple[int, int] | None:
    """How many sections a network of clips sees at a time, and how many of these windows share; None for others."""
    return (card["depth"], card["depth_overlap"]) if "depth_overlap" in card else None


def clip_table(n: int, damaged: Iterable[int], missing: Iterable[int]) -> Table:
    """The section that clips show in each one's place: for a damaged one the nearest good one.

    Of lower index, or of higher where there is none, as neighbours are replaced. None for a missing one, of which
    nothing is made; a clip shows what `shown` says there.
    """
    absent = set(missing)
    bad = absent | set(damaged)
    return tuple(None if z in absent else (nearest_good(z, n, bad, z) if z in bad else z,) for z in range(n))


def shown(plan: Plan, z: int) -> int | None:
    """The section that a network of volumes sees at z; None where there is none to see.

    In a clip a missing section is replaced as a damaged one is.
    """
    if plan.table[z] is None and plan.channels == 1:
        others = (*range(z - 1, -1, -1), *range(z + 1, len(plan.table)))
        z = next((other for other in others if plan.table[other] is not None), z)
    named = plan.table[z]
    return None if named is None else named[0]


def seen(plan: Plan, first: int, last: int) -> range:
    """The places in the volume that the windows show which touch the sections [first, last)."""
    starts = plan.depths(first, last)
    return range(starts[0], min(starts[-1] + plan.depth, len(plan.table)))


def inputs_sha256(plan: Plan, first: int, last: int, section_sha256: Sequence[str]) -> str:
    """Hash of the voxels that the sections [first, last) are made from, and of which of them nothing is made."""
    named = [(plan.table[z] is None, shown(plan, z)) for z in seen(plan, first, last)]
    return settings_sha256([[absent, None if z is None else section_sha256[z]] for absent, z in named])
