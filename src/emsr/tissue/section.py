"""One section as the beam meets it: which process each pixel belongs to, and how much stain lies in its way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .cut import Cut, Owners, Place, cut, sheet
from .inclusions import add_mitochondria, draw_rods, draw_vesicles, synaptic_density
from .lattice import Floats, smooth_noise
from .organelles import Organelles
from .processes import Neuropil, Rng

MEMBRANE = 7.0
"""Thickness of one membrane, nm."""
BLUR = 2.4
"""Deviation (nm) of the stain about a membrane's middle plane."""


@dataclass(frozen=True)
class Stain:
    """What the stain did to the tissue: density of each process's cytoplasm and of its granules (identity,), and the
    width of the cleft between processes (z, y, x on the lattice, nm)."""

    cytoplasm: Floats
    granules: Floats
    cleft: Floats


def draw_stain(neuropil: Neuropil, rng: Rng) -> Stain:
    """Greys of the processes: glia dark and granular, the others bright and unlike each other."""
    glia = np.array([False] + [p.kind == "glia" for p in neuropil.processes])
    n = len(glia)
    cytoplasm = np.where(glia, rng.uniform(0.7, 0.95, n), 0.17 + 0.22 * rng.beta(1.2, 3, n))
    cytoplasm[0] = 0.2
    granules = np.where(glia, rng.uniform(1.1, 1.5, n), rng.uniform(0.55, 1.2, n))
    granules[0] = 0.1
    cleft = np.clip(9 + 3.5 * smooth_noise(rng, neuropil.lattice, 300), 7, 20)
    return Stain(cytoplasm.astype(np.float32), granules.astype(np.float32), cleft)


def render(place: Place, neuropil: Neuropil, organelles: Organelles, stain: Stain, rng: Rng) -> tuple[Owners, Floats]:
    """Owner (0 in membranes and outside) and optical density, both (y, x), of one section."""
    tissue = cut(neuropil.footprints[place.section], place)
    cleft = place.of(stain.cleft)
    owner = np.where(tissue.distance > cleft / 2 + MEMBRANE, tissue.owner, 0)
    clouds = place.of(neuropil.coarse)
    total = _cytoplasm(tissue, stain, clouds, place.pixel, rng)
    textures = _granules(total.shape, 5.5 / place.pixel, rng), clouds + place.of(neuropil.fine) * np.float32(0.6)
    covered = add_mitochondria(total, tissue, organelles, place, textures)
    free = np.where(covered, -1, owner)
    structures = np.zeros_like(total)
    draw_rods(structures, free, organelles, place)
    draw_vesicles(structures, free, organelles, place)
    total += structures + _membranes(tissue, cleft, place) + synaptic_density(tissue, organelles, place)
    return owner, total


def _membranes(tissue: Cut, cleft: Floats, place: Place) -> Floats:
    """Two membranes and the stained cleft between them."""
    blur = float(np.hypot(BLUR, 0.3 * place.pixel))
    half_slab = tissue.tilt * np.float32(place.thickness / 2)
    near = tissue.distance < half_slab + 40
    d, half = tissue.distance[near], half_slab[near]
    middle: Floats = (cleft[near] + np.float32(MEMBRANE)) * np.float32(0.5)
    lines = sheet(d - middle, half, blur) + sheet(d + middle, half, blur)
    dark = np.zeros_like(tissue.distance)
    dark[near] = (1.7 * BLUR / blur) * lines + 1.05 * sheet(d, half, 4.0) + 0.05 * sheet(d, half, 14.0)
    return dark


def _cytoplasm(tissue: Cut, stain: Stain, clouds: Floats, pixel_nm: float, rng: Rng) -> Floats:
    """Grey of each process, its clouds, granules and filaments."""
    fine = _granules(tissue.owner.shape, 5 / pixel_nm, rng)
    medium = _granules(tissue.owner.shape, 13 / pixel_nm, rng)
    wide = _granules(tissue.owner.shape, 30 / pixel_nm, rng)
    spots = np.maximum(fine + 0.9 * medium + 0.5 * wide - 1.1, 0)
    threads = np.exp(-((medium / 0.22) ** 2)) * np.maximum(wide + 0.3, 0)
    texture = 0.075 * fine + 0.07 * medium + 0.33 * spots + 0.22 * threads + 0.04 * clouds
    grey: Floats = stain.cytoplasm[tissue.owner] + stain.granules[tissue.owner] * np.maximum(texture, -0.09)
    return grey


def _granules(shape: tuple[int, ...], size_px: float, rng: Rng) -> Floats:
    """White noise (y, x) smoothed to grains of a size, mean 0 and deviation 1."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), max(size_px, 0.4), truncate=3)
    grains: Floats = noise / np.float32(noise.std())
    return grains
