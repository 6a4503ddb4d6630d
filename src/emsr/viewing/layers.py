"""What can be looked at: the images and segmentations of a volume, of cards, and of folders in formats of others."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emsr.geometry import Triple, triple
from emsr.stores import open_source
from emsr.stores.card import array_path, read_card
from emsr.stores.link import SUFFIX
from emsr.stores.zarr import open_array

log = logging.getLogger(__name__)

CARDS = (
    *("lr.json", "lr_x*.json", "bicubic_x*.json", "sr.json", "hr.json", "hr_registered.json"),
    *("labels.json", "labels_registered.json"),
)
SEGMENTS = "segmentations/*/segments.json"
DRAWN = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "float32")
Lengths = tuple[float, float, float]


@dataclass(frozen=True)
class Layer:
    """A multiscale volume on disk, z y x, lengths in nm; `corner_nm` is the outer corner of the first voxel.

    `root` is the folder that neuroglancer reads, with its symbolic links resolved; `format` is neuroglancer's word.
    `caution` is what its card warns of.
    """

    name: str
    root: Path
    format: str
    shape: Triple
    dtype: str
    voxel_size_nm: Lengths
    corner_nm: Lengths
    caution: str = ""

    @property
    def is_segmentation(self) -> bool:
        """Whether the voxels are ids."""
        return self.dtype in ("uint32", "uint64")


def layers_of(places: Sequence[Path]) -> list[Layer]:
    """The layers of results of a volume (a folder), of cards, and of folders of OME-Zarr, precomputed or N5.

    A source that is used in place and that neuroglancer would show elsewhere is left out with a warning. Raises
    ValueError or FileNotFoundError, in one line, for a place that holds nothing to look at.
    """
    found = [layer for place in places for layer in _of_place(place)]
    if not found:
        raise ValueError("nothing to look at: name a volume (RESULTS/VOLUME), a card such as sr.json, or a folder")
    names = [layer.name for layer in found]
    earlier = [names[:number].count(name) for number, name in enumerate(names)]
    return [replace(one, name=f"{one.name}-{n + 1}") if n else one for one, n in zip(found, earlier, strict=True)]


def _of_place(place: Path) -> list[Layer]:
    """The layers of one place."""
    if place.is_file() and place.suffix == ".json":
        return _of_card(place)
    if not place.is_dir():
        raise FileNotFoundError(f"{place} is neither a folder nor a card: name a volume, a card or a folder")
    cards = [card for pattern in (*CARDS, SEGMENTS) for card in sorted(place.glob(pattern))]
    if cards:
        return [layer for card in cards for layer in _of_card(card)]
    below = sorted(path.parent.name for path in place.glob("*/*r.json") if path.name in CARDS)
    if below:
        raise ValueError(f"{place} holds volumes: name one of them: {', '.join(dict.fromkeys(below))}")
    return [_of_folder(place.name, place)]


def _of_card(card: Path) -> list[Layer]:
    """The layer of a card; none, and a warning, for a source in place that neuroglancer would show elsewhere."""
    stated = read_card(card)
    path = array_path(card, stated)
    array = open_array(path)
    if list(array.shape) != stated["shape"] or array.dtype.name != stated["dtype"]:
        found = f"{list(array.shape)} of {array.dtype.name}"
        raise ValueError(f"{path} is {found}, not as {card} states: run the step that makes it again")
    name = f"{card.parent.name}-segments" if card.name == "segments.json" else card.stem
    size, centre = (_lengths(stated[key]) for key in ("voxel_size_nm", "translation_nm"))
    corner, caution = _corner(centre, size), str(stated.get("caution") or "")
    own = Layer(name, path.resolve(), "zarr3", triple(stated["shape"]), stated["dtype"], size, corner, caution)
    if path.suffix != SUFFIX:
        return [own]
    linked = _linked(array.spec().to_json())
    try:
        layer = _of_folder(name, linked)
    except (ValueError, OSError) as error:
        log.warning("%s is left out: its source is used in place, and %s", card, error)
        return []
    if not _same_place(own, layer):
        log.warning("%s is left out: its source %s states another size, voxel size or place", card, linked)
        return []
    return [layer]


def _linked(spec: dict[str, Any]) -> Path:
    """The folder of the multiscale volume that a linked array is a level of."""
    folder = Path(spec["kvstore"]["path"])
    level = spec["driver"] in ("zarr", "zarr3") or (spec["driver"] == "n5" and folder.name == "s0")
    return folder.parent if level else folder


def _of_folder(name: str, folder: Path) -> Layer:
    """A folder of OME-Zarr, precomputed or N5; ValueError, in one line, where neuroglancer cannot place or draw it."""
    source = open_source(folder)
    source.close()
    if source.format not in ("zarr", "precomputed", "n5"):
        shown = "OME-Zarr, precomputed and N5"
        raise ValueError(
            f"{folder} is {source.format}: only {shown} are shown, so ingest it, or export its card as one"
        )
    size, centre = source.voxel_size_nm, source.translation_nm
    if source.format == "n5" and size and not centre:  # as neuroglancer takes it
        centre = _lengths([side / 2 for side in size])
    if len(source.shape) != 3 or size is None or centre is None:
        raise ValueError(f"{folder} states no voxel size in nm for axes z, y, x: mend its {source.format} metadata")
    if source.dtype.name not in DRAWN:
        raise ValueError(f"{folder} is {source.dtype}, which neuroglancer does not draw: convert it to {DRAWN[0]}")
    version = "zarr3" if (folder / "zarr.json").is_file() else "zarr2"
    return Layer(
        name,
        folder.resolve(),
        version if source.format == "zarr" else source.format,
        triple(source.shape),
        source.dtype.name,
        size,
        _corner(centre, size),
    )


def _same_place(one: Layer, other: Layer) -> bool:
    """Whether two layers have the same voxels in the same place, to a thousandth of a nm."""
    lengths = zip(one.voxel_size_nm + one.corner_nm, other.voxel_size_nm + other.corner_nm, strict=True)
    return one.shape == other.shape and all(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-3) for a, b in lengths)


def _corner(centre: Lengths, size: Lengths) -> Lengths:
    """The outer corner of a voxel from its centre."""
    return _lengths([at - side / 2 for at, side in zip(centre, size, strict=True)])


def _lengths(values: Sequence[float]) -> Lengths:
    """Three lengths, z y x."""
    z, y, x = (float(value) for value in values)
    return z, y, x
