"""What agglomeration leaves: every merge with its score, from which any lower threshold follows without another run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emsr.segmentation.check import check_threshold

MERGE = np.dtype([("a", "<u8"), ("b", "<u8"), ("c", "<u8"), ("score", "<f8"), ("level", "<f8")])
"""Regions a < b became c = a, the smallest fragment in them, at a score of 1 - mean affinity; 40 bytes.

The merge belongs to the result at a threshold t if `level` < t. With exact agglomeration the level is the score; with
binned it is the largest score that the queue had shown up to then, at which waterz would have stopped.
"""

FOUND = np.dtype([("a", "<i8"), ("b", "<i8"), ("score", "<f8"), ("last", "<i8")])
"""A merge under way: nodes a < b as positions among the graph's fragments, and what breaks ties."""


@dataclass(frozen=True)
class History:
    """Merges in the order of their level, `MERGE`, complete for thresholds up to `until`."""

    merges: np.ndarray
    until: float

    def below(self, threshold: float) -> np.ndarray:
        """The merges of the result at a threshold; raises ValueError if agglomeration did not go that far."""
        check_threshold(threshold)
        if threshold > self.until:
            raise ValueError(f"threshold {threshold} lies above {self.until}, where agglomeration stopped: rerun it")
        return self.merges[: np.searchsorted(self.merges["level"], threshold, "left")]


def history(found: np.ndarray, fragments: np.ndarray, until: float) -> History:
    """The history of merges `FOUND` in any order; `fragments` are the ids of the nodes, rising."""
    found = found[np.lexsort((found["last"], found["score"]))]
    merges = np.empty(len(found), MERGE)
    merges["a"] = merges["c"] = fragments[found["a"]]
    merges["b"] = fragments[found["b"]]
    merges["score"] = merges["level"] = found["score"]
    return History(merges, until)
