"""A pair imaged apart, from sources to report: registered, trained on, scored, redone as far as a change reaches."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import registered_pair as pair
from emsr.metrics.image import psnr
from emsr.stores.zarr import open_array
from project import Project

pytestmark = pytest.mark.workflow

AFTER = ["allocate", "superresolve", "stitch", "score", "report"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("pair") / "project", pair.config())
    pair.write(project.folder)
    assert project.run().rules == Counter(["ingest", "ingest", "register", "train image", *AFTER])
    return project


def table(project: Project) -> list[dict[str, str]]:
    with project.path("pair", "hr_registered.registration.tsv").open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def test_registered_sections_are_those_of_the_tissue(finished: Project) -> None:
    """Compared with the tissue itself at the places of lr's grid, which no step ever saw."""
    card, made = finished.json("pair", "hr_registered.json"), open_array(finished.path("pair", "hr_registered.zarr"))
    fine = (pair.LR_SIDES[0] * pair.SCALE, pair.LR_SIDES[1] * pair.SCALE)
    assert card["shape"] == [pair.DEPTH, *fine]
    y, x = (slice(*span) for span in card["covered"])
    assert 0.8 * fine[0] * fine[1] < np.prod([b - a for a, b in card["covered"]]) < fine[0] * fine[1], "hr shows less"
    for z, row in enumerate(table(finished)):
        assert row["state"] == "registered"
        assert float(row["rotation_deg"]) == pytest.approx(pair.WARPS[z][2], abs=0.08)
        assert float(row["scale"]) == pytest.approx(pair.WARPS[z][3], abs=0.002)
        if z != pair.BENT:
            expected = 0.8 * pair.tissue(pair.positions(fine, pair.LR_NM / pair.SCALE), z) + 20
            error = (made[z].read().result() - expected)[y, x]
            assert np.sqrt((error**2).mean()) < 5, "noise of hr, 0.8 times 4, and little besides"
    assert float(table(finished)[pair.BENT]["residual_nm"]) > 2 * max(
        float(row["residual_nm"]) for row in table(finished)[: pair.BENT]
    )


def test_scores_are_against_registered_hr_where_it_shows_all(finished: Project) -> None:
    scores, card = finished.json("pair", "scores.json"), finished.json("pair", "hr_registered.json")
    assert scores["settings"]["sections"] == [7, 8]
    assert scores["settings"]["sha256"]["hr"] == card["sha256"]
    y, x = (slice(*span) for span in card["covered"])
    hr, sr = (open_array(finished.path("pair", f"{name}.zarr"))[7, y, x].read().result() for name in
              ("hr_registered", "sr"))  # fmt: skip
    assert scores["per_section"][0]["sr"]["psnr"] == pytest.approx(psnr(hr, sr))
    weights = finished.json("trainings", "tiny", "image.json")
    assert weights["scores"]["psnr"] > 15, "it was trained on what belongs together"


def test_the_page_tells_residuals_in_nanometres(finished: Project) -> None:
    page, rows = finished.path("report.html").read_text(), table(finished)
    residuals = [float(row["residual_nm"]) for row in rows]
    words = f"residual {np.median(residuals):.2g} nm (median), {max(residuals):.2g} nm (largest, section {pair.BENT})"
    assert page.count(words) == 2, "in the facts and in the part about registration"
    assert "9 of 9 sections agree" in page
    assert f"<td>{residuals[0]:.2f}</td>" in page
    assert "imaged apart and registered to lr" in page


def test_a_finished_run_runs_nothing(finished: Project) -> None:
    assert finished.run("-n").rules == Counter()


def test_a_limit_that_refuses_a_test_section_keeps_weights_and_sr(finished: Project, tmp_path: Path) -> None:
    project = finished.copy(tmp_path / "project")

    def made() -> dict[str, int]:
        return project.states("trainings/tiny/image.safetensors") | project.states("pair/sr-*.records/*.json")

    before = made()
    limit = float(table(project)[pair.BENT]["residual_nm"]) - 0.5
    project.change("volumes.pair.registration.limit_nm", limit)
    assert project.run().rules == Counter(["register", "train image", *AFTER])
    assert made() == before, "no step of training, no shard"
    scores = project.json("pair", "scores.json")
    assert scores["settings"]["left_out"] == {str(pair.BENT): "missing in hr: unregistered"}
    assert scores["settings"]["sections"] == [7]
    page = project.path("report.html").read_text()
    assert f"hr does not agree with lr to {limit:g} nm in section {pair.BENT}: in no score." in page
    assert "so the result is empty there" not in page, "sr of that section is whole"
    assert project.run("-n").rules == Counter()
