"""What is counted of segmentations and of the affinities that they are made from, box by box."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from emsr.durable import read_json
from emsr.geometry import Box
from emsr.metrics.membrane import LEVELS, Difference, MembraneTally, difference, tally
from emsr.metrics.segmentation import Contingency, section_tables
from emsr.metrics.tolerance import Tolerance
from emsr.metrics.truth import borders
from emsr.steps.segment_history import read_threshold
from emsr.steps.segment_truth import CACHE_BYTES, IGNORED, Truth, blocks, grown, inside, tiles
from emsr.stores.card import array_path, read_card
from emsr.stores.shards import read_box
from emsr.stores.zarr import open_array

SECTION = 2048  # voxels: sections longer than 1.5 times this are cut into tiles, each scored as a section

STATED: dict[str, object] = {
    "probability": "1 - mean of the nearest affinities: of y and x (in_plane), else of z, y and x",
    "truth": "voxels that share a face with another label (in_plane: in their section); those with an ignored label "
    "are not counted",
    "stretches": "scored sections without a gap between them; nothing beyond their ends is looked at",
    "sections": f"means over whole sections; of those of more than {3 * SECTION // 2} voxels a side over tiles of "
    f"about {SECTION}",
}
"""What is done here, in words that go beside the figures."""


@dataclass(frozen=True, eq=False)
class Rival:
    """One segmentation: ``image`` ("bicubic", "sr" or "hr") that it is of, cards, and arrays open for reading."""

    image: str
    card: Mapping[str, Any]
    near: Mapping[str, Any]
    segments: Any
    affinities: Any
    threshold: float
    chosen_by: str


def open_rival(stated: Mapping[str, Any]) -> Rival:
    """Open a segmentation; ValueError where segments, affinities and threshold are not of one another."""
    path, affinities, at = (Path(stated[name]) for name in ("segments", "affinities", "threshold"))
    card, near, (threshold, chosen_by) = read_card(path), read_json(affinities), read_threshold(at)
    if card["source"].get("image_sha256") != near["image_sha256"] or list(card["shape"]) != list(near["shape"]):
        raise ValueError(f"{path} and {affinities} are of different images: run the steps that make them again")
    if card["threshold"] != threshold:
        raise ValueError(f"{path} was made at threshold {card['threshold']}, {at} says {threshold}: run segment again")
    return Rival(
        stated["image"],
        card,
        near,
        open_array(array_path(path, card), cache_bytes=CACHE_BYTES),
        open_array((affinities.parent / near["array"]).resolve(), cache_bytes=CACHE_BYTES),
        threshold,
        chosen_by,
    )


@dataclass(frozen=True, eq=False)
class Scene:
    """All that is measured together: the truth, how far membrane may lie from it, stretches of sections, rivals."""

    truth: Truth
    membrane: Tolerance
    scored: Sequence[Box]
    rivals: Mapping[str, Rival]


@dataclass(frozen=True, eq=False)
class Counts:
    """Of one sub-volume, for each rival: pairs of labels and segments, ignored labels included, and membrane."""

    tables: Mapping[str, Contingency]
    membranes: Mapping[str, MembraneTally]


def count(scene: Scene, tile: Box) -> Counts:
    """The counts of a tile's part of the stretches."""
    tables: dict[str, list[Contingency]] = {name: [] for name in scene.rivals}
    for box, stretch in blocks(tile, scene.scored):
        labels, counted = scene.truth.counted(box, stretch)
        for name, rival in scene.rivals.items():
            tables[name].append(Contingency.of(labels, read_box(rival.segments, box), counted))
    summed = {name: Contingency.sum(parts) for name, parts in tables.items()}
    return Counts(summed, count_membranes(scene, scene.scored, tile))


def count_membranes(scene: Scene, scored: Sequence[Box], tile: Box) -> dict[str, MembraneTally]:
    """Membrane of each rival against borders of labels in a tile's part of some stretches."""
    total = {name: MembraneTally(*np.zeros((4, LEVELS), np.int64)) for name in scene.rivals}
    for box, stretch in blocks(tile, scored):
        wide = grown(box, scene.membrane.reach, stretch)
        wider = grown(wide, (0 if scene.membrane.in_plane else 1, 1, 1), stretch)
        labels, here = scene.truth.read(wider), inside(wide, wider)
        border = borders(labels, scene.membrane.in_plane)[here]
        counted = scene.truth.left_out.counted(~np.isin(labels[here], IGNORED), wide)
        for name, rival in scene.rivals.items():
            probability = membrane(read_box(rival.affinities, wide), scene.membrane.in_plane)
            total[name] += tally(probability, border, scene.membrane, inside(box, wide), counted)
    return total


def membrane(affinities: np.ndarray, in_plane: bool) -> np.ndarray:
    """1 - mean of the nearest affinities, uint8 (z, y, x), of uint8 affinities (3, z, y, x); 255 is 1.

    ``in_plane`` takes the affinities along y and x alone, as the published watershed does.
    """
    near = affinities[1:] if in_plane else affinities
    mean = (near.sum(0, dtype=np.uint16) + len(near) // 2) // len(near)
    found: np.ndarray = (255 - mean).astype(np.uint8)
    return found


def added(tallies: Iterable[Mapping[str, MembraneTally]]) -> dict[str, MembraneTally]:
    """The tallies of several tiles together."""
    parts = list(tallies)
    return {name: reduce(add, (part[name] for part in parts)) for name in parts[0]}


def count_section(scene: Scene, section: Box) -> dict[str, list[Contingency]]:
    """Tables of one section of a stretch (z, z + 1 and the whole plane), whose objects are connected in it."""
    z, stretch = section.start[0], next(part for part in scene.scored if part.contains(section))
    tables: dict[str, list[Contingency]] = {name: [] for name in scene.rivals}
    for tile in tiles((section.shape[1], section.shape[2]), SECTION, 1):
        box = tile.shifted((z, 0, 0))
        labels, counted = scene.truth.counted(box, stretch)
        for name, rival in scene.rivals.items():
            tables[name] += section_tables(labels, read_box(rival.segments, box), counted, IGNORED)
    return tables


def differences(scene: Scene, levels: tuple[int, int], tile: Box) -> dict[Box, Difference]:
    """Membrane of rival "sr" against that of "hr" in each section of a tile, by box of that section of the tile.

    ``levels`` are the levels (0 to 255) from which sr's and hr's are membrane.
    """
    found: dict[Box, Difference] = {}
    tolerance = scene.membrane
    for box, stretch in blocks(tile, scene.scored):
        wide = grown(box, tolerance.reach, stretch)
        sr, hr = (membrane(read_box(scene.rivals[name].affinities, wide), tolerance.in_plane) for name in ("sr", "hr"))
        for z in range(box.start[0], box.stop[0]):
            core, window = (Box((z, *part.start[1:]), (z + 1, *part.stop[1:])) for part in (box, tile))
            seen = grown(core, tolerance.reach, stretch)
            here = inside(seen, wide)
            left_out = scene.truth.left_out.mask(seen)
            part = difference(sr[here], hr[here], levels, tolerance, inside(core, seen), left_out)
            found[window] = found.get(window, Difference()) + part
    return found
