"""Crops of the worst splits and merges and of invented and lost membrane, read box by box, for the report."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emsr.durable import read_json
from emsr.geometry import Box
from emsr.metrics.tolerance import Tolerance, dilated
from emsr.report.evidence import MembraneView, MistakeView
from emsr.steps.crops import around
from emsr.steps.segment_tallies import membrane
from emsr.steps.segment_truth import grown, inside
from emsr.steps.tiles import Area, Images, bicubic, read
from emsr.stores.card import array_path, read_card
from emsr.stores.shards import read_box
from emsr.stores.zarr import open_array

MISTAKES = 12  # of a kind that are shown
WINDOWS = 8
SIDES = (120, 160, 240)  # voxels of a crop around a mistake: the first that holds its piece with a margin, or the last
SIDE = 512  # voxels at most of a window
MARGIN = 1.25
CACHE_BYTES = 64_000_000
Json = Mapping[str, Any]
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Scored:
    """What ``score_segments`` wrote and, open for reading, what it read; ``images`` are those of the volume."""

    scores: Json
    images: Images
    labels: Any
    segments: Any
    affinities: Mapping[str, Any]

    @property
    def settings(self) -> Json:
        """What the scores are of."""
        found: Json = self.scores["settings"]
        return found

    @property
    def voxel_nm(self) -> tuple[float, float]:
        """Voxel size along y and x."""
        _, y, x = self.settings["voxel_size_nm"]
        return float(y), float(x)


def open_scored(path: Path, images: Images) -> Scored:
    """Open what the scores at ``path`` are of: it lies beside them, as the rules of segment.smk leave it.

    ValueError, in one line, where labels or segments are no longer those that were scored.
    """
    scores, folder = read_json(path), path.parent
    of = folder / "segmentations"
    compared = [name for name in ("sr", "hr") if name in scores["segmentation"]]
    near = {name: file for name in compared if (file := of / name / "affinities.json").is_file()}
    if len(near) < len(compared):
        log.warning("%s: affinities are not kept, so windows of membrane are listed and not drawn", of)
    segments = _of_scores(scores, of / "sr" / "segments.json", "sr", path) if "sr" in compared else None
    return Scored(
        scores,
        images,
        _of_scores(scores, folder / scores["settings"].get("labels", "labels.json"), "labels", path),
        segments,
        {
            name: open_array((one.parent / read_json(one)["array"]).resolve(), cache_bytes=CACHE_BYTES)
            for name, one in near.items()
        },
    )


def _of_scores(scores: Json, path: Path, name: str, of: Path) -> Any:
    card = read_card(path)
    if card["sha256"] != scores["settings"]["sha256"][name]:
        raise ValueError(f"{path} is not what {of} was made from: run score-segments again")
    return open_array(array_path(path, card), cache_bytes=CACHE_BYTES)


def _image(scored: Scored, name: str, z: int, area: Area) -> np.ndarray:
    """The image (y, x) that segmentation ``name`` is of."""
    kind = scored.scores["segmentation"][name]["image"]
    if kind == "bicubic":
        return bicubic(scored.images, z, area)
    return read(scored.images.hr if kind == "hr" else scored.images.sr, z, area)


# -- splits and merges ------------------------------------------------------------------------------------------------


def mistake_views(scored: Scored, kind: str) -> list[MistakeView]:
    """The worst "splits" or "merges" of sr, each in the section of its voxel ``nearest``."""
    return [_mistake(scored, row) for row in ((scored.scores["worst"] or {}).get(kind) or ())[:MISTAKES]]


def _mistake(scored: Scored, row: Json) -> MistakeView:
    z, *centre = row["nearest"]
    extent = MARGIN * max(high - low for low, high in zip(row["start"][1:], row["stop"][1:], strict=True))
    side = next((side for side in SIDES if side >= extent), SIDES[-1])
    y, x = _spans(scored, centre, (side, side))
    return MistakeView(
        row,
        _image(scored, "sr", z, (y, x)),
        read(scored.labels, z, (y, x)),
        read(scored.segments, z, (y, x)),
        (y[0], x[0]),
        scored.voxel_nm,
    )


def _spans(scored: Scored, centre: Sequence[int], sides: Sequence[int]) -> Area:
    """An area of at most ``sides`` voxels around ``centre`` within what is scored."""
    y, x = (
        around(middle, length, 1, side)
        for middle, length, side in zip(centre, scored.settings["region_yx"], sides, strict=True)
    )
    return y, x


# -- invented and lost membrane ---------------------------------------------------------------------------------------


def membrane_views(scored: Scored, kind: str) -> list[MembraneView]:
    """The windows with most "invented" or most "lost" membrane, each or, where it is large, its middle; none where
    affinities were not kept.
    """
    rows = scored.scores[kind] if {"sr", "hr"} <= scored.affinities.keys() else None
    return [_window(scored, row) for row in (rows or ())[:WINDOWS]]


def _window(scored: Scored, row: Json) -> MembraneView:
    (z, *start), (_, *stop) = row["start"], row["stop"]
    sides = [min(high - low, SIDE) for low, high in zip(start, stop, strict=True)]
    middle = [low + (high - low) // 2 for low, high in zip(start, stop, strict=True)]
    y, x = _spans(scored, middle, sides)
    both, invented, lost = _compared(scored, Box((z, y[0], x[0]), (z + 1, y[1], x[1])))
    images = {name: _image(scored, name, z, (y, x)) for name in ("sr", "hr")}
    return MembraneView(row, images, both, invented, lost, (y[0], x[0]), scored.voxel_nm)


def _compared(scored: Scored, core: Box) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Membrane (y, x) of sr and hr that the other has too, of sr alone, of hr alone, in one section."""
    settings = scored.settings
    z, y, x = map(float, settings["voxel_size_nm"])
    tolerance = Tolerance(settings["membrane_nm"], (z, y, x), settings["in_plane"])
    wide = grown(core, tolerance.reach, _stretch(settings, core))

    def seen(name: str) -> np.ndarray:
        level = round(255 * scored.scores["invented_lost_levels"][name])
        found: np.ndarray = membrane(read_box(scored.affinities[name], wide), settings["in_plane"]) >= level
        return found

    sr, hr = seen("sr"), seen("hr")
    invented, lost = sr & ~dilated(hr, tolerance), hr & ~dilated(sr, tolerance)
    both = (sr & ~invented) | (hr & ~lost)
    here = inside(core, wide)
    return both[here][0], invented[here][0], lost[here][0]


def _stretch(settings: Json, core: Box) -> Box:
    """The stretch of scored sections that a box lies in: nothing beyond it is looked at."""
    found = next((low, high) for low, high in settings["stretches"] if low <= core.start[0] < high)
    y, x = settings["region_yx"]
    return Box((found[0], 0, 0), (found[1], y, x))
