"""Pictures of where segmentations go wrong: of the right place, true to the voxel, and read box by box."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emsr.report.evidence import MembraneView, MistakeView
from emsr.report.segment_pictures import BOTH, INVENTED, LOST, SEGMENTS, TRUTH, edges, outlined, overlaid
from emsr.steps import segment_crops
from emsr.steps.tiles import Images
from segment_report_project import Project
from test_report import coloured


def test_mistakes_are_shown_where_they_are(tmp_path: Path) -> None:
    project = Project(tmp_path)
    segments = project.segments()
    assert segments.splits
    assert segments.merges
    assert project.finished.sr is not None
    for view in (*segments.splits, *segments.merges):
        z, y, x = view.row["nearest"]
        here = y - view.start[0], x - view.start[1]
        assert (view.truth[here], view.segments[here]) == (view.row["truth"], view.row["segment"])
        assert view.image[here] == project.finished.sr[z, y, x]


@pytest.mark.parametrize("in_plane", [True, False])
def test_shown_membrane_is_what_was_counted(tmp_path: Path, in_plane: bool) -> None:
    project = Project(tmp_path, lambda scored: scored.settings.update(in_plane=in_plane, membrane_nm=9.0))
    found = project.segments()
    assert len(found.invented) == len(found.lost) == segment_crops.WINDOWS
    for kind in ("invented", "lost"):
        for view in getattr(found, kind):
            assert view.invented.sum() == view.row["invented"]
            assert view.lost.sum() == view.row["lost"]
            assert not (view.both & (view.invented | view.lost)).any()
            assert view.both.size == view.row["voxels"]


def test_borders_lie_between_voxels_and_the_piece_is_tinted() -> None:
    truth = np.array([[7, 7, 9], [7, 7, 9]], np.uint64)
    segments = np.array([[2**63, 4, 4], [2**63, 4, 4]], np.uint64)
    row = {"truth": 7, "segment": 4, "kind": "split"}
    found = outlined(MistakeView(row, np.full((2, 3), 100, np.uint8), truth, segments, (0, 0), (4.0, 4.0)), 8)
    columns = ["".join("t" if same(pixel, TRUTH) else "s" if same(pixel, SEGMENTS) else "." for pixel in found[0])]
    assert columns == [".......ss....tttttt....."]
    assert (found[0, :7] == 100).all(), "another segment"
    assert (found[0, 9:14] != 100).any(axis=1).all(), "the piece"
    assert (found[0, 19:] == 100).all(), "another object"
    naive = np.zeros((16, 24), bool)
    naive[:, 15:17] = True
    np.testing.assert_array_equal(edges(truth, 8), naive)


def same(pixel: np.ndarray, colour: str) -> bool:
    return coloured(pixel[None, None], colour) == 1


def test_membranes_are_drawn_voxel_by_voxel() -> None:
    masks = np.random.default_rng(0).integers(0, 4, (30, 40))
    grey = np.full((30, 40), 90, np.uint8)
    view = MembraneView({}, {"sr": grey, "hr": grey}, masks == 1, masks == 2, masks == 3, (0, 0), (4.0, 4.0))
    found = overlaid(view)
    for number, colour in enumerate((BOTH, INVENTED, LOST), 1):
        assert coloured(found, colour) == (masks == number).sum()


class Endless:
    """An array that could never be held: what is read of it is counted, and zero."""

    def __init__(self, channels: int = 0) -> None:
        self.channels, self.most = channels, 0

    def __getitem__(self, box: Any) -> Any:
        self.sides = [1 if isinstance(one, int) else one.stop - one.start for one in box if one is not Ellipsis]
        self.flat = [isinstance(one, int) for one in box if one is not Ellipsis]
        self.most = max(self.most, int(np.prod(self.sides)))
        return self

    def read(self) -> Endless:
        return self

    def result(self) -> np.ndarray:
        shape = [side for side, flat in zip(self.sides, self.flat, strict=True) if not flat]
        return np.zeros((self.channels, *shape) if self.channels else shape, np.uint8)


def test_pictures_are_read_box_by_box_whatever_the_volume() -> None:
    plane = [400_000, 300_000]
    row = {"nearest": [9, 7, 299_999], "start": [0, 0, 0], "stop": [50, *plane], "truth": 0, "segment": 0}
    window = {"start": [30, 0, 0], "stop": [31, *plane], "invented": 1, "lost": 1}
    settings = {"region_yx": plane, "voxel_size_nm": [10.0, 4.0, 4.0], "membrane_nm": 20.0, "in_plane": False}
    scores = {
        **{"settings": {**settings, "stretches": [[0, 5000]]}, "worst": {"splits": [row], "merges": []}},
        **{"segmentation": {name: {"image": name} for name in ("sr", "hr")}, "invented": [window], "lost": []},
        "invented_lost_levels": {"sr": 0.5, "hr": 0.5},
    }
    arrays, near = [Endless() for _ in range(4)], {name: Endless(3) for name in ("sr", "hr")}
    scored = segment_crops.Scored(scores, Images(None, arrays[0], arrays[1], 4, "bicubic"), *arrays[2:], near)
    (view,) = segment_crops.mistake_views(scored, "splits")
    (shown,) = segment_crops.membrane_views(scored, "invented")
    assert view.image.shape == (240, 240)
    assert shown.both.shape == (512, 512)
    assert max(array.most for array in arrays) <= 512**2
    assert max(array.most for array in near.values()) == 5 * 522**2
