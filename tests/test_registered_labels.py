"""Labels of hr that was imaged apart follow it: ids as they are, in their place, and 0 where nothing is known."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.ndimage import affine_transform
from skimage.metrics import variation_of_information

import registered_pair as pair
from emsr.config import parse
from emsr.geometry import Box
from emsr.segmenting import Segmenting
from emsr.settings import Settings
from emsr.slices import result_number
from emsr.steps import labelled
from emsr.steps.data import ingest
from emsr.steps.registered_labels import looked_up, register_labels
from emsr.stores.card import read_card
from emsr.stores.zarr import open_array
from project import Project
from segment_project import image
from test_registration import LAYOUT, LR_NM, SCALE, SIDE, grid, images, ingested, registered, truth
from test_segment_workflow import STAGE

GOLDEN = Path(__file__).parent / "golden"
WARPS = [(1.5, -0.7, -2.0, 1.0), (0.4, 0.9, 0.5, 1.01), (-1.3, 2.2, 1.4, 0.99), (0.2, 0.3, 0.0, 1.0)]
UNLIKE = 2  # the section whose hr shows another place


def cells(at: np.ndarray) -> np.ndarray:
    """Squares of 29 hr pixels, numbered from 2^60."""
    y, x = (np.floor(along / 29).astype(np.int64) + 20 for along in (at.imag, at.real))
    return (2**60 + 1 + 64 * y + x).astype(np.uint64)  # type: ignore[no-any-return]


def labels_of(folder: Path, ids: np.ndarray, **stated: Any) -> Path:
    """Labels of hr, as the workflow ingests them."""
    with h5py.File(folder / "labels.h5", "w") as file:
        file["ids"] = ids
        file["ids"].attrs["resolution"] = (40.0, LR_NM / SCALE, LR_NM / SCALE)
    source = {"path": str(folder / "labels.h5"), "dataset": "ids", "voxel_size_nm": None}
    ingest({"image": "labels", "source": source, "region": None, **LAYOUT}, folder / "labels.json")
    return folder / "labels.json"


def followed(folder: Path, out: str = "labels_registered.json", workers: int = 1, **how: Any) -> dict[str, Any]:
    settings = {**LAYOUT, "result": 1, **how}
    register_labels(settings, folder / "labels.json", folder / "hr_registered.json", folder / out, workers=workers)
    return read_card(folder / out)


def voxels(folder: Path, out: str = "labels_registered.zarr") -> np.ndarray:
    return open_array(folder / out)[...].read().result()  # type: ignore[no-any-return]


def chained(folder: Path) -> Path:
    """Four sections, each moved in its own way, one of them unlike, and their labels."""
    hr, lr = (np.stack(part) for part in zip(*(images(z, warp) for z, warp in enumerate(WARPS)), strict=True))
    hr[UNLIKE] = images(99, (0, 0, 0, 1))[0]
    ingested(folder, hr, lr)
    labels_of(folder, np.stack([cells(grid(SIDE * SCALE))] * len(WARPS)))
    registered(folder)
    followed(folder)
    return folder


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chained(tmp_path_factory.mktemp("labels"))


def test_ids_lie_where_the_tissue_lies(chain: Path) -> None:
    card, made = read_card(chain / "labels_registered.json"), voxels(chain)
    assert (card["dtype"], card["missing"]) == ("uint64", {str(UNLIKE): "unregistered"})
    for key in ("shape", "voxel_size_nm", "translation_nm", "covered"):
        assert card[key] == read_card(chain / "hr_registered.json")[key]
    assert not made[UNLIKE].any()
    y, x = (slice(*span) for span in card["covered"])
    for z in (0, 1, 3):
        at = truth(WARPS[z]).scaled(SCALE)(grid(SIDE * SCALE))
        shown = (at.imag > 0) & (at.imag < SIDE * SCALE) & (at.real > 0) & (at.real < SIDE * SCALE)
        assert (made[z] == np.where(shown, cells(at), 0)).mean() > 0.98, "but at borders, by 0.1 lr pixel at most"
        assert made[z, y, x].all(), "hr shows all of it"
        assert set(np.unique(made[z])) <= {0, *np.unique(cells(grid(SIDE * SCALE)))}, "no id is made up"


def test_lookup_is_that_of_scipy_for_ids_that_a_float_holds(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(1, 2**40, (2, 60, 70)).astype(np.uint64)
    array = open_array(image(tmp_path, ids, name="labels").with_suffix(".zarr"))
    place = [[0.97131, 0.06217, -7.30191], [-0.06217, 0.97131, 5.10317]]  # no centre lies on a border
    found = looked_up(array, place, Box((1, 0, 0), (2, 80, 64)))
    matrix, offset = np.array(place)[:, :2], np.array(place)[:, 2]
    expected = affine_transform(ids[1].astype(float), matrix, offset, (80, 64), order=0, cval=0)
    at = matrix @ np.indices((80, 64)).reshape(2, -1) + offset[:, None]
    rim = ((np.abs(at + 0.5) < 0.51) | (np.abs(at - np.array([[59.5], [69.5]])) < 0.51)).any(0).reshape(80, 64)
    assert (found[0] == expected)[~rim].all(), "scipy ends at the centres of the outer voxels"
    assert (expected == 0).any()
    assert (expected > 0).any()


def test_workers_and_shards_change_nothing(chain: Path) -> None:
    other = followed(chain, "other.json", 3, shard=[3, 96, 32], chunk=[1, 32, 32])
    assert other == read_card(chain / "labels_registered.json") | {"array": "other.zarr"}


def test_training_sees_labels_where_hr_shows_all(chain: Path) -> None:
    paths = {name: str(chain / f"{name}_registered.json") for name in ("hr", "labels")}
    data = {"volume": "v", "image": paths["hr"], "labels": paths["labels"], "train": [[0, 4]], "validation": []}
    found = labelled.series(data, "train")
    y, x = (slice(*span) for span in read_card(chain / "hr_registered.json")["covered"])
    assert np.array_equal(np.asarray(found.labels[:]), voxels(chain)[:, y, x])
    assert np.array_equal(np.asarray(found.image[:]), voxels(chain, "hr_registered.zarr")[:, y, x])
    assert found.bad == {UNLIKE}
    assert labelled.identity({"data": [data]})[0]["covered"] == read_card(chain / "hr_registered.json")["covered"]


def test_labels_of_another_depth_are_refused_before_anything_is_written(chain: Path, tmp_path: Path) -> None:
    labels_of(tmp_path, np.ones((2, 8, 8), np.uint64))
    settings = {**LAYOUT, "result": 1}
    with pytest.raises(ValueError, match=r"labels.json has 2 sections, .*hr_registered.json 4: run register again"):
        register_labels(settings, tmp_path / "labels.json", chain / "hr_registered.json", tmp_path / "out.json")
    assert not list(tmp_path.glob("out*"))


def golden(folder: Path) -> np.ndarray:
    return voxels(folder)[:, ::8, ::8]


def test_output_changes_only_with_the_result_number(chain: Path) -> None:
    with np.load(GOLDEN / f"register-labels_{result_number('register-labels')}.npz") as stored:
        assert (stored["voxels"] == golden(chain)).mean() > 0.999, "a place may move by a float's last bit"


# -- in a config ------------------------------------------------------------------------------------------------------


def config() -> dict[str, Any]:
    """The pair with labels: affinities learned from registered hr, and segments of sr, which is bicubic."""
    made = pair.config()
    volume, tiny = made["volumes"]["pair"], made["trainings"]["tiny"]
    tiny |= {"model": {"name": "bicubic", "preset": "small", "options": {}}, "stages": {"untrained": {}}, "data": []}
    volume["labels"] = {"path": "pair.h5", "dataset": "labels", "voxel_size_nm": [40, pair.HR_NM, pair.HR_NM]}
    volume["segmentations"] = {"sr": {"image": "sr", "weights": "membranes"}}
    made["segment"] |= {"overlap": 4, "depth_overlap": 1, "shard": [4, 64, 64], "chunk": [4, 32, 32]}
    made["segment"]["fragments"] |= {"block": [1, 64, 64], "halo": [0, 8, 8]}
    made["segment"]["scores"] |= {"windows": 80}
    made["trainings"]["membranes"] = {
        **{"scale": 1, "sections": 1, "section_step": 1, "window": 32, "seed": 0, "threads": 1, "device": "cpu"},
        "model": {"name": "affinity", "preset": "small", "options": {"widths": [2, 2, 3]}},
        "data": [{"volume": "pair", "image": "hr", "train": [[0, 3]], "validation": [[4, 5]]}],
        "stages": {"affinity": STAGE},
    }
    return made


def test_all_that_reads_labels_reads_those_that_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pair.h5").touch()
    settings = Settings(parse(config()))
    assert settings.train_inputs("membranes", "affinity") == [
        "results/pair/hr_registered.json",
        "results/pair/labels_registered.json",
    ]
    assert "results/pair/labels_registered.json" in settings.targets
    values = config()
    values["volumes"]["pair"]["segmentations"]["hr"] = {"image": "hr", "weights": "membranes"}
    segmenting = Segmenting(Settings(parse(values)))
    assert segmenting.image("pair", "hr") == "results/pair/hr_registered.json"
    assert json.loads(segmenting.score_segments("pair"))["labels"] == "results/pair/labels_registered.json"
    del values["volumes"]["pair"]["segmentations"]["hr"]
    values["volumes"]["pair"] |= {"registration": None, "lr": None, "degradation": {"kernel": "area"}}
    assert "results/pair/labels.json" in Settings(parse(values)).targets


def test_a_registration_without_a_scale_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pair.h5").touch()
    values = config()
    values["volumes"]["pair"] |= {"weights": None, "test": None, "segmentations": None}
    with pytest.raises(ValueError, match=r"volumes.pair: hr is registered at the scale of weights or .*there is none"):
        parse(values)


@pytest.mark.workflow
def test_segments_of_a_pair_are_scored_against_its_labels(tmp_path: Path) -> None:
    project = Project(tmp_path / "project", config())
    pair.write(project.folder)
    ran = project.run().rules
    assert ran & Counter(["register", "register_labels", "score_segments", "train affinity"]) == Counter(
        ["register", "register_labels", "score_segments", "train affinity"]
    )
    labels = open_array(project.path("pair", "labels_registered.zarr")).read().result()
    fine = (pair.LR_SIDES[0] * pair.SCALE, pair.LR_SIDES[1] * pair.SCALE)
    for z in range(pair.DEPTH - 1):  # the last one is bent
        at = pair.positions(fine, pair.LR_NM / pair.SCALE)
        expected = pair.cells(at, z)
        inner = np.all([pair.cells(at + 12 * step, z) == expected for step in (1, -1, 1j, -1j)], axis=0) & (
            labels[z] > 0
        )
        assert (labels[z] == expected)[inner].all(), "but within half a voxel and the residual of borders"
        assert inner.mean() > 0.6
    found = project.json("pair", "segmentation.json")
    assert found["settings"]["sections"] == [7, 8]
    segments = open_array(project.path("pair", "segmentations", "sr", "segments.zarr")).read().result()
    assert segments.shape == labels.shape
    pairs = ((labels[7:] % 2**32).astype(int), segments[7:].astype(int))
    figures = found["segmentation"]["sr"]
    assert figures["voi"] == pytest.approx(sum(variation_of_information(*pairs, ignore_labels=[0])), abs=1e-9)
    assert figures["voxels"] == np.count_nonzero(labels[7:])
    assert project.path("report", "volumes", "pair", "mistakes.png").is_file()
    assert project.run("-n").rules == Counter()


if __name__ == "__main__":
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as place:
        stored = golden(chained(Path(place)))
        np.savez_compressed(GOLDEN / f"register-labels_{result_number('register-labels')}.npz", voxels=stored)
