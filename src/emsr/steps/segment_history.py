"""A finished agglomeration as the steps after it read it: its merges, its fragments and where they lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emsr.durable import read_json
from emsr.segmentation.history import History
from emsr.stores.zarr import open_array


@dataclass(frozen=True, eq=False)
class Merged:
    """What `agglomerate` wrote, as JSON, its `history`, the `first` voxels of all fragments and their open array."""

    document: Mapping[str, Any]
    history: History
    first: np.ndarray
    fragments: Any


def open_merged(agglomeration: Path) -> Merged:
    """Read what an agglomeration left behind; voxels stay on disk."""
    of = read_json(agglomeration)
    with np.load(agglomeration.parent / of["history"]) as tables:
        history, first = History(tables["merges"], float(tables["until"])), tables["first"]
    source = (agglomeration.parent / of["fragments"]).resolve()
    return Merged(of, history, first, open_array((source.parent / read_json(source)["array"]).resolve()))


def read_threshold(path: Path) -> tuple[float, str]:
    """The threshold that `choose_threshold` wrote, and whether "config" or "validation" chose it."""
    found = read_json(path)
    if not isinstance(found, dict) or not {"threshold", "source"} <= found.keys():
        raise ValueError(f"{path} states no threshold: delete it and run choose-threshold again")
    return float(found["threshold"]), str(found["source"])
