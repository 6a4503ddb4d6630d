"""What the report needs of a volume's segmentations: their scores, the share of SSIM, pictures of the worst places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from emsr.metrics.bootstrap import Draws, Figure, Rivals, fixed, share_of_gap
from emsr.report.evidence import AffinityNetwork, SegmentEvidence
from emsr.steps.segment_crops import membrane_views, mistake_views, open_scored
from emsr.steps.tiles import Images

Json = Mapping[str, Any]


def segments(
    paths: Json, images: Images, scores: Json, networks: Mapping[str, AffinityNetwork]
) -> SegmentEvidence | None:
    """The segmentations of a volume; None where none is scored.

    ``paths``: segmentation (what ``score_segments`` wrote, or null); ``scores`` is the volume's ``scores.json``;
    ``networks`` as ``networks`` gives them.
    """
    if not paths.get("segmentation"):
        return None
    scored = open_scored(Path(paths["segmentation"]), images)
    splits, merges = (mistake_views(scored, kind) for kind in ("splits", "merges"))
    invented, lost = (membrane_views(scored, kind) for kind in ("invented", "lost"))
    share = ssim(scores, scored.settings)
    return SegmentEvidence(scored.scores, networks, share, splits, merges, invented, lost)


def networks(config: Json, volume: str) -> dict[str, AffinityNetwork]:
    """The network of each segmentation of a volume, and what it was trained on, as the resolved config states it."""
    stated = (config.get("volumes") or {}).get(volume, {}).get("segmentations") or {}
    return {name: _network(config, part["weights"]) for name, part in stated.items()}


def _network(config: Json, weights: str | Json) -> AffinityNetwork:
    if not isinstance(weights, str):
        return AffinityNetwork(f"file {Path(weights['path']).name}")
    data = (config.get("trainings") or {}).get(weights, {}).get("data") or ()
    learned = dict.fromkeys((one.get("image") or "hr", one["volume"]) for one in data if one["train"])
    return AffinityNetwork(f"training {weights}", tuple(learned))


def ssim(scores: Json, settings: Json) -> dict[str, Any] | None:
    """The share of the gap in SSIM, that of hr being 1, with a bootstrap interval over the scored sections.

    Laid out as the shares of ``score_segments``, whose ``settings`` give seed and draws; None without such scores.
    """
    rows = [row for row in scores.get("per_section") or () if "sr" in row and "bicubic" in row]
    if not rows:
        return None
    rivals = Rivals(_mean(rows, "bicubic"), _mean(rows, "sr"), fixed(1.0), higher_is_better=True)
    draws, generator = Draws(**settings["draws"]), np.random.default_rng(settings["seed"])
    share = share_of_gap(rivals, len(rows), generator, draws)
    once = np.ones(len(rows), np.int64)
    figures = {"bicubic": rivals.rival(once), "sr": rivals.sr(once), "hr": 1.0}
    return {**asdict(share), **figures, "higher_is_better": True, "sub_volumes": len(rows)}


def _mean(rows: list[Json], name: str) -> Figure:
    """Mean SSIM of sections taken so many times each."""
    values = np.array([row[name]["ssim"] for row in rows], float)
    return lambda times: float(times @ values / times.sum())
