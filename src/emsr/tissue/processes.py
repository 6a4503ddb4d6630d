"""Cell processes: thick ones first, thinner ones into the space that is left, glia and clefts into the rest.

A process walks through the volume in both directions from its seed, along the local grain of the tissue, away from what
is already there; it swells and thins, branches, and ends where it is blocked, where its reach ends, or outside.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .lattice import REACH, Footprint, Lattice, footprints, rolled, smooth_noise, tube_distance

Points = NDArray[np.float64]
Rng = np.random.Generator


SHORTEST = 400.0
"""Processes that find room for less length (nm) do not grow."""


@dataclass(frozen=True)
class Calibre:
    """How a kind of process grows; lengths in nm, rates per nm, the rest without unit."""

    radius: float
    reach: float
    wander: float
    loyalty: float
    branching: float
    spines: float
    generation: int = 0


@dataclass(frozen=True)
class Process:
    """A cell process: `branches` are balls (n, 4: z y x radius, nm) strung on a line; glia has none."""

    identity: int
    kind: str
    branches: tuple[Points, ...]


@dataclass
class Neuropil:
    """Everything that has grown: nearest surface and its owner on the lattice, and footprints by section."""

    lattice: Lattice
    grain: Points
    coarse: NDArray[np.float32]
    fine: NDArray[np.float32]
    clearance: NDArray[np.float32]
    owner: NDArray[np.int32]
    filled: int = 0
    processes: list[Process] = field(default_factory=list)
    footprints: dict[int, list[Footprint]] = field(default_factory=lambda: defaultdict(list))

    def clearance_at(self, positions: Points) -> NDArray[np.float32]:
        """Distance (nm) from positions (..., 3) to the nearest surface, negative inside a process."""
        return self.clearance[self.lattice.index(positions)]

    def owner_at(self, positions: Points) -> NDArray[np.int32]:
        """Identity of the process at positions (..., 3)."""
        return self.owner[self.lattice.index(positions)]


def grow_neuropil(lattice: Lattice, rng: Rng) -> Neuropil:
    """Fills the lattice with processes, glia (dark, in what the others leave) and extracellular space (owner 0)."""
    neuropil = _bare(lattice, rng)
    for fill, kind in ((0.15, "dendrite"), (0.60, "neurite"), (0.85, "axon")):
        _fill(neuropil, kind, fill, rng)
    _fill_with_glia(neuropil, rng)
    return neuropil


def draw_calibre(kind: str, lattice: Lattice, rng: Rng) -> Calibre:
    """A calibre of one kind; dendrites are no wider than half the volume."""
    if kind == "dendrite":
        widest = 0.25 * min(s * n for s, n in zip(lattice.spacing[1:], lattice.shape[1:], strict=True))
        return Calibre(min(rng.uniform(220, 400), widest), 1e5, 0.15, 0.15, 1 / 2500, 1 / 350)
    if kind == "neurite":
        return Calibre(float(np.clip(rng.lognormal(np.log(135), 0.4), 85, 230)), 6000, 0.25, 0.2, 1 / 1200, 1 / 1500)
    return Calibre(rng.uniform(45, 95), 3500, 0.25, 0.3, 1 / 1800, 0)


def _bare(lattice: Lattice, rng: Rng) -> Neuropil:
    grain = np.stack([smooth_noise(rng, lattice, 900) for _ in range(3)], -1).astype(np.float64)
    grain[..., 0] += 1.3
    noises = smooth_noise(rng, lattice, 260), smooth_noise(rng, lattice, 110)
    empty = np.full(lattice.shape, 1e3, np.float32)
    return Neuropil(lattice, grain, *noises, empty, np.zeros(lattice.shape, np.int32))


def _fill(neuropil: Neuropil, kind: str, fraction: float, rng: Rng) -> None:
    """Adds processes of a kind until the volume is filled to a fraction, or no room is found any more."""
    failures = 0
    while failures < 40:
        calibre = draw_calibre(kind, neuropil.lattice, rng)
        if neuropil.filled > fraction * neuropil.clearance.size:
            return
        seed = _room(neuropil, 0.8 * calibre.radius, rng)
        branches = () if seed is None else _arbour(neuropil, seed, calibre, rng)
        if sum(len(b) for b in branches) * 0.3 * calibre.radius < SHORTEST:
            failures += 1
        else:
            _add(neuropil, kind, branches, rng)


def _room(neuropil: Neuropil, wanted: float, rng: Rng) -> Points | None:
    """A random place (3,) at least `wanted` nm from every surface; none if there is none."""
    free = rng.integers(0, neuropil.clearance.size, 4096)
    free = free[neuropil.clearance.ravel()[free] > wanted]
    if len(free) == 0:
        free = np.flatnonzero(neuropil.clearance > wanted)
    if len(free) == 0:
        return None
    at = np.array(np.unravel_index(rng.choice(free), neuropil.lattice.shape), np.float64)
    place: Points = at * neuropil.lattice.spacing + neuropil.lattice.origin
    return place


def _arbour(neuropil: Neuropil, seed: Points, calibre: Calibre, rng: Rng) -> tuple[Points, ...]:
    """A process and its branches, each (n, 4), grown from a seed (3,)."""
    heading = _unit(neuropil.grain[neuropil.lattice.index(seed)] + 0.5 * rng.standard_normal(3))
    ahead = _walk(neuropil, seed, heading, calibre, rng)
    behind = _walk(neuropil, seed, -heading, calibre, rng)
    trunk = np.concatenate([behind[:0:-1], ahead])
    return (trunk, *_branches(neuropil, trunk, calibre, rng))


def _branches(neuropil: Neuropil, trunk: Points, calibre: Calibre, rng: Rng) -> list[Points]:
    """Branches and spines of a trunk, with theirs."""
    found: list[Points] = []
    steps = np.linalg.norm(np.diff(trunk[:, :3], axis=0), axis=1)
    for node, ahead, step in zip(trunk, trunk[1:], steps, strict=False):
        chance = rng.random() / max(step, 1e-9)
        if chance > calibre.branching + calibre.spines or calibre.generation > 1:
            continue
        heading = _unit(_unit(ahead[:3] - node[:3]) + 1.2 * _unit(rng.standard_normal(3)))
        if chance < calibre.branching:
            thinner = max(calibre.radius * rng.uniform(0.4, 0.75), 38)
            child = replace(calibre, radius=thinner, spines=0, generation=calibre.generation + 1)
        else:
            child = Calibre(rng.uniform(35, 50), calibre.radius + rng.uniform(200, 600), 0.3, 0, 0, 0, 2)
        branch = _walk(neuropil, node[:3], heading, child, rng)
        if len(branch) < 3:
            continue
        if child.spines == 0 and child.generation == 2:
            branch[-4:, 3] *= rng.uniform(1.2, 2.2)
        found += [branch, *_branches(neuropil, branch, child, rng)]
    return found


def _walk(neuropil: Neuropil, start: Points, heading: Points, calibre: Calibre, rng: Rng) -> Points:
    """Balls (n, 4) from `start` (3,) on, while there is room; at least one."""
    nodes, position, travelled, swelling = [], start, 0.0, 0.0
    reach = calibre.reach * (1.0 if calibre.generation == 2 else rng.exponential())
    while True:
        clearance = float(neuropil.clearance_at(position))
        swelling = 0.9 * swelling + 0.4 * float(rng.standard_normal())
        radius = min(calibre.radius * float(np.exp(0.3 * swelling)), max(clearance + 10, 0.5 * calibre.radius))
        nodes.append([*position, max(radius, 28.0)])
        step = max(0.3 * radius, 10.0)
        travelled += step
        heading = _steer(neuropil, position, heading, calibre, rng)
        position = position + step * heading
        blocked = float(neuropil.clearance_at(position)) < 0.3 * calibre.radius
        if blocked or travelled > reach or not neuropil.lattice.contains(position, calibre.radius + 60):
            return np.array(nodes)


def _steer(neuropil: Neuropil, position: Points, heading: Points, calibre: Calibre, rng: Rng) -> Points:
    """The next heading (3,): of eight that follow the old one and the grain, the one with most room ahead."""
    grain = _unit(neuropil.grain[neuropil.lattice.index(position)])
    along = heading + calibre.loyalty * grain * np.sign(grain @ heading)
    headings = along + calibre.wander * rng.standard_normal((8, 3))
    headings /= np.linalg.norm(headings, axis=1, keepdims=True)
    room = neuropil.clearance_at(position + 1.5 * calibre.radius * headings) / calibre.radius
    best: Points = headings[np.argmax(np.minimum(room, 1.2) + 0.5 * headings @ heading)]
    return best


def _add(neuropil: Neuropil, kind: str, branches: tuple[Points, ...], rng: Rng) -> None:
    """Enters a process into the neuropil, its outline roughened by noise of its own."""
    nodes = np.concatenate(branches)
    box, distance = tube_distance(nodes, neuropil.lattice)
    if 0 in distance.shape:
        return
    roughness = min(0.25 * float(np.median(nodes[:, 3])), 38.0)
    shift = rng.integers(0, 10_000, 3)
    distance += roughness * rolled(neuropil.coarse, box, shift) + 15 * rolled(neuropil.fine, box, shift)
    identity = len(neuropil.processes) + 1
    neuropil.processes.append(Process(identity, kind, branches))
    _enter(neuropil, identity, box, distance)


def _enter(neuropil: Neuropil, identity: int, box: tuple[slice, slice, slice], distance: NDArray[np.float32]) -> None:
    nearer = distance < neuropil.clearance[box]
    neuropil.filled += int(np.count_nonzero((distance < 0) & (neuropil.clearance[box] >= 0)))
    neuropil.owner[box][nearer] = identity
    neuropil.clearance[box][nearer] = distance[nearer]
    for section, footprint in footprints(identity, box, distance, neuropil.lattice).items():
        neuropil.footprints[section].append(footprint)


def _fill_with_glia(neuropil: Neuropil, rng: Rng) -> None:
    """Gives what is left to glia, piece by piece; pieces too small for a cell are extracellular space, owner 0."""
    lattice = neuropil.lattice
    level = 32 + 22 * smooth_noise(rng, lattice, 700) + 6 * smooth_noise(rng, lattice, 120)
    pieces, count = ndimage.label(level < neuropil.clearance)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1) * float(np.prod(lattice.spacing))
    for piece, box in enumerate(ndimage.find_objects(pieces), 1):
        wide = tuple(slice(max(s.start - 5, 0), min(s.stop + 5, n)) for s, n in zip(box, lattice.shape, strict=True))
        away = ndimage.distance_transform_edt(pieces[wide] != piece, lattice.spacing).astype(np.float32)
        distance = np.maximum(level[wide], away - 30)
        identity = 0
        if sizes[piece] > 2e6:
            identity = len(neuropil.processes) + 1
            neuropil.processes.append(Process(identity, "glia", ()))
        _enter(neuropil, identity, (wide[0], wide[1], wide[2]), np.minimum(distance, 2 * REACH))


def _unit(vector: Points) -> Points:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)
