"""What segmentations are scored against: labels as they are counted, the sections, and the boxes that are read.

Sections that are scored make up stretches without gaps, and nothing beyond the ends of a stretch is looked at: no
border, no membrane, no neighbour of a section that is damaged or not for the test.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from emsr.geometry import Box, ShardGrid, Triple, triple
from emsr.inference.extent import made_areas
from emsr.metrics.enclosed import Which, enclosing
from emsr.metrics.segmentation import Contingency
from emsr.metrics.tolerance import Tolerance
from emsr.metrics.truth import border_halo, check_labels, near_border
from emsr.steps.left_out import LeftOut
from emsr.stores.card import array_path
from emsr.stores.shards import read_box
from emsr.stores.zarr import open_array

IGNORED = (0,)  # truth labels that are not counted
BLOCK = (16, 512, 512)  # voxels that are measured at a time
MOST = 2**27  # voxels of labels that are searched for organelles: whole, with a sorted copy, 2.1 GB in rules of 4 to 6
CACHE_BYTES = 64_000_000  # decoded chunks that neighbouring boxes share
SAME = 1e-3  # relative difference of voxel sizes that counts as rounding

Json = Mapping[str, Any]
Plane = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Truth:
    """Labels of a volume, open for reading, with ``organelles`` (rising ids) as part of the ``cells`` around them.

    ``border`` says how near to a border voxels are left out of splits and merges, ``left_out`` which voxels are in no
    score at all.
    """

    array: Any
    border: Tolerance
    organelles: np.ndarray
    cells: np.ndarray
    left_out: LeftOut

    def read(self, box: Box) -> np.ndarray:
        """Labels (z, y, x) of a box."""
        labels = read_box(self.array, box)
        if not len(self.organelles):
            return labels
        place = np.minimum(np.searchsorted(self.organelles, labels), len(self.organelles) - 1)
        return np.where(self.organelles[place] == labels, self.cells[place], labels)

    def counted(self, box: Box, stretch: Box) -> tuple[np.ndarray, np.ndarray]:
        """Labels of a box and which of its voxels (bool) count: not left out, and farther than the tolerance from any
        border.
        """
        wide = grown(box, border_halo(self.border), stretch)
        labels, here = self.read(wide), inside(box, wide)
        return labels[here], self.left_out.counted(~near_border(labels, self.border)[here], box)

    def pairs(self, ids: Any, box: Box, stretch: Box) -> Contingency:
        """The pairs of a label and an id of the open array ``ids`` in a box, ignored labels included."""
        labels, counted = self.counted(box, stretch)
        return Contingency.of(labels, read_box(ids, box), counted)


def open_truth(path: Path, card: Json, border: Tolerance, absorb: int, left_out: LeftOut) -> Truth:
    """Open labels; objects of at most ``absorb`` voxels that another encloses become part of it (0: none do).

    Raises ValueError for labels that are no ids, and for more than ``MOST`` voxels if organelles are to be found.
    """
    check_labels(np.empty(0, card["dtype"]), str(path))
    array = open_array(array_path(path, dict(card)), cache_bytes=CACHE_BYTES)
    if not absorb:
        none = np.empty(0, card["dtype"])
        return Truth(array, border, none, none, left_out)
    voxels = math.prod(card["shape"])
    if voxels > MOST:
        raise ValueError(
            f"{path} has {voxels} voxels, and enclosed organelles are found in at most {MOST}, all at once: set absorb "
            "to 0, or name labels of a smaller volume"
        )
    inner, outer = _organelles(read_box(array, Box((0, 0, 0), triple(list(card["shape"])))), absorb)
    return Truth(array, border, inner, outer, left_out)


def _organelles(labels: np.ndarray, absorb: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids that are absorbed, rising, and the object that each becomes part of in the end."""
    around = enclosing(labels, Which(max_voxels=absorb))
    inner = sorted(around)
    outer = []
    for one in inner:
        while one in around:
            one = around[one]
        outer.append(one)
    return np.array(inner, labels.dtype), np.array(outer, labels.dtype)


# -- what is scored ---------------------------------------------------------------------------------------------------


