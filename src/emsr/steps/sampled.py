"""Patches of an image, spread over it the same way every time: enough to say what the whole is like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

PATCHES = 64
SIDE = 64  # pixels
STEPS = (0.7548776662466927, 0.5698402909980532)  # along y and x: powers of the plastic number's inverse (Roberts 2018)


def patches(
    card_path: Path, side: int, most: int, ranges: Sequence[Sequence[int]] | None = None
) -> Iterator[np.ndarray]:
    """`most` squares (y, x) of an image, `side` pixels or what its sections have, from sections that are whole.

    `ranges` [first, last + 1] are the sections to choose from; without them all. Nothing where all are damaged.
    """
    from emsr.geometry import Box
    from emsr.stores.card import array_path, read_card
    from emsr.stores.shards import read_box
    from emsr.stores.zarr import open_array

    card = read_card(card_path)
    depth, height, width = card["shape"]
    bad = {int(z) for state in ("damaged", "missing") for z in card[state]}
    good = [z for first, stop in ranges or [(0, depth)] for z in range(first, stop) if z not in bad]
    array = open_array(array_path(card_path, card))
    side = min(side, height, width)
    for number in range(most if good else 0):
        z = good[number * len(good) // most]
        y, x = (
            int((0.5 + step * number) % 1 * (long - side + 1))
            for step, long in zip(STEPS, (height, width), strict=True)
        )
        yield read_box(array, Box((z, y, x), (z + 1, y + side, x + side)))[0]


def looks(card_path: Path, ranges: Sequence[Sequence[int]] | None = None) -> dict[str, Any] | None:
    """What an image looks like and how large its voxels are; None where it shows nothing or is too small to say."""
    from emsr.metrics.likeness import looks
    from emsr.stores.card import read_card

    found = looks(patches(card_path, SIDE, PATCHES, ranges))
    return None if found is None else {"voxel_size_nm": read_card(card_path)["voxel_size_nm"], **found}
