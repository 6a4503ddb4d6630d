"""The canary of `emsr run`, and what it takes for success; the steps are run in this process."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from driver_project import SHARDS, Driven
from emsr.driver import canary, finish
from emsr.driver.gates import figures
from emsr.driver.words import Asked
from emsr.durable import read_json
from emsr.settings import Settings
from emsr.steps import data, superresolve
from emsr.stores.zarr import open_array, write_box
from sr_project import write_weights

CELLS = Path("results/cells")


class Here:
    """A project in the current folder whose targets are made by calling the steps; `made` are those that were asked."""

    def __init__(self, folder: Path, jobs: int = 4, **canary: Any) -> None:
        self.project = Driven(folder, jobs)
        self.project.config["canary"] |= canary
        self.made: list[str] = []

    @property
    def settings(self) -> Settings:
        return Settings.read(yaml.safe_load(yaml.safe_dump(self.project.config)))

    def make(self, targets: Sequence[str]) -> None:
        settings = self.settings
        if not (CELLS / "sr" / "allocate.json").exists():
            data.ingest(json.loads(settings.ingest("cells", "lr")), CELLS / "lr.json")
            card = Path(settings.card("cells"))
            stated = json.loads(settings.allocate("cells"))
            superresolve.allocate(stated, CELLS / "lr.json", card, CELLS / "sr" / "allocate.json")
        for target in targets:
            self.made.append(target)
            job = json.loads(settings.superresolve("cells"))
            superresolve.superresolve(job, CELLS / "sr" / "allocate.json", Path(target).stem, Path(target), workers=1)

    def stitch(self, jobs: int) -> None:
        marks = [CELLS / "sr" / "jobs" / f"{number + 1}-of-{jobs}.json" for number in range(jobs)]
        stated = json.loads(self.settings.stitch("cells"))
        superresolve.stitch(stated, CELLS / "sr" / "allocate.json", marks, CELLS / "sr.json", workers=1)

    def passed(self, *words: str) -> None:
        canary.pass_gates(self.settings, Asked.read(["--cores", "1", *words]), self.make, lambda: None)

    def spoil(self, change: Callable[[np.ndarray], np.ndarray]) -> None:
        """Change every voxel that was made."""
        array = open_array(next(CELLS.glob("sr-*.zarr")), write=True)
        files = next(CELLS.glob("sr-*.zarr")).glob("0/c/*/*/*")
        for index in (tuple(map(int, file.parts[-3:])) for file in files):
            start = tuple(at * side for at, side in zip(index, (4, 64, 64), strict=True))
            stop = [min(low + side, end) for low, side, end in zip(start, (4, 64, 64), array.shape, strict=True)]
            box = tuple(slice(low, high) for low, high in zip(start, stop, strict=True))
            write_box(array, start, change(array[box].read().result()))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    made = Here(tmp_path / "project")
    monkeypatch.chdir(made.project.folder)
    monkeypatch.setattr(canary, "apart", lambda function, *given: function(*given))
    return made


def marks(*jobs: str) -> list[str]:
    return [str(CELLS / "sr" / "jobs" / f"{job}.json") for job in jobs]


def test_one_job_goes_ahead_and_is_looked_at_once(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    here.passed()
    assert here.made == marks("3-of-4")
    found = read_json(CELLS / "sr" / "canary.json")
    assert (found["passed"], found["jobs"]) == (True, ["3-of-4"])
    assert found["figures"]["consistency_db"] == pytest.approx(found["figures"]["bicubic_db"], abs=0.5), "it is bicubic"
    monkeypatch.setattr(canary, "figures", None)
    here.passed()
    here.project.config["jobs"] = 2
    here.passed("results/cells/lr.json")
    assert here.made == marks("3-of-4", "3-of-4"), "lr is before sr, so nothing goes ahead of it"
    here.project.config["canary"] = None
    here.passed()
    assert len(here.made) == 2


def test_figures_come_from_a_process_of_their_own() -> None:
    assert canary.apart(os.getppid) == os.getpid()


def noise(voxels: np.ndarray) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, voxels.shape).astype(np.uint8)


def chequered(voxels: np.ndarray) -> np.ndarray:
    """Which is nothing to lr: the mean of four voxels is what it was."""
    y, x = np.indices(voxels.shape[1:])
    return np.clip(voxels.astype(int) + 40 * (-1) ** (y // 2 + x // 2), 0, 255).astype(np.uint8)


def stepped(voxels: np.ndarray) -> np.ndarray:
    """Every other 32 voxels are brighter; windows of 16 lr pixels that share 4 begin every 48, and end 16 later."""
    stripes = (np.arange(voxels.shape[2]) + 16) // 16 % 2
    return np.clip(voxels.astype(int) + 60 * stripes, 0, 255).astype(np.uint8)


def lost(voxels: np.ndarray) -> np.ndarray:
    return np.zeros_like(voxels)


@pytest.mark.parametrize(
    ("change", "key"),
    [(noise, "consistency_db"), (lost, "consistency_db"), (chequered, "spectrum_db"), (stepped, "seams")],
)
def test_what_is_wrong_with_sr_is_seen(here: Here, change: Callable[[np.ndarray], np.ndarray], key: str) -> None:
    here.make(marks("1-of-1"))
    allocate, paths = CELLS / "sr" / "allocate.json", [Path(mark) for mark in marks("1-of-1")]
    limits = here.settings.config.canary
    assert limits
    assert list(canary._failed(figures("cells", allocate, CELLS / "lr.json", paths, 4), limits)) == []
    here.spoil(change)
    failed = list(canary._failed(figures("cells", allocate, CELLS / "lr.json", paths, 4), limits))
    assert any(f"canary.{key} is" in line for line in failed), failed
    unlimited = limits.model_copy(update=dict.fromkeys(canary.GATES))
    assert list(canary._failed(figures("cells", allocate, CELLS / "lr.json", paths, 4), unlimited)) == []


def test_a_gate_that_is_not_passed_stops_with_one_line(here: Here) -> None:
    here.project.config["canary"] |= {"consistency_db": 70, "seams": 1, "jobs": 2}
    with pytest.raises(
        ValueError, match=r"^the first jobs of volume cells do not pass: consistency with lr"
    ) as stopped:
        here.passed("--set-scatter", "job=8")
    assert here.made == marks("3-of-8", "7-of-8")
    said = str(stopped.value)
    assert "canary.consistency_db is 70 at least" in said
    assert "run with --no-canary" in said
    assert not read_json(CELLS / "sr" / "canary.json")["passed"]
    here.project.config["canary"] |= {"consistency_db": 20, "seams": 2}
    here.passed("--set-scatter", "job=8")
    assert read_json(CELLS / "sr" / "canary.json")["passed"]


def test_jobs_that_are_left_empty_say_nothing_and_others_go_ahead(here: Here) -> None:
    here.project.config["volumes"]["cells"]["pilot"] = [[0, 4], [0, 16], [0, 16]]  # one shard
    here.passed()
    assert here.made == marks("3-of-4", "4-of-4") or here.made[0] == marks("3-of-4")[0]
    made = read_json(CELLS / "sr" / "canary.json")
    assert made["figures"]["consistency_db"] > 20
    assert made["figures"]["sections"] == [0, 1, 2, 3]


def test_a_network_that_is_not_sure_of_any_entry_is_seen(
    here: Here, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def confidence(name: str, sharp: float) -> float:
        import torch

        from emsr.models import checkpoint

        card = write_weights(tmp_path, "gpemsr", 4, seed=3)
        state = checkpoint.load_state(card)
        last = [key for key in state if "indexer.classify" in key]
        assert last
        state |= {key: torch.zeros_like(state[key]) if sharp == 0 else sharp * state[key] for key in last}
        stated = {key: value for key, value in checkpoint.load_card(card).items() if key not in ("sha256", "schema")}
        checkpoint.save(tmp_path / f"{name}.safetensors", state, stated)
        own = Here(tmp_path / name)
        monkeypatch.chdir(own.project.folder)
        own.project.config["volumes"]["cells"]["weights"] = {"path": str(tmp_path / f"{name}.safetensors")}
        own.make(marks("1-of-16"))
        paths = [Path(mark) for mark in marks("1-of-16")]
        found = figures("cells", CELLS / "sr" / "allocate.json", CELLS / "lr.json", paths, 1)["confidence"]
        assert isinstance(found, float)
        return found

    assert confidence("dead", 0) == pytest.approx(1), "as good as chance"
    assert 4 < confidence("sharp", 100) <= 16, "of 16 entries"


# -- success ----------------------------------------------------------------------------------------------------------


def test_success_is_what_has_records(here: Here) -> None:
    sr, all_marks = [str(CELLS / "sr.json")], marks("1-of-2", "2-of-2")
    CELLS.mkdir(parents=True)
    with pytest.raises(ValueError, match=r"results/cells/sr.json is not there \(and 2 more\)"):
        finish.check(here.settings, [])
    here.make(all_marks)
    here.stitch(2)
    finish.check(here.settings, [*sr, *all_marks])
    finish.check(here.settings, ["stitch"])
    record = sorted(CELLS.glob("sr-*.records/*.json"))[0]
    kept = record.read_bytes()
    record.write_bytes(kept[:50])
    with pytest.raises(ValueError, match=f"1 of {SHARDS} shards of cells sr have no record that holds: run again"):
        finish.check(here.settings, sr)
    record.write_bytes(kept)
    next(CELLS.glob("sr-*.zarr/0/c/0/0/0")).unlink()
    with pytest.raises(ValueError, match=f"1 of {SHARDS} shards"):
        finish.check(here.settings, sr)
    finish.check(here.settings, [str(CELLS / "lr.json")])
    Path(sr[0]).write_text("{")
    with pytest.raises(ValueError, match=r"sr\.json is not whole"):
        finish.check(here.settings, sr)
    Path(all_marks[0]).write_text('{"array": "another"}')
    with pytest.raises(ValueError, match=r"1-of-2\.json is of other settings"):
        finish.check(here.settings, all_marks)


def test_gates_are_in_no_slice_so_a_changed_limit_reruns_nothing(here: Here) -> None:
    before = here.settings
    here.project.config["canary"] |= {"consistency_db": 33, "jobs": 3}
    after = here.settings
    assert after.config.canary != before.config.canary
    assert after.report() == before.report()
    for step in ("allocate", "superresolve", "stitch", "score"):
        assert getattr(after, step)("cells") == getattr(before, step)("cells")
