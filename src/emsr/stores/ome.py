"""OME-Zarr metadata without an array library: documents of version 0.5 that emsr writes; reading of 0.4 and 0.5."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from emsr import scales
from emsr.scales import Scale
from emsr.stores.source import Triple, nanometres, one_line

AXES = ("z", "y", "x")
SCHEMA = 1  # of what emsr says of itself in the attributes of a group
MOST_SHARD_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Layout:
    """How an array lies on disk: everything z, y, x; `shard` and `chunk` in voxels, voxel size and translation in nm.

    `translation_nm` is the centre of the first voxel. `levels` counts level 0; each further one halves y and x. With
    `channels` above 0 the array has a first axis c of that length, whole in every chunk.
    """

    shape: Triple[int]
    dtype: str
    shard: Triple[int]
    chunk: Triple[int]
    voxel_size_nm: Triple[float]
    translation_nm: Triple[float] = (0.0, 0.0, 0.0)
    levels: int = 1
    channels: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be laid out."""
        if self.dtype not in ("uint8", "uint16", "uint32", "uint64", "float32"):
            raise ValueError(f"data type {self.dtype} is not stored by emsr: use uint8 images or uint64 labels")
        if min(self.shape) < 1 or min(self.chunk) < 1 or self.levels < 1:
            raise ValueError(f"shape {self.shape} in chunks {self.chunk} holds no voxel: every axis needs one or more")
        if any(s % c for s, c in zip(self.shard, self.chunk, strict=True)) or min(self.shard) < 1:
            raise ValueError(f"shard {self.shard} is not a multiple of chunk {self.chunk}: choose one that is")

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the array's axes."""
        return ("c", *AXES) if self.channels else AXES

    def whole(self, sides: Triple[int]) -> list[int]:
        """Sides (z, y, x) with the axis of channels before them, if there is one."""
        return [self.channels, *sides] if self.channels else list(sides)

    def level_shape(self, level: int) -> Triple[int]:
        """Shape of a level: y and x halved and rounded up `level` times, at least 1."""
        z, y, x = self.shape
        return z, -(-y // 2**level), -(-x // 2**level)

    def level_scale(self, level: int) -> list[float]:
        """Voxel size of a level in nm."""
        z, y, x = self.voxel_size_nm
        return [z, y * 2**level, x * 2**level]

    def level_translation(self, level: int) -> list[float]:
        """Centre of a level's first voxel in nm: it lies amid 2^l x 2^l voxels of level 0."""
        (tz, ty, tx), (_, vy, vx) = self.translation_nm, self.voxel_size_nm
        return [tz, ty + vy * (2**level - 1) / 2, tx + vx * (2**level - 1) / 2]

    def coarser(self, scale: Scale) -> Layout:
        """The layout of the image that is `scale` times coarser in y and x, what does not fill a voxel left out.

        Its first voxel is centred amid scale x scale fine ones. ValueError where a section is smaller than `scale`.
        """
        (z, y, x), (vz, vy, vx), (tz, ty, tx) = self.shape, self.voxel_size_nm, self.translation_nm
        if 0 in (coarse := scales.coarse_plane((y, x), scale)):
            raise ValueError(f"sections of {y} x {x} voxels are smaller than scale {scale}: choose a smaller scale")
        if not isinstance(scale, int):
            return self._of(coarse, [one.ratio for one in scales.axes(coarse, scales.fine_plane(coarse, scale))])
        return replace(
            self,
            shape=(shape := (z, y // scale, x // scale)),
            voxel_size_nm=(vz, vy * scale, vx * scale),
            translation_nm=(tz, ty + vy * (scale - 1) / 2, tx + vx * (scale - 1) / 2),
            levels=level_count(shape),
        )

    def _of(self, plane: tuple[int, int], times: Sequence[float]) -> Layout:
        """The layout with sections of `plane` voxels that are so many `times` as large in y and x; the corner stays."""
        (vz, *sizes), (tz, *centres) = self.voxel_size_nm, self.translation_nm
        wide = ((v * by, t + v * (by - 1) / 2) for v, t, by in zip(sizes, centres, times, strict=True))
        (vy, ty), (vx, tx) = wide
        shape = (self.shape[0], *plane)
        return replace(
            self, shape=shape, voxel_size_nm=(vz, vy, vx), translation_nm=(tz, ty, tx), levels=level_count(shape)
        )

    def finer(self, scale: Scale) -> Layout:
        """The layout of the image with `scale` times as many voxels in y and x; a voxel's corner stays."""
        if not isinstance(scale, int):
            fine = scales.fine_plane(self.shape[1:], scale)
            return self._of(fine, [1 / one.ratio for one in scales.axes(self.shape[1:], fine)])
        (z, y, x), (vz, vy, vx), (tz, ty, tx) = self.shape, self.voxel_size_nm, self.translation_nm
        back = (scale - 1) / (2 * scale)
        return replace(
            self,
            shape=(shape := (z, y * scale, x * scale)),
            voxel_size_nm=(vz, vy / scale, vx / scale),
            translation_nm=(tz, ty - vy * back, tx - vx * back),
            levels=level_count(shape),
        )


def bounded_shard(shard: Triple[int], chunk: Triple[int], dtype: str) -> Triple[int]:
    """The shard, halved in y and x while it holds more than 64 MiB and its halves are whole chunks.

    Work on shards holds about sixteen of them a worker, and ids have eight times the bytes of grey levels.
    """
    (z, y, x), itemsize = shard, int(dtype.lstrip("uintflo")) // 8
    while z * y * x * itemsize > MOST_SHARD_BYTES:
        if y >= x and y % (2 * chunk[1]) == 0:
            y //= 2
        elif x % (2 * chunk[2]) == 0:
            x //= 2
        else:
            break
    return z, y, x


def level_count(shape: Sequence[int], largest: int = 256) -> int:
    """How many levels bring y and x down to `largest` voxels or fewer, level 0 included."""
    count, side = 1, max(shape[-2:])
    while side > largest:
        count, side = count + 1, -(-side // 2)
    return count


def group_document(layout: Layout, name: str) -> dict[str, Any]:
    """The zarr.json of the group: OME-Zarr 0.5 multiscales, axes z y x in nanometres."""
    before = len(layout.axes) - len(AXES)
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [
                {"type": "scale", "scale": [1.0] * before + layout.level_scale(level)},
                {"type": "translation", "translation": [0.0] * before + layout.level_translation(level)},
            ],
        }
        for level in range(layout.levels)
    ]
    axes = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in AXES]
    axes = [{"name": "c", "type": "channel"}] * before + axes
    multiscale = {"name": name, "axes": axes, "datasets": datasets, "type": "mode" if _labels(layout) else "mean"}
    attributes = {"ome": {"version": "0.5", "multiscales": [multiscale]}, "emsr": {"schema": SCHEMA}}
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def array_document(layout: Layout, level: int) -> dict[str, Any]:
    """The zarr.json of one level: sharded, zstd with checksum, index with crc32c."""
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    plain = {"name": "bytes"} if layout.dtype == "uint8" else little
    codecs = [plain, {"name": "zstd", "configuration": {"level": 3, "checksum": True}}]
    sharding = {
        "chunk_shape": layout.whole(layout.chunk),
        "codecs": codecs,
        "index_codecs": [little, {"name": "crc32c"}],
        "index_location": "end",
    }
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": layout.whole(layout.level_shape(level)),
        "data_type": layout.dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": layout.whole(layout.shard)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0.0 if layout.dtype == "float32" else 0,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "attributes": {},
        "dimension_names": list(layout.axes),
    }


