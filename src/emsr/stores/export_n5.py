"""N5 for BigDataViewer and neuroglancer: levels s0, s1, ...; axes x, y, z on disk; written and read by tensorstore.

`pixelResolution` and `resolution` are voxel sizes of s0 and `downsamplingFactors` come on top; `transform` is COSEM's,
of the level itself, and states the centre of the first voxel, which neuroglancer does not read: there N5 starts at 0.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from emsr.durable import write_json
from emsr.stores.export import Sink, Target, chunked, only
from emsr.stores.ome import AXES, Layout

COMPRESSION = {"type": "gzip", "level": 5, "useZlib": False}


def target(laid: Layout, caution: str = "") -> Target:
    """All levels."""
    return Target(laid, partial(_create, laid, caution), partial(_opened, laid), resumes=True)


def wrote(path: Path) -> bool:
    """Whether what stands at `path` looks like an export, with nothing of others in it."""
    return (path / "attributes.json").is_file() and only(path, r"attributes\.json|s\d+")


def _create(laid: Layout, caution: str, path: Path) -> None:
    factors = [_factors(level) for level in range(laid.levels)]
    space = {"axes": list(AXES[::-1]), "units": ["nm"] * 3, "resolution": list(laid.voxel_size_nm[::-1])}
    whole = {"n5": "2.0.0", "multiScale": True, "downsamplingFactors": factors, "scales": factors, **space}
    whole |= {"caution": caution} if caution else {}
    for level in range(laid.levels):
        write_json(path / f"s{level}" / "attributes.json", {**_attributes(laid, level), **(space if not level else {})})
    write_json(path / "attributes.json", whole)


def _attributes(laid: Layout, level: int) -> dict[str, Any]:
    place = {"scale": laid.level_scale(level), "translate": laid.level_translation(level)}
    return {
        "dimensions": list(laid.level_shape(level)[::-1]),
        "blockSize": list(laid.chunk[::-1]),
        "dataType": laid.dtype,
        "compression": COMPRESSION,
        "downsamplingFactors": _factors(level),
        "pixelResolution": {"dimensions": list(laid.voxel_size_nm[::-1]), "unit": "nm"},
        "transform": {"axes": list(AXES), "units": ["nm"] * 3, **place},
    }


def _factors(level: int) -> list[int]:
    """How many voxels of s0 a voxel spans along x, y, z."""
    return [2**level, 2**level, 1]


def _opened(laid: Layout, path: Path, level: int, _write: bool) -> AbstractContextManager[Sink]:
    return chunked("n5", path / f"s{level}", laid.shard, lambda array: array.T)
