"""Patches from volumes with labels, and what an affinity network should say of them.

Which patches a step trains on, and what is done to them, depends on seed and step alone, as in ``data``. Labels are
uint64 (any unsigned integer will do), 0 is background. Affinities are (3, z, y, x), channels z, y, x: [d][p] is the
edge from voxel p to its lower neighbour along d.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from emsr.models.stage import Stage
from emsr.training import deformations
from emsr.training.data import ORIENTATIONS, WHOLE, Voxels, generator, mirrored, orient

Array = np.ndarray[Any, Any]
Shape = tuple[int, int, int]


def widened(labels: Array, border: int) -> Array:
    """``labels`` (z, y, x) with wider background: voxels become 0 where two objects meet within ``border`` pixels.

    Such a voxel's window of 2 border + 1 pixels in y and x, within the section and the array, holds more than one id
    that is not 0. Published: border 1 (spec E; Lee, thesis 2019, A.1.4: "any voxel centered on a 3 x 3 x 1 window
    containing more than one positive segment ID is marked as background"). Objects that meet lose ``border`` pixels
    each; towards background that is there already they lose none. Raises ValueError for labels of another type.
    """
    if labels.dtype.kind != "u":
        raise ValueError(f"labels are {labels.dtype}, but ids count from 0: convert them to uint64")
    if not border:
        return labels
    top = np.iinfo(labels.dtype).max
    highest = _extreme(labels, border, np.max, 0)
    lowest = _extreme(np.where(labels == 0, top, labels), border, np.min, top)
    return np.where(lowest < highest, np.zeros_like(labels), labels)


def _extreme(labels: Array, border: int, pick: Callable[..., Array], fill: int) -> Array:
    """Largest or smallest label of the window around each voxel of (z, y, x); beyond the array lies ``fill``."""
    for axis in (1, 2):
        pad = [(border, border) if a == axis else (0, 0) for a in range(3)]
        framed = np.pad(labels, pad, constant_values=fill)
        labels = pick(sliding_window_view(framed, 2 * border + 1, axis), axis=-1)
    return labels


def affinities(labels: Array, known: Array | None = None) -> tuple[Array, Array]:
    """Affinities of ``labels`` (z, y, x) and where they are known, both bool (3, z, y, x).

    An affinity is 1 where both voxels carry one id that is not 0; so those of background are 0, also within it. It is
    known where both voxels are by ``known`` (z, y, x); at the low border of the array, where there is no neighbour, it
    is not, and 0.
    """
    found, certain = np.zeros((2, 3, *labels.shape), bool)
    for axis in range(3):
        here, below = (
            tuple(slice(*cut) if a == axis else slice(None) for a in range(3)) for cut in ((1, None), (None, -1))
        )
        found[axis][here] = (labels[here] == labels[below]) & (labels[here] != 0)
        certain[axis][here] = True if known is None else known[here] & known[below]
    return found & certain, certain


@dataclass(frozen=True)
class LabelledSeries:
    """Ranges of sections of one volume with labels: ``image`` uint8 and ``labels`` of one shape (z, y, x).

    ``ranges`` are half-open; a patch sees one of them only. Sections in ``bad``, damaged or missing, may be seen but
    nothing is learned of them. Raises ValueError if shapes or ranges do not fit.
    """

    name: str
    image: Voxels
    labels: Voxels
    ranges: tuple[tuple[int, int], ...]
    bad: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        image, labels = list(self.image.shape), list(self.labels.shape)
        if image != labels or len(image) != 3:
            raise ValueError(f"labels {labels} of volume {self.name} are not of the image's shape {image}: align them")
        for start, stop in self.ranges:
            if not 0 <= start < stop <= image[0]:
                raise ValueError(f"range [{start}, {stop}] is not within volume {self.name} of {image[0]} sections")


@dataclass(frozen=True)
class VolumeRequest:
    """What a network sees, ``window`` (z, y, x), what it then says something of, ``target`` in its middle, and the
    recipe, which says how many patches make a batch and what is done to them."""

    window: Shape
    target: Shape
    stage: Stage

    def __post_init__(self) -> None:
        if any(w < t or (w - t) % 2 for w, t in zip(self.window, self.target, strict=True)) or min(self.target) < 1:
            raise ValueError(f"output {list(self.target)} does not lie in the middle of window {list(self.window)}")
        if self.target[1] != self.target[2]:
            raise ValueError(f"output {list(self.target)} is not square in the plane, so patches cannot be turned")


@dataclass(frozen=True)
class Spot:
    """Where a patch lies: series, its range, and the target's corner in voxels (z from the beginning of the range)."""

    series: int
    run: int
    z: int
    y: int
    x: int


@dataclass(frozen=True)
class VolumeBatch:
    """Patches: ``image`` uint8 (batch, 1, z, y, x); ``target`` and ``known`` bool (batch, 3, z', y', x')."""

    places: tuple[Spot, ...]
    image: Array
    target: Array
    known: Array


class VolumePatches:
    """Draws batches: ``batch(step)`` for training, ``fixed(count)`` for validation. Neither changes the object.

    The target lies within a range as far as that is large enough. Beyond range and plane the image is mirrored at its
    outermost voxels, as for inference, and nothing is known there.
    """

    def __init__(self, series: Sequence[LabelledSeries], request: VolumeRequest, seed: int, stream: str) -> None:
        """``stream`` names the purpose, so that two purposes with one seed see different patches.

        Raises ValueError when no section is usable.
        """
        self.series, self.request, self.seed, self.stream = tuple(series), request, seed, stream
        self._rows = [row for s, one in enumerate(self.series) for row in _rows(s, one, request.target[0])]
        if not self._rows:
            names = ", ".join(one.name for one in self.series) or "no volume"
            raise ValueError(f"no undamaged section to draw patches for {stream} from in {names}: widen the ranges")
        frame = (1, request.stage.border + 1, request.stage.border + 1)
        self._labelled = _shape(side + 2 * more for side, more in zip(request.target, frame, strict=True))
        self._outer = _shape(max(sides) for sides in zip(request.window, self._labelled, strict=True))

    def batch(self, step: int, share: slice = WHOLE) -> VolumeBatch:
        """The patches of training step ``step``, or a share of them, deformed; each has random numbers of its own."""
        draws = [generator(self.seed, f"{self.stream} {i}", step) for i in range(self.request.stage.batch)[share]]
        return self.read([(self._spot(draw, int(draw.integers(len(self._rows)))), draw) for draw in draws])

    def fixed(self, count: int) -> list[VolumeBatch]:
        """``count`` patches as they are, spread evenly over the sections, always the same; the last batch may be
        smaller."""
        draw = generator(self.seed, self.stream, 0)
        size = self.request.stage.batch
        spots = [(self._spot(draw, i * len(self._rows) // count), None) for i in range(count)]
        return [self.read(spots[i : i + size]) for i in range(0, count, size)]

    def _spot(self, draw: np.random.Generator, row: int) -> Spot:
        series, run, z = self._rows[row]
        plane = zip(self.series[series].image.shape[1:], self.request.target[1:], strict=True)
        y, x = (int(draw.integers(max(length - side, 0) + 1)) for length, side in plane)
        return Spot(series, run, z, y, x)

    def read(self, spots: Sequence[tuple[Spot, np.random.Generator | None]]) -> VolumeBatch:
        """The patches at some places, each deformed by its generator, or as it is if that is None."""
        image, target, known = (np.stack(part) for part in zip(*(self._patch(*spot) for spot in spots), strict=True))
        return VolumeBatch(tuple(spot for spot, _ in spots), image[:, None], target, known)

    def _patch(self, spot: Spot, draw: np.random.Generator | None) -> tuple[Array, Array, Array]:
        """Image, affinities and where they are known, of one patch."""
        stage, series = self.request.stage, self.series[spot.series]
        field = deformations.displacement(stage, self._outer, draw) if draw else None
        read = partial(self._block, spot)
        image = self._sampled(partial(read, series.image), self.request.window, spot, field, deformations.bilinear)
        labels = self._sampled(partial(read, series.labels), self._labelled, spot, field, deformations.nearest)
        known = self._sampled(partial(self._known, spot), self._labelled, spot, field, deformations.nearest)
        if draw and stage.augment:
            turn, step = int(draw.integers(ORIENTATIONS)), 1 - 2 * int(draw.integers(2))
            image, labels, known = (orient(part, turn)[::step] for part in (image, labels, known))
        if draw:
            image = deformations.recoloured(stage, image, draw)
        found = affinities(widened(labels, stage.border), known)
        target, known = (np.ascontiguousarray(centred(part, self.request.target)) for part in found)
        return np.ascontiguousarray(image), target, known

    def _sampled(
        self,
        read: Callable[[Shape, Shape], Array],
        shape: Shape,
        spot: Spot,
        field: Array | None,
        interpolate: Callable[[Array, Array], Array],
    ) -> Array:
        """The block of ``shape`` around the target of ``spot``, moved by ``field``, of what ``read`` reads."""
        sides = zip((spot.z, spot.y, spot.x), shape, self.request.target, strict=True)
        corner = _shape(at - (side - inner) // 2 for at, side, inner in sides)
        if field is None:
            return read(corner, shape)
        y, x = np.meshgrid(*(np.arange(side, dtype=np.float32) for side in shape[1:]), indexing="ij")
        at = centred(field, shape) + np.stack([y, x])[:, None]  # (2, z, y, x)
        low, high = np.floor(at.min((1, 2, 3))), np.ceil(at.max((1, 2, 3)))
        (down, right), (height, width) = low.astype(int).tolist(), (high - low + 1).astype(int).tolist()
        block = read((corner[0], corner[1] + down, corner[2] + right), (shape[0], height, width))
        return interpolate(block, at - low[:, None, None, None])

    def _block(self, spot: Spot, voxels: Voxels, corner: Shape, shape: Shape) -> Array:
        """Voxels of a box that may reach beyond its range and plane, where it shows them mirrored."""
        start, stop = self.series[spot.series].ranges[spot.run]
        lengths = (stop - start, *voxels.shape[1:])
        at = [mirrored(*axis) for axis in zip(corner, shape, lengths, strict=True)]
        at[0] = at[0] + start
        box = tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in at)
        return np.asarray(voxels[box])[np.ix_(*(axis - axis.min() for axis in at))]

    def _known(self, spot: Spot, corner: Shape, shape: Shape) -> Array:
        """Where such a box lies within range and plane, on a section that is not bad."""
        series = self.series[spot.series]
        start, stop = series.ranges[spot.run]
        axes = [np.arange(first, first + side) for first, side in zip(corner, shape, strict=True)]
        lengths = (stop - start, *series.image.shape[1:])
        z, y, x = ((axis >= 0) & (axis < length) for axis, length in zip(axes, lengths, strict=True))
        z &= ~np.isin(axes[0] + start, list(series.bad))
        return z[:, None, None] & y[:, None] & x


def _rows(number: int, series: LabelledSeries, depth: int) -> list[tuple[int, int, int]]:
    """Series, range and first section (from the beginning of the range) of targets with something to learn from."""
    rows = []
    for run, (start, stop) in enumerate(series.ranges):
        for z in range(start, max(stop - depth, start) + 1):
            if set(range(z, min(z + depth, stop))) - series.bad:
                rows.append((number, run, z - start))
    return rows


def centred(array: Array, shape: Shape) -> Array:
    """The middle of ``shape`` of the last three axes."""
    first = [(side - inner) // 2 for side, inner in zip(array.shape[-3:], shape, strict=True)]
    z, y, x = (slice(start, start + inner) for start, inner in zip(first, shape, strict=True))
    return array[..., z, y, x]


def _shape(sides: Iterable[int]) -> Shape:
    z, y, x = sides
    return z, y, x
