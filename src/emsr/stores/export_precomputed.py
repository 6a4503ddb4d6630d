"""Neuroglancer's precomputed: images raw, ids compressed_segmentation; shards on request.

`voxel_offset` is the corner in whole voxels of each level. Chunks in files of their own are written by tensorstore,
uncompressed but for the encoding, so that any web server can serve them. Shards are made by cloud-volume: tensorstore
leaves chunks of zeros out of them, which cloud-volume refuses to read unless told to fill. Both are read back by
tensorstore.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from emsr.durable import write_bytes, write_json
from emsr.geometry import Box, Triple
from emsr.stores.export import Sink, Target, chunked, corner_nm, is_labels, only, voxel_bytes
from emsr.stores.ome import MOST_SHARD_BYTES, Layout

OPTIONS = ("sharded", "round_offset")
BLOCK = [8, 8, 8]
WHOLE = 1e-4  # parts of a voxel that count as none
MOST_MINISHARD_BITS = 9

log = logging.getLogger(__name__)


def target(laid: Layout, caution: str = "", sharded: bool = False, round_offset: bool = False) -> Target:
    """Levels up to the first whose corner is no whole number of its voxels; with `round_offset` all, at the nearest.

    ValueError where that is the finest level.
    """
    off = [not round_offset and _remainder(laid, level) > WHOLE for level in range(laid.levels)]
    if off[0]:
        corner, size = list(corner_nm(laid)), list(laid.voxel_size_nm)
        raise ValueError(
            f"the corner {corner} nm is no whole number of voxels of {size} nm, which precomputed asks for: add "
            "--round-offset to move the volume by half a voxel at most, or choose another format"
        )
    if any(off):
        kept = off.index(True)
        log.warning("levels above %d are left out: their corner is no whole voxel; --round-offset moves them", kept - 1)
        laid = replace(laid, levels=kept)
    plain = not sharded and not is_labels(laid)
    need = voxel_bytes(laid) if plain else 0
    return Target(
        laid, partial(_create, laid, caution, sharded), partial(_opened, laid, sharded), resumes=True, need=need
    )


def wrote(path: Path) -> bool:
    """Whether what stands at `path` looks like an export, with nothing of others in it."""
    return (path / "info").is_file() and only(path, r"info|[\d.e+-]+_[\d.e+-]+_[\d.e+-]+")


def _offset(laid: Layout, level: int) -> list[float]:
    """The corner z, y, x in voxels of a level."""
    return [at / size for at, size in zip(corner_nm(laid), laid.level_scale(level), strict=True)]


def _remainder(laid: Layout, level: int) -> float:
    """How far the corner of a level lies from the nearest whole voxel, in voxels."""
    return max(abs(at - round(at)) for at in _offset(laid, level))


def _create(laid: Layout, caution: str, sharded: bool, path: Path) -> None:
    scales = [_scale(laid, level, sharded) for level in range(laid.levels)]
    kind = {"type": "segmentation" if is_labels(laid) else "image", "data_type": laid.dtype, "num_channels": 1}
    said = {"caution": caution} if caution else {}
    write_json(path / "info", {"@type": "neuroglancer_multiscale_volume", **kind, **said, "scales": scales})


def _scale(laid: Layout, level: int, sharded: bool) -> dict[str, Any]:
    size = laid.level_scale(level)[::-1]
    scale: dict[str, Any] = {
        "key": _key(laid, level),
        "size": list(laid.level_shape(level)[::-1]),
        "resolution": size,
        "voxel_offset": [math.floor(at + 0.5) for at in _offset(laid, level)[::-1]],
        "chunk_sizes": [list(laid.chunk[::-1])],
        "encoding": "raw",
    }
    if is_labels(laid):
        scale |= {"encoding": "compressed_segmentation", "compressed_segmentation_block_size": BLOCK}
    return scale | ({"sharding": _sharding(laid, level)} if sharded else {})


def _key(laid: Layout, level: int) -> str:
    return "_".join(f"{one:.12g}" for one in laid.level_scale(level)[::-1])


def _sharding(laid: Layout, level: int) -> dict[str, Any]:
    """Shards of as many chunks, a power of two of them, as 64 MiB hold."""
    counts = [-(-side // chunk) for side, chunk in zip(laid.level_shape(level), laid.chunk, strict=True)]
    bits = sum((count - 1).bit_length() for count in counts)
    chunk_bytes = math.prod(laid.chunk) * np.dtype(laid.dtype).itemsize
    inside = min(bits, max(1, MOST_SHARD_BYTES // chunk_bytes).bit_length() - 1)
    return {
        "@type": "neuroglancer_uint64_sharded_v1",
        "hash": "identity",
        "preshift_bits": min(inside, MOST_MINISHARD_BITS),
        "minishard_bits": max(0, inside - MOST_MINISHARD_BITS),
        "shard_bits": bits - inside,
        "minishard_index_encoding": "gzip",
        "data_encoding": "gzip",
    }


@contextmanager
def _opened(laid: Layout, sharded: bool, path: Path, level: int, write: bool) -> Iterator[Sink]:
    def view(array: Any) -> Any:
        return array[..., 0].T.translate_to[0, 0, 0]

    shard = None if sharded else laid.shard
    with chunked("neuroglancer_precomputed", path, shard, view, scale_index=level) as sink:
        yield replace(sink, write=_shard_writer(path, level, _key(laid, level))) if sharded and write else sink


def _shard_writer(path: Path, level: int, key: str) -> Any:
    from cloudvolume import Bbox, CloudVolume

    volume = CloudVolume(f"precomputed://file://{path.absolute()}", mip=level, progress=False)
    first: Triple = tuple(int(at) for at in volume.voxel_offset)  # type: ignore[assignment]

    def write(box: Box, voxels: np.ndarray) -> None:
        low, high = ([a + b for a, b in zip(first, end[::-1], strict=True)] for end in (box.start, box.stop))
        name, content = volume.image.make_shard(np.asfortranarray(voxels.T[..., None]), Bbox(low, high), level)
        write_bytes(path / key / name, content)

    return write
