"""`emsr status`: what it counts, by what it knows, while jobs write and after they died."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warm
from emsr.commands.recorded import open_allocation
from emsr.commands.status import SILENT_SECONDS, of_array, status
from emsr.durable import read_json, write_json
from emsr.shards import shard_name
from emsr.steps import attempts, superresolve
from segment_project import Chain, image, weights
from sr_project import SrProject, tissue_like, write_weights

SHAPE = (7, 20, 28)
SHARDS = 8  # layers of 4 and 3 sections, 2 x 2 in the plane


def project(results: Path, name: str = "cells") -> SrProject:
    folder = results / name
    folder.mkdir(parents=True)
    made = SrProject(folder, write_weights(folder, "bicubic", 4))
    made.write_lr(tissue_like(SHAPE))
    made.allocate()
    return made


def found(made: SrProject, now: float | None = None) -> dict[str, Any]:
    return of_array(open_allocation("cells", made.allocation), now or time.time())


def told(results: Path, capsys: pytest.CaptureFixture[str], **options: Any) -> str:
    capsys.readouterr()
    status(results, **options)
    return capsys.readouterr().out


def test_from_allocated_to_proved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = project(tmp_path)
    assert found(made)["shards"] == {"all": SHARDS, "done": 0, "skipped": 0, "running": 0, "failed": 0}
    assert told(tmp_path, capsys) == (
        f"cells sr: 0 of {SHARDS} shards done (0.0 %)\n    time left is not known: no shard was timed yet\n"
    )
    made.job("1-of-2")
    half = found(made)
    assert half["shards"]["done"] == 4
    assert half["jobs"] | {"failed_attempts": 0} == half["jobs"]
    assert (half["jobs"]["all"], half["jobs"]["finished"], half["jobs"]["waiting"]) == (2, 1, 1)
    assert half["voxels_left"] == 3 * 80 * 112
    assert half["voxels_per_second_of_a_job"] == made.stats("1-of-2")["voxels_per_second"]
    assert (half["voxels_per_second"], half["seconds_left"]) == (None, None), "nothing runs"
    assert "nothing runs; a job makes" in told(tmp_path, capsys)
    made.job("2-of-2")
    assert not found(made)["proved"]
    made.stitch(2)
    whole = found(made)
    assert (whole["shards"]["done"], whole["proved"], whole["seconds_left"]) == (SHARDS, True, 0.0)
    assert "100.0 %), proved whole" in told(tmp_path, capsys)


def running(made: SrProject, job: str, shards: list[str], started: float, **stated: Any) -> Path:
    path = made.mark(job).with_suffix(".stats.json")
    made_of = {"job": job, "array": Path(read_json(made.allocation)["array"]).name, "computed": shards, "attempt": 1}
    write_json(path, {**made_of, "state": "running", "started": started, "skipped": 0, **stated})
    return path


def test_running_stopped_and_failed_jobs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = project(tmp_path)
    made.job("1-of-2")
    others = [name for i in (0, 1) for j in (0, 1) if (name := f"1_{i}_{j}")]
    path = running(made, "2-of-2", others, time.time() - 10, attempt=3)
    now = found(made)
    assert (now["shards"]["running"], now["jobs"]["running"], now["jobs"]["failed_attempts"]) == (4, 1, 2)
    assert now["voxels_per_second"] == now["voxels_per_second_of_a_job"], "the pace of the job that finished"
    assert now["seconds_left"] == pytest.approx(now["voxels_left"] / now["voxels_per_second"], abs=0.1)
    assert "voxels/s" in told(tmp_path, capsys)
    later = found(made, time.time() + SILENT_SECONDS + 5)
    assert (later["shards"]["running"], later["shards"]["failed"], later["jobs"]["stopped"]) == (0, 4, 1)
    assert later["jobs"]["failed_attempts"] == 3
    assert "not heard of for" in later["failures"][0]["reason"]
    os.utime(path, (1, 1))
    assert "1 stopped" in told(tmp_path, capsys)


def test_a_job_tells_its_own_pace_while_it_runs(tmp_path: Path) -> None:
    made = project(tmp_path)
    made.job("1-of-2")
    done = made.stats("1-of-2")["computed"]
    made.mark("1-of-2").with_suffix(".stats.json").unlink()
    running(made, "1-of-2", [*done, "1_0_0", "1_0_1"], time.time() - 100)
    now = found(made)
    assert now["shards"]["running"] == 2
    assert now["voxels_per_second"] == pytest.approx(4 * 80 * 112 / 100, rel=0.05)


def test_a_failed_job_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = project(tmp_path)

    def full(*given: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("emsr.stores.zarr.write_box", full)
        with pytest.raises(OSError, match="No space"):
            made.job("1-of-1")
    now = found(made)
    assert (now["jobs"]["failed"], now["shards"]["failed"]) == (1, SHARDS)
    assert "No space left on device" in now["failures"][0]["reason"]
    assert len(made.job("1-of-1")) == SHARDS
    after = found(made)
    assert (after["jobs"]["failed"], after["jobs"]["failed_attempts"], after["failures"]) == (0, 1, [])


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from sr_project import SrProject
from emsr.inference.records import Records
count, finish = 0, Records.finish
def killing(*given):
    global count
    count += 1
    if count == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    finish(*given)
Records.finish = killing
SrProject(Path(sys.argv[1]), Path("unused")).job("1-of-1")
"""


