"""What is refused of a config that segments, in one line and before anything is written."""

from __future__ import annotations

import copy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from emsr.commands.check import check_config
from emsr.config import parse
from emsr.models import checkpoint
from emsr.models.affinity import Options, build
from test_segment_workflow import config, write


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    return tmp_path


def changed(where: str, value: Any) -> dict[str, Any]:
    values = copy.deepcopy(config())
    *parents, last = where.split(".")
    part: Any = values
    for name in parents:
        part = part[name]
    part[last] = value
    return values


HR = "volumes.cube.segmentations.hr"
MEMBRANES = "trainings.membranes"
WRONG = [
    (f"{HR}.threshold", 1.5, "threshold is 1.5: Input should be less than or equal to 1"),
    (f"{HR}.threshold", 0.95, "threshold 0.95 lies above segment.agglomeration.until; raise that"),
    (f"{HR}.weights", "membrane", "unknown|is not one|did you mean|membranes"),
    (f"{HR}.weights", "tiny", "training tiny predicts no affinities; name one that does"),
    (f"{HR}.image", "lr", "image is 'lr'"),
    ("volumes.cube.weights", "membranes", "training membranes predicts affinities and not sr"),
    ("volumes.cube.labels", None, "volume cube has no labels to learn affinities from"),
    ("volumes.cube.test", [[6, 9]], "overlap or have less than 2 sections between them"),
    ("segment.fragments.block", [1, 48, 64], "fragments.block .* does not divide shard"),
    ("segment.agglomeration.thresholds", [0.5, 0.95], "thresholds .* none above until 0.9"),
    ("segment.fragments.method", "watersheds", "Input should be 'watershed' or 'mutex'"),
    ("segment.overlaps", 4, "unknown|overlap"),
    (f"{MEMBRANES}.sections", 3, "write sections: 1 and section_step: 1"),
    (f"{MEMBRANES}.window", 31, "depth 3 and window 31: the network cannot take 31 voxels along y"),
    (f"{MEMBRANES}.stages.affinity.patch", 17, "depth 3 and patch 17: the network cannot take 17 voxels"),
    (f"{MEMBRANES}.stages.affinity.missing_share", 2, "missing_share is 2; it must lie between 0 and 1"),
    ("segment.window", 31, "trainings.membranes: segment with depth 3 and window 31: .* 31 voxels along y"),
    ("segment.overlap", 32, "segment.overlap 32 leaves no step for a window of 32: use 0 to 31"),
    ("segment.depth", 1, "segment.depth_overlap 1 leaves no step for a window of 1"),
    ("segment.depth_overlap", 3, "segment.depth_overlap 3 leaves no step for a window of 3: use 0 to 2"),
    (f"{MEMBRANES}.data", [{"volume": "cube", "image": "sr", "train": [[4, 6]], "validation": [[8, 9]]}], "image"),
]


@pytest.mark.parametrize(("where", "value", "message"), WRONG)
def test_it_is_refused_in_one_line(project: Path, where: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        check_config(parse(changed(where, value)))
    assert "\n" not in str(caught.value)


def with_file(folder: Path, model: str = "affinity", tensors: int = 0, **card: Any) -> dict[str, Any]:
    """A config whose hr is segmented by weights in a file; ``tensors`` of them are left out."""
    options = Options("superhuman", (2, 2, 3), 0.1)
    state = build(options).state_dict()
    stated = {"model": model, "options": asdict(options), "scale": 1, "sections": 1, "stage": "affinity"}
    kept = dict(list(state.items())[tensors:])
    checkpoint.save(folder / "w.safetensors", kept, {**stated, "depth": 4, "window": 32, **card})
    values = changed(f"{HR}.weights", {"path": "w.safetensors"})
    values["volumes"]["cube"]["segmentations"]["hr"]["threshold"] = 0.5
    return values


def test_a_file_of_affinities_that_fits_passes(project: Path) -> None:
    check_config(parse(with_file(project)))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            {"model": "bicubic", "stage": "untrained"},
            "w.safetensors of volume cube, segmentation hr, give sr, affinity",
        ),
        ({"stage": "fusion"}, "are of stage fusion; the whole network is affinity"),
        ({"tensors": 2}, "w.safetensors does not fit the network: missing"),
        ({"window": 31}, "w.safetensors of volume cube, segmentation hr,: .* 31 voxels along y"),
        ({"window": None}, "states no window: set segment.depth and segment.window"),
        ({"depth": 1}, "segment.depth_overlap 1 leaves no step for a window of 1"),
        ({"options": {"colour": 1}}, "card of w.safetensors: .*colour"),
    ],
)
def test_a_file_of_affinities_is_opened_before_anything_is_written(
    project: Path, how: dict[str, Any], message: str
) -> None:
    values = with_file(project, **how)
    before = sorted(Path().iterdir())
    with pytest.raises(ValueError, match=message) as caught:
        check_config(parse(values))
    assert "\n" not in str(caught.value)
    assert sorted(Path().iterdir()) == before


def test_what_fits_passes(project: Path) -> None:
    check_config(parse(config()))


def test_a_network_that_segments_nothing_is_not_held_to_how_it_would(project: Path) -> None:
    values = changed("segment.overlap", 32)
    values["volumes"]["cube"]["segmentations"] = None
    check_config(parse(values))


def test_a_network_that_segments_under_another_name_is_held_to_it(project: Path) -> None:
    """``use`` makes two trainings one network, whose card is that of the first."""
    values = changed("segment.overlap", 32)
    values["trainings"]["again"] = {**values["trainings"]["membranes"], "stages": {"affinity": {"use": "membranes"}}}
    for part in values["volumes"]["cube"]["segmentations"].values():
        part["weights"] = "again"
    with pytest.raises(ValueError, match=r"trainings.membranes: .*segment.overlap 32 leaves no step"):
        check_config(parse(values))


def test_a_threshold_must_come_from_somewhere(project: Path) -> None:
    values = changed(
        f"{MEMBRANES}.data", [{"volume": "other", "image": None, "train": [[0, 6]], "validation": [[8, 9]]}]
    )
    values["volumes"]["other"] = {**values["volumes"]["cube"], "weights": None, "segmentations": None, "test": None}
    with pytest.raises(ValueError, match="membranes has no validation sections in cube; state threshold"):
        parse(values)


PILOTS = [  # shards are 4 sections deep; validation is section 8, tests are 11 to 13
    ([[10, 12], [0, 24], [0, 22]], None, "sections 8 to 11: one of each"),
    ([[0, 4], [0, 24], [0, 22]], r"makes sections \[0, 4\] and none of test \[\[11, 14\]\]", "before both"),
    ([[12, 14], [0, 24], [0, 22]], r"\[12, 16\] and none of validation of membranes \[\[8, 9\]\]", "test alone"),
]


@pytest.mark.parametrize(("pilot", "message", "reason"), PILOTS)
def test_a_pilot_makes_sections_that_segments_of_sr_are_scored_on(
    project: Path, pilot: Any, message: str | None, reason: str
) -> None:
    values = changed("volumes.cube.pilot", pilot)
    if message is None:
        check_config(parse(values))
        return
    with pytest.raises(ValueError, match=message) as caught:
        check_config(parse(values))
    assert "\n" not in str(caught.value), reason
    del values["volumes"]["cube"]["segmentations"]["sr"]
    check_config(parse(values))
