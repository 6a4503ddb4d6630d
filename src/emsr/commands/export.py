"""`emsr export`: a finished image or segmentation in a format of others."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsr import plugins

if TYPE_CHECKING:
    from emsr.stores.export import Target
    from emsr.stores.ome import Layout

SUFFIXES = {
    **dict.fromkeys((".h5", ".hdf", ".hdf5"), "cremi"),
    **dict.fromkeys((".tif", ".tiff"), "tiff"),
    ".n5": "n5",
    ".zarr": "ome-zarr-0.4",
}

log = logging.getLogger(__name__)


def export(
    card: Path,
    out: Path,
    *,
    format: str,
    level: int = 0,
    sharded: bool = False,
    round_offset: bool = False,
    overwrite: bool = False,
    workers: int = 2,
) -> None:
    """Write the volume of a card (sr.json, segments.json, ...) to OUT in another format, the same voxels.

    `--format`: precomputed, ome-zarr-0.4, cremi, tiff or n5. Written are `--level` (0 is the finest) and all coarser
    ones; only that one for cremi and for tiff, which is one file if OUT ends in .tif or .tiff, else a folder of
    sections. For precomputed, `--sharded` packs chunks into few files, and `--round-offset` moves a volume whose corner
    is no whole number of voxels by half a voxel at most. `--workers` threads hold a shard each. Voxels are read back
    and compared by hash before OUT gets its name; OUT is whole or absent. One that was stopped goes on when the same
    command is given again; cremi and tiff start over. `--overwrite` replaces an earlier export of this format, when the
    new one is whole; nothing else is overwritten. What a card warns of is said, and is in the metadata of OUT.
    """
    from emsr.stores.export import FORMATS
    from emsr.stores.export_staging import check_free, staged

    if format not in FORMATS:
        raise ValueError(plugins.unknown("format", format, FORMATS))
    if workers < 1:
        raise ValueError(f"workers {workers} do no work: state 1 or more")
    module = plugins.load("stores", FORMATS[format])
    ours = module.wrote if overwrite else None
    _check_name(out, format)
    check_free(out, ours)
    options = {name: True for name, stated in (("sharded", sharded), ("round_offset", round_offset)) if stated}
    if strange := sorted(set(options) - set(getattr(module, "OPTIONS", ()))):
        raise ValueError(f"--{strange[0].replace('_', '-')} means nothing for format {format}: leave it out")
    own = _Own(card, out, level)
    target = module.target(own.laid, own.caution, **options)
    own.check(target, getattr(module, "LARGEST_ID", None), format, workers)
    what = {"schema": 1, "format": format, "options": options, **asdict(target.laid)} if target.resumes else None
    if own.caution:
        log.warning("%s: %s, as %s states too", card, own.caution, out)
    with staged(out, target.create, what, need=target.need, ours=ours) as (path, begun):
        for number in range(target.laid.levels):
            _write(own, target, path, number, begun, workers)
    log.info("wrote %s with %d levels", out, target.laid.levels)


def _check_name(out: Path, format: str) -> None:
    """ValueError for a name that says another format, by which readers would take it for that."""
    says = SUFFIXES.get(out.suffix.lower())
    if says not in (None, format):
        raise ValueError(f"the name {out.name} says {says} and --format {format}: name it otherwise")


class _Own:
    """The array of a card from a level on; ValueError, in one line, for one that is not as the card states."""

    def __init__(self, card: Path, out: Path, level: int) -> None:
        from emsr.stores.card import array_path, read_card
        from emsr.stores.link import SUFFIX
        from emsr.stores.zarr import level_total, open_array

        if card.is_dir():
            near = card.with_suffix(".json")
            name = near if near.is_file() else card / "sr.json"
            raise ValueError(f"{card} is a folder: name a card, a file such as {name}")
        self.card, stated = card, read_card(card)
        self.path, self.level = array_path(card, stated), level
        _check_place(out, card, stated)
        array, self.linked = open_array(self.path), self.path.suffix == SUFFIX
        total = 1 if self.linked else level_total(self.path)
        if list(array.shape) != stated["shape"] or array.dtype.name != stated["dtype"]:
            found = f"{list(array.shape)} of {array.dtype.name}"
            raise ValueError(f"{self.path} is {found}, not as {card} states: run the step that makes it again")
        if len(stated["section_sha256"]) != array.shape[0]:
            raise ValueError(
                f"{card} has hashes of {len(stated['section_sha256'])} sections: run the step that makes it"
            )
        if not 0 <= level < total:
            raise ValueError(f"level {level} does not exist: {self.path} has levels 0 to {total - 1}")
        self.laid = _layout(stated, array, total, level)
        self.caution = str(stated.get("caution") or "")
        self.hashes: list[str] = stated["section_sha256"] if level == 0 else []

    def check(self, target: Target, largest_id: int | None, format: str, workers: int) -> None:
        """Refuse levels that are not whole and ids that the format does not hold; writes nothing."""
        from emsr.stores.shards import each, read_box, shard_boxes
        from emsr.stores.zarr import open_array

        for number in range(target.laid.levels):
            folder, array = self.path / str(self.level + number), open_array(self.path, self.level + number)
            if tuple(array.shape) != self.laid.level_shape(number) or array.dtype.name != self.laid.dtype:
                raise ValueError(f"{folder} is {list(array.shape)}, no level of the array: run the step that makes it")
            if not self.linked:
                _check_shards(folder, array)
        if largest_id is None or self.laid.dtype != "uint64":
            return
        array = open_array(self.path, self.level)
        largest = max(each(lambda box: int(read_box(array, box).max()), shard_boxes(array), workers, "largest id"))
        if largest > largest_id:
            raise ValueError(f"id {largest} is larger than {largest_id}, which {format} holds: choose another format")


def _check_place(out: Path, card: Path, stated: Mapping[str, Any]) -> None:
    """ValueError for a place among the results of the volume, or in what it was made from."""
    place, above = out.absolute().resolve(), card.absolute().parents
    volume = above[2] if above[1:] and above[1].name == "segmentations" else above[0]
    if place.is_relative_to(volume.resolve()):
        raise ValueError(f"{out} lies among the results in {volume}, where runs write and clean up: write elsewhere")
    source = stated["source"].get("path")
    if source and place.is_relative_to(Path(source).resolve()):
        raise ValueError(f"{out} is or lies in {source}, which {card} was made from: write elsewhere")


def _layout(stated: Mapping[str, Any], array: Any, total: int, level: int) -> Layout:
    """How the array lies on disk from a level on."""
    from emsr.geometry import triple
    from emsr.stores.export import below
    from emsr.stores.ome import Layout
    from emsr.stores.shards import chunk_shape
    from emsr.stores.source import triple as numbers

    shard, where = triple(list(array.chunk_layout.write_chunk.shape)), str(stated["array"])
    size = numbers(stated["voxel_size_nm"], "voxel_size_nm", where, positive=True)
    centre = numbers(stated["translation_nm"], "translation_nm", where)
    return below(
        Layout(triple(stated["shape"]), stated["dtype"], shard, chunk_shape(array), size, centre, total), level
    )


def _check_shards(folder: Path, array: Any) -> None:
    """ValueError where a level has fewer shards on disk than it is made of, or shards that no memory holds."""
    from emsr.stores.pieces import check_chunk

    shard = array.chunk_layout.write_chunk.shape
    check_chunk(shard, array.dtype.numpy_dtype, str(folder))
    counts = [-(-side // edge) for side, edge in zip(array.shape, shard, strict=True)]
    there = sum(file.name.isdigit() for file in (folder / "c").glob("*/*/*"))
    if there < math.prod(counts):
        raise ValueError(
            f"{folder} is unfinished, {there} of its {math.prod(counts)} shards are there: run the step that makes it"
        )


def _write(own: _Own, target: Target, path: Path, number: int, begun: bool, workers: int) -> None:
    """Write a level and prove it: the hashes of its sections are those of the card, or of the own level."""
    from emsr.stores.export import check_same, copy, section_hashes
    from emsr.stores.shards import read_box
    from emsr.stores.zarr import open_array

    array, dtype = open_array(own.path, own.level + number), own.laid.dtype
    read, name = partial(read_box, array), f"level {own.level + number}"
    with target.opened(path, number, True) as sink:
        written = copy(read, sink, own.laid.level_shape(number), begun, workers, f"write {name}")
    log.info("%s: %d units written", name, written)
    with target.opened(path, number, False) as sink:
        found = section_hashes(sink.read, own.laid, number, dtype, workers, f"check {name}")
    stated = own.hashes if own.level + number == 0 else None
    stated = stated or section_hashes(read, own.laid, number, dtype, workers, f"hash {name}")
    check_same(stated, found, f"of {name} reads back otherwise than {own.card} states")
