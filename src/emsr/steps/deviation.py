"""What the report shows of how far samples of a volume's sr lie apart: figures of whole sections, and crops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from emsr import durable
from emsr.report.deviation import DeviationEvidence, DeviationView, Spread
from emsr.report.evidence import SectionView
from emsr.steps.tiles import TILE, Images, made_of, read, tiles
from emsr.stores.card import array_path
from emsr.stores.zarr import open_array

SECTIONS = 64  # at most, spread over those that scores measure
CACHE_BYTES = 64_000_000
LEVELS = 256
Json = Mapping[str, Any]


def evidence(path: str | None, images: Images, scores: Json, views: Sequence[SectionView]) -> DeviationEvidence | None:
    """The deviation whose card is ``path``, of the volume of ``images``; None where a volume has no samples.

    Figures are of the sections that ``scores`` measure, of what of them was made and hr shows.
    """
    if not path:
        return None
    card = durable.read_json(Path(path))
    array = open_array(array_path(Path(path), card), cache_bytes=CACHE_BYTES)
    images = replace(images, sr=array, made=made_of(card))
    rows = {row["z"]: row for row in scores.get("per_section") or ()}
    measured = list(rows)
    chosen = [measured[i * len(measured) // min(SECTIONS, len(measured))] for i in range(min(SECTIONS, len(measured)))]
    counts = {z: _counts(images, z) for z in chosen}
    sections = {z: _spread(found, [rows[z]]) for z, found in counts.items() if found.any()}
    whole = _spread(sum(counts.values(), np.zeros(LEVELS, np.int64)), [rows[z] for z in sections]) if sections else None
    return DeviationEvidence(card, sections, whole, len(measured), [_view(array, view) for view in views])


def _counts(images: Images, z: int) -> np.ndarray:
    """How many voxels of a section have each value of the array."""
    found = np.zeros(LEVELS, np.int64)
    for (top, bottom), (left, right) in images.parts(z, images.covered):
        for (y0, y1), (x0, x1) in tiles((bottom - top, right - left), TILE):
            area = (top + y0, top + y1), (left + x0, left + x1)
            found += np.bincount(read(images.sr, z, area).ravel(), minlength=LEVELS)
    return found


def _spread(counts: np.ndarray, rows: Sequence[Json]) -> Spread:
    """Of voxels that are counted by value; ``rows`` are the scores of their sections."""
    from emsr.inference.deviation import PER_GREY

    total = int(counts.sum())
    mean = float(counts @ np.arange(LEVELS)) / total / PER_GREY
    p99 = int(np.searchsorted(np.cumsum(counts), 0.99 * total)) / PER_GREY
    return Spread(mean, p99, int(counts[-1]) / total, _error(rows))


def _error(rows: Sequence[Json]) -> float | None:
    """Root mean square error of sr over sections, in grey levels, from their PSNR (None: no error at all)."""
    if not all("sr" in row for row in rows):
        return None
    found = [row["sr"]["psnr"] for row in rows]
    squares = [0.0 if psnr is None else 255**2 * 10 ** (-psnr / 10) for psnr in found]
    return float(np.sqrt(np.mean(squares)))


def _view(array: Any, view: SectionView) -> DeviationView:
    from emsr.inference.deviation import PER_GREY

    (top, left), (rows, columns) = view.start, view.images["sr"].shape
    voxels = read(array, view.z, ((top, top + rows), (left, left + columns)))
    return DeviationView(view, voxels.astype(np.float32) / PER_GREY)
