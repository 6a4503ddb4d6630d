"""What happens to training patches of affinity networks: movement of image and labels alike, change of grey levels.

All movement is in the plane and is one sum of displacements, so that the image is interpolated once: bilinear for grey
levels, nearest for labels, whose ids are never computed with. What may go wrong with sections (displaced, poor,
missing) follows Lee et al. 2017, "Superhuman accuracy on the SNEMI3D connectomics challenge", section 2.

Every function draws from the generator that is passed in. Displacements are float32, channels dy, dx, in pixels:
what a moved block shows at p is what the volume shows at p + displacement(p).
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from scipy.interpolate import BSpline
from scipy.ndimage import gaussian_filter, map_coordinates

from emsr.models.stage import Stage

Array = np.ndarray[Any, Any]
Shape = tuple[int, int, int]
Draw = np.random.Generator

ELASTIC_SECTIONS = 8.0  # sections between the knots of an elastic deformation
STEEPEST = 0.4  # pixels a pixel, of an elastic deformation: below 1 nothing folds over
AMOUNTS = ("rotation", "elastic", "shift", "contrast", "brightness", "gamma", "section_intensity", "poor", "blur",
           "missing", "border")  # fmt: skip


def check(stage: Stage) -> None:
    """Raise ValueError, in one line, for a share or an amount of ``stage`` that cannot be."""
    shares = [field.name for field in fields(stage) if field.name.endswith("_share")]
    for name in [*shares, "faint"]:
        if not 0 <= getattr(stage, name) <= 1:
            raise ValueError(f"{name} {getattr(stage, name)} of stage {stage.name} is no share: state 0 to 1")
    for name in AMOUNTS:
        if getattr(stage, name) < 0:
            raise ValueError(f"{name} {getattr(stage, name)} of stage {stage.name} is negative: state 0 or more")
    if stage.elastic_spacing < 4:
        raise ValueError(f"elastic_spacing {stage.elastic_spacing} of stage {stage.name} is no smooth grid: state 4 up")


def displacement(stage: Stage, shape: Shape, draw: Draw) -> Array | None:
    """How a block of ``shape`` (z, y, x) is moved: (2, z, y, x), or None if it stays as it is.

    The sum of a free rotation, an elastic deformation and displaced sections, each with its share of ``stage``.
    """
    moves = []
    if _happens(draw, stage.rotation_share):
        moves.append(rotation(draw, shape, stage.rotation))
    if _happens(draw, stage.elastic_share):
        moves.append(elastic(draw, shape, stage.elastic, stage.elastic_spacing))
    if _happens(draw, stage.shift_share):
        moves.append(shifted(draw, shape[0], stage.shift))
    return np.broadcast_to(sum(moves[1:], moves[0]), (2, *shape)) if moves else None


def rotation(draw: Draw, shape: Shape, degrees: float) -> Array:
    """A rotation of all sections about the block's centre by at most ``degrees`` either way, (2, 1, y, x)."""
    angle = np.deg2rad(draw.uniform(-degrees, degrees))
    y, x = np.meshgrid(*(np.arange(side) - (side - 1) / 2 for side in shape[1:]), indexing="ij")
    turned = np.stack([np.cos(angle) * y + np.sin(angle) * x, np.cos(angle) * x - np.sin(angle) * y])
    field: Array = (turned - np.stack([y, x])).astype(np.float32)
    return field[:, None]


def elastic(draw: Draw, shape: Shape, pixels: float, spacing: float) -> Array:
    """A smooth deformation, (2, z, y, x), whose longest displacement is drawn from 0 to ``pixels``.

    A cubic B-spline with random knots every ``spacing`` pixels and ``ELASTIC_SECTIONS`` sections, flattened where it
    would be steeper than ``STEEPEST`` in the plane.
    """
    bases = [_splines(side, step) for side, step in zip(shape, (ELASTIC_SECTIONS, spacing, spacing), strict=True)]
    field = draw.standard_normal((2, *(basis.shape[1] for basis in bases)))
    for basis in reversed(bases):  # x, then y, then z: (2, kz, ky, kx) -> (2, z, y, x)
        field = np.moveaxis(np.einsum("...k,nk->...n", field, basis), -1, 1)
    steep = max(float(np.abs(np.diff(field, axis=axis)).max(initial=0)) for axis in (2, 3))
    longest = draw.uniform(0, pixels) / float(np.hypot(*field).max())
    return (field * min(longest, STEEPEST / max(steep, 1e-6))).astype(np.float32)


