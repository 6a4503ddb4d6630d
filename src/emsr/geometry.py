"""Integer voxel arithmetic: boxes, the grid of windows, the grid of shards. Nothing else; axes are always z, y, x."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from emsr.scales import Axis

Triple = tuple[int, int, int]


def triple(values: object) -> Triple:
    """Three integers as a tuple, for values that come from JSON; raises ValueError for anything else."""
    if not isinstance(values, (list, tuple)) or len(values) != 3 or any(type(value) is not int for value in values):
        raise ValueError(f"{values!r} is not three integers (z, y, x): write it like [32, 1024, 1024]")
    return (values[0], values[1], values[2])


@dataclass(frozen=True, order=True, slots=True)
class Box:
    """Half-open box of voxels: `start` is inside, `stop` is not. Both (z, y, x)."""

    start: Triple
    stop: Triple

    def __post_init__(self) -> None:
        if any(first > last for first, last in zip(self.start, self.stop, strict=True)):
            raise ValueError(f"box starts at {self.start}, behind its stop {self.stop}")

    @property
    def shape(self) -> Triple:
        """Length of the three axes in voxels."""
        return triple([last - first for first, last in zip(self.start, self.stop, strict=True)])

    @property
    def size(self) -> int:
        """Number of voxels; 0 for an empty box."""
        depth, height, width = self.shape
        return depth * height * width

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The box as an index of an array whose first voxel is (0, 0, 0)."""
        z, y, x = (slice(first, last) for first, last in zip(self.start, self.stop, strict=True))
        return z, y, x

    def intersect(self, other: Box) -> Box:
        """The shared voxels; an empty box (size 0) where there are none."""
        start = triple([max(pair) for pair in zip(self.start, other.start, strict=True)])
        stop = [min(pair) for pair in zip(self.stop, other.stop, strict=True)]
        return Box(start, triple([max(pair) for pair in zip(start, stop, strict=True)]))

    def contains(self, other: Box) -> bool:
        """Whether every voxel of `other` is inside."""
        return self.intersect(other).size == other.size

    def shifted(self, by: Triple) -> Box:
        """The box moved by so many voxels."""
        return Box(
            triple([first + step for first, step in zip(self.start, by, strict=True)]),
            triple([last + step for last, step in zip(self.stop, by, strict=True)]),
        )

    def scaled(self, scale: int) -> Box:
        """The same place in a volume with `scale` times as many voxels along y and x; z stays."""
        return Box(scaled(self.start, scale), scaled(self.stop, scale))

    def indices(self) -> Iterator[Triple]:
        """Every (z, y, x) of the box in raster order."""
        return itertools.product(*(range(first, last) for first, last in zip(self.start, self.stop, strict=True)))  # type: ignore[return-value]


def scaled(point: Triple, scale: int) -> Triple:
    """(z, s*y, s*x): a shape or a corner, super-resolved in the plane."""
    return (point[0], point[1] * scale, point[2] * scale)


@dataclass(frozen=True)
class Grids:
    """A coarse and a fine volume of one extent: shapes (z, y, x), as many sections in both."""

    coarse: Triple
    fine: Triple

    def axis(self, axis: int) -> Axis:
        """Axis 0 (z), 1 (y) or 2 (x) of both."""
        return Axis(self.coarse[axis], self.fine[axis])

    def finer(self, box: Box) -> Box:
        """The fine voxels whose centres lie in a box of coarse ones."""
        return self._mapped(box, [self.axis(axis).finer for axis in (1, 2)])

    def coarser(self, box: Box) -> Box:
        """The coarse voxels that hold the centres of a box of fine ones."""
        return self._mapped(box, [self.axis(axis).coarser for axis in (1, 2)])

    def _mapped(self, box: Box, along: Sequence[Callable[[int, int], tuple[int, int]]]) -> Box:
        spans = list(zip(box.start[1:], box.stop[1:], strict=True))
        (top, bottom), (left, right) = (change(*span) for change, span in zip(along, spans, strict=True))
        return Box((box.start[0], top, left), (box.stop[0], bottom, right))


