"""What `emsr run` starts ends with it, however it ends; without snakemake."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from emsr.driver import children
from emsr.driver.children import Child, end_group, end_left
from emsr.driver.lock import started

SLEEPS = """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever started the tests may have had it ignored
open("ready", "w")
time.sleep(600)
"""
WORKS = (
    "import subprocess, sys, time; from pathlib import Path\n"
    "job = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "Path(sys.argv[1]).write_text(str(job.pid))\n"
    "time.sleep(600)"
)
STUBBORN = WORKS.replace("job =", "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\njob =")


def wait_for(path: Path) -> int:
    deadline = time.monotonic() + 60
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return int(path.read_text())


def ended(*pids: int) -> bool:
    deadline = time.monotonic() + 30
    while any(started(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not any(started(pid) for pid in pids)


def test_exit_codes_pass_and_signals_are_128_more(tmp_path: Path) -> None:
    for program, code in (("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)):
        child = Child([sys.executable, "-S", "-c", program], tmp_path, os.environ)
        assert child.wait(lambda: False) == code


def test_what_a_child_leaves_behind_ends_too(tmp_path: Path) -> None:
    program = WORKS.rsplit("\n", 1)[0]  # ends, while its job works
    child = Child([sys.executable, "-S", "-c", program, str(tmp_path / "pid")], tmp_path, os.environ)
    assert child.wait(lambda: False) == 0
    assert ended(wait_for(tmp_path / "pid"))


@pytest.mark.parametrize(
    ("program", "first"), [(WORKS, signal.SIGINT), (WORKS, signal.SIGTERM), (STUBBORN, signal.SIGINT)]
)
def test_when_it_must_stop_all_of_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, first: int
) -> None:
    monkeypatch.setattr(children, "GRACE_SECONDS", 0.3)
    child = Child([sys.executable, "-S", "-c", program, str(tmp_path / "pid")], tmp_path, os.environ, first)
    job = wait_for(tmp_path / "pid")
    assert child.wait(lambda: True) > 0
    assert ended(job, child.stated["group"])


def test_when_emsr_run_is_killed_all_of_it_ends(tmp_path: Path) -> None:
    program = (
        "import os, sys, time; from pathlib import Path; from emsr.driver.children import Child\n"
        "child = Child([sys.executable, '-S', '-c', *sys.argv[1:]], Path('.'), os.environ)\n"
        "Path('group').write_text(str(child.stated['group']))\n"
        "time.sleep(600)"
    )
    words = [sys.executable, "-c", program, WORKS, str(tmp_path / "pid")]
    parent = subprocess.Popen(words, cwd=tmp_path, env=dict(os.environ))
    job, group = wait_for(tmp_path / "pid"), wait_for(tmp_path / "group")
    parent.kill()
    parent.wait()
    assert ended(job, group)


def test_what_a_killed_run_left_is_found_and_what_is_not_its_own_is_left(tmp_path: Path) -> None:
    child = Child([sys.executable, "-S", "-c", WORKS, str(tmp_path / "pid")], tmp_path, os.environ)
    job, stated = wait_for(tmp_path / "pid"), child.stated
    os.kill(stated["group"], signal.SIGKILL)  # the leader of the group, of which its other members know nothing
    child._process.wait()
    end_left({**stated, "kernel": "another boot"})
    assert started(job), "its numbers mean nothing here"
    end_left(stated)
    assert ended(job)
    other = subprocess.Popen([sys.executable, "-S", "-c", SLEEPS], cwd=tmp_path, start_new_session=True)
    try:
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        end_left({**stated, "group": other.pid, "start": "1"})
        assert other.poll() is None, "the number went to another process"
        assert end_group(other.pid, other.poll)
        assert other.poll() == -signal.SIGINT
    finally:
        other.kill()
        os.close(child._held)
