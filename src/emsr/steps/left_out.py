"""Voxels of a volume that are in no score of its segmentations: damaged parts of sections, and what was not made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from emsr.geometry import Box
from emsr.inference.extent import skipped_areas
from emsr.steps.parts import Area, Parts, count, mask, of_card, together

Json = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class LeftOut:
    """``damaged`` parts of sections, and cards of images of which shards were ``skipped``, all on one grid."""

    damaged: Parts = field(default_factory=dict)
    skipped: Sequence[Json] = ()

    def areas(self, z: int) -> list[Area]:
        """Areas (y, x) of section ``z`` that are left out; they may overlap."""
        return [*self.damaged.get(z, ()), *(area for card in self.skipped for area in skipped_areas(card, z))]

    def mask(self, box: Box) -> np.ndarray | None:
        """Which voxels (bool) of a box are left out; None where none is."""
        (first, *low), (last, *high) = box.start, box.stop
        within = (low[0], high[0]), (low[1], high[1])
        found = {z: out for z in range(first, last) if (out := mask(self.areas(z), within)) is not None}
        if not found:
            return None
        whole = np.zeros(box.shape, bool)
        for z, out in found.items():
            whole[z - first] = out
        return whole

    def counted(self, counted: np.ndarray, box: Box) -> np.ndarray:
        """``counted`` (bool) of the voxels of a box without those that are left out."""
        out = self.mask(box)
        return counted if out is None else counted & ~out

    def stated(self, sections: Iterable[int], plane: tuple[int, int]) -> dict[str, Any]:
        """How many voxels of some sections are left out, in all and by section, and how many of them are damaged."""
        within = (0, plane[0]), (0, plane[1])
        found = {z: count(self.areas(z), within) for z in sections}
        damaged = {z: count(self.damaged.get(z, ()), within) for z in found}
        return {
            "voxels": sum(found.values()),
            "damaged_voxels": sum(damaged.values()),
            "sections": {str(z): voxels for z, voxels in found.items() if voxels},
        }


def of_images(cards: Iterable[Json]) -> LeftOut:
    """What is left out of scores that compare images of one grid: what any of their cards names."""
    known = list(cards)
    return LeftOut(together(map(of_card, known)), [card for card in known if card.get("skipped")])