def _labels(layout: Layout) -> bool:
    """Whether the voxels are identities, which have no mean."""
    return layout.dtype in ("uint32", "uint64")


@dataclass(frozen=True)
class Multiscale:
    """What a multiscale says: paths of its levels, names of axes, voxel size and centre of the first voxel in nm."""

    paths: tuple[str, ...]
    axes: tuple[str, ...]
    scales_nm: tuple[tuple[float, ...], ...]
    translations_nm: tuple[tuple[float, ...], ...]


def parse_multiscale(attributes: dict[str, Any], where: str) -> Multiscale | None:
    """Read the first multiscale of a group's attributes, OME-Zarr 0.4 or 0.5; None where there is none.

    Lengths of axes of space are turned into nm, NaN where the unit is not stated; other axes keep their numbers.
    Raises ValueError for an unknown unit and for metadata that does not say what the standard asks for.
    """
    above = attributes.get("ome", attributes)
    found = above.get("multiscales") if isinstance(above, dict) else above
    if not found:
        return None
    try:
        axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in found[0]["axes"]]
        factors = [_factor(axis, where) for axis in axes]
        whole = found[0].get("coordinateTransformations", [])
        if not (levels := list(found[0]["datasets"])):
            raise ValueError("they name no level")
        steps = [_compose([*level["coordinateTransformations"], *whole], len(axes)) for level in levels]
        return Multiscale(
            paths=tuple(str(level["path"]) for level in levels),
            axes=tuple(str(axis["name"]) for axis in axes),
            scales_nm=tuple(tuple(s * f for s, f in zip(scale, factors, strict=True)) for scale, _ in steps),
            translations_nm=tuple(tuple(t * f for t, f in zip(shift, factors, strict=True)) for _, shift in steps),
        )
    except KeyError as error:
        raise ValueError(f"{where}: its multiscales lack {error}: mend the OME-Zarr metadata") from None
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        if where in str(error):
            raise
        reason = one_line(error)
        raise ValueError(f"{where}: its multiscales are wrong ({reason}): mend the OME-Zarr metadata") from None


def _factor(axis: dict[str, Any], where: str) -> float:
    """What a length along this axis is multiplied by; an axis of space without a unit gives NaN, unknown."""
    if axis.get("type", "space") != "space":
        return 1.0
    return nanometres(str(axis["unit"]), where) if axis.get("unit") else math.nan


def _compose(transformations: list[dict[str, Any]], dimensions: int) -> tuple[list[float], list[float]]:
    """Scale and translation of several transformations, applied in order."""
    scale, shift = [1.0] * dimensions, [0.0] * dimensions
    for step in transformations:
        values = [float(value) for value in step[step["type"]]] if step["type"] != "identity" else None
        if values is not None and len(values) != dimensions:
            raise ValueError(f"{step['type']} {values} is not one number for each of {dimensions} axes")
        if step["type"] == "scale" and values:
            scale = [a * b for a, b in zip(scale, values, strict=True)]
            shift = [a * b for a, b in zip(shift, values, strict=True)]
        elif step["type"] == "translation" and values:
            shift = [a + b for a, b in zip(shift, values, strict=True)]
    return scale, shift
