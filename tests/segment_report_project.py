"""A finished volume with scored segmentations beside it, for tests of the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from emsr.report.evidence import RunEvidence, SegmentEvidence
from emsr.steps.evidence import gather
from emsr.steps.score import score
from report_project import Finished, soft_tissue
from segment_project import image
from segment_scored import SIZE, Scored, affinities, spoilt
from segmentable import tiles

SHAPE = (10, 40, 36)
TEST = ((3, 10),)
Change = Callable[[Scored], None]


class Project:
    """A finished volume with segmentations beside it, as the rules leave them; ``change`` comes before scoring."""

    def __init__(self, root: Path, change: Change = lambda scored: None) -> None:
        self.finished = Finished(root, soft_tissue(SHAPE), voxel_nm=SIZE, test=TEST).write()
        self.finished.write_run()
        folder = self.finished.folder
        score(self.finished.score_settings(), folder / "scores.json")
        (folder / "segmentations").mkdir()
        self.scored = Scored(folder / "segmentations", tiles(SHAPE, 8, 0))
        self.scored.segments["own"], self.scored.near["own"] = spoilt(self.scored.truth, 5, 0.5), self.noise(0.3)
        self.scored.settings |= {"test": [list(span) for span in TEST], "validation": [[0, 2]]}
        self.scored.settings["labels"] = str(image(folder, self.scored.truth, (), "labels", voxel_size_nm=[*SIZE]))
        for name in self.scored.segments:
            of = {"kind": "bicubic", "weights": "other"} if name == "own" else {}
            self.scored.write(name, **of)  # type: ignore[arg-type]
        change(self.scored)
        self.path = folder / "segmentation.json"
        self.scores = self.scored.score()
        self.path.write_text(json.dumps(self.scores))

    def noise(self, share: float) -> np.ndarray:
        return affinities(self.scored.truth, 9, share)

    def settings(self) -> dict[str, Any]:
        found = self.finished.report_settings()
        found["volumes"]["tissue"]["segmentation"] = str(self.path)
        membranes = {name: {"image": name, "weights": "membranes"} for name in ("bicubic", "sr", "hr")}
        own = {"image": "bicubic", "weights": "membranes_of_bicubic"}
        found["config"]["volumes"]["tissue"]["segmentations"] = {**membranes, "own": own}
        for name, learned in (("membranes", "hr"), ("membranes_of_bicubic", "bicubic_x4")):
            data = [{"volume": "tissue", "image": learned, "train": [[0, 2]], "validation": [[2, 3]]}]
            found["config"]["trainings"][name] = {"data": data}
        return found

    def run(self) -> RunEvidence:
        """What the report shows, without the pictures of sections, which take seconds to draw."""
        found = gather(self.settings())
        return replace(found, volumes=[replace(one, sections=(), crosses=()) for one in found.volumes])

    def segments(self) -> SegmentEvidence:
        found = self.run().volumes[0].segments
        assert found is not None
        return found
