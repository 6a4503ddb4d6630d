"""Patches from volumes. Which ones a step trains on depends on seed and step alone: resuming needs no state."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ORIENTATIONS = 8
READ_AHEAD = 2
WHOLE = slice(None)

T = TypeVar("T")
Patchwork = TypeVar("Patchwork", bound="DataclassInstance")
Section = np.ndarray[Any, np.dtype[np.uint8]]
Crop = Callable[[], Section]


class Voxels(Protocol):
    """An array z y x that reads a box when it is indexed (tensorstore, zarr, h5py, numpy)."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, box: tuple[slice, ...]) -> Any: ...


@dataclass(frozen=True)
class Series:
    """Sections of one volume that may be used: ``table`` names, for each usable centre, what it is made from.

    ``lr`` and ``hr`` are uint8 z y x; the hr box that counts is ``scale`` times lr. Either may be None if nobody asks.
    ``degradation`` says how lr was made of hr (kernel, and noise if there is any); None if it was acquired.
    """

    name: str
    lr: Voxels | None
    hr: Voxels | None
    table: tuple[tuple[int, ...], ...]
    degradation: Mapping[str, Any] | None = None

    def centre(self, row: int) -> int:
        """The section that row ``row`` of the table resolves."""
        sections = self.table[row]
        return sections[len(sections) // 2]


@dataclass(frozen=True)
class Request:
    """What a stage wants of a patch. ``patch`` is in lr pixels, in hr pixels for a stage without lr (then scale is 1).

    ``lattice`` above 0 puts patches on multiples of it (and flush with the far border) so that they recur and what
    frozen networks make of them can be kept; 0 puts them anywhere.
    """

    patch: int
    scale: int
    batch: int
    lr: bool = True
    hr: bool = True
    augment: bool = True
    lattice: int = 0
    clip: bool = False  # hr of all sections, not of the centre alone


@dataclass(frozen=True)
class Place:
    """Where a patch lies: series, row of its table, corner in pixels of the request, orientation 0 to 7."""

    series: int
    row: int
    y: int
    x: int
    orientation: int


@dataclass(frozen=True)
class Batch:
    """Patches of one step, uint8: ``lr`` (batch, sections, 1, y, x), ``hr`` (batch, 1, s*y, s*x), and their places.

    Of clips ``hr`` is (batch, sections, 1, s*y, s*x).
    """

    places: tuple[Place, ...]
    lr: np.ndarray[Any, np.dtype[np.uint8]] | None
    hr: np.ndarray[Any, np.dtype[np.uint8]] | None


def cut(batch: Patchwork, count: int) -> list[Patchwork]:
    """``batch`` in ``count`` equal parts; each of its fields has one entry for each patch, or is None."""
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    size = len(next(value for value in values.values() if value is not None)) // count
    cuts = (slice(i * size, (i + 1) * size) for i in range(count))
    return [replace(batch, **{n: None if v is None else v[of] for n, v in values.items()}) for of in cuts]


def generator(seed: int, stream: str, step: int) -> np.random.Generator:
    """Random numbers that depend on these three alone."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, zlib.crc32(stream.encode()), step])))


def orient(image: np.ndarray[Any, Any], orientation: int) -> np.ndarray[Any, Any]:
    """One of the eight orientations of a square (last two axes): bit 2 transposes, then bit 0 flips y, bit 1 x."""
    if orientation & 4:
        image = image.swapaxes(-1, -2)
    return image[..., :: -1 if orientation & 1 else 1, :: -1 if orientation & 2 else 1]


def mirrored(start: int, count: int, length: int, scale: int = 1) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Positions of ``count`` pixels from ``start`` on an axis of ``length`` that is mirrored at its far pixel's centre.

    With ``scale`` the positions are those of the scaled axis which lie under the same mirrored pixels (``start``,
    ``count`` and ``length`` stay in unscaled pixels). A length of 1 repeats its pixel.
    """
    period = max(2 * (length - 1), 1)
    wrapped = np.arange(start, start + count) % period
    back = wrapped >= length
    pixel = np.where(back, period - wrapped, wrapped)
    within = np.arange(scale)
    return (pixel[:, None] * scale + np.where(back[:, None], scale - 1 - within, within)).ravel()


class Patches:
    """Draws batches: ``batch(step)`` for training, ``fixed(count)`` for validation. Neither changes the object."""

    def __init__(self, series: Sequence[Series], request: Request, seed: int, stream: str) -> None:
        """``stream`` names the purpose, so that two purposes with one seed see different patches.

        Raises ValueError when no section is usable.
        """
        self.series, self.request, self.seed, self.stream = tuple(series), request, seed, stream
        self._rows = [(s, r) for s, one in enumerate(self.series) for r in range(len(one.table))]
        if not self._rows:
            names = ", ".join(one.name for one in self.series) or "no volume"
            raise ValueError(f"no undamaged section to draw patches for {stream} from in {names}: widen the ranges")

    def batch(self, step: int, share: slice = WHOLE) -> Batch:
        """The patches of training step ``step``, or a share of them: all are drawn, and only these are read."""
        draw = generator(self.seed, self.stream, step)
        rows = draw.integers(len(self._rows), size=self.request.batch)
        return self.read([self._place(draw, int(row)) for row in rows][share])

    def fixed(self, count: int) -> list[Batch]:
        """``count`` patches spread evenly over the sections, always the same; the last batch may be smaller."""
        draw = generator(self.seed, self.stream, 0)
        size = self.request.batch
        places = [self._place(draw, i * len(self._rows) // count) for i in range(count)]
        return [self.read(places[i : i + size]) for i in range(0, count, size)]

    def _place(self, draw: np.random.Generator, row: int) -> Place:
        series, at = self._rows[row]
        corner = [self._corner(draw, length) for length in self._plane(self.series[series])]
        orientation = int(draw.integers(ORIENTATIONS)) if self.request.augment else 0
        return Place(series, at, corner[0], corner[1], orientation)

    def _corner(self, draw: np.random.Generator, length: int) -> int:
        free = max(length - self.request.patch, 0)
        if not self.request.lattice:
            return int(draw.integers(free + 1))
        steps = -(-free // self.request.lattice)
        return min(int(draw.integers(steps + 1)) * self.request.lattice, free)

    def count(self) -> int:
        """How many different patches a request with a lattice can draw."""
        request, total = self.request, 0
        for one in self.series:
            corners = [-(-max(length - request.patch, 0) // request.lattice) + 1 for length in self._plane(one)]
            total += len(one.table) * corners[0] * corners[1]
        return total * (ORIENTATIONS if request.augment else 1)

    def _plane(self, series: Series) -> tuple[int, int]:
        """Size y, x of a section in pixels of the request."""
        if self.request.lr:
            assert series.lr is not None
            return series.lr.shape[1], series.lr.shape[2]
        assert series.hr is not None
        return series.hr.shape[1] // self.request.scale, series.hr.shape[2] // self.request.scale

    def read(self, places: Sequence[Place]) -> Batch:
        """The patches at ``places``; all of them are asked for before the first is waited for."""
        lr = [self._lr(place) for place in places] if self.request.lr else []
        hr = [self._hr(place) for place in places] if self.request.hr else []
        sections = [np.stack([crop()[None] for crop in crops]) for crops in lr]
        truths = [np.stack([crop()[None] for crop in crops]) for crops in hr]
        truth = (np.stack(truths) if self.request.clip else np.concatenate(truths)) if hr else None
        return Batch(tuple(places), np.stack(sections) if lr else None, truth)

    def _lr(self, place: Place) -> list[Crop]:
        series = self.series[place.series]
        assert series.lr is not None
        return [self._crop(series.lr, z, place, 1) for z in series.table[place.row]]

    def _hr(self, place: Place) -> list[Crop]:
        series = self.series[place.series]
        assert series.hr is not None
        sections = series.table[place.row] if self.request.clip else (series.centre(place.row),)
        return [self._crop(series.hr, z, place, self.request.scale) for z in sections]

    def _crop(self, voxels: Voxels, z: int, place: Place, scale: int) -> Crop:
        height, width = self._plane(self.series[place.series])
        y = mirrored(place.y, self.request.patch, height, scale)
        x = mirrored(place.x, self.request.patch, width, scale)
        box = (slice(z, z + 1), slice(int(y.min()), int(y.max()) + 1), slice(int(x.min()), int(x.max()) + 1))
        waiting, inside = asked(voxels[box]), np.ix_(y - y.min(), x - x.min())
        return lambda: np.ascontiguousarray(orient(waiting()[0][inside], place.orientation))


def asked(block: Any) -> Crop:
    """Begin to read a block of tensorstore, whose threads go on with it; called, the result gives the voxels."""
    if not hasattr(block, "read"):
        return lambda: np.asarray(block)
    future = block.read()
    return lambda: np.asarray(future.result())


def read_ahead(make: Callable[[int], T], steps: range) -> Iterator[tuple[int, T]]:
    """``(step, make(step))`` in order, made by one thread a little ahead of who asks."""
    with ThreadPoolExecutor(1) as pool:
        waiting = [(step, pool.submit(make, step)) for step in steps[:READ_AHEAD]]
        for later in list(steps[READ_AHEAD:]) + [None] * len(waiting):
            if not waiting:
                return
            step, future = waiting.pop(0)
            if later is not None:
                waiting.append((later, pool.submit(make, later)))
            yield step, future.result()
