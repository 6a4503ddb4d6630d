"""The info of a precomputed volume: somebody's JSON, of which every value that is used is checked."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from emsr.stores.pieces import check_chunk
from emsr.stores.source import one_line

DATA_TYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32")
FARTHEST = 2**31 - 1  # voxel that cloud-volume can count to
MOST_MINISHARD_BITS = 22  # an index of 64 MiB in every shard
SHARDED = {  # keys of a sharding and what they may be; numbers by their least and largest value
    "@type": ("neuroglancer_uint64_sharded_v1",),
    "hash": ("identity", "murmurhash3_x86_128"),
    "minishard_index_encoding": ("raw", "gzip"),
    "data_encoding": ("raw", "gzip"),
    "preshift_bits": (0, 63),
    "minishard_bits": (0, MOST_MINISHARD_BITS),
    "shard_bits": (0, 64 - MOST_MINISHARD_BITS),
}
DEFAULTS = {"minishard_index_encoding": "raw", "data_encoding": "raw"}


def parsed(text: bytes, where: str) -> dict[str, Any]:
    """An info as JSON; ValueError for anything but a volume's."""
    try:
        info = json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{where}: its info is not JSON ({one_line(error)}): copy it again") from None
    if not isinstance(info, dict) or not isinstance(info.get("scales"), list) or not info["scales"]:
        raise ValueError(f"{where}: its info lists no scales, so it is no volume: name the folder of the image")
    if info.get("redirect"):
        raise ValueError(f"{where}: its info redirects elsewhere: name that place instead")
    return info


def checked(info: dict[str, Any], mip: int, where: str) -> dict[str, Any]:
    """An info with the one scale that is read made whole, and nothing that is not of the voxels (meshes, skeletons).

    ValueError for whatever it declares that cannot be.
    """
    from cloudvolume.chunks import SUPPORTED_ENCODINGS, check_installed

    if mip >= len(info["scales"]):
        raise ValueError(f"{where} has no mip {mip}: it has 0 to {len(info['scales']) - 1}")
    if (channels := info.get("num_channels", 1)) != 1:
        rgb = " (RGB?)" if channels == 3 else ""
        raise ValueError(f"{where} has {one_line(channels)} channels{rgb}: keep one channel")
    if info.get("data_type") not in DATA_TYPES:
        raise ValueError(f"{where}: data_type {info.get('data_type')!r} is unknown: use one of {', '.join(DATA_TYPES)}")
    scale = _scale(info["scales"][mip], mip, where)
    if scale.get("encoding") not in SUPPORTED_ENCODINGS:
        known = ", ".join(SUPPORTED_ENCODINGS)
        raise ValueError(f"{where}: encoding {scale.get('encoding')!r} is unknown: use one of {known}")
    try:
        check_installed(scale["encoding"])
    except ImportError as error:
        raise ValueError(f"{where}: {one_line(error)}: install it, or save the volume as raw") from None
    check_chunk(scale["chunk_sizes"][0], np.dtype(info["data_type"]), where)
    scales = [*info["scales"][:mip], scale, *info["scales"][mip + 1 :]]
    return {"num_channels": 1, "type": info.get("type", "image"), "data_type": info["data_type"], "scales": scales}


def _scale(stated: Any, mip: int, where: str) -> dict[str, Any]:
    """A scale with what it may leave out, and one size of chunks."""
    if not isinstance(stated, dict):
        raise ValueError(f"{where}: scale {mip} of its info is no object: mend its info")
    chunks = stated.get("chunk_sizes")
    chunk = chunks[0] if isinstance(chunks, list) and chunks else None
    scale = {"voxel_offset": [0, 0, 0], **stated, "chunk_sizes": [chunk]}
    for what, numbers, least in (
        ("size", scale.get("size"), 1),
        ("chunk size", chunk, 1),
        ("voxel_offset", scale["voxel_offset"], -math.inf),
    ):
        if not _whole(numbers, least):
            kind = "three whole numbers" if math.isinf(least) else f"three whole numbers from {least} on"
            raise ValueError(f"{where}: {what} {_short(numbers)} of mip {mip} is not {kind}: mend its info")
    key, resolution = scale.get("key"), scale.get("resolution")
    if not isinstance(key, str) or key.startswith("/") or ".." in key or not isinstance(resolution, list):
        raise ValueError(f"{where}: mip {mip} states no key below the folder, or no resolution: mend its info")
    if any(isinstance(one, bool) or not isinstance(one, int | float) for one in resolution):
        raise ValueError(f"{where}: resolution {_short(resolution)} is not three positive numbers (nm): mend its info")
    return {**scale, **({"sharding": _sharding(scale["sharding"], mip, where)} if scale.get("sharding") else {})}


def check_reach(scale: dict[str, Any], where: str) -> None:
    """ValueError for a scale with voxels that are farther away than cloud-volume can count."""
    size, offset = scale["size"], scale["voxel_offset"]
    if any(abs(a) > FARTHEST or abs(a + b) > FARTHEST for a, b in zip(offset, size, strict=True)):
        raise ValueError(f"{where}: size {size} from voxel_offset {offset} on goes beyond {FARTHEST}: mend its info")


def _sharding(stated: Any, mip: int, where: str) -> dict[str, Any]:
    """How chunks are packed into shards."""
    sharding = DEFAULTS | stated if isinstance(stated, dict) else {}
    for key, allowed in SHARDED.items():
        value = sharding.get(key)
        if isinstance(allowed[0], str):
            good, wanted = value in allowed, " or ".join(map(str, allowed))
        else:
            least, most = allowed
            good, wanted = type(value) is int and least <= value <= most, f"a whole number from {least} to {most}"
        if not good:
            raise ValueError(f"{where}: sharding of mip {mip} has {key} {_short(value)}, not {wanted}: mend its info")
    return sharding


def _whole(numbers: Any, least: float) -> bool:
    """Whether these are three integers of at least `least`."""
    return isinstance(numbers, list) and len(numbers) == 3 and all(type(n) is int and n >= least for n in numbers)


def _short(value: Any) -> str:
    """A value of somebody's JSON as it can be shown."""
    return one_line(ValueError(repr(value)), 80)
