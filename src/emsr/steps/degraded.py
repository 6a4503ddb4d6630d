"""How degrade makes a coarse shard of fine voxels, and what noise it shows."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emsr import degradation, noise, resampling, scales
from emsr.geometry import Box, ShardGrid
from emsr.steps.sampled import patches
from emsr.stores.card import read_card
from emsr.stores.shards import read_box

if TYPE_CHECKING:
    import tensorstore as ts

    from emsr.stores.ome import Layout

PATCHES, SIDE = 16, 512  # what noise is estimated from

log = logging.getLogger(__name__)


def with_noise(stated: dict[str, Any]) -> dict[str, Any]:
    """`stated` degradation with dose, read and seed of its noise, if any; an estimate says what it was made from.

    Raises ValueError, in one line, where the image does not show enough to estimate it.
    """
    asked = stated.get("noise")
    if asked is None:
        return stated
    if asked.get("estimate") is None:
        return {**stated, "noise": {key: asked[key] for key in ("dose", "read", "seed")}}
    image = Path(asked["estimate"])
    try:
        found = noise.estimate(patches(image, SIDE, PATCHES))
    except ValueError as error:
        raise ValueError(f"noise of {image}: {error}") from None
    log.info("noise of %s: dose %s electrons per pixel at white, read %.2f grey levels", image, found.dose, found.read)
    dose = None if found.dose is None else float(f"{found.dose:.4g}")
    origin = {"image": image.name, "sha256": read_card(image)["sha256"]}
    return {
        **stated,
        "noise": {"dose": dose, "read": round(found.read, 2), "seed": asked["seed"], "estimated_from": origin},
    }


def degraded(fine: ts.TensorStore, coarse: Layout, how: dict[str, Any], box: Box) -> np.ndarray:
    """One shard of the coarse image, chunk by chunk, each from its fine voxels and those that the kernel reaches."""
    voxels = np.empty(box.shape, coarse.dtype)
    parts = ShardGrid(box.shape, coarse.chunk)
    for part in map(parts.box, parts.indices):
        voxels[part.slices] = _degrade_box(fine, coarse, how, part.shifted(box.start))
    return voxels


def patch(hr: np.ndarray, scale: tuple[float, float], how: Mapping[str, Any], seed: int) -> np.ndarray:
    """A patch of hr (y, x) as coarse as lr is at ``scale`` (y, x), and with the noise of ``seed`` if it has any."""
    made = degradation.expected(hr, scale, how["kernel"])
    if stated := how.get("noise"):
        made = noise.add(made, noise.Noise(stated["dose"], stated["read"]), seed, 0)
    return degradation.restore(made, hr.dtype)


def _degrade_box(fine: ts.TensorStore, coarse: Layout, how: dict[str, Any], box: Box) -> np.ndarray:
    """Coarse voxels of `box`, from fine ones of the box grown by as many whole coarse voxels as the kernel reaches.

    Noise is drawn for whole squares, so with noise it is the box of the squares that it touches which is grown.
    """
    stated = how.get("noise")
    whole, unit = Box((0, 0, 0), coarse.shape), noise.TILE if stated else 1
    squares = _grown(box, 0, unit).intersect(whole)
    made = _expected(fine, whole, how, squares)
    if stated:
        strength, corner = noise.Noise(stated["dose"], stated["read"]), squares.start
        for number, section in enumerate(made):
            made[number] = noise.add(section, strength, stated["seed"], corner[0] + number, corner[1:])
    return degradation.restore(made[:, *_inside(box, squares)], np.dtype(coarse.dtype))


def _expected(fine: ts.TensorStore, whole: Box, how: dict[str, Any], box: Box) -> np.ndarray:
    """Coarse voxels of `box` of the `whole` as float64, before noise."""
    scale, kernel = scales.of(how["scale"]), how["kernel"]
    if isinstance(scale, int):
        read = _grown(box, -(-degradation.reach(scale, kernel) // scale), 1).intersect(whole)
        sections = [degradation.expected(section, scale, kernel) for section in read_box(fine, read.scaled(scale))]
        return np.stack(sections)[:, *_inside(box, read)]
    axes = scales.axes(whole.stop[1:], scales.fine_plane(whole.stop[1:], scale))
    wanted = (box.start[1], box.stop[1]), (box.start[2], box.stop[2])
    seen = [resampling.seen_by_coarse(*line, kernel) for line in zip(axes, wanted, strict=True)]
    (top, bottom), (left, right) = seen
    read = Box((box.start[0], top, left), (box.stop[0], bottom, right))
    return np.stack([resampling.shrink(section, axes, kernel, (top, left), wanted) for section in read_box(fine, read)])


def _grown(box: Box, halo: int, unit: int) -> Box:
    """`box` with `halo` voxels more on every side along y and x, out to multiples of `unit` there, not below 0."""
    (z, y, x), (end, bottom, right) = box.start, box.stop
    top, left = (max(0, (side - halo) // unit * unit) for side in (y, x))
    down, across = (-(-(side + halo) // unit) * unit for side in (bottom, right))
    return Box((z, top, left), (end, down, across))


def _inside(box: Box, outer: Box) -> tuple[slice, slice]:
    """Where `box` lies along y and x in the voxels of `outer`."""
    _, y, x = box.shifted((-outer.start[0], -outer.start[1], -outer.start[2])).slices
    return y, x
