"""The threshold of an agglomeration: that of the config, or the one whose segments are nearest to the labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from skimage.metrics import variation_of_information
from skimage.segmentation import find_boundaries

from emsr.durable import write_json
from emsr.steps import segment_truth
from emsr.steps.segment_history import read_threshold
from emsr.stores.card import read_card
from segment_project import SHAPE, Chain, image, weights
from sr_project import tissue_like

CANDIDATES = [0.5, 0.2, 0.35, 0.8]
VALIDATION = [[1, 3], [5, 8]]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    folder = tmp_path_factory.mktemp("threshold")
    made = Chain(folder / "a")
    made.all(image(folder, tissue_like(SHAPE)), weights(folder))
    return made


@pytest.fixture(scope="module")
def segments(chain: Chain) -> dict[float, np.ndarray]:
    """Segments at every candidate; all of them differ, and so does their VOI to each other."""
    found = {candidate: chain.segments(candidate) for candidate in CANDIDATES}
    assert len({len(np.unique(voxels)) for voxels in found.values()}) == len(CANDIDATES)
    return found


def chosen(chain: Chain, folder: Path, truth: np.ndarray, **changes: Any) -> dict[str, Any]:
    stated = {"labels": str(image(folder, truth, name="labels")), "validation": VALIDATION, "candidates": CANDIDATES}
    return chain.choose({**stated, **changes})


@pytest.mark.parametrize("best", CANDIDATES)
def test_the_threshold_whose_segments_are_the_labels_wins(
    chain: Chain, segments: dict[float, np.ndarray], tmp_path: Path, best: float
) -> None:
    """Labels elsewhere than in validation sections, and beyond the segments, are not looked at."""
    labels = np.full((SHAPE[0], SHAPE[1] + 3, SHAPE[2] + 1), 7, np.uint64)
    for first, last in VALIDATION:
        labels[first:last, : SHAPE[1], : SHAPE[2]] = segments[best][first:last]
    found = chosen(chain, tmp_path, labels)
    assert (found["threshold"], found["source"], found["sections"]) == (best, "validation", [1, 2, 5, 6, 7])
    assert found["voi"][str(best)]["voi"] == pytest.approx(0, abs=1e-12)
    assert list(found["voi"]) == sorted(found["voi"])
    assert chain.segments(found["threshold"]).shape == SHAPE


@pytest.mark.parametrize(
    ("border_nm", "in_plane", "block"),
    [(0.0, False, (16, 512, 512)), (0.0, False, (2, 16, 16)), (4.0, True, (1, 20, 30)), (4.0, False, (2, 16, 16))],
)
def test_equal_to_scikit_image_on_whole_sections(
    chain: Chain,
    segments: dict[float, np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    border_nm: float,
    in_plane: bool,
    block: tuple[int, int, int],
) -> None:
    monkeypatch.setattr(segment_truth, "BLOCK", block)
    rough = np.kron(np.arange(5 * 9 * 7).reshape(5, 9, 7), np.ones((2, 8, 8), int))[:9, : SHAPE[1], : SHAPE[2]]
    found = chosen(chain, tmp_path, rough.astype(np.uint64), border_nm=border_nm, in_plane=in_plane)
    parts = []
    for first, last in VALIDATION:
        labels = rough[first:last]
        whole = [labels] if not in_plane else [section[None] for section in labels]
        edges = np.concatenate([find_boundaries(np.squeeze(one), connectivity=1).reshape(one.shape) for one in whole])
        far = distance_transform_edt(~edges, sampling=(1e6 if in_plane else 40, 4, 4)) > border_nm
        parts.append(np.where(far, labels, 0) if border_nm else labels)
    truth = np.concatenate(parts)
    for candidate, voxels in segments.items():
        seen = np.concatenate([voxels[first:last] for first, last in VALIDATION])
        split, merge = variation_of_information(truth, seen.astype(int), ignore_labels=[0])
        figures = found["voi"][str(candidate)]
        assert (figures["voi_split"], figures["voi_merge"]) == pytest.approx((split, merge), abs=1e-9)
        assert figures["voi"] == pytest.approx(split + merge, abs=1e-9)
    assert found["threshold"] == min(CANDIDATES, key=lambda one: found["voi"][str(one)]["voi"])


def test_of_equal_candidates_the_lower_is_taken(
    chain: Chain, segments: dict[float, np.ndarray], tmp_path: Path
) -> None:
    found = chosen(chain, tmp_path, segments[0.5], candidates=[0.5 + 1e-12, 0.5, 0.8])
    assert found["voi"]["0.5"] == found["voi"][str(0.5 + 1e-12)]
    assert found["threshold"] == 0.5


def test_enclosed_organelles_are_part_of_their_cell(
    chain: Chain, segments: dict[float, np.ndarray], tmp_path: Path
) -> None:
    """A cube with an id of its own, deep in a cell that fills the volume, is no object if it may be absorbed."""
    labels = np.ones(SHAPE, np.uint64)
    labels[2:4, 20:26, 20:26] = 5
    apart = chosen(chain, tmp_path, labels)["voi"]["0.5"]
    absorbed = chosen(chain, tmp_path, labels, absorb=72)["voi"]["0.5"]
    assert absorbed["voi_merge"] == 0
    assert apart["voi_merge"] > 0


def test_damaged_sections_choose_nothing(chain: Chain, segments: dict[float, np.ndarray], tmp_path: Path) -> None:
    labels = segments[0.2].copy()
    labels[6] = 1
    card = image(tmp_path, labels, damaged=(6, 8), name="damaged")
    found = chain.choose({"labels": str(card), "validation": VALIDATION, "candidates": CANDIDATES})
    assert (found["threshold"], found["sections"]) == (0.2, [1, 2, 5, 7])
    assert found["left_out"] == {"6": "damaged in labels: black"}
    assert found["voi"]["0.2"]["voi"] == pytest.approx(0, abs=1e-12)


def test_a_threshold_of_the_config_reads_no_labels(chain: Chain) -> None:
    found = chain.choose({"threshold": 0.25})
    empty = {"voi": {}, "sections": [], "left_out": {}, "truth": None}
    assert found == {"schema": 1, "threshold": 0.25, "source": "config", **empty}
    chain.segments(0.25)
    card = read_card(chain.folder / "segments.json")
    assert (card["threshold"], card["threshold_source"]) == (0.25, "config")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 1.5}, r"threshold 1.5 is outside \[0, 1\]: scores are"),
        ({"threshold": -0.1}, r"threshold -0.1 is outside \[0, 1\]"),
        ({"threshold": 0.95}, "threshold 0.95 lies above 0.9, where agglomeration stopped"),
        ({"candidates": [0.5, 1.2]}, r"threshold 1.2 is outside \[0, 1\]"),
        ({"candidates": [0.5, 0.95]}, "threshold 0.95 lies above 0.9"),
        ({"candidates": []}, "candidates is empty: state thresholds"),
        ({"labels": None}, "no labels are named: state a threshold"),
        ({"validation": []}, "no validation sections are named"),
        ({"validation": [[7, 10]]}, r"validation range \[7, 10\] is not within the 9 sections"),
        ({"validation": [[3, 3]]}, r"validation range \[3, 3\] is not within"),
        ({"border_nm": -1.0}, "tolerance of -1.0 nm"),
        ({"absorb": -1}, "max_voxels is -1"),
    ],
)
def test_settings_that_make_no_sense_are_one_line(
    chain: Chain, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        chosen(chain, tmp_path, np.ones(SHAPE, np.uint64), **settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.ones(SHAPE, np.float32), "labels.json has labels of float32, but ids are whole numbers"),
        (np.zeros(SHAPE, np.uint64), r"no labelled voxel that is counted in validation sections \[\[1, 3\], \[5, 8\]"),
        (np.ones((8, 70, 52), np.uint64), r"labels.json is \[8, 70, 52\] voxels and .*: labels must have the same"),
        (np.ones((9, 69, 52), np.uint64), r"labels.json is \[9, 69, 52\] voxels"),
        (np.ones((9, 70, 51), np.uint64), r"labels.json is \[9, 70, 51\] voxels"),
    ],
)
def test_labels_that_say_nothing_are_one_line(chain: Chain, tmp_path: Path, labels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chosen(chain, tmp_path, labels)


def test_labels_of_one_object_and_without_background_choose_by_splits_alone(chain: Chain, tmp_path: Path) -> None:
    found = chosen(chain, tmp_path, np.ones(SHAPE, np.uint64))
    assert found["threshold"] == max(CANDIDATES)
    assert {figures["voi_merge"] for figures in found["voi"].values()} == {0.0}


def test_a_file_that_states_no_threshold_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "threshold.json", {"schema": 1})
    with pytest.raises(ValueError, match="states no threshold: delete it and run choose-threshold again"):
        read_threshold(tmp_path / "threshold.json")
