"""Samples through the workflow: how far they lie apart is made by the rules of sr, beside it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import emsr
from emsr.commands.clean import clean
from emsr.commands.recorded import allocations, open_allocation
from emsr.config import parse
from emsr.settings import Settings
from emsr.stores.zarr import open_array
from project import Project
from tiny_project import tiny_config, write_cube

pytestmark = pytest.mark.workflow

SAMPLES = {"count": 3, "temperature": 1.0, "seed": 0}


def config() -> dict[str, Any]:
    made = tiny_config()
    recipe = {"steps": 2, "batch": 1, "patch": 8, "validate_every": 2, "checkpoint_every": 1}
    model = {"name": "irn", "preset": "small", "options": {"blocks": 1, "layers": 1, "growth": 4, "max_h": 6}}
    made["trainings"]["tiny"] |= {"model": model, "sections": 1, "stages": {"image": recipe}}
    made["volumes"]["cube"]["samples"] = SAMPLES
    made["jobs"] = 2
    return made


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("samples") / "project", config())
    write_cube(project.folder / "cube.h5")
    assert project.run().rules == Counter(
        {"ingest": 1, "degrade": 1, "train image": 1, "allocate": 2, "superresolve": 4, "stitch": 2, "score": 1}
        | {"report": 1}
    )
    return project


def test_it_is_that_of_memory(finished: Project) -> None:
    folder = finished.path("cube")
    lr, found = (open_array(folder / part).read().result() for part in ("lr_x4.zarr", "deviation/sr.zarr"))
    card = finished.json("cube", "deviation", "sr.json")
    assert card["samples"] == SAMPLES
    assert card["shape"] == finished.json("cube", "sr.json")["shape"]
    assert card["sha256"] != finished.json("cube", "sr.json")["sha256"]
    seen = [z for z in range(14) if z != 3]  # a black section is made of others
    weights = finished.path("trainings", "tiny", "image.safetensors")
    assert np.array_equal(emsr.deviation(lr, weights, samples=3, overlap=4)[seen], found[seen])


def test_the_report_shows_it(finished: Project) -> None:
    results = finished.path("cube").parent
    assert "3 images that fit the same low resolution" in (results / "report.html").read_text()
    rows = (results / "report" / "volumes" / "cube" / "deviation.tsv").read_text().splitlines()
    assert rows[1].startswith("all\t")
    assert (rows[1].split("\t")[3] == "–") is (finished.json("cube", "scores.json")["image"] is None)


def test_nothing_is_left_and_everything_is_known(finished: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert finished.run("-n").rules == Counter()
    results = finished.path("cube").parent
    labels = [open_allocation(name, file).label for name, file in allocations(results)]
    assert labels == ["cube sr", "cube deviation sr"]
    (results / "cube" / "deviation" / "sr-old.zarr").mkdir()
    clean(results)
    assert "would remove" in (said := capsys.readouterr().out)
    assert said.count(".zarr") == 1


def test_only_it_depends_on_how_many_samples_there_are(
    finished: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = finished.copy(tmp_path / "project")
    project.change("volumes.cube.samples.count", 2)
    assert project.run("-n").rules == Counter({"allocate": 1, "superresolve": 2, "stitch": 1, "report": 1})
    monkeypatch.chdir(project.folder)
    settings = Settings(parse(config()))
    stated, plain = (json.loads(settings.allocate("cube", part)) for part in ("deviation/", ""))
    assert stated == {**plain, "samples": SAMPLES}


@pytest.mark.parametrize(("change", "message"), [
    ({"model": {"name": "edsr", "preset": "small", "options": {}}}, "samples: model edsr gives one image and no"),
    ({"stages": {"image": {"protocol": "rescaling"}}}, "training tiny learns to enlarge its own lr"),
])  # fmt: skip
def test_what_a_volume_cannot_ask_for(change: dict[str, Any], message: str) -> None:
    made = config()
    made["volumes"]["cube"]["hr"]["path"] = __file__
    made["trainings"]["tiny"] |= change
    with pytest.raises(ValueError, match=message):
        parse(made)
