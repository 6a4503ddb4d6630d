"""The whole workflow at real and anisotropic scales, of one training for both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tifffile import imwrite

from emsr import degradation, scales
from emsr.commands.check import check_config
from emsr.config import parse
from emsr.settings import Settings
from emsr.stores.zarr import open_array
from project import Project
from tiny_project import tiny_config, write_cube

SCALES: dict[str, Any] = {"cube": 3.7, "flat": [3.5, 2]}
HR = (6, 61, 58)


def config() -> dict[str, Any]:
    values = tiny_config()
    layout = {"shard": [2, 48, 48], "chunk": [1, 16, 16]}
    values["ingest"] = layout
    values["superresolve"] |= {"overlap": 4, **layout}
    plain = values["trainings"].pop("tiny") | {"sections": 1, "stages": {"untrained": {}}, "scale": 4}
    plain["model"] = {"name": "bicubic", "preset": "small", "options": {}}
    plain["data"] = [{"volume": "cube", "train": [[0, 1]], "validation": [[2, 3]]}]
    values["trainings"] = {"plain": plain}
    cube = values["volumes"]["cube"] | {"weights": "plain", "test": [[5, 6]]}
    values["volumes"] = {
        name: {**cube, "hr": {**cube["hr"], "path": f"{name}.h5"}, "scale": scale} for name, scale in SCALES.items()
    }
    return values


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = Project(tmp_path_factory.mktemp("real") / "project", config())
    for name in SCALES:
        write_cube(made.folder / f"{name}.h5", HR)
    made.run()
    return made


def voxels(project: Project, *parts: str) -> np.ndarray:
    found: np.ndarray = open_array(project.path(*parts)).read().result()
    return found


@pytest.mark.workflow
@pytest.mark.parametrize("name", SCALES)
def test_sizes_and_places(finished: Project, name: str) -> None:
    """lr, sr and the part of hr that is used cover one extent, and sr lies on the voxels of hr."""
    scale = scales.of(SCALES[name])
    lr, sr = finished.json(name, f"lr_x{scales.name(scale)}.json"), finished.json(name, "sr.json")
    plane = scales.coarse_plane(HR[1:], scale)
    assert lr["shape"] == [HR[0], *plane]
    assert sr["shape"] == lr["hr_shape"] == [HR[0], *scales.fine_plane(plane, scale)]
    assert sr["scale"] == lr["degradation"]["scale"] == SCALES[name]
    np.testing.assert_allclose(sr["voxel_size_nm"], [40, 4, 4], rtol=1e-12)
    np.testing.assert_allclose(sr["translation_nm"], finished.json(name, "hr.json")["translation_nm"], atol=1e-9)
    for axis in range(3):
        extent = [card["shape"][axis] * card["voxel_size_nm"][axis] for card in (lr, sr)]
        assert extent[0] == pytest.approx(extent[1], rel=1e-12)


@pytest.mark.workflow
@pytest.mark.parametrize("name", SCALES)
def test_lr_is_what_the_imaging_model_makes_of_whole_sections(finished: Project, name: str) -> None:
    scale = scales.of(SCALES[name])
    lr = voxels(finished, name, f"lr_x{scales.name(scale)}.zarr")
    y, x = finished.json(name, "sr.json")["shape"][1:]
    hr = voxels(finished, name, "hr.zarr")[:, :y, :x]
    assert np.array_equal(lr, degradation.degrade(hr, scale))


@pytest.mark.workflow
@pytest.mark.parametrize("name", SCALES)
def test_scores_and_report(finished: Project, name: str) -> None:
    scores = finished.json(name, "scores.json")
    assert scores["settings"]["scale"] == SCALES[name]
    bicubic, sr = (scores["image"][one]["psnr"] for one in ("bicubic", "sr"))
    assert abs(bicubic - sr) < 0.3, "bicubic and the network that is bicubic, window by window"
    hr, image = (voxels(finished, name, file)[5] for file in ("hr.zarr", "sr.zarr"))
    error = (hr[: image.shape[0], : image.shape[1]].astype(float) - image) ** 2
    assert sr == pytest.approx(10 * np.log10(255**2 / error.mean()), abs=1e-6)
    assert min(scores["consistency"][one]["psnr"] for one in ("bicubic", "sr")) > 25
    page = finished.path("report.html").read_text()
    assert f"×{scales.name(scales.of(SCALES[name]))}" in page


@pytest.mark.workflow
def test_one_job_makes_the_same_bytes(finished: Project, tmp_path: Path) -> None:
    assert len(list(finished.path("cube", "sr", "jobs").glob("*-of-*.json"))) > 1
    alone = finished.copy(tmp_path / "alone")
    alone.change("jobs", 1)
    alone.change("superresolve.shard", [6, 80, 96])
    alone.run("results/cube/sr.json", "results/flat/sr.json")
    for name in SCALES:
        assert np.array_equal(voxels(alone, name, "sr.zarr"), voxels(finished, name, "sr.zarr"))


# config


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in SCALES:
        write_cube(tmp_path / f"{name}.h5", HR)
    return tmp_path


@pytest.mark.usefixtures("here")
def test_one_training_serves_several_scales() -> None:
    values = config()
    read = parse(values)
    found = Settings(read)
    assert (found.scale("cube"), found.scale("flat")) == (3.7, (3.5, 2))
    assert found.lr("flat") == "results/flat/lr_x3.5x2.json"
    assert '"scale":3.7' in found.allocate("cube")
    assert '"scale":[3.5,2]' in found.degrade("flat", "3.5x2")
    del values["volumes"]["cube"]["scale"]
    assert '"scale"' not in Settings(parse(values)).allocate("cube"), "what is not stated reruns nothing"
    assert set(read.scales("cube")) == {3.7, 4}


@pytest.mark.parametrize(("where", "value", "words"), [
    ("volumes.cube.scale", 17, "volumes.cube: scale 17 is not one that model bicubic has: 1 to 16"),
    ("volumes.cube.scale", 0.5, "scale 0.5 is none: write a number of at least 1, as 4 or 3.7"),
    ("volumes.cube.scale", float("nan"), "scale nan is none: write a number"),
    ("volumes.cube.scale", [3.7], "scale [3.7] has 1 numbers: write a number"),
    ("volumes.cube.scale", [3.7, 2, 2], "scale [3.7, 2, 2] has 3 numbers: write a number"),
    ("volumes.cube.scale", "4", "scale '4' is none: write a number"),
    ("trainings.plain.scale", 0, "scale 0 is none: write a number"),
    ("trainings.plain.scale", 20, "scale 20 is not one that model bicubic has: 1 to 16"),
    ("trainings.plain.model", "edsr", "volumes.cube: scale 3.7 is not one that model edsr has: 2, 3, 4, 8, 16"),
    ("volumes.cube.weights", None, "scale says what weights are used at, and there are none"),
])  # fmt: skip
@pytest.mark.usefixtures("here")
def test_what_cannot_be_is_refused_in_one_line(where: str, value: Any, words: str) -> None:
    values = config()
    part: Any = values
    *parents, last = where.split(".")
    for name in parents:
        part = part[name]
    part[last] = value
    if value == "edsr":
        part[last] = {"name": "edsr", "preset": "small", "options": {}}
        part["stages"] = {"image": {}}
    with pytest.raises(ValueError, match="scale") as caught:
        parse(values)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("here")
def test_another_whole_scale_takes_weights_of_its_own() -> None:
    values = config()
    values["trainings"]["plain"] |= {
        "model": {"name": "edsr", "preset": "small", "options": {}},
        "stages": {"image": {}},
    }
    values["volumes"]["cube"]["scale"] = 8
    with pytest.raises(ValueError, match=r"scale 8 is not that of training plain, 4, .* leave scale out"):
        parse(values)


def test_hr_and_lr_that_are_not_a_scale_apart(here: Path) -> None:
    values = config()
    values["volumes"]["cube"]["lr"] = {"path": "lr.tif", "voxel_size_nm": [40, 14.8, 14.8]}
    values["trainings"]["plain"]["data"][0]["volume"] = "flat"
    imwrite(here / "lr.tif", np.zeros((6, 16, 15), np.uint8), photometric="minisblack")
    check_config(parse(values))
    imwrite(here / "lr.tif", np.zeros((6, 17, 15), np.uint8), photometric="minisblack")
    with pytest.raises(ValueError, match=r"hr \[6, 61, 58\] is not lr \[6, 17, 15\] times scale 3.7 of volume cube"):
        check_config(parse(values))
