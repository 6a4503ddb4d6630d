"""What a config writes to disk, array by array, before any of it is there; and whether it fits."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from emsr import scales
from emsr.geometry import Triple
from emsr.scales import Scale
from emsr.stores import room
from emsr.stores.ome import Layout, bounded_shard, level_count
from emsr.stores.room import Room

if TYPE_CHECKING:
    from emsr.config import Config, Volume
    from emsr.schema_parts import Layout as Laid

EDGE_BYTES = 32
VOXELS_PER_FRAGMENT, EDGES_PER_FRAGMENT = 100, 8  # of a graph: an estimate, and a high one, where all else is a bound
NM = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Planned:
    """An array or files of a volume: what they take, the document below the results folder that says that they are
    there, and a pattern of where they lie.
    """

    room: Room
    card: str
    places: tuple[str, ...]


def of_config(config: Config, shapes: Mapping[str, Triple]) -> dict[str, list[Planned]]:
    """What the arrays of each volume take; `shapes` are those (z, y, x) of its hr, else of its lr."""
    return {name: list(of_volume(config, name, shapes[name])) for name in config.volumes}


def of_volume(config: Config, name: str, shape: Triple) -> Iterator[Planned]:
    """What the arrays of a volume take, whose hr, or lr where that is all it has, is of `shape`."""
    part, used = config.volumes[name], list(config.scales(name))
    if part.tissue:
        voxels = shape[0] * shape[1] * shape[2]
        yield Planned(Room(f"{name} tissue.h5", 9 * voxels + 2**16, 0, 1), f"{name}/tissue.h5", ())
    linked = {image: bool((source := getattr(part, image)) and source.link) for image in ("hr", "lr")}
    images: dict[str, tuple[Triple, str]] = {}
    if part.has_hr and not linked["hr"]:
        images["hr"] = shape, "uint8"
    if part.has_labels:
        images["labels"] = shape, "uint64"
    for scale in used:
        named = scales.name(scale)
        lr = _coarse(shape, scale) if part.has_hr else shape
        if not part.lr:
            images[f"lr_x{named}"] = lr, "uint8"
        elif not linked["lr"]:
            images["lr"] = lr, "uint8"
        if _enlarged(config, name, scale):
            images[f"bicubic_x{named}"] = scaled(lr, scale), "uint8"
        if part.registration:
            images["hr_registered"] = scaled(lr, scale), "uint8"
            images |= {"labels_registered": (scaled(lr, scale), "uint64")} if part.has_labels else {}
    for image, (sides, dtype) in images.items():
        yield _image(name, image, _laid(config.ingest, sides, dtype))
    if part.weights is None:
        sr, fine = shape, shape
    else:
        scale = config.scale(name)
        sr = scaled(_coarse(shape, scale) if part.has_hr else shape, scale)
        yield from _superresolved(config, name, sr, scale)
        fine = shape if part.has_hr else sr
    for segmentation, one in (part.segmentations or {}).items():
        yield from _segmented(config, f"{name}/segmentations/{segmentation}", fine if one.image == "hr" else sr)


def _coarse(shape: Triple, scale: Scale) -> Triple:
    return (shape[0], *scales.coarse_plane(shape[1:], scale))


def scaled(shape: Triple, scale: Scale) -> Triple:
    """The shape (z, y, x) of what is made of lr of ``shape``."""
    return (shape[0], *scales.fine_plane(shape[1:], scale))


def _enlarged(config: Config, name: str, scale: Scale) -> bool:
    """Whether lr is enlarged by interpolation, to be segmented or trained on."""
    volume: Volume = config.volumes[name]
    segmented = any(one.image == "bicubic" for one in (volume.segmentations or {}).values())
    trained = (data for training in config.trainings.values() for data in training.data if data.volume == name)
    return segmented or any(data.image == f"bicubic_x{scales.name(scale)}" for data in trained)


def _laid(how: Laid, shape: Triple, dtype: str, levels: int | None = None, channels: int = 0) -> Layout:
    shard = bounded_shard(how.shard, how.chunk, dtype)
    return Layout(shape, dtype, shard, how.chunk, NM, levels=levels or level_count(shape), channels=channels)


def _image(name: str, image: str, laid: Layout) -> Planned:
    return Planned(room.of_array(f"{name} {image}", laid), f"{name}/{image}.json", (f"{name}/{image}.zarr",))


def _superresolved(config: Config, name: str, shape: Triple, scale: Scale) -> Iterator[Planned]:
    how, part = config.superresolve, config.volumes[name]
    for folder in (name, *([f"{name}/deviation"] if part.samples else [])):
        for one in of_sr(f"{folder.replace('/', ' ')} ", shape, scale, (how.shard, how.chunk), config.jobs):
            known = replace(one, least=one.files * room.BLOCK) if part.pilot or part.mask else one
            made = (f"{folder}/sr-*", f"{folder}/sr/jobs", f"{folder}/valid.zarr")
            yield Planned(known, f"{folder}/sr.json", made)


def of_sr(whose: str, shape: Triple, scale: Scale, laid: tuple[Triple, Triple], jobs: int) -> list[Room]:
    """What super-resolution writes of a volume whose sr is of `shape`: `laid` are shard and chunk of sr."""
    made = Layout(shape, "uint8", *laid, NM, levels=level_count(shape))
    valid = Layout(_coarse(shape, scale), "uint8", *laid, NM)
    return [*room.of_shards(f"{whose}sr", made, jobs), room.of_array(f"{whose}valid", valid)]


def _segmented(config: Config, folder: str, shape: Triple) -> Iterator[Planned]:
    how, label = config.segment, folder.replace("/segmentations/", " ")
    voxels = shape[0] * shape[1] * shape[2]
    layouts = {"affinities": ("uint8", 3), "fragments": ("uint64", 0)}
    for stage, (dtype, channels) in layouts.items():
        laid = Layout(shape, dtype, how.shard, how.chunk, NM, channels=channels)
        for one in room.of_shards(f"{label} {stage}", laid, config.jobs):
            yield Planned(one, f"{folder}/{stage}.json", (f"{folder}/{stage}/*",))
        files = -(-shape[0] // how.shard[0]) * -(-shape[1] // how.shard[1]) * -(-shape[2] // how.shard[2])
    graph = voxels // VOXELS_PER_FRAGMENT * EDGES_PER_FRAGMENT * EDGE_BYTES
    yield Planned(
        Room(
            f"{label} agglomeration (estimated)", room.blocks(graph) + files * room.BLOCK, files * room.BLOCK, files + 1
        ),
        f"{folder}/agglomeration.json",
        (f"{folder}/agglomeration",),
    )
    segments = Layout(shape, "uint64", how.shard, how.chunk, NM, levels=level_count(shape))
    yield Planned(room.of_array(f"{label} segments", segments), f"{folder}/segments.json", (f"{folder}/segments.zarr",))


# -- whether it fits --------------------------------------------------------------------------------------------------


def check_space(config: Config, shapes: Mapping[str, Triple]) -> str | None:
    """OSError, in one line, where what is not there yet fits by no means; what to say where it may not fit, else None.

    What an unfinished run already wrote is not needed again.
    """
    results = Path(config.results)
    todo = [one for parts in of_config(config, shapes).values() for one in parts if not (results / one.card).is_file()]
    if not todo:
        return None
    need, have = room.total([one.room for one in todo], "what this config makes"), room.free(results)
    if _fits(need, have):
        return None
    bytes_, files = _written(results, {place for one in todo for place in one.places})
    need = replace(
        need, bytes=max(0, need.bytes - bytes_), least=max(0, need.least - bytes_), files=max(0, need.files - files)
    )
    room.check_room(results, need)
    if _fits(need, have):
        return None
    return (
        f"{need.name} needs up to {room.size(need.bytes)} of disk, {have.folder} has {room.size(have.bytes)} free: it "
        "fits only as far as voxels compress"
    )


def _fits(need: Room, have: room.Free) -> bool:
    return need.bytes <= have.bytes and (have.files is None or need.files <= have.files)


def _written(results: Path, places: set[str]) -> tuple[int, int]:
    """Bytes and files that stand at patterns below the results folder."""
    found = [path for place in places for path in results.glob(place)]
    sizes = [size for path in found for size in _sizes(path)]
    return sum(sizes), len(sizes)


def _sizes(path: Path) -> Iterator[int]:
    for folder, _, names in os.walk(path):
        for name in names:
            yield room.blocks(os.lstat(os.path.join(folder, name)).st_size)
