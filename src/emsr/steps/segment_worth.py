"""Figures of segmentations from their counts, and the share of the gap between a rival and hr that sr closes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from emsr.metrics.bootstrap import Draws, Figure, Rivals, share_of_gap
from emsr.metrics.membrane import MembraneTally, curve
from emsr.metrics.segmentation import Contingency, adapted_rand, variation_of_information, weighted_sums
from emsr.steps.segment_tallies import Counts
from emsr.steps.segment_truth import IGNORED

DRAWS = Draws()
IMAGES = ("bicubic", "sr", "hr")


def voi(table: Contingency) -> float | None:
    """Split and merge together, in bits."""
    return sum(variation_of_information(table)) if table.total else None


def arand(table: Contingency) -> float | None:
    """Adapted Rand error."""
    return adapted_rand(table).error if table.total else None


def best_level(tally: MembraneTally) -> int | None:
    """The level (0 to 255) with the highest F1, of several the lowest; None without true membrane."""
    return int(curve(tally).f1.argmax()) if tally.true.sum() else None


def f1(tally: MembraneTally, level: int | None = None) -> float | None:
    """F1 at a level, or the best over all levels; None without true membrane."""
    if not tally.true.sum():
        return None
    line = curve(tally).f1
    return float(line.max() if level is None else line[level])


def worth(
    counts: Sequence[Counts], rival: str, levels: Mapping[str, int | None] | None, seed: int
) -> dict[str, dict[str, Any]]:
    """For each metric the share of the gap between the segmentation ``rival`` and "hr" that "sr" closes.

    ``counts`` are those of all sub-volumes; ``levels`` the levels of membrane that validation chose for each rival, or
    None. Every metric is resampled with the same sub-volumes. A share that is undefined is None, with its reason.
    """
    tables = [{name: table.without(IGNORED) for name, table in part.tables.items()} for part in counts]
    tables = [part for part in tables if part[rival].total]
    tallies = [part.membranes for part in counts if part.membranes[rival].predicted.sum()]
    names = (rival, *IMAGES[1:])

    def of_tables(metric: Callable[[Contingency], float | None]) -> dict[str, Any]:
        figures = [_of_tables([part[name] for part in tables], metric) for name in names] if tables else []
        return _share(rival, figures, len(tables), False, seed)

    def of_tallies(metric: Callable[[str, MembraneTally], float | None]) -> dict[str, Any]:
        figures = [_of_tallies([part[name] for part in tallies], name, metric) for name in names] if tallies else []
        return _share(rival, figures, len(tallies), True, seed)

    found = {"voi": of_tables(voi), "arand": of_tables(arand)}
    found["membrane_best_f1"] = of_tallies(lambda name, tally: f1(tally))
    if levels is not None and all(levels[name] is not None for name in names):
        found["membrane_f1"] = of_tallies(lambda name, tally: f1(tally, levels[name]))
    return found


def _of_tables(tables: Sequence[Contingency], metric: Callable[[Contingency], float | None]) -> Figure:
    total = weighted_sums(tables)
    return lambda times: metric(total(times))


def _of_tallies(
    tallies: Sequence[MembraneTally], name: str, metric: Callable[[str, MembraneTally], float | None]
) -> Figure:
    parts = np.stack([[one.predicted, one.right, one.true, one.found] for one in tallies])
    return lambda times: metric(name, MembraneTally(*np.tensordot(times, parts, 1)))


def _share(
    rival: str, figures: Sequence[Figure], sub_volumes: int, higher_is_better: bool, seed: int
) -> dict[str, Any]:
    """The share with its interval and the figures of the three, that of the rival as "bicubic"; JSON."""
    stated = {"higher_is_better": higher_is_better, "sub_volumes": sub_volumes}
    if not figures:
        nothing = dict.fromkeys(("share", "low", "high", *IMAGES))
        return {**nothing, "undefined": 1.0, "reason": "no sub-volume has a labelled voxel that is counted", **stated}
    first, sr, hr = figures
    rivals = Rivals(first, sr, hr, higher_is_better, rival)
    share = share_of_gap(rivals, sub_volumes, np.random.default_rng(seed), DRAWS)
    once = np.ones(sub_volumes, np.int64)
    return {**asdict(share), **{name: figure(once) for name, figure in zip(IMAGES, figures, strict=True)}, **stated}