def test_what_a_killed_job_left_counts(tmp_path: Path) -> None:
    made = project(tmp_path)
    assert warm.program(KILLED, str(made.folder), str(Path(__file__).parent)).returncode == -signal.SIGKILL
    assert found(made)["shards"] == {"all": SHARDS, "done": 3, "skipped": 0, "running": 5, "failed": 0}
    later = found(made, time.time() + 600)
    assert (later["shards"]["done"], later["shards"]["failed"], later["jobs"]["stopped"]) == (3, 5, 1)


def test_a_job_that_works_is_heard_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "BEAT_SECONDS", 0.01)
    made = project(tmp_path)
    records = open_allocation("cells", made.allocation).records
    with attempts.attempt(made.mark("1-of-1"), records, [], []) as stats:
        os.utime(stats.path, (1, 1))
        deadline = time.monotonic() + 20
        while stats.path.stat().st_mtime < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert stats.path.stat().st_mtime > time.time() - 60
    os.utime(stats.path, (1, 1))
    time.sleep(0.05)
    assert stats.path.stat().st_mtime == 1, "and no longer when it ended"


def test_torn_stale_and_foreign_files_are_no_progress(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = project(tmp_path)
    made.job("1-of-1")
    array = open_allocation("cells", made.allocation)
    files = sorted(array.records.folder.glob("*.json"))
    files[0].write_bytes(files[0].read_bytes()[:40])
    write_json(files[1], {**read_json(files[1]), "inputs_sha256": "0" * 64})
    index = array.records.grid.indices[2]
    array.records.array.joinpath("0", "c", *map(str, index)).unlink()
    (array.records.folder / f".{files[3].name}.0123.partial").write_text("{")
    made.mark("1-of-1").write_text("{")
    now = found(made)
    assert now["shards"]["done"] == SHARDS - 3
    assert (now["jobs"]["finished"], now["jobs"]["waiting"]) == (0, 1), "a job whose mark is torn runs again"
    running(made, "1-of-9", ["0_0_0"], time.time(), array="sr-of-other-settings.zarr")
    assert found(made)["jobs"]["all"] == 1
    made.allocation.write_text("{")
    assert "allocate.json is not JSON" in told(tmp_path, capsys)


def test_skipped_shards_are_not_to_be_made(tmp_path: Path) -> None:
    made = project(tmp_path)
    made.settings["pilot"] = [[0, 4], [0, 16], [0, 16]]
    made.allocate()
    before = found(made)["shards"]
    assert (before["skipped"], before["done"]) == (SHARDS - 1, 0)
    made.job("1-of-1")
    now = found(made)
    assert (now["shards"]["skipped"], now["shards"]["done"], now["voxels_left"]) == (SHARDS - 1, 1, 0)


def test_segmentations_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chain = Chain(tmp_path / "cells" / "segmentations" / "hr", jobs=2)
    card, weight = image(tmp_path / "cells", tissue_like((3, 34, 34))), weights(tmp_path)
    chain.predict(card, weight)
    chain.cut()
    listed = json.loads(told(tmp_path, capsys, json=True))
    assert [(one["array"], one["step"]) for one in listed] == [
        ("cells hr affinities", "affinities"), ("cells hr fragments", "fragments")
    ]  # fmt: skip
    assert all(one["proved"] and one["shards"]["done"] == one["shards"]["all"] == 4 for one in listed)
    assert listed[1]["voxels_per_second_of_a_job"] > 0
    assert json.loads(told(tmp_path, capsys, json=True, volume="cells")) == listed
    with pytest.raises(ValueError, match="did you mean 'cells'"):
        status(tmp_path, volume="cell")
    with pytest.raises(FileNotFoundError, match="name the results folder"):
        status(tmp_path / "nowhere")


def content(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = project(tmp_path)
    made.job("1-of-2")
    before = content(tmp_path)
    told(tmp_path, capsys)
    assert content(tmp_path) == before


def test_ten_thousand_shards_take_seconds(tmp_path: Path) -> None:
    made = SrProject(tmp_path, write_weights(tmp_path, "bicubic", 2, window=8))
    made.settings |= {"shard": [1, 16, 16], "chunk": [1, 16, 16]}
    made.write_lr(np.zeros((100, 80, 80), np.uint8))
    made.allocate()
    array = open_allocation("big", made.allocation)
    assert len(array.records.grid.indices) == 10_000
    settings = {**made.settings, "result": superresolve.SUPERRESOLVE_RESULT}
    from emsr.inference.records import Records
    from emsr.plan import settings_sha256

    records, device = Records(made.allocation, array.allocated, settings_sha256(settings)), {"device": "cpu"}
    records.folder.mkdir()
    for index in records.grid.indices[:9_000]:
        file = records.array.joinpath("0", "c", *map(str, index))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"voxels")
        stated = {**records._expected(index), "sha256": "0" * 64, **device}
        (records.folder / f"{shard_name(index)}.json").write_text(json.dumps(stated))
    clock = time.process_time()
    assert of_array(open_allocation("big", made.allocation), time.time())["shards"]["done"] == 9_000
    assert time.process_time() - clock < 15
