"""Clips: windows of several sections that a network super-resolves at once, on a grid along z as along y and x."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from emsr.plan import Plan, Table, nearest_good, settings_sha256

if TYPE_CHECKING:
    from torch import nn


def of_card(card: Mapping[str, Any]) -> tuple[int, int] | None:
    """How many sections a network of clips sees at a time, and how many of these windows share; None for others.

    ValueError for numbers by which a volume cannot be cut.
    """
    if "depth_overlap" not in card:
        return None
    depth, shared = card.get("depth"), card["depth_overlap"]
    if type(depth) is not int or depth < 1 or type(shared) is not int or not 0 <= shared < depth:
        raise ValueError(
            f"the card of the weights states clips of depth {depth!a} that share {shared!a} sections, by which no "
            "volume can be cut: restore the card, or train the weights again"
        )
    return depth, shared


def check_network(card: Mapping[str, Any], network: nn.Module) -> None:
    """ValueError where a network sees clips and its card does not say how deep they are, or the other way round."""
    if sees := hasattr(network, "clip"):
        states, does = "states no depth and depth_overlap", "sees clips"
    else:
        states, does = "states clips (depth_overlap)", "sees none"
    if sees != (of_card(card) is not None):
        raise ValueError(
            f"the card of the weights {states}, and {card['model']} {does}: restore the card, or train them again"
        )


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
