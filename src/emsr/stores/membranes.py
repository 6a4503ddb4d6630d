"""Labels from an image of membranes: the objects of single sections, which is all that such a truth knows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from scipy import ndimage

from emsr.stores.pieces import Key, Pieces, once
from emsr.stores.source import Source

MOST_PIXELS = 2**26  # of a section, which is labelled whole: 17 bytes a pixel while that lasts
LEAST_PIXELS = 10  # of an object: smaller ones are holes in a drawn line and crumbs beside it
ID_BYTES = 4


def labelled(source: Source, level: int) -> Source:
    """The labels (uint64) that an opened image of membranes (uint8) makes, where `level` (1 to 255) and above are such.

    Each section has objects of its own: `objects` of what is not membrane, with ids that no other section has and that
    depend on nothing but the section and its place in the source. Sections are labelled whole, once while they are
    among the last used. `stored(z)` says whether section z has any label. Raises ValueError, in one line, for other
    types and for sections that are too large.
    """
    where = f"{source.path}: {source.dataset}"
    if source.dtype.name != "uint8":
        raise ValueError(f"{where} is {source.dtype}, membranes are uint8: convert it, or leave membranes out for ids")
    pixels = math.prod(source.shape[1:])
    if pixels > MOST_PIXELS:
        raise ValueError(
            f"{where} has sections of {' x '.join(map(str, source.shape[1:]))} pixels, and objects are found in whole "
            f"sections of at most {MOST_PIXELS}: cut hr and membranes into parts, or name labels with ids"
        )
    numbers = once(partial(_section, source, level), pixels * ID_BYTES)
    return replace(
        source,
        dtype=np.dtype(np.uint64),
        read=partial(_read, numbers, pixels),
        stored=lambda z: source.stored(z) and bool(numbers((z, 0, 0)).any()),
        spec=None,
        depth=1,
        made_from=source,
    )


def objects(membrane: np.ndarray) -> np.ndarray:
    """The objects between the membranes (bool) of a section (y, x), numbered from 1 in raster order: int32.

    They are the pieces of what is no membrane that are connected over the edges of pixels, of at least `LEAST_PIXELS`.
    Everything else falls to the nearest of them (Euclidean, in pixels; equally near ones as SciPy's distance transform
    takes them), so that objects touch in the middle of a membrane. A section without membrane was not drawn, and one
    without an object has nothing to grow: both are 0 everywhere.
    """
    if not membrane.any():
        return np.zeros(membrane.shape, np.int32)
    pieces, _ = ndimage.label(~membrane)
    large = np.bincount(pieces.ravel()) >= LEAST_PIXELS
    large[0] = False
    if not large.any():
        return np.zeros(membrane.shape, np.int32)
    kept = (np.cumsum(large) * large).astype(np.int32)[pieces]
    nearest = ndimage.distance_transform_edt(kept == 0, return_distances=False, return_indices=True)
    grown: np.ndarray = kept[tuple(nearest)]
    return grown


def _section(source: Source, level: int, key: Key) -> np.ndarray:
    """The objects of a whole section."""
    z, _, _ = key
    (image,) = source.read((z, 0, 0), (z + 1, *source.shape[1:]))
    return objects(image >= level)


def _read(numbers: Pieces, pixels: int, start: Sequence[int], stop: Sequence[int]) -> np.ndarray:
    """Ids of a box: number n of section z, counted from 0, is z times the pixels of a section, plus n."""
    ids = np.zeros([high - low for low, high in zip(start, stop, strict=True)], np.uint64)
    for z, section in enumerate(ids, start[0]):
        part = numbers((z, 0, 0))[start[1] : stop[1], start[2] : stop[2]]
        section[...] = np.where(part > 0, part.astype(np.uint64) + np.uint64(z * pixels), np.uint64(0))
    return ids
