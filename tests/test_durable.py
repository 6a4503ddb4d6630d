"""Small files are whole or absent, and what a kill leaves of one is swept without hurting whoever still writes."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

import warm
from emsr import durable
from emsr.durable import read_json, sweep, write_bytes, write_json
from emsr.stores.zarr import Layout, create
from sr_project import SrProject, tissue_like, write_weights

KILLED = """
import os, signal, sys
from pathlib import Path
from emsr import durable
replace = os.replace
def killing(*given):
    if Path(given[1]).name == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*given)
os.replace = killing
if len(sys.argv) > 3:
    sys.path.insert(0, sys.argv[3])
    from sr_project import SrProject
    project = SrProject(Path(sys.argv[1]), Path("unused"))
    project.job("1-of-1")
    project.stitch(1)
else:
    durable.write_bytes(Path(sys.argv[1], sys.argv[2]), b"voxels")
"""


def killed(*words: str) -> None:
    """A process that dies before a file of the second word's name gets its name."""
    done = warm.program(KILLED, *words)
    assert done.returncode == -signal.SIGKILL, done.stdout


def partials(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.rglob("*.partial"))


def test_what_a_dead_process_left_goes_at_once(tmp_path: Path) -> None:
    killed(str(tmp_path), "1-of-2.json")
    assert len(partials(tmp_path)) == 1
    assert sweep(tmp_path) == 1
    assert list(tmp_path.iterdir()) == []
    assert sweep(tmp_path / "nowhere") == 0


OTHERS = [  # the host, the process, and how old the file is; whether it goes
    (None, os.getpid(), 0, False, "a process that lives"),
    (None, 1, 0, False, "one that may not be asked, or is another's"),
    ("elsewhere", 1, 0, False, "a process of another machine"),
    ("elsewhere", 1, 2 * durable.ABANDONED_SECONDS, True, "a process of another machine, long ago"),
    (None, os.getpid(), 2 * durable.ABANDONED_SECONDS, True, "a number that another process took over"),
]


@pytest.mark.parametrize(("host", "pid", "age", "goes", "reason"), OTHERS, ids=[row[-1] for row in OTHERS])
def test_what_may_be_written_still_stays(
    tmp_path: Path, host: str | None, pid: int, age: float, goes: bool, reason: str
) -> None:
    file = tmp_path / f".0_0_1.json.{host or durable._host()}-{pid}-{'0' * 32}.partial"
    file.write_text("{")
    os.utime(file, (time.time() - age,) * 2)
    assert (sweep(tmp_path), file.exists()) == (int(goes), not goes)


def test_only_temporary_files_of_this_kind_go(tmp_path: Path) -> None:
    earlier = tmp_path / f".hr.json.{'a' * 32}.partial"  # as written before names told the process
    kept = [
        tmp_path / name for name in ("hr.json", ".hr.json", "x.partial", ".export.partial", ".a.0.partial", "0.__lock")
    ]
    for file in (earlier, *kept):
        file.write_text("{")
    assert sweep(tmp_path) == 0
    for file in (earlier, *kept):
        os.utime(file, (1, 1))
    assert sweep(tmp_path) == 1
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_a_writer_whose_file_is_swept_begins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle, calls = durable.settle, []

    def swept(partial: Path, path: Path) -> None:
        calls.append(partial.name)
        if len(calls) < durable.TRIALS:
            partial.unlink()
        settle(partial, path)

    monkeypatch.setattr(durable, "settle", swept)
    write_bytes(tmp_path / "mark.json", b"whole")
    assert (tmp_path / "mark.json").read_bytes() == b"whole"
    assert len(set(calls)) == durable.TRIALS
    monkeypatch.setattr(durable, "TRIALS", 1)
    calls.clear()
    monkeypatch.setattr(durable, "settle", lambda partial, path: partial.unlink() or settle(partial, path))
    with pytest.raises(FileNotFoundError):
        write_bytes(tmp_path / "other.json", b"whole")


def test_sweeping_beside_writers_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its worst: every temporary file counts as abandoned."""
    monkeypatch.setattr(durable, "ABANDONED_SECONDS", -1e9)
    monkeypatch.setattr(durable, "TRIALS", 10_000)
    ended = threading.Event()

    def sweeping() -> None:
        while not ended.is_set():
            sweep(tmp_path)

    thread = threading.Thread(target=sweeping)
    thread.start()
    try:
        for number in range(100):
            write_json(tmp_path / f"{number}.json", {"number": number})
    finally:
        ended.set()
        thread.join()
    assert [read_json(tmp_path / f"{number}.json")["number"] for number in range(100)] == list(range(100))
    assert partials(tmp_path) == []


def test_a_kill_before_metadata_stood_does_not_block_an_array(tmp_path: Path) -> None:
    laid, path = Layout((4, 8, 8), "uint8", (4, 8, 8), (4, 8, 8), (40.0, 4.0, 4.0)), tmp_path / "sr.zarr"
    killed(str(path), "zarr.json")
    assert partials(path) != []
    create(path, laid)
    assert partials(path) == []
    create(tmp_path / "whole.zarr", laid)
    assert sorted(file.relative_to(path) for file in path.rglob("*")) == sorted(
        file.relative_to(tmp_path / "whole.zarr") for file in (tmp_path / "whole.zarr").rglob("*")
    )


@pytest.mark.parametrize("name", ["1_0_1.json", "1-of-1.json", "1-of-1.stats.json", "sr.json", "proof.json"])
def test_a_run_that_goes_on_leaves_nothing_of_the_killed_one(tmp_path: Path, name: str) -> None:
    """Killed while a record, a mark, stats, a card or a proof is written."""
    results, before = [], Path(__file__).parent
    for folder in (tmp_path / "killed", tmp_path / "whole"):
        folder.mkdir()
        made = SrProject(folder, write_weights(folder, "bicubic", 4))
        made.write_lr(tissue_like((7, 20, 28)))
        made.allocate()
        if folder.name == "killed":
            killed(str(folder), name, str(before))
            assert len(partials(folder)) == 1
        made.job("1-of-1")
        made.stitch(1)
        assert partials(folder) == []
        files = (file for file in folder.rglob("*") if file.is_file() and not file.name.endswith("stats.json"))
        results.append({str(file.relative_to(folder)): file.read_bytes() for file in files})
    assert results[0] == results[1]
