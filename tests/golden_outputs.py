"""What this version writes, as tiny committed goldens: `python tests/golden_outputs.py` makes golden/outputs-VERSION.

A volume goes through the steps from source to scores. The next versions prove that they read it (test_outputs.py).
Outputs of a released version are never made again: a new version gets a folder of its own.
"""

from __future__ import annotations

import shutil
import sys
from contextlib import chdir
from importlib.metadata import version
from pathlib import Path
from typing import Any

from emsr.durable import write_json
from emsr.slices import RESULTS, result_number
from emsr.steps.data import degrade, ingest
from emsr.steps.score import score
from emsr.stores.zarr import Layout, create, open_array, write_box
from segment_project import Chain, weights
from sr_project import SrProject, tissue_like, write_weights

GOLDEN = Path(__file__).parent / "golden"
SHAPE = (4, 68, 72)
LAYOUT = {"shard": [4, 64, 64], "chunk": [4, 32, 32]}
TEST = [[1, 3]]


class Volume(SrProject):
    """A volume of the goldens: its lr is made from its hr."""

    @property
    def lr(self) -> Path:
        return self.folder / "lr_x4.json"


def volume(folder: Path) -> Volume:
    """The volume in a folder, whether it is made or not."""
    return Volume(folder / "results" / "cells", folder / "weights" / "bicubic_x4_0.json")


def chain(folder: Path) -> Chain:
    """Its segmentation."""
    return Chain(folder / "results" / "cells" / "segmentations" / "sr", jobs=2, shard=(3, 32, 32))


def score_settings() -> dict[str, Any]:
    """What `score` is asked for, in the folder of the goldens."""
    named = {image: f"results/cells/{image if image != 'lr' else 'lr_x4'}.json" for image in ("lr", "hr", "sr")}
    return {"volume": "cells", "test": TEST, "scale": 4, **named, "segmentation": None, "lpips": None}


def make(goal: Path) -> None:
    """Every output, into a folder; no path in them says where that is."""
    goal.mkdir(parents=True)
    with chdir(goal):
        _make(Path())


def _make(folder: Path) -> None:
    made = volume(folder)
    for place in (made.folder, folder / "weights"):
        place.mkdir(parents=True)
    write_weights(folder / "weights", "bicubic", 4)
    card = weights(folder / "weights")
    source = folder / "source.zarr"
    create(source, Layout(SHAPE, "uint8", SHAPE, SHAPE, (40.0, 8.0, 8.0)))
    write_box(open_array(source, write=True), (0, 0, 0), tissue_like(SHAPE, 1))
    stated = {"path": str(source), "dataset": None, "voxel_size_nm": None}
    ingest({"image": "hr", "source": stated, "region": None, **LAYOUT}, made.folder / "hr.json")
    shutil.rmtree(source)
    degrade({"scale": 4, "degradation": {"kernel": "bicubic"}, **LAYOUT}, made.folder / "hr.json", made.lr)
    made.all(2)
    chain(folder).all(made.folder / "sr.json", card)
    score({**score_settings(), "result": result_number("score")}, made.folder / "scores.json")
    numbers = {step: result_number(step) for step in RESULTS}
    write_json(folder / "made.json", {"version": version("emsr"), "results": numbers})


if __name__ == "__main__":
    goal = GOLDEN / f"outputs-{version('emsr')}"
    shutil.rmtree(goal, ignore_errors=True)
    make(goal)
    size = sum(file.stat().st_size for file in goal.rglob("*") if file.is_file() and not file.is_symlink())
    sys.stdout.write(f"{goal}: {size:,} bytes\n")
