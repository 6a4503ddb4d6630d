"""A finished agglomeration as the steps after it read it: its merges, its fragments and where they lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emsr.durable import read_json, read_object
from emsr.segmentation.history import History
from emsr.stores import tables
from emsr.stores.zarr import open_array

AGGLOMERATED = ("history", "fragments", "fragments_sha256", "sha256", "shape", "shard", "counts")
"""What the document of an agglomeration says at least."""


@dataclass(frozen=True, eq=False)
class Merged:
    """What `agglomerate` wrote, as JSON, its `history`, the `first` voxels of all fragments and their open array."""

    document: Mapping[str, Any]
    history: History
    first: np.ndarray
    fragments: Any


def open_merged(agglomeration: Path) -> Merged:
    """Read what an agglomeration left behind; voxels stay on disk. ValueError where it is damaged, or of other
    fragments than those that are there."""
    of = read_object(agglomeration, *AGGLOMERATED)
    file, source = agglomeration.parent / of["history"], (agglomeration.parent / of["fragments"]).resolve()
    found, fragments = tables.parts(file), read_object(source, "array", "sha256")
    if tables.digest(found) != of["sha256"]:
        raise ValueError(f"{file} is not what {agglomeration} states: delete {agglomeration} and run agglomerate again")
    if fragments["sha256"] != of["fragments_sha256"]:
        raise ValueError(f"{agglomeration} is not of the fragments in {source}: delete it and run agglomerate again")
    history = History(found["merges"], float(found["until"]))
    return Merged(of, history, found["first"], open_array((source.parent / fragments["array"]).resolve()))


def read_threshold(path: Path) -> tuple[float, str]:
    """The threshold that `choose_threshold` wrote, and whether "config" or "validation" chose it."""
    found = read_json(path)
    if not isinstance(found, dict) or not {"threshold", "source"} <= found.keys():
        raise ValueError(f"{path} states no threshold: delete it and run choose-threshold again")
    return float(found["threshold"]), str(found["source"])
