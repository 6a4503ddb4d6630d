"""The labelled sections of volumes that an affinity network learns from, and what says that they are the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsr.steps.series import part
from emsr.stores.card import array_path, covered, read_card

if TYPE_CHECKING:
    from emsr.training.volumes import LabelledSeries

CACHE_BYTES = 256 * 2**20  # decoded chunks of each array
USES = ("train", "validation")
Json = Mapping[str, Any]


def series(data: Json, use: str) -> LabelledSeries:
    """The ranges of one volume for one use, "train" or "validation": its image and the labels of the same voxels."""
    from emsr.stores.zarr import open_array
    from emsr.training.volumes import LabelledSeries

    cards = _cards(data)
    image, labels = (
        open_array(array_path(Path(data[name]), card), cache_bytes=CACHE_BYTES) for name, card in cards.items()
    )
    shown = covered(cards["labels"]) or ((0, int(image.shape[1])), (0, int(image.shape[2])))
    image, labels = (part(array, shown, 1) for array in (image, labels))
    ranges = tuple((int(start), int(stop)) for start, stop in data[use])
    return LabelledSeries(data["volume"], image, labels, ranges, frozenset(_bad(cards)))


def identity(settings: Json) -> list[dict[str, Any]]:
    """What the stage sees of each volume, as JSON: ranges, damage, and the hash of each section of image and labels."""
    return [_seen(data) for data in settings["data"]]


def _seen(data: Json) -> dict[str, Any]:
    cards = _cards(data)
    named = sorted({z for use in USES for start, stop in data[use] for z in range(start, stop)})
    hashes = {name: [card["section_sha256"][z] for z in named] for name, card in cards.items()}
    bad = _bad(cards) & set(named)
    seen = {**{use: data[use] for use in USES}, "plane": cards["image"]["shape"][1:], "bad": sorted(bad), **hashes}
    return seen | {key: cards["labels"][key] for key in ("covered",) if key in cards["labels"]}


def single_sections(settings: Json) -> dict[str, Any]:
    """The volumes whose labels are of single sections, and how these were made from membranes, as their cards say."""
    cards = {data["volume"]: read_card(Path(data["labels"])) for data in settings["data"]}
    return {name: made for name, card in cards.items() if (made := card["source"].get("membranes"))}


def _bad(cards: Mapping[str, Json]) -> set[int]:
    """Sections that nothing is learned of: the image is damaged or missing there, or has no labels at all."""
    return {int(z) for card in cards.values() for state in ("damaged", "missing") for z in card[state]}


def _cards(data: Json) -> dict[str, dict[str, Any]]:
    """The cards of image and labels; ValueError unless the labels cover the image, which may be cropped at far ends."""
    cards = {name: read_card(Path(data[name])) for name in ("image", "labels")}
    (depth, *plane), (length, *covered) = cards["image"]["shape"], cards["labels"]["shape"]
    if depth != length or any(side > more for side, more in zip(plane, covered, strict=True)):
        raise ValueError(
            f"labels {cards['labels']['shape']} of volume {data['volume']} do not cover its image "
            f"{cards['image']['shape']}: state labels of the same region"
        )
    for use in USES:
        for start, stop in data[use]:
            if stop > depth:
                raise ValueError(
                    f"{use} range [{start}, {stop}] is outside volume {data['volume']} of {depth} sections"
                )
    return cards
