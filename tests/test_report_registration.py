"""What the report says of a registered truth: what is left of its displacement, and where it does not agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emsr.plan import Plan
from emsr.report import registration
from emsr.report.caveats import of_volume
from emsr.report.evidence import VolumeEvidence
from emsr.steps import crops
from emsr.steps.tiles import Images
from report_project import Finished, soft_tissue


def section(residual: float, state: str = "registered") -> dict[str, Any]:
    found = {"state": state, "residual_nm": residual, "shift_nm": [-12.0, 3.0], "rotation_deg": -0.5, "scale": 1.01}
    return {**found, "gain": 0.8, "offset": 20.0, "tiles": 20, "agreeing": 19}


def volume(rows: dict[int, dict[str, Any]], missing: dict[str, str], scored: tuple[int, ...]) -> VolumeEvidence:
    stated = {"limit_nm": 9.5, "kernel": "area", "clipped": 0.0, "sections": {str(z): row for z, row in rows.items()}}
    hr = {"registration": stated, "covered": [[0, 40], [4, 64]], "missing": missing}
    scores = {"per_section": [{"z": z, "sr": {}, "bicubic": {}} for z in scored]}
    lr, sr = {"shape": [len(rows), 16, 16]}, {"voxel_size_nm": [40.0, 8.0, 8.0]}
    return VolumeEvidence("v", 4, lr, sr, scores, hr)


BAD = section(31.0, "unregistered")
DOUBTS = [
    ({0: section(1.0), 1: section(3.9)}, {}, (0, 1), [], "half an sr voxel is 4 nm"),
    ({0: section(1.0), 1: section(4.1)}, {}, (0,), [], "only scored sections count"),
    ({0: section(1.0), 1: section(4.1)}, {}, (0, 1), ["more than 4 nm off lr in section 1,"], "beyond"),
    ({0: section(1.0), 1: BAD}, {"1": "unregistered"}, (0,), ["not agree with lr to 9.5 nm in section 1:"], "refused"),
    ({0: section(1.0), 1: {"state": "damaged"}}, {"1": "damaged"}, (0,), ["Without hr, so in no score: section 1"],
     "damaged in either image"),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "missing", "scored", "said", "reason"), DOUBTS)
def test_reservations(rows: Any, missing: Any, scored: Any, said: list[str], reason: str) -> None:
    warnings = [words for state, words in of_volume(volume(rows, missing, scored)) if state == "warn"]
    assert len(warnings) == len(said), reason
    assert all(part in words for part, words in zip(said, warnings, strict=True))


def test_long_tables_keep_the_sections_that_agree_least() -> None:
    rows = {z: section(1 + z / 100) for z in range(100)} | {3: {"state": "missing"}, 5: BAD}
    shown = registration.table(rows)
    assert [row[0] for row in shown.rows] == [3, 5, *range(54, 100)]
    assert shown.rows[0][1:] == ("missing", *["–"] * 6)
    assert shown.rows[1][1:] == ("unregistered", "31.00", "−12.0", "3.0", "−0.500", "1.0100", "19 of 20")
    assert [shown.states[0], shown.states[1], shown.states[2]] == ["warn", "warn", ""]
    assert max(shown.bars) == shown.bars[1] == 1


def test_residuals_in_words_leave_refused_sections_out() -> None:
    rows = {0: section(1.0), 1: section(2.0), 2: section(7.0), 3: BAD}
    label, words = registration.facts(volume(rows, {}, ()).hr)[0]
    assert label == "truth lies on low resolution to"
    assert words == "residual 2 nm (median), 7 nm (largest, section 2); limit 9.5 nm; 3 of 4 sections agree"
    assert registration.facts({"source": {}}) == registration.facts(None) == []


def test_a_section_that_only_hr_lacks_is_shown_of_the_others(tmp_path: Path) -> None:
    finished = Finished(tmp_path, soft_tissue((8, 64, 64)))
    images = Images(*(_Memory(array) for array in (finished.lr, finished.sr, finished.hr)), 4, "bicubic")
    sr = {"shape": [8, 64, 64], "voxel_size_nm": [40.0, 4.0, 4.0]}
    plan = Plan((8, 16, 16), 4, 16, 4, (8, 32, 32), ())
    xz, _ = crops.cross_views(images, sr, plan, 1, ({"missing": {"1": "missing"}}, {"missing": {"6": "unregistered"}}))
    assert (xz.absent, xz.untold) == ({1}, {6})
    assert not xz.images["hr"][6].any()
    assert not xz.images["sr"][1].any()
    assert np.array_equal(xz.images["sr"][6], finished.sr[6, 32])  # type: ignore[index]


class _Memory:
    """An array in memory that is read as one on disk."""

    def __init__(self, voxels: np.ndarray | None) -> None:
        assert voxels is not None
        self.voxels, self.shape = voxels, voxels.shape

    def __getitem__(self, box: Any) -> _Memory:
        return _Memory(self.voxels[box])

    def read(self) -> _Memory:
        return self

    def result(self) -> np.ndarray:
        return self.voxels