def _splines(count: int, spacing: float) -> Array:
    """The cubic B-splines (count, knots) of a uniform grid at the positions 0 to ``count`` - 1."""
    at = np.arange(count) / spacing
    knots = int(at[-1]) + 4
    matrix: Array = BSpline.design_matrix(at, np.arange(-3.0, knots + 1), 3).toarray()
    return matrix


def shifted(draw: Draw, depth: int, pixels: int) -> Array:
    """Whole pixels, up to ``pixels`` in y and x, by which one section, or all from it on, is displaced, (2, z, 1, 1).

    The first section never begins it: a block that is displaced as a whole is not displaced.
    """
    field = np.zeros((2, depth, 1, 1), np.float32)
    if depth > 1:
        first = int(draw.integers(1, depth))
        stop = depth if draw.integers(2) else first + 1
        field[:, first:stop] = draw.integers(-pixels, pixels + 1, size=(2, 1, 1, 1))
    return field


def bilinear(block: Array, at: Array) -> Array:
    """Grey levels of ``block`` (z, y, x), uint8, at positions ``at`` (2, z, y', x') of the same section, rounded."""
    sections = [
        map_coordinates(section, place, output=np.float32, order=1, mode="nearest")
        for section, place in zip(block, at.swapaxes(0, 1), strict=True)
    ]
    return np.rint(np.stack(sections)).astype(np.uint8)


def nearest(block: Array, at: Array) -> Array:
    """What ``block`` (z, y, x) holds nearest to positions ``at`` (2, z, y', x') of the same section; any type."""
    y, x = np.rint(at).astype(np.intp)
    return block[np.arange(len(block))[:, None, None], y, x]


def recoloured(stage: Stage, image: Array, draw: Draw) -> Array:
    """``image`` (z, y, x), uint8, with the changes of intensity, poor and missing sections that ``stage`` asks for."""
    grey = image.astype(np.float32) / 255
    if _happens(draw, stage.intensity_share):
        grey = intensity(draw, grey, (stage.contrast, stage.brightness, stage.gamma), stage.section_intensity)
    if _happens(draw, stage.poor_share):
        grey = poor(draw, grey, stage.poor, stage.blur, stage.faint)
    if _happens(draw, stage.missing_share):
        grey = missing(draw, grey, stage.missing)
    return np.rint(grey * 255).astype(np.uint8)


def intensity(draw: Draw, grey: Array, largest: tuple[float, float, float], own: float) -> Array:
    """``grey`` (z, y, x) in [0, 1] with another contrast (about 0.5), brightness and gamma, clipped to [0, 1].

    ``largest`` bounds the three changes of the whole; each section is changed on its own by ``own`` times as much more.
    Gamma is drawn evenly in its logarithm from 1 / (1 + largest) to 1 + largest.
    """
    each = (len(grey), 1, 1)
    contrast, brightness, gamma = (a * (draw.uniform(-1, 1) + own * draw.uniform(-1, 1, each)) for a in
                                   (*largest[:2], np.log1p(largest[2])))  # fmt: skip
    changed = (grey - 0.5) * np.maximum(1 + contrast, 0) + 0.5 + brightness
    return (np.clip(changed, 0, 1) ** np.exp(gamma)).astype(np.float32)


def poor(draw: Draw, grey: Array, sections: int, blur: float, faint: float) -> Array:
    """``grey`` (z, y, x) in [0, 1] with 1 to ``sections`` sections either out of focus or faint, equally likely.

    Out of focus is a Gaussian of up to ``blur`` pixels; faint loses at most the part ``faint`` of its contrast.
    """
    changed = grey.copy()
    for z in _some(draw, len(grey), sections):
        if draw.integers(2):
            changed[z] = gaussian_filter(grey[z], draw.uniform(0, blur), mode="nearest")
        else:
            mean = grey[z].mean()
            changed[z] = mean + (grey[z] - mean) * (1 - draw.uniform(0, faint))
    return changed


def missing(draw: Draw, grey: Array, sections: int) -> Array:
    """``grey`` (z, y, x) in [0, 1] with 1 to ``sections`` sections black or noise, equally likely."""
    changed = grey.copy()
    for z in _some(draw, len(grey), sections):
        changed[z] = draw.uniform(0, 1, grey.shape[1:]) if draw.integers(2) else 0
    return changed


def _some(draw: Draw, depth: int, most: int) -> list[int]:
    """1 to ``most`` of ``depth`` sections, none if ``most`` is 0."""
    if not most:
        return []
    return sorted(draw.permutation(depth)[: draw.integers(1, most + 1)].tolist())


def _happens(draw: Draw, share: float) -> bool:
    """Whether something of this probability happens: never at 0, always at 1."""
    return bool(draw.random() < share)
