"""What will be computed, as data: neighbours of each section, windows, shards, hashes. Integers and JSON only.

Shards are bookkeeping: nothing here but `Plan.window`, `Plan.overlap` and the neighbour table touches a voxel.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emsr import scales
from emsr.geometry import Box, Grids, ShardGrid, Triple, touching, triple, windows_on_axis
from emsr.scales import Axis, Scale

Table = tuple[tuple[int, ...] | None, ...]
"""For each section z the sections it is made from, centre in the middle; None for a section without data."""


def settings_sha256(settings: Any) -> str:
    """sha256 of a JSON value in its one canonical spelling."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


# -- sections ---------------------------------------------------------------------------------------------------------


def neighbour_table(n: int, sections: int, step: int, damaged: Iterable[int], missing: Iterable[int]) -> Table:
    """The sections that each of `n` sections is made from: z - step*(sections//2) ... z ... z + step*(sections//2).

    Past an end stands the end section (replicate padding, as the authors' inference does). A damaged or missing
    neighbour is replaced by the nearest good section of lower index, or of higher index where there is none. A damaged
    centre is its own centre; a missing one is None. Raises ValueError for an even number of sections.
    """
    if sections < 1 or sections % 2 == 0 or step < 1:
        raise ValueError(f"{sections} sections {step} apart have no centre: use an odd number at least 1 apart")
    absent = set(missing)
    bad = absent | set(damaged)
    reach = sections // 2

    def neighbour(z: int, offset: int) -> int:
        target = min(max(z + offset * step, 0), n - 1)
        return target if offset == 0 or target not in bad else nearest_good(target, n, bad, z)

    offsets = range(-reach, reach + 1)
    return tuple(None if z in absent else tuple(neighbour(z, offset) for offset in offsets) for z in range(n))


def nearest_good(target: int, n: int, bad: set[int], centre: int) -> int:
    """The nearest good section below `target`, else above it, else the centre itself."""
    candidates = (*range(target - 1, -1, -1), *range(target + 1, n))
    return next((z for z in candidates if z not in bad), centre)


def inputs_sha256(table: Sequence[Sequence[int] | None], section_sha256: Sequence[str]) -> str:
    """Hash of the voxels that some sections are made from, in the order in which the network sees them."""
    return settings_sha256([named if named is None else [section_sha256[z] for z in named] for named in table])


# -- windows and shards -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """One pass of a network over a volume: `lr_shape` voxels become scale times as many along y and x, rounded.

    `window` and `overlap` are lr pixels along y and x, `shard` output voxels (z, y, x). Super-resolution makes one
    section at a time from those that `table` names. A network of volumes makes `depth` sections at a time, windows
    sharing `depth_overlap`, reads `halo` (z, y, x) around a window, which its valid convolutions use up, and gives
    `channels` values a voxel; `table` then names the one section that is read in each one's place. So does one that
    super-resolves clips. Where shards are skipped, all that are made lie in the box `within` of shard numbers.
    """

    lr_shape: Triple
    scale: Scale
    window: int
    overlap: int
    shard: Triple
    table: Table
    depth: int = 1
    depth_overlap: int = 0
    halo: Triple = (0, 0, 0)
    channels: int = 1
    within: Box | None = None

    @property
    def shape(self) -> Triple:
        """Shape of the sr volume."""
        return (self.lr_shape[0], *scales.fine_plane(self.lr_shape[1:], self.scale))

    @property
    def grids(self) -> Grids:
        """Both volumes, of one extent."""
        return Grids(self.lr_shape, self.shape)

    @property
    def grid(self) -> ShardGrid:
        """The shards of the sr volume."""
        return ShardGrid(self.shape, self.shard)

    def starts(self, axis: int) -> tuple[int, ...]:
        """Where windows start along axis 0 (z, sections), 1 (y) or 2 (x, both in lr pixels)."""
        side, overlap = (self.window, self.overlap) if axis else (self.depth, self.depth_overlap)
        return windows_on_axis(self.lr_shape[axis], side, overlap)

    def depths(self, first: int, last: int) -> tuple[int, ...]:
        """z starts of the windows that touch the sections [first, last); sections themselves where depth is 1."""
        return tuple(range(first, last)) if self.depth == 1 else touching(self.starts(0), self.depth, first, last)

    def columns(self, box: Box) -> tuple[tuple[int, int], ...]:
        """(y, x) starts of the windows that touch a box of sr voxels, row by row."""
        rows, columns = (self._touching(axis, box) for axis in (1, 2))
        return tuple((y, x) for y in rows for x in columns)

    def _touching(self, axis: int, box: Box) -> tuple[int, ...]:
        return touching(self.starts(axis), self.window, *self.axis(axis).coarser(box.start[axis], box.stop[axis]))

    def axis(self, axis: int) -> Axis:
        """One axis of lr and of what is made of it."""
        return Axis(self.lr_shape[axis], self.shape[axis])

    def span(self, axis: int, start: int) -> tuple[int, int]:
        """The sr voxels along axis 1 (y) or 2 (x) of the window at `start`: those whose centres it holds.

        Of a volume smaller than the window, those past its end too where the scale is whole.
        """
        along = self.axis(axis)
        first, last = along.finer(start, start + self.window)
        return first, last if scales.whole(self.scale) else min(last, along.fine)


def check_window(window: int, overlap: int, card: Mapping[str, Any]) -> None:
    """Raise ValueError for a window that the card's network cannot take, or an overlap that leaves no step.

    Pyramids of alignment need multiples of 4; the latents of the prior lie `latent_stride` sr pixels apart.
    """
    multiple = max(4, card["options"].get("latent_stride", 1) // scales.least(scales.of(card["scale"])))
    if window < multiple or window % multiple:
        near = max(multiple, window // multiple * multiple)
        raise ValueError(f"window {window} is not a multiple of {multiple}, which the network needs: use {near}")
    if not 0 <= overlap < window:
        raise ValueError(f"overlap {overlap} leaves no step for window {window}: use 0 to {window - 1}")


def read_plan(allocated: Mapping[str, Any]) -> Plan:
    """The plan in what `allocate` wrote."""
    return Plan(
        lr_shape=triple(allocated["lr"]["shape"]),
        scale=scales.of(allocated["scale"]),
        window=allocated["window"],
        overlap=allocated["overlap"],
        shard=triple(allocated["shard"]),
        table=tuple(named if named is None else tuple(named) for named in allocated["sections"]),
        depth=allocated.get("depth", 1),
        depth_overlap=allocated.get("depth_overlap", 0),
        halo=triple(allocated.get("halo", (0, 0, 0))),
        channels=allocated.get("channels", 1),
        within=read_within(allocated),
    )


def read_grid(allocated: Mapping[str, Any]) -> ShardGrid:
    """The shards in what `allocate` and its like wrote."""
    return ShardGrid(triple(allocated["shape"]), triple(allocated["shard"]))


def read_within(allocated: Mapping[str, Any]) -> Box | None:
    """The box of shard numbers in which all shards lie that are made; None where none is skipped."""
    stated = allocated.get("within")
    return None if stated is None else Box(triple(stated[0]), triple(stated[1]))
