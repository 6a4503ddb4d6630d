"""Draws what lies inside the processes into the optical density of one section."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .cut import Cut, Owners, Place, edge, sheet
from .lattice import Floats
from .organelles import Cristae, Organelles
from .processes import Points

Patch = tuple[slice, slice]


def add_mitochondria(
    total: Floats, tissue: Cut, organelles: Organelles, place: Place, textures: tuple[Floats, Floats]
) -> NDArray[np.bool_]:
    """Draws mitochondria into `total` (y, x), grained by a fine and a wide texture; returns where they are."""
    covered = np.zeros(total.shape, bool)
    for footprint in organelles.mitochondria.get(place.section, []):
        found = place.pixels.of(footprint.corner, footprint.distance, footprint.slope)
        if found is None:
            continue
        part, (distance, slope) = found
        cristae = organelles.cristae[footprint.owner]
        distance = np.maximum(distance, 26 - tissue.distance[part])
        distance = np.where(tissue.owner[part] == cristae.owner, distance, np.float32(99))
        half = np.abs(slope) * np.float32(place.thickness / 2)
        inside = edge(distance + 4, half, 4)
        matrix = 0.68 + 0.13 * textures[0][part]
        matrix += _cristae(cristae, place, part, textures[1][part]) * edge(distance + 26, half, 5)
        shell = 0.85 * sheet(distance, half, 3.2) + 0.6 * sheet(distance + 14, half, 3.4)
        total[part] += inside * (matrix - total[part]) + shell
        covered[part] |= distance < 10
    return covered


def _cristae(cristae: Cristae, place: Place, part: tuple[slice, slice], bend: Floats) -> Floats:
    """Density (y, x) of bright, dark-walled sheets, here and there, bent by a texture."""
    z = cristae.wave[0] * place.section * place.thickness
    y, x = cristae.wave[1] * place.rows[part[0], None], cristae.wave[2] * place.columns[part[1]]
    phase = (z + y + x + cristae.phase).astype(np.float32) + 0.22 * bend
    away = np.abs(phase - np.rint(phase)) * np.float32(cristae.period)
    sharp = np.float32(np.sinc(cristae.wave[0] * place.thickness))
    wall = 0.7 * np.exp(-(((away - 9) / 4) ** 2)) - 0.5 * np.exp(-((away / 5) ** 2))
    shown = 1 / (1 + np.exp(-6 * (np.sin(2.1 * bend + 3 * np.rint(phase)) + 0.1)))
    density: Floats = sharp * wall * shown
    return density


def draw_rods(total: Floats, free: Owners, organelles: Organelles, place: Place) -> None:
    """Draws the parts of hollow rods within the section: rings when cut across, double lines when cut along."""
    rods, z, half = organelles.rods, place.section * place.thickness, place.thickness / 2
    rise = rods.end[:, 0] - rods.start[:, 0]
    rise = np.where(np.abs(rise) < 1e-6, 1e-6, rise)
    crossing = np.sort([(z - half - rods.start[:, 0]) / rise, (z + half - rods.start[:, 0]) / rise], 0)
    enter, leave = np.maximum(crossing[0], 0), np.minimum(crossing[1], 1)
    for i in np.flatnonzero(enter < leave):
        a, b = (rods.start[i, 1:] + t * (rods.end[i, 1:] - rods.start[i, 1:]) for t in (enter[i], leave[i]))
        reach = rods.radius[i] + 9
        part = place.patch(np.minimum(a, b) - reach, np.maximum(a, b) + reach)
        stain = np.float32(rods.stain[i]) * _wall(place, part, (a, b), float(rods.radius[i]))
        stain *= free[part] == rods.owner[i]
        np.maximum(total[part], stain, out=total[part])


def _wall(place: Place, part: Patch, ends: tuple[Points, Points], radius: float) -> Floats:
    """A rod's wall (y, x) in projection: a ring where it stands on end, two fading lines where it lies."""
    length = float(np.linalg.norm(ends[1] - ends[0]))
    if length < 12:
        ring: Floats = np.exp(-(((_from_line(place, part, *ends) - np.float32(radius)) / np.float32(4.5)) ** 2))
        return ring
    along = (ends[1] - ends[0]) / length
    y = (place.rows[part[0], None] - ends[0][0]).astype(np.float32)
    x = (place.columns[part[1]] - ends[0][1]).astype(np.float32)
    beside, forth = np.abs(y * along[1] - x * along[0]), y * along[0] + x * along[1]
    beyond = np.maximum(np.maximum(-forth, forth - length), 0)
    wall = np.exp(-(((beside - radius) / 4.5) ** 2)) + 0.35 * (beside < radius)
    lines: Floats = (wall * np.exp(-((beyond / 5) ** 2))).astype(np.float32)
    return lines


def _from_line(place: Place, part: Patch, a: Points, b: Points) -> Floats:
    """Distance (nm) of a patch's pixels (y, x) to the line from `a` to `b`, each (y, x) in nm."""
    y = (place.rows[part[0], None] - a[0]).astype(np.float32)
    x = (place.columns[part[1]] - a[1]).astype(np.float32)
    along = (b - a).astype(np.float32)
    t = np.clip((y * along[0] + x * along[1]) / max(float(along @ along), 1e-6), 0, 1)
    away: Floats = np.hypot(y - t * along[0], x - t * along[1])
    return away


def draw_vesicles(total: Floats, free: Owners, organelles: Organelles, place: Place) -> None:
    """Draws the vesicles that the section meets: walls seen end on are dark, flat ones faint, cores full."""
    vesicles = organelles.vesicles
    height = np.abs(vesicles.centre[:, 0] - place.section * place.thickness)
    for i in np.flatnonzero(height < vesicles.radius + 0.4 * place.thickness):
        nearest = max(float(height[i]) - 0.5 * place.thickness, 0.0)
        radius = float(np.sqrt(max(vesicles.radius[i] ** 2 - nearest**2, 16.0)))
        centre = vesicles.centre[i, 1:]
        part = place.patch(centre - radius - 10, centre + radius + 10)
        away = _from_line(place, part, centre, centre) - np.float32(radius)
        stain = vesicles.wall[i] * np.exp(-((away / 4.2) ** 2)) + vesicles.core[i] * (away < -9)
        stain *= (free[part] == vesicles.owner[i]) * np.float32(1 - 0.6 * nearest / vesicles.radius[i])
        np.maximum(total[part], stain, out=total[part])


def synaptic_density(tissue: Cut, organelles: Organelles, place: Place) -> Floats:
    """Dark fuzz (y, x) on either side of the membranes at synapses."""
    total = np.zeros_like(tissue.distance)
    for site in organelles.synapses:
        height = (site[0] - place.section * place.thickness) / 70
        if abs(height) > 1.8:
            continue
        part = place.patch(site[1:] - 300, site[1:] + 300)
        away = _from_line(place, part, site[1:], site[1:])
        total[part] += np.exp(-((away / 95) ** 2) - height**2) * np.exp(-((tissue.distance[part] / 24) ** 2))
    return 1.1 * total