def windows_on_axis(length: int, window: int, overlap: int) -> tuple[int, ...]:
    """Where the windows of one axis start: a grid anchored at 0, the last window flush with the end.

    A volume shorter than the window has the one window at 0, which reaches past its end (and is reflect-padded).
    Raises ValueError for an overlap that leaves no step.
    """
    if not 0 <= overlap < window:
        raise ValueError(f"overlap {overlap} leaves no step for window {window}: use 0 to {window - 1}")
    if length <= window:
        return (0,)
    return (*range(0, length - window, window - overlap), length - window)


def windows_at_most(window: int, overlap: int) -> int:
    """How many windows can lie over one voxel of an axis: those of the regular grid and the one flush with the end."""
    return -(-window // (window - overlap)) + 1


def touching(starts: tuple[int, ...], window: int, first: int, last: int) -> tuple[int, ...]:
    """The starts (ascending) whose windows share a voxel with [first, last)."""
    return starts[bisect_right(starts, first - window) : bisect_left(starts, last)]


def runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Half-open runs of consecutive numbers in an ascending sequence."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        first = found.pop()[0] if found and found[-1][1] == number else number
        found.append((first, number + 1))
    return found


def rectangles(rows: Sequence[Sequence[bool]]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """The true cells of a table as half-open rectangles (rows, columns) that neither overlap nor leave one out.

    Equal stretches of neighbouring rows are one rectangle, so a whole table is a single one.
    """
    found: dict[tuple[tuple[int, int], int], int] = {}  # (columns, row after the last) -> first row
    for row, cells in enumerate(rows):
        for columns in runs(column for column, cell in enumerate(cells) if cell):
            found[columns, row + 1] = found.pop((columns, row), row)
    return sorted(((first, last), columns) for (columns, last), first in found.items())


@dataclass(frozen=True)
class ShardGrid:
    """A volume cut into shards of one shape, anchored at the origin; the last of an axis may be cropped."""

    shape: Triple
    shard: Triple

    @property
    def counts(self) -> Triple:
        """Number of shards along z, y, x."""
        return triple([-(-length // edge) for length, edge in zip(self.shape, self.shard, strict=True)])

    @property
    def indices(self) -> tuple[Triple, ...]:
        """Every shard's (z, y, x) number, in raster order."""
        return tuple(Box((0, 0, 0), self.counts).indices())

    def box(self, index: Triple) -> Box:
        """The voxels of one shard."""
        sides = list(zip(index, self.shard, self.shape, strict=True))
        start = [min(number * edge, length) for number, edge, length in sides]
        stop = [min((number + 1) * edge, length) for number, edge, length in sides]
        return Box(triple(start), triple(stop))

    def number(self, index: Triple) -> int:
        """Where a shard comes in raster order."""
        _, rows, columns = self.counts
        return (index[0] * rows + index[1]) * columns + index[2]

    def index(self, number: int) -> Triple:
        """The shard that comes as `number` in raster order."""
        _, rows, columns = self.counts
        layer, rest = divmod(number, rows * columns)
        return (layer, *divmod(rest, columns))

    def holding(self, voxel: Triple) -> Triple:
        """The shard that holds a voxel."""
        return triple([place // edge for place, edge in zip(voxel, self.shard, strict=True)])

    def boxes(self) -> Boxes:
        """The voxels of every shard, in raster order."""
        return Boxes(self)


@dataclass(frozen=True)
class Boxes:
    """The boxes of a grid in raster order, made as they are asked for: a million of them take no room."""

    grid: ShardGrid

    def __len__(self) -> int:
        return math.prod(self.grid.counts)

    def __getitem__(self, number: int) -> Box:
        return self.grid.box(self.grid.index(number))

    def __iter__(self) -> Iterator[Box]:
        return map(self.grid.box, Box((0, 0, 0), self.grid.counts).indices())
