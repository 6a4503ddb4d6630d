"""What a run asks for: every end, and of what is on the way the cards of arrays that stand, which repair takes away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from emsr.config import parse
from emsr.settings import Settings
from segment_project import weights
from tiny_project import tiny_config

SR = "results/cube/segmentations/sr"


def config(**keep: bool) -> dict[str, Any]:
    made = tiny_config()
    affinity = {"path": "affinity.safetensors"}
    made["volumes"]["cube"]["segmentations"] = {"sr": {"image": "sr", "weights": affinity, "threshold": 0.5}}
    return made | ({"keep": keep} if keep else {})


def targets(**keep: bool) -> set[str]:
    return set(Settings(parse(config(**keep))).targets)


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the files that the config names."""
    monkeypatch.chdir(tmp_path)
    Path("cube.h5").touch()
    weights(Path())


@pytest.fixture
def standing(empty: None) -> None:
    """All arrays, and no card."""
    for folder in ("affinities/affinities-0.zarr", "fragments/fragments-0.zarr", "agglomeration"):
        Path(SR, folder).mkdir(parents=True)
    Path(SR, "agglomeration", "history.npz").touch()
    Path("results/cube/hr.zarr").mkdir()
    Path("results/cube/lr_x4.link").touch()


@pytest.mark.usefixtures("empty")
def test_before_the_first_run_only_ends_are_asked_for() -> None:
    found = targets()
    assert {"results/report.html", "results/cube/sr.json", f"{SR}/segments.json"} <= found
    assert not {name for name in found if name.endswith(("affinities.json", "fragments.json", "/hr.json"))}


@pytest.mark.usefixtures("standing")
def test_what_stands_must_have_its_card() -> None:
    parts = {f"{SR}/{part}.json" for part in ("affinities", "fragments", "agglomeration")}
    assert parts | {"results/cube/hr.json", "results/cube/lr_x4.json"} <= targets()


@pytest.mark.usefixtures("standing")
def test_what_is_not_kept_is_not_asked_for() -> None:
    """So that a removal that was killed goes on, and makes nothing again."""
    found = targets(affinities=False, fragments=True)
    assert f"{SR}/affinities.json" not in found
    assert f"{SR}/fragments.json" in found
    found = targets(affinities=False, fragments=False)
    assert not found & {f"{SR}/{part}.json" for part in ("affinities", "fragments", "agglomeration")}
