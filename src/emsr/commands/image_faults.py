"""What is wrong with images: their cards, the voxels behind them, and the coarser levels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsr.commands.faults import Fault, of_metadata
from emsr.commands.recorded import read

if TYPE_CHECKING:
    from emsr.geometry import Box
    from emsr.stores.sections import Bands

Card = Mapping[str, Any]


def cards(results: Path, volume: str) -> list[Path]:
    """The JSON documents of a volume that may be image cards."""
    found = [results.glob(pattern) for pattern in (f"{volume}/*.json", f"{volume}/segmentations/*/*.json")]
    return sorted(path for paths in found for path in paths)


def of_card(path: Path, workers: int, known: list[Fault] | None) -> tuple[int, list[Fault]]:
    """What is wrong with a card and its array, and whether it is one (1) or another document (0).

    `known` is what is wrong with an array that has records: then only what these do not say is looked at, and coarser
    levels only where level 0 is well. Memory: for each worker a row of chunks across the volume, or a shard.
    """
    from emsr.stores.card import KEYS, array_path, root_sha256

    label, card = f"{path.parent.name} {path.stem}", read(path)
    if card is None:
        return 1, [Fault(f"{label}: {path}", "is damaged: it is not JSON", (path,))]
    if not isinstance(card, dict) or not set(card) >= KEYS:
        return 0, []
    stated = card["section_sha256"]
    if root_sha256(stated) != card["sha256"] or len(stated) != card["shape"][0]:
        return 1, [Fault(f"{label}: {path}", "is damaged: its hash is not of its sections", (path,))]
    array, linked = array_path(path, card), str(card["array"]).endswith(".link")
    found = [] if linked or known is not None else of_metadata(label, array, path)
    try:
        if not found and known is None:
            found = list(_of_sections(label, array, card, workers, () if linked else (path,)))
        if not found and not known and not linked:
            found = [*_of_levels(label, array, workers, path), *_of_valid(label, card, workers, path)]
    except (OSError, ValueError) as error:
        found = [Fault(label, str(error), () if linked else (path,))]
    return 1, found


def _of_sections(label: str, array: Path, card: Card, workers: int, remove: tuple[Path, ...]) -> Iterator[Fault]:
    """Shards that cannot be read, and sections whose voxels are not those of the card."""
    from emsr.stores.sections import SectionHashes, visit
    from emsr.stores.zarr import open_array

    if list(open_array(array).shape) != list(card["shape"]):
        raise ValueError(f"{array} has shape {list(open_array(array).shape)}, its card says {card['shape']}")
    unread: dict[int, str] = {}

    def hashed(slab: Box, bands: Bands) -> list[str] | list[None]:
        hashes = SectionHashes(slab.shape[0])
        try:
            for _, band in bands:
                hashes.add(band)
        except (OSError, ValueError) as error:
            unread.update(dict.fromkeys(range(slab.start[0], slab.stop[0]), str(error)))
            return [None] * slab.shape[0]
        return hashes.result()

    found = [one for slab in visit(array, hashed, workers, f"checking {label}") for one in slab]
    if unread:
        yield from _unreadable(label, array, unread, remove)
    for z, (have, stated) in enumerate(zip(found, card["section_sha256"], strict=True)):
        if have not in (None, stated):
            yield Fault(f"{label}: section {z}", f"{array} holds other voxels than the card says", remove)


def _unreadable(label: str, array: Path, unread: Mapping[int, str], remove: tuple[Path, ...]) -> Iterator[Fault]:
    """Which shards of the sections that could not be read are damaged; of a source in place the sections."""
    from emsr.stores.shards import read_box, shard_boxes, shard_shape
    from emsr.stores.zarr import open_array

    if not remove:
        for z, reason in sorted(unread.items()):
            yield Fault(f"{label}: section {z}", f"cannot be read from its source: {reason}")
        return
    opened = open_array(array)
    for box in shard_boxes(opened):
        if not any(z in unread for z in range(box.start[0], box.stop[0])):
            continue
        index = [first // side for first, side in zip(box.start, shard_shape(opened), strict=True)]
        file = array.joinpath("0", "c", *map(str, index))
        try:
            read_box(opened, box)
        except (OSError, ValueError) as error:
            reason = f"is damaged ({error})" if file.is_file() else "is gone"
            yield Fault(f"{label}: shard {'_'.join(map(str, index))}", f"its file {file} {reason}", remove)


def _of_levels(label: str, array: Path, workers: int, card: Path) -> Iterator[Fault]:
    """Shards of coarser levels that are not made from the level below."""
    from emsr.stores.pyramid import differing

    for level, box in differing(array, workers):
        where = f"level {level} from voxel {list(box.start)} on"
        yield Fault(f"{label}: {where}", f"{array} lacks it, or holds other voxels than the level below gives", (card,))


def _of_valid(label: str, card: Card, workers: int, path: Path) -> Iterator[Fault]:
    """Shards of valid.zarr that cannot be read."""
    from emsr.stores.shards import each, read_box, shard_boxes
    from emsr.stores.zarr import open_array

    if not card.get("valid"):
        return
    array = path.parent / str(card["valid"]["array"])
    opened = open_array(array)

    def look(box: Box) -> str | None:
        try:
            read_box(opened, box)
        except (OSError, ValueError) as error:
            return str(error)
        return None

    for reason in filter(None, each(look, shard_boxes(opened), workers, f"checking {array.name}")):
        yield Fault(f"{label}: {array}", f"is damaged ({reason})", (path,))
