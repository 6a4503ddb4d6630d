"""Whether a volume on a user's disk can be used, and where it lies in space; a refusal is one line with its mend."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emsr.geometry import Box, ShardGrid, triple
from emsr.stores.ome import bounded_shard
from emsr.stores.pieces import HARMLESS_BYTES, MOST_PACKED
from emsr.stores.source import Source, Triple

MOST_SHARDS = 2**21  # of one array: each is a task of one graph
TOLERANCE = 1e-3  # relative difference of voxel sizes that counts as rounding
GREY = ("images", "tiff", "mrc")  # formats of images, whose uint8 voxels are no ids


@dataclass(frozen=True)
class Admitted:
    """The part of a source that is used: a box of its voxels, their size, and the centre of the box's first voxel."""

    box: Box
    voxel_size_nm: Triple[float]
    translation_nm: Triple[float]


def admit(
    source: Source,
    image: str,
    voxel_size_nm: Sequence[float] | None = None,
    region: Sequence[Sequence[int]] | None = None,
    intensity: Mapping[str, Any] | None = None,
) -> Admitted:
    """Check an opened source as `image` ("hr", "lr", "labels" or "mask") against what the config states.

    `region` is [[z0, z1], [y0, y1], [x0, x1]] in voxels of the source, `intensity` how its grey levels become uint8:
    low and high, or percentiles. Raises ValueError, in one line.
    """
    where = f"{source.path}: {source.dataset}"
    _check_axes(source, where)
    if image == "labels":
        _check_labels(source, where)
    elif image == "mask":
        _check_mask(source, where)
    else:
        _check_image(source, where, intensity)
        _check_given(source, where)
    size = _voxel_size(source, voxel_size_nm, where)
    box = _region(source, region, where)
    corner = source.corner_nm or (0.0, 0.0, 0.0)
    first = source.translation_nm or [edge + side / 2 for edge, side in zip(corner, size, strict=True)]
    moved = [t + v * start for t, v, start in zip(first, size, box.start, strict=True)]
    return Admitted(box, size, (moved[0], moved[1], moved[2]))


def check_same_shape(labels: Source, hr: Source) -> None:
    """Refuse labels that do not cover hr voxel by voxel."""
    if tuple(labels.shape) != tuple(hr.shape):
        raise ValueError(
            f"{labels.path}: labels {labels.dataset} have shape {list(labels.shape)} but hr {hr.dataset} of {hr.path} "
            f"has {list(hr.shape)}: cut or pad one so that both cover the same voxels"
        )


def check_declared(source: Source, image: str, box: Box, shard: Sequence[int], chunk: Sequence[int]) -> None:
    """Refuse a box of more shards than one graph holds, and an image of which nearly nothing was ever stored.

    `shard` and `chunk` are those of the array that it becomes. Labels and masks may be as empty as they like; parts of
    an image may be, where its format gives a value to what was not stored, but not all but a 65536th.
    """
    where, dtype = f"{source.path}: {source.dataset}", "uint64" if image == "labels" else "uint8"
    shard = bounded_shard(triple(list(shard)), triple(list(chunk)), dtype)
    if (shards := math.prod(ShardGrid(box.shape, shard).counts)) > MOST_SHARDS:
        raise ValueError(
            f"{where} of shape {list(box.shape)} makes {shards} shards of {list(shard)} voxels, at most {MOST_SHARDS} "
            "are planned: enlarge ingest.shard, or state a region"
        )
    declared = box.size * source.dtype.itemsize
    enough = declared // MOST_PACKED + 1
    counted = source.stored_bytes if image in ("hr", "lr") and declared > HARMLESS_BYTES else None
    if counted and (stored := counted(enough)) < enough:
        raise ValueError(
            f"{where} of shape {list(box.shape)} declares {declared} bytes of voxels, but only {stored} are stored: "
            "copy it again, or state a region that was written"
        )


def _check_axes(source: Source, where: str) -> None:
    """Three axes, none of them empty or a handful of colours."""
    shape = list(source.shape)
    if len(shape) == 2:
        raise ValueError(f"{where} of shape {shape} is one section, not a volume: stack sections to (z, y, x)")
    if len(shape) != 3:
        raise ValueError(f"{where} of shape {shape} has {len(shape)} axes: keep one channel as (z, y, x)")
    if min(shape) < 1:
        raise ValueError(f"{where} of shape {shape} holds no voxel: an axis has length 0")
    if shape[2] in (3, 4) and min(shape[:2]) > 4:
        raise ValueError(f"{where} of shape {shape} looks like RGB, colour last: convert it to grey (z, y, x)")


