"""How much of a volume is made: what `allocate` asks of a pilot and a mask, and what `stitch` writes as valid.zarr."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsr.geometry import Box, Triple, triple

if TYPE_CHECKING:
    import tensorstore as ts

    from emsr.plan import Plan

CACHE_BYTES = 128 * 2**20  # decoded chunks of the mask that neighbouring shards share
Json = Mapping[str, Any]


def stated(settings: Json, made: Plan, space: Json) -> dict[str, Any]:
    """Which shards are skipped by settings' `pilot` (lr voxels) and `mask` (an image card); nothing without both.

    `space` is voxel size and translation of sr. Reads of the mask what lies over the pilot.
    """
    from emsr.inference import extent

    pilot, mask = settings.get("pilot"), settings.get("mask")
    if pilot is None and mask is None:
        return {}
    box = None if pilot is None else extent.pilot_box(pilot, made.lr_shape)
    has_tissue = (
        None
        if mask is None
        else _tissue(Path(mask), extent.Placed(made.shape, space["voxel_size_nm"], space["translation_nm"]), made)
    )
    return extent.stated(made, box, has_tissue)


def _tissue(path: Path, sr: Any, made: Plan) -> Callable[[Box], bool]:
    """Whether a box of sr voxels touches a voxel of the mask that is not 0."""
    from emsr import scales
    from emsr.inference.extent import Placed, mask_grid
    from emsr.stores.card import array_path, read_card
    from emsr.stores.shards import read_box
    from emsr.stores.zarr import open_array

    card = read_card(path)
    placed = Placed(triple(card["shape"]), card["voxel_size_nm"], card["translation_nm"])
    lr_shape = None if scales.whole(made.scale) else made.lr_shape
    grid = mask_grid(str(path), placed, sr, lr_shape)
    array = open_array(array_path(path, card), cache_bytes=CACHE_BYTES)
    return lambda box: bool(read_box(array, grid.box(box)).any())


def write_valid(path: Path, allocated: Json, codes: Sequence[int], skipped: Collection[Triple], workers: int) -> None:
    """Write an array on the grid of lr: `codes` of the sections (emsr.inference.valid), 0 where shards were skipped."""
    from emsr.inference.allocation import coarse_space
    from emsr.plan import read_plan
    from emsr.stores.ome import Layout
    from emsr.stores.shards import each, shard_boxes
    from emsr.stores.zarr import open_array, recreate

    made = read_plan(allocated)
    size, first = coarse_space(allocated, made.grids)
    shard, chunk = triple(allocated["settings"]["shard"]), triple(allocated["settings"]["chunk"])
    recreate(path, Layout(made.lr_shape, "uint8", shard, chunk, size, first))
    array, damaged_parts = open_array(path, write=True), allocated["lr"].get("damaged_parts") or {}
    each(partial(_write_shard, array, made, codes, skipped, damaged_parts), shard_boxes(array), workers, "validity")


def _write_shard(
    array: ts.TensorStore,
    made: Plan,
    codes: Sequence[int],
    skipped: Collection[Triple],
    damaged_parts: Json,
    box: Box,
) -> None:
    import numpy as np

    from emsr.inference.valid import STAND_INS, skipped_parts, stand_in_parts
    from emsr.stores.shards import keep_or_write

    voxels = np.zeros(box.shape, np.uint8)
    voxels[:] = np.array(codes[box.start[0] : box.stop[0]], np.uint8)[:, None, None]
    for part in stand_in_parts(made, damaged_parts, box):
        inside = voxels[part.shifted(triple([-first for first in box.start])).slices]
        np.minimum(inside, STAND_INS, out=inside)
    for part in skipped_parts(made, skipped, box):
        voxels[part.shifted(triple([-first for first in box.start])).slices] = 0
    keep_or_write(array, box, voxels)


def any_made(made: Plan, skipped: Collection[Triple]) -> Callable[[Box], bool]:
    """Whether a box of sr voxels touches a shard that was made."""

    def touches(box: Box) -> bool:
        low = [first // edge for first, edge in zip(box.start, made.shard, strict=True)]
        high = [-(-last // edge) for last, edge in zip(box.stop, made.shard, strict=True)]
        return any(index not in skipped for index in Box(triple(low), triple(high)).indices())

    return touches
