"""Damaged parts of sections as scores see them: where they lie, which voxels they hold, and how many.

Areas are half-open ranges (y, x) of voxels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from emsr.geometry import Grids

Span = tuple[int, int]
Area = tuple[Span, Span]
Parts = Mapping[int, Sequence[Area]]
Json = Mapping[str, Any]

KEY = "damaged_parts"  # of a card: boxes [[y0, y1], [x0, x1]] by section
KEPT = (KEY, "skipped", "caution")  # of the card of an image, for those of what is made of it voxel by voxel
STATED = (
    "voxels of damaged parts are in no figure, nor are windows of SSIM and MS-SSIM that touch one; sections whose "
    "middle touches one are in no FRC and LPIPS; boxes are those of hr and lr and a block more on every side"
)


def kept(card: Json) -> dict[str, Any]:
    """What of an image card is true of what is made of it voxel by voxel: damaged parts, what was not made, and what
    a user should know of its voxels."""
    return {key: card[key] for key in KEPT if card.get(key)}


def finer(card: Json, grids: Grids) -> dict[str, Any]:
    """Damaged parts of a coarse image, for what was made of it on a finer grid."""
    axes = grids.axis(1), grids.axis(2)
    boxes = {
        z: [[list(axis.finer(*span)) for axis, span in zip(axes, box, strict=True)] for box in of]
        for z, of in (card.get(KEY) or {}).items()
    }
    return {KEY: boxes} if boxes else {}


def of_card(card: Json, grids: Grids | None = None) -> dict[int, list[Area]]:
    """Damaged parts of an image by section, in its own voxels, or the finer ones of ``grids``.

    They are found as whole blocks, and the blocks beside them may be black in part: one more on every side is left out.
    """
    if not card.get(KEY):
        return {}
    from emsr.damage import block_side

    by, far = block_side((card["shape"][1], card["shape"][2])), card["shape"][1:]
    found = {int(z): [_grown((y, x), by, far) for y, x in boxes] for z, boxes in card[KEY].items()}
    if grids is None:
        return found
    return {z: [(grids.axis(1).finer(*y), grids.axis(2).finer(*x)) for y, x in areas] for z, areas in found.items()}


def _grown(area: Area, by: int, far: Sequence[int]) -> Area:
    y, x = ((max(low - by, 0), min(high + by, end)) for (low, high), end in zip(area, far, strict=True))
    return y, x


def together(found: Iterable[Parts]) -> dict[int, list[Area]]:
    """The parts of several images of one grid; those that several have are named once."""
    total: dict[int, list[Area]] = {}
    for parts in found:
        for z, areas in parts.items():
            total.setdefault(z, []).extend(area for area in areas if area not in total.get(z, ()))
    return dict(sorted(total.items()))


def shared(one: Area, other: Area) -> Area:
    """What two areas share; empty, and perhaps turned round, where they share nothing."""
    (y, x) = ((max(a[0], b[0]), min(a[1], b[1])) for a, b in zip(one, other, strict=True))
    return y, x


def holds(area: Area) -> bool:
    """Whether an area holds a voxel."""
    return all(low < high for low, high in area)


def mask(areas: Sequence[Area], within: Area) -> np.ndarray | None:
    """Which voxels (bool) of ``within`` lie in one of the areas; None where none does."""
    here = [part for area in areas if holds(part := shared(area, within))]
    if not here:
        return None
    (top, bottom), (left, right) = within
    found = np.zeros((bottom - top, right - left), bool)
    for (y0, y1), (x0, x1) in here:
        found[y0 - top : y1 - top, x0 - left : x1 - left] = True
    return found


def count(areas: Sequence[Area], within: Area) -> int:
    """How many voxels of ``within`` lie in one of the areas, each counted once; no array of that size is made."""
    here = [part for area in areas if holds(part := shared(area, within))]
    edges = [np.unique([edge for part in here for edge in part[axis]]) for axis in range(2)]
    taken = np.zeros([max(len(along) - 1, 0) for along in edges], bool)
    for part in here:
        y, x = (slice(*np.searchsorted(along, span)) for along, span in zip(edges, part, strict=True))
        taken[y, x] = True
    return int((taken * np.outer(*map(np.diff, edges))).sum())


def windows_left(areas: Sequence[Area], within: Area, border: int) -> int:
    """How many windows of ``border`` voxels on each side of their centre lie in ``within`` and touch no area."""
    (top, bottom), (left, right) = within
    inner = (top + border, bottom - border), (left + border, right - border)
    if not holds(inner):
        return 0
    here = [part for area in areas if holds(part := shared(area, within))]
    reached = [((y0 - border, y1 + border), (x0 - border, x1 + border)) for (y0, y1), (x0, x1) in here]
    return (inner[0][1] - inner[0][0]) * (inner[1][1] - inner[1][0]) - count(reached, inner)