def _check_image(source: Source, where: str, intensity: Mapping[str, Any] | None) -> None:
    """Images are uint8, or uint16 whose mapping is stated."""
    if source.dtype.name == "uint16" and intensity is None:
        raise ValueError(
            f"{where} is uint16, images are uint8: state intensity, as {{percentiles: [0.5, 99.5]}} or "
            "{low: VALUE, high: VALUE}, in the config"
        )
    if source.dtype.name not in ("uint8", "uint16"):
        raise ValueError(
            f"{where} is {source.dtype}, images are uint8 or uint16: map its range to 0-255 (NaN to 0) and convert"
        )
    low, high = (intensity.get("low"), intensity.get("high")) if intensity else (None, None)
    top = np.iinfo(source.dtype).max
    if low is not None and high is not None and (low >= top or high <= 0):
        raise ValueError(
            f"{where} is {source.dtype}, grey levels 0 to {top}: none lies between intensity low {low:g} and high "
            f"{high:g}; state limits in that range"
        )


def _check_given(source: Source, where: str) -> None:
    """An image is none that a network made (`emsr rescale`), as the card beside it would say."""
    try:
        card = Path(source.path).with_suffix(".json")
        made = json.loads(card.read_bytes())["degradation"]["protocol"] if card.is_file() else None
    except (OSError, ValueError, LookupError, TypeError):
        return
    if made is not None:
        raise ValueError(
            f"{where} was made by a network (protocol {made}) and is no image as the microscope gave it: name the lr "
            "or hr that was given"
        )


def _check_labels(source: Source, where: str) -> None:
    """Labels are unsigned integers, 0 for what belongs to nothing."""
    if source.dtype.kind != "u":
        raise ValueError(
            f"{where} is {source.dtype}, labels are unsigned integers: convert them to uint64, unlabelled voxels to 0"
        )
    if source.caution:
        raise ValueError(f"{where}: {source.caution}, so it cannot hold labels: save them without loss, unsigned")
    if source.dtype.name == "uint8" and source.format in GREY:
        raise ValueError(
            f"{where} is uint8, grey levels and not ids: state membranes: 128 if its light lines are membranes, or "
            "save ids as uint16 or wider"
        )


def _check_mask(source: Source, where: str) -> None:
    """Masks are uint8 or bool, other than 0 where there is tissue."""
    if source.dtype.name not in ("uint8", "bool"):
        raise ValueError(
            f"{where} is {source.dtype}, masks are uint8 or bool: convert it, tissue to 1 and the rest to 0"
        )


def _voxel_size(source: Source, stated: Sequence[float] | None, where: str) -> Triple[float]:
    """The voxel size of the file or of the config; a conflict is an error, and so is neither."""
    known = source.voxel_size_nm
    if stated is None:
        if known is None:
            raise ValueError(
                f"{where} does not say its voxel size, or not its unit: state voxel_size_nm: [z, y, x] in the config"
            )
        return known
    if len(stated) != 3 or not all(math.isfinite(value) and value > 0 for value in stated):
        raise ValueError(
            f"voxel_size_nm {list(stated)} of {where} is not three positive numbers: write [z, y, x] in nm"
        )
    if known and any(abs(a - b) > TOLERANCE * b for a, b in zip(known, stated, strict=True)):
        hint = " (reversed axes?)" if tuple(stated)[::-1] == known else ""
        raise ValueError(
            f"{where} says voxel size {list(known)} nm, the config {list(stated)}{hint}: correct the one that is wrong"
        )
    return known or (float(stated[0]), float(stated[1]), float(stated[2]))


def _region(source: Source, region: Sequence[Sequence[int]] | None, where: str) -> Box:
    """The box that is used; without a region all of it."""
    whole = Box((0, 0, 0), triple(list(source.shape)))
    if region is None:
        return whole
    if any(low >= high for low, high in region):
        raise ValueError(f"region {_plain(region)} holds no voxel: write [[z0, z1], [y0, y1], [x0, x1]] with z0 < z1")
    box = Box(triple([low for low, _ in region]), triple([high for _, high in region]))
    if min(box.start) < 0 or not whole.contains(box):
        raise ValueError(f"region {_plain(region)} reaches beyond shape {list(source.shape)} of {where}: shrink it")
    return box


def _plain(region: Sequence[Sequence[int]]) -> list[list[int]]:
    """A region as it is written in the config."""
    return [list(pair) for pair in region]
