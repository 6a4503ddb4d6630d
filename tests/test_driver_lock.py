"""The lock of `emsr run`: one owner, told alive or dead without a clock, also from another machine."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from emsr.driver import lock
from emsr.driver.lock import held, lives, myself

OTHER = {"run": "other", "host": "elsewhere", "kernel": "another boot", "pid": 1, "start": "1", "beat": 5}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lock, "SILENT_SECONDS", 1.0)
    monkeypatch.setattr(lock, "LOOK_SECONDS", 0.02)


def nothing() -> None:
    raise AssertionError("the lock was lost")


def leave(folder: Path, number: int, stated: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"run-{number}.lock"
    path.write_text(json.dumps(stated))
    return path


def test_one_owner_at_a_time_and_no_file_afterwards(tmp_path: Path) -> None:
    folder = tmp_path / ".emsr"
    with held(folder, nothing) as (mine, dead):
        assert dead is None
        with pytest.raises(ValueError, match=rf"emsr run, process {os.getpid()} on .*, works on {tmp_path}: wait"):
            held(folder, nothing).__enter__()
        assert json.loads(mine.path.read_text())["run"] == mine.run
    assert list(folder.iterdir()) == []
    with held(folder, nothing):
        pass


def test_a_process_that_was_killed_is_dead_at_once(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from emsr.driver.lock import held\n"
        "with held(Path(sys.argv[1]), print) as (lock, dead):\n"
        "    lock.state(child={'group': 7})\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)]).returncode == -signal.SIGKILL
    clock = time.monotonic()
    with held(tmp_path, nothing) as (mine, dead):
        assert time.monotonic() - clock < lock.SILENT_SECONDS, "the kernel knows"
        assert dead is not None
        assert dead["child"] == {"group": 7}
        assert [file.name for file in tmp_path.iterdir()] == [mine.path.name] == ["run-2.lock"]


def test_the_number_of_a_dead_process_may_be_another_ones_by_now(tmp_path: Path) -> None:
    leave(tmp_path, 1, {"run": "old", **myself(), "start": "1"})
    with held(tmp_path, nothing) as (_, dead):
        assert dead is not None
        assert dead["run"] == "old"


def test_on_another_machine_what_beats_lives_and_what_is_silent_is_dead(tmp_path: Path) -> None:
    assert lives(OTHER) is None
    path = leave(tmp_path, 3, OTHER)
    ended = threading.Event()

    def beat() -> None:
        for beat in range(6, 600):
            if ended.wait(0.02):
                return
            path.write_text(json.dumps({**OTHER, "beat": beat}))

    thread = threading.Thread(target=beat)
    thread.start()
    clock = time.monotonic()
    try:
        with pytest.raises(ValueError, match="process 1 on elsewhere, works on"):
            held(tmp_path, nothing).__enter__()
        assert time.monotonic() - clock < lock.SILENT_SECONDS, "a beat is enough"
    finally:
        ended.set()
        thread.join()
    os.utime(path, (4e9, 4e9))  # a clock that is decades ahead says nothing
    with held(tmp_path, nothing) as (mine, dead):
        assert dead is not None
        assert (dead["host"], mine.path.name) == ("elsewhere", "run-4.lock")


def test_a_torn_lock_is_dead_when_nothing_is_heard_of_it(tmp_path: Path) -> None:
    (tmp_path / "run-1.lock").write_text('{"run": "o')
    with held(tmp_path, nothing) as (_, dead):
        assert dead == {}


def test_an_owner_that_slept_too_long_notices_that_it_has_none(tmp_path: Path) -> None:
    lost = threading.Event()
    with held(tmp_path, lost.set) as (mine, _):
        mine.path.rename(tmp_path / "run-9.lock")  # as the one that took it does
        other = leave(tmp_path, 9, OTHER)
        assert lost.wait(10)
        with pytest.raises(FileNotFoundError):
            mine.state(child=None)
    assert other.exists(), "another's lock is not given back"


def _enter(folder: str, begin: Any, results: Any) -> None:
    begin.wait()
    try:
        with held(Path(folder), nothing):
            results.put(time.monotonic())
            time.sleep(0.3)
            results.put(time.monotonic())
    except ValueError:
        results.put(None)


@pytest.mark.parametrize("dead", [False, True])
def test_of_many_at_once_no_two_hold_it(tmp_path: Path, dead: bool) -> None:
    if dead:
        leave(tmp_path, 1, {"run": "old", **myself(), "start": "1"})
    context = multiprocessing.get_context("spawn")
    begin, results = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_enter, args=(str(tmp_path), begin, results)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    times = sorted(time for time in (results.get() for _ in range(results.qsize())) if time)
    spans = list(zip(times[::2], times[1::2], strict=True))
    assert spans, "nobody got it"
    assert all(later - first >= 0.25 for first, later in spans), "they held it together"
    assert list(tmp_path.iterdir()) == []
