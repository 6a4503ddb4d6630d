"""Never mixed: jobs of an earlier run that still live, other settings, weights, precision or source, other times."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import emsr.stores.zarr
from emsr.durable import read_json
from faulted import content
from sr_project import SrProject, tissue_like, write_weights

JOB = "1-of-1"


def project(folder: Path, seed: int = 0) -> SrProject:
    folder.mkdir(parents=True, exist_ok=True)
    made = SrProject(folder, write_weights(folder, "bicubic", 4))
    made.write_lr(tissue_like((4, 20, 28), seed))
    return made


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> SrProject:
    made = project(tmp_path_factory.mktemp("whole") / "v")
    made.all()
    return made


def during_shard(patch: pytest.MonkeyPatch, number: int, act: Any) -> list[int]:
    """Act once, before the shard of this number is written; the list counts shards."""
    write, seen = emsr.stores.zarr.write_box, []

    def writing(*given: Any) -> None:
        seen.append(1)
        if len(seen) == number + 1:
            act()
        write(*given)

    patch.setattr(emsr.stores.zarr, "write_box", writing)
    return seen


@pytest.mark.parametrize("number", range(4))
def test_an_orphan_that_ends_after_its_replacement_leaves_the_same_bytes(
    whole: SrProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The driver died; a new run made the same, and is proved, while the old job is amid a shard."""
    made = project(tmp_path / "v")
    made.allocate()

    def replaced() -> None:
        made.job(JOB)
        made.stitch(1)

    during_shard(monkeypatch, number, replaced)
    made.job(JOB)
    assert content(made.folder) == content(whole.folder)
    made.stitch(1)
    assert content(made.folder) == content(whole.folder)


@pytest.mark.parametrize("number", range(3))
def test_an_orphan_of_another_source_stops_and_nothing_of_it_is_proved(
    whole: SrProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The same array, made from another lr by the run that goes on now."""
    made = project(tmp_path / "v", seed=1)
    made.allocate()

    def replaced() -> None:
        shutil.copytree(whole.folder / "lr.zarr", made.folder / "lr.zarr", dirs_exist_ok=True)
        shutil.copy(whole.folder / "lr.json", made.folder)
        made.allocation.unlink()
        made.allocate()

    during_shard(monkeypatch, number, replaced)
    with pytest.raises(ValueError, match=r"allocate\.json has changed since this job began, .* writes no more of sr-"):
        made.job(JOB)
    assert not made.mark(JOB).exists()
    monkeypatch.undo()
    assert len(made.job(JOB)) == 4, "no record of the orphan holds"
    made.stitch(1)
    assert content(made.folder) == content(whole.folder)


def test_an_orphan_that_overwrites_after_the_proof_is_found(
    whole: SrProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had passed the last look at allocate.json: its record is of other inputs, and the next proof says so."""
    made = project(tmp_path / "v", seed=1)
    made.allocate()
    old = read_json(made.allocation)

    def replaced() -> None:
        shutil.copytree(whole.folder / "lr.zarr", made.folder / "lr.zarr", dirs_exist_ok=True)
        shutil.copy(whole.folder / "lr.json", made.folder)
        made.allocate()
        with monkeypatch.context() as patch:
            patch.setattr(emsr.stores.zarr, "write_box", write)
            made.job(JOB)

    write = emsr.stores.zarr.write_box
    during_shard(monkeypatch, 3, replaced)
    with pytest.raises(ValueError, match="has changed since this job began"):
        made.job(JOB)
    monkeypatch.undo()
    assert read_json(made.allocation) != old
    with pytest.raises(ValueError, match="has no record that holds"):
        made.stitch(1)
    assert len(made.job(JOB)) == 1, "the one that it overwrote"
    made.stitch(1)
    assert content(made.folder) == content(whole.folder)


def test_an_orphan_whose_run_is_gone_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Snakemake removes allocate.json before it makes it anew."""
    made = project(tmp_path / "v")
    made.allocate()
    during_shard(monkeypatch, 1, made.allocation.unlink)
    with pytest.raises(ValueError, match="is gone since this job began"):
        made.job(JOB)


def other(key: str, value: Any) -> Any:
    return lambda made: made.settings.update({key: value})


def other_source(made: SrProject) -> None:
    shutil.rmtree(made.folder / "lr.zarr")
    made.write_lr(tissue_like((4, 20, 28), 5))


def other_weights(made: SrProject) -> None:
    made.card = write_weights(made.folder, "gpemsr", 4)


NEVER_MIXED = [
    ("overlap", other("overlap", 6)),
    ("shard", other("shard", [4, 32, 64])),
    ("precision", other("precision", "bfloat16")),
    ("weights", other_weights),
    ("source", other_source),
]


@pytest.mark.parametrize(("reason", "change"), NEVER_MIXED, ids=[row[0] for row in NEVER_MIXED])
def test_what_was_made_of_anything_else_is_made_anew_whatever_its_times(
    whole: SrProject, tmp_path: Path, reason: str, change: Any
) -> None:
    """In a copy without Snakemake's notes, whose files are all as old as can be, and newer than now."""
    shutil.copytree(whole.folder, tmp_path / "v", symlinks=True)
    made = SrProject(tmp_path / "v", tmp_path / "v/bicubic_x4_0.json")
    change(made)
    for number, file in enumerate(sorted(made.folder.rglob("*"))):
        os.utime(file, (1, 1) if number % 2 else (4e9, 4e9), follow_symlinks=False)
    made.allocate()
    before = made.files()
    assert made.job(JOB), "no record of before holds"
    assert made.stats(JOB)["skipped"] == 0
    made.stitch(1)
    if reason != "source":  # which is the only one that is not in the array's name
        assert all((made.folder / name).read_bytes() == data for name, data in before.items() if name in whole.files())
    fresh = SrProject(tmp_path / "fresh", made.card, made.settings)
    fresh.folder.mkdir()
    shutil.copytree(made.folder / "lr.zarr", fresh.folder / "lr.zarr")
    shutil.copy(made.lr, fresh.lr)
    fresh.all()
    assert np.array_equal(fresh.voxels(), made.voxels())


def test_result_numbers_decide_too(whole: SrProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from emsr.steps import superresolve as steps

    shutil.copytree(whole.folder, tmp_path / "v", symlinks=True)
    made = SrProject(tmp_path / "v", tmp_path / "v/bicubic_x4_0.json")
    monkeypatch.setattr(steps, "SUPERRESOLVE_RESULT", steps.SUPERRESOLVE_RESULT + 1)
    assert len(made.job(JOB)) == 4
    made.stitch(1)
    shutil.copy(whole.mark(JOB), made.mark(JOB))
    with pytest.raises(ValueError, match="has no record that holds"):
        made.stitch(1)


@pytest.mark.parametrize("seconds", [1.0, 4e9])
def test_a_copied_tree_and_a_clock_set_back_redo_nothing(whole: SrProject, tmp_path: Path, seconds: float) -> None:
    shutil.copytree(whole.folder, tmp_path / "v", symlinks=True, copy_function=shutil.copyfile)
    made = SrProject(tmp_path / "v", tmp_path / "v/bicubic_x4_0.json")
    for file in made.folder.rglob("*"):
        os.utime(file, (seconds, seconds), follow_symlinks=False)
    times = {file: file.stat().st_mtime_ns for file in made.folder.glob("sr-*/**/*") if file.is_file()}
    made.allocate()
    assert made.job(JOB) == []
    made.stitch(1)
    assert content(made.folder) == content(whole.folder)
    assert {file: file.stat().st_mtime_ns for file in times} == times, "nothing was written"
