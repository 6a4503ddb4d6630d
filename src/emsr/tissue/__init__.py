"""Synthetic electron-microscopy tissue with labels, for the demo and the tests.

Serial sections of neuropil as a transmission microscope shows them: processes of all calibres that run, branch and end;
membranes, clefts and extracellular space; glia; mitochondria, microtubules, reticulum, synapses with vesicles; sections
that are displaced, bent and unlike in brightness, one of them damaged. Made from a seed and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .cut import RIM, place_of
from .lattice import lattice_around
from .microscope import expose, lay_down, turn_and_fold
from .organelles import place_organelles
from .processes import grow_neuropil
from .section import draw_stain, render

__all__ = ["Tissue", "grow"]

SMALLEST = 16
"""Fewest pixels along y and x."""


@dataclass(frozen=True)
class Tissue:
    """Grown tissue: `raw` uint8 and `labels` uint64, both (z, y, x); `damaged` says which sections are, and how.

    A label is one cell process; 0 is membrane, cleft and extracellular space. Labels move with the sections; those of
    a damaged section show what was there before the damage.
    """

    raw: NDArray[np.uint8]
    labels: NDArray[np.uint64]
    damaged: dict[int, str]


def grow(
    shape: tuple[int, int, int] = (32, 512, 512),
    voxel_size_nm: tuple[float, float, float] = (40, 4, 4),
    seed: int = 1,
    damaged: tuple[int, ...] | None = None,
    progress: Callable[[Iterable[int]], Iterable[int]] | None = None,
) -> Tissue:
    """Grows tissue of a shape (z, y, x) at a voxel size (z, y, x, nm), the same bytes for the same seed.

    `damaged` names the sections to spoil; None spoils one in the second quarter of a volume of at least eight sections.
    `progress` wraps the iteration over sections. Raises ValueError for a shape, voxel size, seed or section that cannot
    be.
    """
    _check(shape, voxel_size_nm, seed, damaged or ())
    growth, furnishing, staining, harm, *rngs = np.random.default_rng(seed).spawn(4 + shape[0])
    pixel_nm = float(voxel_size_nm[1])
    lattice = lattice_around(shape, voxel_size_nm, RIM * pixel_nm + 48)
    neuropil = grow_neuropil(lattice, growth)
    organelles = place_organelles(neuropil, furnishing)
    stain = draw_stain(neuropil, staining)
    raw, labels = np.empty(shape, np.uint8), np.empty(shape, np.uint64)
    for section in progress(range(shape[0])) if progress else range(shape[0]):
        rng = rngs[section]
        place = place_of(lattice, section, shape[1:], voxel_size_nm)
        owner, density = lay_down(*render(place, neuropil, organelles, stain, rng), pixel_nm, rng)
        raw[section], labels[section] = expose(density, pixel_nm, rng), owner
    return Tissue(raw, labels, _damage(raw, damaged, harm))


def _damage(raw: NDArray[np.uint8], damaged: tuple[int, ...] | None, rng: np.random.Generator) -> dict[int, str]:
    """Spoils sections in place; returns them with the reason."""
    if damaged is None:
        depth = len(raw)
        damaged = (int(rng.integers(depth // 4, depth // 2)),) if depth >= 8 else ()
    for section in damaged:
        raw[section] = turn_and_fold(raw[section], rng)
    return dict.fromkeys(damaged, "turned and folded")


def _check(
    shape: tuple[int, int, int], voxel_size_nm: tuple[float, float, float], seed: int, damaged: tuple[int, ...]
) -> None:
    if len(shape) != 3 or shape[0] < 1 or min(shape[1:]) < SMALLEST:
        raise ValueError(f"tissue shape {tuple(shape)} is too small: give z >= 1, y and x >= {SMALLEST} voxels")
    if len(voxel_size_nm) != 3 or not min(voxel_size_nm) > 0 or voxel_size_nm[1] != voxel_size_nm[2]:
        raise ValueError(f"tissue voxel size {tuple(voxel_size_nm)} nm: give z y x, positive, with y equal to x")
    if seed < 0:
        raise ValueError(f"tissue seed {seed} is negative: give 0 or more")
    outside = [section for section in damaged if not 0 <= section < shape[0]]
    if outside:
        raise ValueError(f"damaged section {outside[0]} is outside the tissue: give sections from 0 to {shape[0] - 1}")
