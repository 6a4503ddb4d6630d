"""Figures by which the first jobs of a super-resolution are judged, from samples of what they made."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emsr.geometry import Triple

if TYPE_CHECKING:
    from emsr.commands.recorded import Recorded
    from emsr.steps.tiles import Images

MOST_SHARDS = 16  # of each section that is looked at
PATCH = 256  # sr voxels, side of the squares whose spectrum is taken
WINDOWS = 4  # of lr, in which the network is asked how sure it is
FLOOR_DB = -40.0  # power below that of the whole image that is rounding of grey levels

Figures = dict[str, float | None]


@dataclass(frozen=True)
class Sample:
    """Parts (sr voxels, half-open y and x) of sections that were made."""

    images: Images
    areas: Mapping[int, list[tuple[tuple[int, int], tuple[int, int]]]]

    def each(self) -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
        """Voxels (y, x) of every part, and where it begins."""
        from emsr.steps.tiles import read

        for z, areas in self.areas.items():
            for area in areas:
                yield read(self.images.sr, z, area), (area[0][0], area[1][0])


def figures(volume: str, allocate: Path, lr: Path, marks: Sequence[Path], sections: int) -> dict[str, Any]:
    """What the shards of the jobs with these marks are like, by `sections` of them.

    "consistency_db" and "bicubic_db": PSNR, made coarser again, against lr, mean over sections. "seams": steepness
    across borders of windows over that beside them. "spectrum_db": by how much a band of finer detail holds more power
    than a coarser one. "confidence": mean probability of the chosen codebook entries over chance. None where nothing
    can be said: no such border, nothing but zeros, no codebook. "sections": those looked at. Writes nothing.
    """
    from emsr.commands.recorded import open_allocation

    array = open_allocation(volume, allocate)
    sample = _sample(array, lr, _shards(array, marks), sections)
    found = {**_consistency(sample), "seams": _seams(sample, array), "spectrum_db": _rise(sample)}
    found["confidence"] = _confidence(array, sample) if sample.areas else None
    return {**found, "sections": sorted(sample.areas)}


def _shards(array: Recorded, marks: Sequence[Path]) -> list[Triple]:
    """The shards that these jobs made, without those that they left empty."""
    from emsr.durable import read_json
    from emsr.shards import shard_name

    named = {name for mark in marks for name in read_json(mark)["shards"]}
    return [index for index in array.records.grid.indices if shard_name(index) in named - _empty(array)]


def _empty(array: Recorded) -> set[str]:
    from emsr.shards import shard_name

    return {shard_name(index) for index in array.records.skipped}


def _sample(array: Recorded, lr: Path, shards: Sequence[Triple], sections: int) -> Sample:
    from emsr.plan import read_plan
    from emsr.steps import parts
    from emsr.steps.tiles import Images
    from emsr.stores.card import array_path, read_card
    from emsr.stores.zarr import open_array

    card, grid, made = read_card(lr), array.records.grid, read_plan(array.allocated)
    bad = {int(z) for state in ("damaged", "missing") for z in card.get(state) or ()}
    layers = {index[0] for index in shards}
    good = [z for layer in sorted(layers) for z in range(*_depth(grid.box((layer, 0, 0)))) if z not in bad]
    count = min(sections, len(good))
    areas = {}
    for z in (good[(2 * number + 1) * len(good) // (2 * count)] for number in range(count)):
        here = [index for index in shards if index[0] == z // grid.shard[0]]
        chosen = here[:: max(1, len(here) // MOST_SHARDS)][:MOST_SHARDS]
        boxes = [grid.box(index) for index in chosen]
        areas[z] = [((box.start[1], box.stop[1]), (box.start[2], box.stop[2])) for box in boxes]
    kernel = str((card.get("degradation") or {}).get("kernel", "bicubic"))
    images = Images(
        open_array(array_path(lr, card)),
        open_array(array.records.array),
        None,
        made.scale,
        kernel,
        made=lambda z: areas.get(z, ()),
        damaged=parts.of_card(card, made.grids),
    )
    return Sample(images, areas)


def _depth(box: Any) -> tuple[int, int]:
    return box.start[0], box.stop[0]


def _consistency(sample: Sample) -> Figures:
    from emsr.steps.tiles import consistency

    tallies = [consistency(sample.images, z) for z in sample.areas]
    found: Figures = {}
    for key, name in (("consistency_db", "sr"), ("bicubic_db", "bicubic")):
        values = [value for tally in tallies if tally[name].pixels and math.isfinite(value := tally[name].psnr())]
        found[key] = round(sum(values) / len(values), 2) if values else None
    return found


def _seams(sample: Sample, array: Recorded) -> float | None:
    """As the seam score of a whole volume (`inference.survey`), of both axes together."""
    from emsr.inference.survey import window_borders
    from emsr.plan import read_plan

    made = read_plan(array.allocated)
    borders = {axis: window_borders(made, axis) for axis in (1, 2)}
    across = beside = 0
    for voxels, corner in sample.each():
        for axis, first in ((1, corner[0]), (2, corner[1])):
            steep = np.abs(np.diff(voxels.astype(np.int16), axis=axis - 1)).sum(axis=2 - axis, dtype=np.int64)
            scale = made.axis(axis).step
            for here in (border - first - 1 for border in borders[axis]):  # steep[here] is between here and here + 1
                if scale <= here < len(steep) - scale:
                    across += 2 * int(steep[here])
                    beside += int(steep[here - scale]) + int(steep[here + scale])
    return round(across / beside, 4) if beside else None


def _rise(sample: Sample) -> float | None:
    from emsr.metrics.likeness import looks

    cut = [voxels[:PATCH, :PATCH] for voxels, _ in sample.each()]
    largest = max((patch.shape for patch in cut), key=lambda shape: min(shape), default=None)
    found = looks(patch for patch in cut if patch.shape == largest)
    if found is None:
        return None
    power = np.maximum(found["spectrum"], FLOOR_DB)
    return round(float((power - np.minimum.accumulate(power)).max()), 2)


def _confidence(array: Recorded, sample: Sample) -> float | None:
    """Asked of windows of lr in the middle of parts that were made, on the CPU."""
    import torch

    from emsr.models import checkpoint
    from emsr.steps.jobs import located
    from emsr.steps.tiles import read

    network = checkpoint.load(located(array.allocate.parent, array.allocated["card"]))
    indexer = getattr(getattr(network, "reference", None), "indexer", None)
    if indexer is None:
        return None
    images, side = sample.images, min(int(array.allocated["window"]), *sample.images.plane)
    side -= side % int(getattr(network, "multiple", 1))
    chances = []
    for z, areas in list(sample.areas.items())[:WINDOWS]:
        axes = zip(images.axes, areas[len(areas) // 2], strict=True)
        middles = [axis.pixel((low + high) // 2) for axis, (low, high) in axes]
        ends = zip(middles, images.plane, strict=True)
        y, x = (min(max(0, middle - side // 2), end - side) for middle, end in ends)
        lr = torch.from_numpy(read(images.lr, z, ((y, y + side), (x, x + side))).copy()).float() / 255
        logits = indexer(lr[None, None])
        chances.append(float(logits.softmax(-1).amax(-1).mean()) * logits.shape[-1])
    return round(sum(chances) / len(chances), 2)
