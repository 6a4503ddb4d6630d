"""The tables of the real runs, from files as the steps write them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from emsr.durable import read_json, write_json
from emsr.steps import segment_worth
from project import ROOT
from segment_report_project import Project


@pytest.fixture
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("real_runs", ROOT / "benchmarks" / "real_runs.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "real_runs", module)  # dataclasses look their module up
        spec.loader.exec_module(module)
    return module


def test_tables_hold_what_the_steps_measured(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment_worth, "DRAWS", segment_worth.Draws(10))
    made = Project(tmp_path)
    folder = made.finished.folder
    for stage, seconds in {"flow": 60.0, "fusion": 120.0}.items():
        write_json(folder.parent / "trainings" / "net" / f"{stage}.stats.json", {"cpu_seconds": seconds})
    run = program.Run("results", {"gpemsr": (folder.name, "net")})
    images = list(program.image_rows(run, folder.parent))
    scored = read_json(folder / "scores.json")["image"]
    assert [row[0] for row in images] == ["bicubic", "gpemsr"]
    assert images[1][1] == f"{scored['sr']['psnr']:.2f}"
    assert images[1][-1] == "3", "minutes of all stages"
    rows = {row[0]: row[1:] for row in program.membrane_rows(run, folder.parent)}
    assert set(rows) == {"bicubic", "gpemsr", "hr", "own"}
    of = made.scores["sections"]["sr"], made.scores["membrane"]["sr"]
    assert rows["gpemsr"] == tuple(
        f"{value:.3f}" for value in (of[0]["voi"], of[0]["arand"], of[1]["f1"], of[1]["auc"])
    )
    head = ("segmentation", "2D VOI, bits", "2D adapted Rand error", "membrane F1", "membrane AUC")
    lines = program.table(head, iter([(name, *row) for name, row in rows.items()])).splitlines()
    assert {line.count("|") for line in lines} == {len(head) + 1}


@pytest.mark.parametrize("name", ["fib_medulla", "vnc"])
def test_runs_name_what_their_examples_hold(program: ModuleType, name: str) -> None:
    import yaml

    values = yaml.safe_load((ROOT / "examples" / f"{name}.yaml").read_text())
    run = program.RUNS[name]
    assert run.results == values["results"]
    for volume, training in run.networks.values():
        assert values["volumes"][volume]["weights"] == training
        assert training in values["trainings"]
