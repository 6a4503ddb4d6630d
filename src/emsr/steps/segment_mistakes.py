"""Where to look: the worst splits and merges, and the windows with most invented and most lost membrane."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from typing import Any, Literal

import numpy as np

from emsr.geometry import Box, Triple
from emsr.metrics.membrane import Difference, ranked
from emsr.metrics.segmentation import Contingency
from emsr.metrics.worst import Mistake, Place, places, worst
from emsr.steps.segment_tallies import Scene
from emsr.steps.segment_truth import BLOCK, IGNORED, blocks, inside
from emsr.stores.shards import each, read_box

MOST = 50  # of a kind that are listed
DEEP = BLOCK[0]  # sections of one place of which the worst alone is listed

STATED: dict[str, object] = {
    "coordinates": "z, y, x in voxels of sr, half-open boxes; nm are of the centre in the space of sr's card, in which "
    "the centre of voxel 0, 0, 0 has the card's translation",
    "nearest": "the voxel of the piece that is nearest to its centre of mass, which may lie outside",
    "windows": f"one section of a sub-volume; of each {DEEP} sections of it the worst one",
}
"""What the lists hold, in words that go beside them."""

Pair = tuple[int, int]


def worst_of(scene: Scene, name: str, table: Contingency, tiles: list[Box], workers: int) -> dict[str, list[Any]]:
    """The worst "splits" and "merges" of a rival, worst first, with their places; ``table`` is of all tiles."""
    counted = table.without(IGNORED)
    listed = {"splits": worst(counted, "split", MOST), "merges": worst(counted, "merge", MOST)}
    pairs = sorted({(one.truth, one.segment) for kind in listed.values() for one in kind})
    where = _places(scene, name, pairs, tiles, workers)
    nearest = _nearest(scene, name, where, tiles, workers)
    return {
        kind: [_row(scene, name, one, where[one.truth, one.segment], nearest[one.truth, one.segment]) for one in found]
        for kind, found in listed.items()
    }


def _row(scene: Scene, name: str, one: Mistake, place: Place, nearest: Triple) -> dict[str, Any]:
    """A mistake and its place, as JSON."""
    return {
        **asdict(one),
        "centre": list(place.centre),
        "centre_nm": _nm(scene, name, place.centre),
        "nearest": list(nearest),
        "start": list(place.start),
        "stop": list(place.stop),
    }


def _nm(scene: Scene, name: str, voxel: tuple[float, float, float]) -> list[float]:
    card = scene.rivals[name].card
    along = zip(voxel, card["voxel_size_nm"], card["translation_nm"], strict=True)
    return [place * size + first for place, size, first in along]


def _pairs(scene: Scene, name: str, box: Box, stretch: Box) -> tuple[np.ndarray, np.ndarray]:
    """Labels, 0 where they are not counted, and segments of a box."""
    labels, counted = scene.truth.counted(box, stretch)
    return np.where(counted, labels, labels.dtype.type(0)), read_box(scene.rivals[name].segments, box)


def _places(scene: Scene, name: str, pairs: Collection[Pair], tiles: list[Box], workers: int) -> dict[Pair, Place]:
    """The place of each pair of a label and a segment."""

    def of_tile(tile: Box) -> dict[Pair, Place]:
        found = (places(*_pairs(scene, name, *box), pairs, box[0].start) for box in blocks(tile, scene.scored))
        return _added(found)

    return _added(each(of_tile, tiles, workers, "places of mistakes") if pairs else [])


def _added(parts: Iterable[Mapping[Pair, Place]]) -> dict[Pair, Place]:
    total: dict[Pair, Place] = {}
    for part in parts:
        for pair, place in part.items():
            total[pair] = total[pair] + place if pair in total else place
    return total


def _nearest(
    scene: Scene, name: str, where: Mapping[Pair, Place], tiles: list[Box], workers: int
) -> dict[Pair, Triple]:
    """The voxel of each pair that is nearest to its centre, of equal ones the first."""
    size = np.array(scene.rivals[name].card["voxel_size_nm"], float)
    around = {pair: Box(place.start, place.stop) for pair, place in where.items()}

    def of_tile(tile: Box) -> list[tuple[Pair, float, Triple]]:
        found = []
        for box, stretch in blocks(tile, scene.scored):
            near = {pair: part for pair, place in around.items() if (part := place.intersect(box)).size}
            if not near:
                continue
            labels, segments = _pairs(scene, name, box, stretch)
            for pair, part in near.items():
                here = inside(part, box)
                mine = np.argwhere((labels[here] == pair[0]) & (segments[here] == pair[1])) + part.start
                far = np.square((mine - where[pair].centre) * size).sum(1)
                if len(mine):
                    z, y, x = mine[far.argmin()].tolist()
                    found.append((pair, float(far.min()), (z, y, x)))
        return found

    rows = [row for part in each(of_tile, tiles, workers, "voxels of mistakes") for row in part] if where else []
    return {pair: voxel for pair, _, voxel in sorted(rows, key=lambda row: row[1:], reverse=True)}


def listed(scene: Scene, found: Mapping[Box, Difference], by: Literal["invented", "lost"]) -> list[dict[str, Any]]:
    """The windows with most invented (lost) membrane for their size, worst first, each place once in 16 sections."""
    first: dict[Triple, tuple[Box, Difference]] = {}
    for window, difference in ranked(found, by, len(found)):
        z, y, x = window.start
        first.setdefault((z // DEEP, y, x), (window, difference))
    return [_window(scene, *one, by) for one in list(first.values())[:MOST]]


def _window(scene: Scene, window: Box, difference: Difference, by: str) -> dict[str, Any]:
    middle = [(low + high - 1) / 2 for low, high in zip(window.start, window.stop, strict=True)]
    return {
        "start": list(window.start),
        "stop": list(window.stop),
        "centre_nm": _nm(scene, "sr", (middle[0], middle[1], middle[2])),
        **asdict(difference),
        "share": getattr(difference, by) / difference.voxels,
        "share_of_membrane": getattr(difference, f"{by}_share"),
    }
