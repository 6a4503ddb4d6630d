"""Rule choose_threshold of segment.smk: how far fragments are merged, by the config or by validation sections."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsr import durable

if TYPE_CHECKING:
    from emsr.metrics.segmentation import Contingency
    from emsr.steps.segment_history import Merged

CHOOSE_THRESHOLD_RESULT = 1
MEMORY_MB = 4000  # what the rule asks for with two threads

log = logging.getLogger(__name__)


def choose_threshold(
    settings: dict, agglomeration: Path, out: Path, *, workers: int, memory_mb: int = MEMORY_MB
) -> None:
    """Choose the threshold of one agglomeration: that of the config, else the best on validation sections.

    `settings`: threshold (a number that is taken, or null); for null labels (path of their image card), validation
    (half-open ranges of sections), candidates (thresholds), and border_nm, in_plane and absorb (left out: 0) as in
    `score_segments`. The candidate with the least VOI (split + merge) is taken, of equal ones the lower.
    `out` is JSON: threshold, source ("config" or "validation"), voi (figures by candidate), sections that were seen,
    left_out, truth (how labels were taken). Raises ValueError for a threshold outside [0, 1] or beyond the
    agglomeration, for labels that say nothing, and where `memory_mb` (10^6 bytes) is too little.
    """
    from emsr.segmentation.memory import check_lookup
    from emsr.steps.segment_history import open_merged
    from emsr.steps.segment_truth import BLOCK

    fragments = durable.read_object(agglomeration, "counts")["counts"]["fragments"]
    check_lookup(fragments, workers * math.prod(BLOCK), memory_mb, "choose_threshold")
    merged = open_merged(agglomeration)
    if settings["threshold"] is None:
        found = _validated(settings, merged, agglomeration, workers)
    else:
        merged.history.below(settings["threshold"])
        found = {"threshold": float(settings["threshold"]), "source": "config"}
        found |= {"voi": {}, "sections": [], "left_out": {}, "truth": None}
    log.info("%s: threshold %s by %s", agglomeration, found["threshold"], found["source"])
    durable.write_sealed(out, {"schema": 1, **found})


def _validated(settings: dict, merged: Merged, agglomeration: Path, workers: int) -> dict[str, Any]:
    """The threshold that validation sections choose, and how."""
    from emsr.steps import segment_truth as truths
    from emsr.stores.card import read_card

    candidates, of = _candidates(settings, merged), merged.document
    if not settings.get("labels"):
        raise ValueError("threshold is null and no labels are named: state a threshold between 0 and 1, or labels")
    labels = Path(settings["labels"])
    card = read_card(labels)
    plane, depth = truths.common_plane((labels, card), {str(agglomeration): of}), int(of["shape"][0])
    excluded = truths.left_out({"labels": card, "the image": of})
    sections = truths.good_sections(settings["validation"], depth, excluded, "validation")
    table = _table(settings, merged, (labels, card), truths.stretches(sections, plane), workers)
    if not table.total:
        raise ValueError(
            f"{labels} has no labelled voxel that is counted in validation sections {settings['validation']}: name "
            "others, lower border_nm, or state a threshold"
        )
    voi = {candidate: _voi(merged, table, candidate) for candidate in candidates}
    best = min(candidates, key=lambda candidate: (voi[candidate]["voi"], candidate))
    return {
        "threshold": best,
        "source": "validation",
        "voi": {str(candidate): figures for candidate, figures in voi.items()},
        "sections": sections,
        "left_out": {str(z): why for z, why in excluded.items() if _within(z, settings["validation"])},
        "truth": {"border_nm": settings["border_nm"], "in_plane": settings["in_plane"], "absorb": _absorb(settings)},
    }


def _candidates(settings: dict, merged: Merged) -> list[float]:
    """The thresholds to try, rising; ValueError for none and for one that the agglomeration cannot give."""
    candidates = sorted({float(candidate) for candidate in settings["candidates"]})
    if not candidates:
        raise ValueError("threshold is null and candidates is empty: state thresholds between 0 and 1 to choose from")
    for candidate in candidates:
        merged.history.below(candidate)
    return candidates


def _absorb(settings: dict) -> int:
    return int(settings.get("absorb", 0))


def _within(z: int, ranges: Sequence[Sequence[int]]) -> bool:
    return any(first <= z < last for first, last in ranges)


def _table(
    settings: dict, merged: Merged, labels: tuple[Path, Any], scored: Sequence[Any], workers: int
) -> Contingency:
    """Voxels of each pair of a label and a fragment: segments of any threshold follow without the voxels."""
    from emsr.geometry import Box
    from emsr.metrics.segmentation import Contingency
    from emsr.metrics.tolerance import Tolerance
    from emsr.steps import segment_truth as truths
    from emsr.steps.left_out import of_images
    from emsr.stores.shards import each

    z, y, x = merged.document["voxel_size_nm"]
    border = Tolerance(settings["border_nm"], (z, y, x), settings["in_plane"])
    truth = truths.open_truth(*labels, border, _absorb(settings), of_images([merged.document]))

    def pairs(tile: Box) -> Contingency:
        tables = (truth.pairs(merged.fragments, *box) for box in truths.blocks(tile, scored))
        return Contingency.sum(tables).without(truths.IGNORED)

    depth, *plane = merged.document["shape"]
    return Contingency.sum(
        each(pairs, truths.tiles((plane[0], plane[1]), truths.BLOCK[1], depth), workers, "candidate thresholds")
    )


def _voi(merged: Merged, table: Contingency, candidate: float) -> dict[str, float]:
    """VOI at a threshold, from pairs of labels and fragments."""
    from emsr.metrics.pairs import added
    from emsr.metrics.segmentation import Contingency, variation_of_information
    from emsr.segmentation.lookup import lookup, relabelled

    looked = lookup(merged.history, merged.first, candidate)
    segments = relabelled(table.segment[None, None], looked)[0, 0]
    split, merge = variation_of_information(Contingency(*added(table.truth, segments, table.voxels)))
    return {"voi": split + merge, "voi_split": split, "voi_merge": merge}
