"""What lies inside the processes: mitochondria, microtubules, reticulum, synapses and vesicles. Positions in nm."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .lattice import Footprint, footprints, rolled, tube_distance
from .processes import Neuropil, Points, Rng


@dataclass(frozen=True)
class Cristae:
    """Sheets inside a mitochondrion: position along `wave` (3,), in periods, counts them; `owner` is its process."""

    owner: int
    wave: Points
    phase: float
    period: float


@dataclass(frozen=True)
class Rods:
    """Straight pieces of hollow filaments: ends (n, 3) each, radius and stain of the wall (n,), owner (n,)."""

    start: Points
    end: Points
    radius: NDArray[np.float64]
    stain: NDArray[np.float64]
    owner: NDArray[np.int64]


@dataclass(frozen=True)
class Vesicles:
    """Spheres: centre (n, 3), radius, stain of the wall and of the core (n,), owner (n,)."""

    centre: Points
    radius: NDArray[np.float64]
    wall: NDArray[np.float64]
    core: NDArray[np.float64]
    owner: NDArray[np.int64]


@dataclass(frozen=True)
class Organelles:
    """Everything inside the processes; `mitochondria` are footprints by section whose owner indexes `cristae`."""

    mitochondria: dict[int, list[Footprint]]
    cristae: list[Cristae]
    rods: Rods
    vesicles: Vesicles
    synapses: Points


def place_organelles(neuropil: Neuropil, rng: Rng) -> Organelles:
    """Furnishes the processes; every organelle lies within one."""
    mitochondria, cristae = _mitochondria(neuropil, rng)
    synapses, clusters = _synapses(neuropil, rng)
    return Organelles(mitochondria, cristae, _filaments(neuropil, rng), _vesicles(neuropil, clusters, rng), synapses)


def _volume_um3(neuropil: Neuropil) -> float:
    return float(np.prod(neuropil.lattice.spacing) * np.prod(neuropil.lattice.shape)) * 1e-9


def _frames(branch: Points) -> tuple[Points, Points, Points]:
    """Tangent and two normals, each (n, 3), along a branch (n, 4)."""
    tangent = np.gradient(branch[:, :3], axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
    mean = tangent.mean(0)
    aside = np.eye(3)[np.argmin(np.abs(mean))]
    first = np.cross(tangent, aside)
    first /= np.maximum(np.linalg.norm(first, axis=1, keepdims=True), 1e-9)
    return tangent, first, np.cross(tangent, first)


def _mitochondria(neuropil: Neuropil, rng: Rng) -> tuple[dict[int, list[Footprint]], list[Cristae]]:
    found: dict[int, list[Footprint]] = defaultdict(list)
    cristae: list[Cristae] = []
    for process in neuropil.processes:
        for branch in process.branches:
            for tube in _mitochondrial_tubes(branch, rng):
                box, distance = tube_distance(tube, neuropil.lattice)
                if 0 in distance.shape:
                    continue
                distance += 8 * rolled(neuropil.coarse, box, rng.integers(0, 10_000, 3))
                for section, footprint in footprints(len(cristae), box, distance, neuropil.lattice).items():
                    found[section].append(footprint)
                cristae.append(_draw_cristae(process.identity, tube, rng))
    return found, cristae


def _mitochondrial_tubes(branch: Points, rng: Rng) -> list[Points]:
    """Tubes (n, 4) along the thicker parts of a branch: about one in three parts of its length, more in big ones."""
    _, first, second = _frames(branch) if len(branch) > 5 else (branch, branch, branch)
    along = np.cumsum(0.3 * branch[:, 3])
    tubes, position = [], float(rng.uniform(-900, 600))
    crowd = float(np.clip(np.median(branch[:, 3]) / 220, 0.5, 2.0))
    while len(branch) > 5 and position < along[-1]:
        length = rng.uniform(400, 1500)
        part = branch[(along >= position) & (along < position + length)]
        where = (along >= position) & (along < position + length)
        if len(part) > 4 and np.min(part[:, 3]) > 85:
            thickness = float(np.clip(0.6 * np.min(part[:, 3]), 65, rng.uniform(85, 180)))
            free = np.maximum(part[:, 3] - thickness - 30, 0)[:, None] * np.sqrt(rng.random())
            angle = rng.uniform(0, 2 * np.pi)
            centre = part[:, :3] + free * (np.cos(angle) * first[where] + np.sin(angle) * second[where])
            taper = np.sqrt(np.clip(1 - np.linspace(-1, 1, len(part)) ** 6, 0.1, 1))
            tubes.append(np.column_stack([centre, thickness * taper]))
        position += length + rng.exponential(1000 / crowd)
    return tubes


def _draw_cristae(owner: int, tube: Points, rng: Rng) -> Cristae:
    wave = rng.standard_normal(3) * np.array([0.25, 1, 1])
    period = rng.uniform(42, 70)
    return Cristae(owner, wave / np.linalg.norm(wave) / period, rng.uniform(0, 1), period)


def _filaments(neuropil: Neuropil, rng: Rng) -> Rods:
    """Microtubules parallel to every branch, and wandering tubes of smooth reticulum."""
    lines: list[tuple[Points, float, float, int]] = []
    for process in neuropil.processes:
        for branch in process.branches:
            if len(branch) > 3:
                lines += [(line, 10.0, rng.uniform(0.4, 0.7), process.identity) for line in _microtubules(branch, rng)]
                lines += [(line, r, 0.55, process.identity) for line, r in _reticulum(branch, rng)]
    if not lines:
        return Rods(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0), np.zeros(0), np.zeros(0, np.int64))
    pieces = [len(line) - 1 for line, *_ in lines]
    start = np.concatenate([line[:-1] for line, *_ in lines])
    end = np.concatenate([line[1:] for line, *_ in lines])
    radius, stain, owner = (np.repeat([line[i] for line in lines], pieces) for i in (1, 2, 3))
    return Rods(start, end, radius, stain, owner.astype(np.int64))


def _microtubules(branch: Points, rng: Rng) -> list[Points]:
    """Lines (n, 3) that keep their place in the cross-section, each along a part of the branch."""
    _, first, second = _frames(branch)
    lines = []
    for _ in range(int(rng.poisson(min(float(np.mean(branch[:, 3] / 55) ** 2) * 1.6, 90)))):
        begin, end = np.sort(rng.integers(0, len(branch), 2))
        if end - begin < 3:
            continue
        part, angle, place = slice(begin, end), rng.uniform(0, 2 * np.pi), np.sqrt(rng.random())
        wave = 8 * np.sin(np.linspace(0, rng.uniform(2, 12), end - begin))
        away = (place * np.maximum(branch[part, 3] - 25, 0) + wave)[:, None]
        lines.append(branch[part, :3] + away * (np.cos(angle) * first[part] + np.sin(angle) * second[part]))
    return lines


def _reticulum(branch: Points, rng: Rng) -> list[tuple[Points, float]]:
    """Short wandering tubes (n, 3) of 15 to 32 nm radius in the thicker branches."""
    tubes = []
    volume = float(np.sum(branch[:, 3] ** 3)) * 1e-9
    for _ in range(int(rng.poisson(min(45 * volume, 80)))):
        node = branch[rng.integers(len(branch))]
        if node[3] < 70:
            continue
        begin = node[:3] + 0.6 * node[3] * rng.uniform(-1, 1, 3)
        steps = np.cumsum(rng.standard_normal((rng.integers(3, 9), 3)), 0) * 14
        tubes.append((begin + np.cumsum(steps, 0) * 0.35, float(rng.uniform(14, 30))))
    return tubes


def _synapses(neuropil: Neuropil, rng: Rng) -> tuple[Points, list[tuple[int, Points]]]:
    """Sites (n, 3) between two neurons, and the vesicles' owner and positions (m, 3) on the one side of each."""
    owner, lattice = neuropil.owner, neuropil.lattice
    neurons = np.array([False] + [p.kind != "glia" for p in neuropil.processes])
    touching = (owner[:, :, 1:] != owner[:, :, :-1]) & neurons[owner[:, :, 1:]] & neurons[owner[:, :, :-1]]
    places = np.flatnonzero(touching)
    sites, clusters = [], []
    wanted = max(1, round(2.5 * _volume_um3(neuropil)))
    for place in rng.permutation(places)[: 8 * wanted]:
        at = np.array(np.unravel_index(place, touching.shape))
        site = lattice.origin + np.array(lattice.spacing) * (at + [0, 0, 0.5])
        side = int(owner[tuple(at)])
        cloud = _packed(site + 110 * rng.standard_normal((260, 3)), 36.0)
        cloud = cloud[(neuropil.owner_at(cloud) == side) & (neuropil.clearance_at(cloud) < -20)]
        if len(cloud) > 12:
            sites.append(site)
            clusters.append((side, cloud))
        if len(sites) == wanted:
            break
    return np.array(sites).reshape(-1, 3), clusters


