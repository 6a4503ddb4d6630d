"""What a process left that was killed, or stopped, while it wrote a shard, neither spoils nor blocks the next one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from emsr.stores import waiting
from emsr.stores.zarr import Layout, create, open_array, write_box

SHAPE = (4, 64, 64)
SEVENS = np.full(SHAPE, 7, np.uint8)  # far fewer bytes than the noise of the orphan
ORPHAN = """
import sys
from pathlib import Path
import numpy as np
from emsr.stores.zarr import open_array, write_box
noise = np.random.default_rng(0).integers(0, 256, (4, 64, 64), np.uint8)
while True:
    write_box(open_array(Path(sys.argv[1]), write=True), (0, 0, 0), noise)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    create(tmp_path / "a.zarr", Layout(SHAPE, "uint8", SHAPE, (2, 32, 32), (40.0, 4.0, 4.0)))
    return tmp_path / "a.zarr"


def shard(path: Path) -> Path:
    return path / "0/c/0/0/0"


@pytest.fixture
def orphan(path: Path) -> Iterator[int]:
    """A process that is stopped while it holds the lock of the only shard, all of which it has written there."""
    lock = Path(f"{shard(path)}{waiting.SUFFIX}")
    process = subprocess.Popen([sys.executable, "-c", ORPHAN, str(path)])
    end = time.monotonic() + 120
    try:
        while not (list(waiting.holders(lock)) and lock.stat().st_size):
            assert process.poll() is None
            assert time.monotonic() < end
            process.send_signal(signal.SIGCONT)
            time.sleep(0.002)
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        yield process.pid
    finally:
        process.kill()
        process.wait()


def check(path: Path) -> None:
    assert np.array_equal(open_array(path).read().result(), SEVENS)
    assert not Path(f"{shard(path)}{waiting.SUFFIX}").exists()


def test_what_a_killed_process_left_is_no_part_of_the_next_shard(path: Path, orphan: int) -> None:
    os.kill(orphan, signal.SIGKILL)
    write_box(open_array(path, write=True), (0, 0, 0), SEVENS)
    check(path)


def test_a_stopped_process_that_holds_the_lock_is_named(
    path: Path, orphan: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "PATIENCE_S", 0.2)
    array = open_array(path, write=True)
    why = rf"^{shard(path)} waits since 0 minutes for process {orphan}, which is stopped and holds 0.__lock: let it go"
    mend = rf" on \(kill -CONT {orphan}\) or end it \(kill -KILL {orphan}\), and run again$"
    with pytest.raises(OSError, match=why + mend):
        write_box(array, (0, 0, 0), SEVENS)
    os.kill(orphan, signal.SIGKILL)
    write_box(array, (0, 0, 0), SEVENS)
    check(path)


def test_one_that_ends_while_it_is_waited_for(
    path: Path, orphan: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As one on another machine, of which only the lock is seen."""
    monkeypatch.setattr(waiting, "PATIENCE_S", 0.1)
    monkeypatch.setattr(waiting, "holders", lambda lock: iter([]))
    threading.Timer(0.5, os.kill, (orphan, signal.SIGKILL)).start()
    write_box(open_array(path, write=True), (0, 0, 0), SEVENS)
    check(path)
    assert f"{shard(path)} waits since 0 minutes for a process, maybe of another machine, to write it" in caplog.text


@pytest.mark.parametrize("left", [0, 100, 10**5])
def test_a_shard_that_the_end_crops_and_a_lock_file_of_any_size(tmp_path: Path, left: int) -> None:
    create(tmp_path / "a.zarr", Layout((3, 70, 60), "uint8", SHAPE, (2, 32, 32), (40.0, 4.0, 4.0)))
    for name in ("0", "1"):
        lock = tmp_path / f"a.zarr/0/c/0/{name}/0.__lock"
        lock.parent.mkdir(parents=True)
        lock.write_bytes(b"x" * left)
    voxels = np.full((3, 70, 60), 7, np.uint8)
    write_box(open_array(tmp_path / "a.zarr", write=True), (0, 0, 0), voxels)
    assert np.array_equal(open_array(tmp_path / "a.zarr").read().result(), voxels)
