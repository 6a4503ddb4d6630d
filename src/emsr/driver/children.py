"""Snakemake as a child that cannot outlive `emsr run`, and the ends of those that did."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from emsr.driver import tether
from emsr.driver.lock import kernel, started

GRACE_SECONDS = 30.0  # for snakemake to cancel its jobs
KILL_SECONDS = 10.0  # for the kernel to end what was killed
LOOK_SECONDS = 0.1

log = logging.getLogger(__name__)
Json = Mapping[str, Any]


class Child:
    """A command in a session of its own, with all that it starts; it ends when this process does."""

    def __init__(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str], first: int = signal.SIGINT
    ) -> None:
        """`first` is the signal that ends it: SIGINT makes snakemake cancel jobs that are elsewhere; SIGTERM makes it
        wait for jobs that are here, which end by it, trainings after they have saved their state.
        """
        end, self._held = os.pipe()
        self._first = int(first)
        words = [sys.executable, "-I", "-S", tether.__file__, str(end), str(self._first), *command]
        try:
            self._process = subprocess.Popen(
                words, cwd=folder, env=dict(environment), pass_fds=[end], start_new_session=True
            )
        except BaseException:
            os.close(self._held)
            raise
        finally:
            os.close(end)

    @property
    def stated(self) -> dict[str, Any]:
        """What `end_left` needs to find this child."""
        pid = self._process.pid
        return {"kernel": kernel(), "group": pid, "start": started(pid), "first": self._first}

    def wait(self, stop: Callable[[], bool]) -> int:
        """The exit code, 128 + n after signal n; where `stop` says so before, everything is ended first."""
        while self._process.poll() is None and not stop():
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(LOOK_SECONDS)
        self.end()
        code = self._process.returncode
        if code is None:  # the kernel does not end it: it waits for a disk
            return 128 + signal.SIGKILL
        return int(code if code >= 0 else 128 - code)

    def end(self) -> None:
        """End what still runs, in bounded time: kindly, then for good."""
        if self._held < 0:
            return
        if not end_group(self._process.pid, self._process.poll, self._first):
            log.warning("processes of group %d do not end", self._process.pid)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(KILL_SECONDS)
        os.close(self._held)
        self._held = -1


def end_group(group: int, reap: Callable[[], object] = lambda: None, first: int = signal.SIGINT) -> bool:
    """Send a process group the signal `first`, and kill it if that is not enough; says whether none of it is left."""
    for number, seconds in ((first, GRACE_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
        deadline = time.monotonic() + seconds
        try:
            reap()
            os.killpg(group, number)
            while time.monotonic() < deadline:
                reap()
                os.killpg(group, 0)
                if not any(_members(group)):
                    return True
                time.sleep(LOOK_SECONDS)
        except ProcessLookupError:
            return True
        except PermissionError:  # the number is another user's by now
            return True
    return False


def end_left(left: Json) -> None:
    """End the processes of a run whose `emsr run` is dead, if they are of this machine."""
    group = left.get("group")
    if not group or left.get("kernel") != kernel() or not any(_members(int(group))):
        return
    if started(int(group)) not in (None, left["start"]):
        return  # the number was given to another process
    log.warning("processes of an emsr run that was killed still work: ending them")
    if not end_group(int(group), first=int(left.get("first", signal.SIGINT))):
        raise ValueError(f"process group {group} of an emsr run that was killed does not end: end it, and run again")


def _members(group: int) -> Iterator[int]:
    """The processes of a group that have not ended; the group itself where the kernel does not tell."""
    if not Path("/proc/self/stat").exists():
        yield group
        return
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == group and fields[0] not in "ZX":
                yield int(pid)


def snakemakes(folder: Path) -> list[int]:
    """Processes of this machine that are snakemake at work in `folder`: it was started there, or went there."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc") if Path("/proc").is_dir() else ()):
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
            named = any(Path(word).name == "snakemake" for word in words[:3])
            inner = {"--nolock", "-n", "--dry-run", "--dryrun"} & set(words)
            if named and not inner and Path(f"/proc/{pid}/cwd").resolve() == folder.resolve():
                found.append(int(pid))
    return found
