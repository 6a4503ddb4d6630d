"""The sections of volumes that a training reads: which ones, whether they fit, and what says that they are the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsr import scales
from emsr.plan import neighbour_table
from emsr.stores.card import array_path, covered, read_card

if TYPE_CHECKING:
    from emsr.training.data import Series

CACHE_BYTES = 256 * 2**20  # decoded chunks of each array
IMAGES = ("lr", "hr")
USES = ("train", "validation")
Json = Mapping[str, Any]
Cards = dict[str, dict[str, Any]]
Table = tuple[tuple[int, ...], ...]


def series(settings: Json, data: Json, use: str) -> Series:
    """The sections of one volume for one use, "train" or "validation"; images that the stage does not read are None."""
    from emsr.stores.zarr import open_array
    from emsr.training.data import Series

    cards = _cards(settings, data)
    paths = {image: array_path(Path(data[image]), card) for image, card in cards.items()}
    opened = {image: open_array(path, cache_bytes=CACHE_BYTES) for image, path in paths.items()}
    if shown := covered(cards.get("hr")):
        units = {"lr": settings["scale"], "hr": 1}
        opened = {image: part(array, shown, units[image]) for image, array in opened.items()}
    made = cards["lr"]["degradation"] if "lr" in cards else None
    return Series(data["volume"], opened.get("lr"), opened.get("hr"), _table(settings, data, use, cards), made)


def part(array: Any, shown: tuple[tuple[int, int], tuple[int, int]], unit: int) -> Any:
    """The part of an array, counted from 0, that hr voxels ``shown`` (y, x) are, ``unit`` of which are one of its."""
    y, x = (slice(low // unit, high // unit) for low, high in shown)
    return array[:, y, x].translate_to[0, 0, 0]


def identity(settings: Json) -> list[dict[str, Any]]:
    """What a stage sees of each volume, as JSON: the tables, and size and hash of the sections that they name.

    Other sections of a volume may change, or be found damaged, without changing it.
    """
    return [_seen(settings, data) for data in settings["data"]]


def degradation(settings: Json) -> dict[str, Any] | None:
    """How the lr that the stage reads was made; None if it reads none, it was imaged, or volumes differ in it."""
    made = [read_card(Path(data["lr"]))["degradation"] for data in settings["data"] if data["lr"]]
    return made[0] if made and all(one == made[0] for one in made) else None


def _cards(settings: Json, data: Json) -> Cards:
    """The cards of the images of one volume that the stage reads, checked against each other and the ranges."""
    cards = {image: read_card(Path(data[image])) for image in IMAGES if data[image]}
    _check_shapes(data, cards, settings["scale"])
    return cards


def _seen(settings: Json, data: Json) -> dict[str, Any]:
    cards = _cards(settings, data)
    if not cards:
        return {}
    tables = {use: _table(settings, data, use, cards) for use in USES}
    named = sorted({z for table in tables.values() for row in table for z in row})
    images = {
        image: {"plane": card["shape"][1:], "degradation": card["degradation"]}
        | {key: card[key] for key in ("covered",) if key in card}
        | {"sections": {str(z): card["section_sha256"][z] for z in named}}
        for image, card in cards.items()
    }
    return {"tables": tables, "images": images}


def _table(settings: Json, data: Json, use: str, cards: Cards) -> Table:
    """For each undamaged section of one use the sections it is made from, neighbours never leaving their range."""
    bad = {what: {int(z) for card in cards.values() for z in card[what]} for what in ("damaged", "missing")}
    found: list[tuple[int, ...]] = []
    for start, stop in data[use]:
        here = {what: [z - start for z in sections if start <= z < stop] for what, sections in bad.items()}
        step = settings["section_step"]
        rows = neighbour_table(stop - start, settings["sections"], step, here["damaged"], here["missing"])
        good = [row for z, row in enumerate(rows) if row is not None and z not in here["damaged"]]
        found += [tuple(z + start for z in row) for row in good]
    return tuple(found)


def _check_shapes(data: Json, cards: Cards, scale: Any) -> None:
    """Pairs fit each other, ranges fit the volume; ValueError, in one line, where they do not."""
    if set(cards) == set(IMAGES):
        (z, *plane), (hr_z, *hr_plane) = cards["lr"]["shape"], cards["hr"]["shape"]
        if z != hr_z or not scales.fits(plane, hr_plane, scales.of(scale)):
            raise ValueError(
                f"hr {cards['hr']['shape']} of volume {data['volume']} is not lr {cards['lr']['shape']} times scale "
                f"{scale} in y and x: state images of the same region"
            )
    for card, use in ((card, use) for card in cards.values() for use in USES):
        for start, stop in data[use]:
            if stop > (z := card["shape"][0]):
                raise ValueError(f"{use} range [{start}, {stop}] is outside volume {data['volume']} of {z} sections")
