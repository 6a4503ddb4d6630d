"""A coarse lattice in nanometres on which tissue grows, and the way from it to pixels.

Distances to cell processes are smooth, so they are computed every 16 nm in the plane and every half section in z, and
interpolated to pixels with Keys' cubic. All positions are nm, ordered z y x; section 0, pixel (0, 0) lies at (0, 0, 0).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Box3 = tuple[slice, slice, slice]

SPACING = 16.0
"""Distance of lattice points in the plane, nm."""
REACH = 120.0
"""How far outside its surface the distance to a process is kept, nm."""


@dataclass(frozen=True)
class Lattice:
    """Points at `origin + index * spacing`, all z y x in nm; plane 2 k + 1 is the middle of section k."""

    origin: tuple[float, float, float]
    spacing: tuple[float, float, float]
    shape: tuple[int, int, int]

    @cached_property
    def _origin(self) -> NDArray[np.float64]:
        return np.array(self.origin, np.float64)

    @cached_property
    def _spacing(self) -> NDArray[np.float64]:
        return np.array(self.spacing, np.float64)

    @cached_property
    def _last(self) -> Integers:
        return np.array(self.shape, np.int64) - 1

    def axis(self, axis: int) -> NDArray[np.float64]:
        """Coordinates (nm) of the points along one axis."""
        return self.origin[axis] + self.spacing[axis] * np.arange(self.shape[axis], dtype=np.float64)

    def index(self, positions: NDArray[np.float64]) -> tuple[Integers, Integers, Integers]:
        """The nearest lattice points of positions (..., 3), clipped to the lattice."""
        steps = np.rint((positions - self._origin) / self._spacing).astype(np.int64)
        steps = np.minimum(np.maximum(steps, 0), self._last)
        return steps[..., 0], steps[..., 1], steps[..., 2]

    def contains(self, position: NDArray[np.float64], slack: float) -> bool:
        """Whether a position (3,) is inside, or not further out than `slack` nm."""
        depth = position - self._origin
        return bool((np.minimum(depth, self._last * self._spacing - depth) >= -slack).all())

    def box(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> Box3:
        """The lattice points between two corners (nm); an axis may be empty."""
        first = np.minimum(np.maximum(np.ceil((low - self._origin) / self._spacing), 0), self.shape).astype(int)
        end = np.floor((high - self._origin) / self._spacing).astype(int) + 1
        last = np.minimum(np.maximum(end, first), self.shape)
        return slice(first[0], last[0]), slice(first[1], last[1]), slice(first[2], last[2])


@dataclass(frozen=True)
class Footprint:
    """What one section sees of one object: `distance` (y, x) to its surface in nm, negative inside, on lattice points
    from `corner` (y, x) on, and `slope`, the derivative of the distance along z."""

    owner: int
    corner: tuple[int, int]
    distance: Floats
    slope: Floats


def lattice_around(shape: tuple[int, int, int], voxel_size_nm: tuple[float, float, float], margin: float) -> Lattice:
    """The lattice for a volume of `shape` voxels, `margin` nm wider in the plane."""
    thickness = voxel_size_nm[0]
    plane = [
        int(np.ceil((n * v + 2 * margin) / SPACING)) + 1 for n, v in zip(shape[1:], voxel_size_nm[1:], strict=True)
    ]
    size = (2 * shape[0] + 1, plane[0], plane[1])
    return Lattice((-thickness / 2, -margin, -margin), (thickness / 2, SPACING, SPACING), size)


def smooth_noise(rng: np.random.Generator, lattice: Lattice, size_nm: float) -> Floats:
    """Periodic Gaussian noise (z, y, x) on the lattice with bumps of about `size_nm`, mean 0 and deviation 1."""
    noise: Floats = rng.standard_normal(lattice.shape, dtype=np.float32)
    noise = ndimage.gaussian_filter(noise, [0.4 * size_nm / s for s in lattice.spacing], mode="wrap", truncate=3)
    noise -= noise.mean()
    noise /= max(float(noise.std()), 1e-6)
    return noise


def rolled(noise: Floats, box: Box3, shift: Integers) -> Floats:
    """The part `box` of periodic noise that was moved by `shift` (3,): a texture of its own for every object."""
    axes = [(np.arange(s.start, s.stop) + d) % n for s, d, n in zip(box, shift, noise.shape, strict=True)]
    return noise[np.ix_(*axes)]


def tube_distance(nodes: NDArray[np.float64], lattice: Lattice) -> tuple[Box3, Floats]:
    """Signed distance (nm) to a union of balls `nodes` (n, 4: z y x radius) on the lattice box around it."""
    reach = nodes[:, 3:] + REACH
    box = lattice.box((nodes[:, :3] - reach).min(0), (nodes[:, :3] + reach).max(0))
    distance = np.full([s.stop - s.start for s in box], 1e4, np.float32)
    for node, r in zip(nodes, reach, strict=True):
        part = lattice.box(node[:3] - r, node[:3] + r)
        z, y, x = ((lattice.axis(a)[s].astype(np.float32) - np.float32(node[a])) ** 2 for a, s in enumerate(part))
        ball = np.sqrt(z[:, None, None] + (y[:, None] + x)) - np.float32(node[3])
        inner = tuple(slice(p.start - b.start, p.stop - b.start) for p, b in zip(part, box, strict=True))
        np.minimum(distance[inner], ball, out=distance[inner])
    return box, distance


def footprints(owner: int, box: Box3, distance: Floats, lattice: Lattice) -> dict[int, Footprint]:
    """Cuts a distance (z, y, x) on a lattice box into what each section sees of it; keys are sections."""
    found: dict[int, Footprint] = {}
    whole = np.full((lattice.shape[0], *distance.shape[1:]), 1e4, np.float32)
    whole[box[0]] = distance
    for section in range((lattice.shape[0] - 1) // 2):
        below, centre, above = whole[2 * section : 2 * section + 3]
        near = (centre < REACH).nonzero()
        if len(near[0]) == 0:
            continue
        y, x = (slice(max(int(i.min()) - 2, 0), int(i.max()) + 3) for i in near)
        slope = np.clip((above[y, x] - below[y, x]) / (2 * lattice.spacing[0]), -1, 1)
        corner = (box[1].start + y.start, box[2].start + x.start)
        found[section] = Footprint(owner, corner, np.minimum(centre[y, x], 2 * REACH), slope)
    return found


class Pixels:
    """Interpolation from lattice rows and columns to pixel rows and columns by Keys' cubic (a = -1/2).

    `rows` and `columns` are pixel coordinates in nm. Sparse products rather than BLAS: the same bits for any threads.
    """

    def __init__(self, lattice: Lattice, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> None:
        self.shape = (len(rows), len(columns))
        self._axes = (_taps(rows, lattice, 1), _taps(columns, lattice, 2))

    def of(self, corner: tuple[int, int], *fields: Floats) -> tuple[tuple[slice, slice], list[Floats]] | None:
        """The pixels that `fields` (y, x), lattice points from `corner` on, can reach, and their values there."""
        height, width = fields[0].shape
        y, x = _reached(self._axes[0], corner[0], height), _reached(self._axes[1], corner[1], width)
        if y is None or x is None:
            return None
        return (y[0], x[0]), [np.ascontiguousarray((x[1] @ (y[1] @ field).T).T) for field in fields]


def _taps(coordinates: NDArray[np.float64], lattice: Lattice, axis: int) -> tuple[Integers, Floats]:
    """First of four lattice points (n,) and the four weights (n, 4) for every pixel coordinate (nm)."""
    position = (coordinates - lattice.origin[axis]) / lattice.spacing[axis]
    first = np.floor(position).astype(np.int64) - 1
    t = (position - first - 1)[:, None] + np.array([1.0, 0.0, -1.0, -2.0])
    t = np.abs(t)
    near = (1.5 * t - 2.5) * t * t + 1
    far = ((-0.5 * t + 2.5) * t - 4) * t + 2
    return first, np.where(t <= 1, near, far).astype(np.float32)


def _reached(taps: tuple[Integers, Floats], start: int, length: int) -> tuple[slice, sparse.csr_array] | None:
    """The pixels whose four points all are among `length` from `start` on, and the matrix that interpolates them."""
    first, weights = taps
    inside = ((first >= start) & (first + 4 <= start + length)).nonzero()[0]
    if len(inside) == 0:
        return None
    part = slice(int(inside[0]), int(inside[-1]) + 1)
    columns = (first[part, None] - start + np.arange(4)).ravel()
    ends = np.arange(0, len(columns) + 1, 4)
    return part, sparse.csr_array((weights[part].ravel(), columns, ends), shape=(len(ends) - 1, length))