def _packed(points: Points, distance: float) -> Points:
    """Those of the points (n, 3) that are not closer than `distance` to an earlier one that was kept."""
    apart = np.linalg.norm(points[:, None] - points, axis=-1)
    keep = np.zeros(len(points), bool)
    for i in range(len(points)):
        keep[i] = not np.any(apart[i][keep] < distance)
    return points[keep]


def _vesicles(neuropil: Neuropil, clusters: list[tuple[int, Points]], rng: Rng) -> Vesicles:
    """The synaptic vesicles (40 nm), and single larger ones, some with a dense core, anywhere."""
    lattice = neuropil.lattice
    count = int(rng.poisson(14 * _volume_um3(neuropil)))
    size = np.array(lattice.spacing) * (np.array(lattice.shape) - 1)
    single = lattice.origin + rng.random((count, 3)) * size
    single = single[neuropil.clearance_at(single) < -30]
    near = np.concatenate([cloud for _, cloud in clusters]) if clusters else np.zeros((0, 3))
    centre = np.concatenate([near, single])
    small = np.arange(len(centre)) < len(near)
    n = len(centre)
    radius = np.where(small, rng.normal(19, 1.5, n), rng.uniform(22, 42, n))
    core = np.where(~small & (rng.random(n) < 0.5), 1.3, rng.uniform(-0.05, 0.2, n))
    owner = neuropil.owner_at(centre).astype(np.int64)
    return Vesicles(centre, radius, rng.uniform(0.55, 0.8, n), core, owner)