def common_plane(labels: tuple[Path, Json], images: Mapping[str, Json]) -> Plane:
    """Voxels (y, x) that all ``images`` have, from the origin: what is scored.

    Raises ValueError for labels that do not cover them, and for other numbers of sections and voxel sizes.
    """
    path, card = labels
    first = next(iter(images.values()))
    for name, image in images.items():
        shape, wanted = list(card["shape"]), list(image["shape"])
        if shape[0] != wanted[0] or any(have < need for have, need in zip(shape[1:], wanted[1:], strict=True)):
            raise ValueError(
                f"{path} is {shape} voxels and {name} {wanted}: labels must have the same sections and at least as "
                "many voxels in y and x; name those of this volume"
            )
        for other in (card, first):
            ours, theirs = (list(part["voxel_size_nm"]) for part in (image, other))
            if not np.allclose(ours, theirs, rtol=SAME, atol=0):
                raise ValueError(f"{name} has voxels of {ours} nm and {path} or another image {theirs}: score one grid")
    return min(int(image["shape"][1]) for image in images.values()), min(int(i["shape"][2]) for i in images.values())


def left_out(cards: Mapping[str, Json]) -> dict[int, str]:
    """Why a section is in no score: it is damaged or missing in one of the images, or no part of it was made."""
    found: dict[int, str] = {}
    for name, card in cards.items():
        for state in ("damaged", "missing"):
            for z, why in (card.get(state) or {}).items():
                found.setdefault(int(z), f"{state} in {name}" + (f": {why}" if why not in (state, "-", "") else ""))
        for z in range(card["shape"][0] if card.get("skipped") else 0):
            if not made_areas(card, z):
                found.setdefault(z, f"not made in {name}")
    return dict(sorted(found.items()))


def good_sections(
    ranges: Sequence[Sequence[int]] | None, depth: int, excluded: Mapping[int, str], what: str
) -> list[int]:
    """The sections of half-open ranges, rising, but for those excluded.

    ``what`` names the ranges in errors: ValueError for none, ranges beyond ``depth`` sections, and no section left.
    """
    if not ranges:
        raise ValueError(f"no {what} sections are named: state {what} as [[first, last + 1]]")
    for first, last in ranges:
        if not 0 <= first < last <= depth:
            raise ValueError(f"{what} range [{first}, {last}] is not within the {depth} sections of the volume")
    named = {z for first, last in ranges for z in range(first, last)}
    if not named - set(excluded):
        raise ValueError(
            f"every one of the {what} sections {sorted(named)} is damaged, missing or not made: name others"
        )
    return sorted(named - set(excluded))


def stretches(sections: Collection[int], plane: Plane) -> list[Box]:
    """Rising sections as boxes of the whole plane, one for each stretch without a gap."""
    named = set(sections)
    starts = [z for z in sections if z - 1 not in named]
    stops = [z + 1 for z in sections if z + 1 not in named]
    return [Box((low, 0, 0), (high, *plane)) for low, high in zip(starts, stops, strict=True)]


# -- boxes ------------------------------------------------------------------------------------------------------------


def tiles(plane: Plane, side: int, depth: int) -> list[Box]:
    """Boxes of all ``depth`` sections and about ``side`` voxels in y and x, as equal as can be, in raster order."""
    if side < 1:
        raise ValueError(f"windows of {side} voxels: give at least 1")
    rows, columns = ([*pairwise(_edges(length, side))] for length in plane)
    return [Box((0, y, x), (depth, below, right)) for y, below in rows for x, right in columns]


def _edges(length: int, side: int) -> list[int]:
    count = max(1, round(length / side))
    return [number * length // count for number in range(count + 1)]


def blocks(tile: Box, scored: Sequence[Box]) -> Iterator[tuple[Box, Box]]:
    """Boxes of at most ``BLOCK`` voxels that make up a tile's part of the stretches, each with its stretch."""
    for stretch in scored:
        part = tile.intersect(stretch)
        for box in ShardGrid(part.shape, BLOCK).boxes():
            yield box.shifted(part.start), stretch


def grown(box: Box, halo: Triple, stretch: Box) -> Box:
    """A box with a halo around it, as far as the stretch goes."""
    start = triple([low - by for low, by in zip(box.start, halo, strict=True)])
    return Box(start, triple([high + by for high, by in zip(box.stop, halo, strict=True)])).intersect(stretch)


def inside(box: Box, wide: Box) -> tuple[slice, slice, slice]:
    """Where a box lies in the array of a wider one."""
    z, y, x = wide.start
    return box.shifted((-z, -y, -x)).slices
