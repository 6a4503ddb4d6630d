"""Lock files of tensorstore: it writes a shard to `<shard>.__lock`, under a lock of the system, and renames that.

It does not empty one that a killed process left behind: a shorter shard would end in what the longer one had there and
read as a mixture of both. And it waits for ever for a process that was stopped (SIGSTOP, a debugger, a frozen
container) and still holds the lock, which one that died lets go.
"""

from __future__ import annotations

import fcntl
import logging
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

SUFFIX = ".__lock"
PATIENCE_S = 300.0
POLL_S = 0.05
_WHOLE_FILE = struct.pack("hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
log = logging.getLogger(__name__)


def clear(file: Path) -> None:
    """Before `file` is written: wait until nobody writes it, and empty what a killed process left.

    Says in the log, every five minutes, that it waits. OSError, in one line, where a process of this machine that is
    stopped holds the lock.
    """
    lock, begun = Path(f"{file}{SUFFIX}"), time.monotonic()
    said = begun
    while not _emptied(lock):
        time.sleep(POLL_S)
        if time.monotonic() - said < PATIENCE_S:
            continue
        said = time.monotonic()
        minutes = (said - begun) / 60
        for pid, state in holders(lock):
            if state in "Tt":
                raise OSError(
                    f"{file} waits since {minutes:.0f} minutes for process {pid}, which is stopped and holds "
                    f"{lock.name}: let it go on (kill -CONT {pid}) or end it (kill -KILL {pid}), and run again"
                )
        log.warning("%s waits since %.0f minutes for a process, maybe of another machine, to write it", file, minutes)


def _emptied(lock: Path) -> bool:
    """Whether nobody held the lock file, which is empty or gone then."""
    try:
        handle = os.open(lock, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        fcntl.fcntl(handle, getattr(fcntl, "F_OFD_SETLK", fcntl.F_SETLK), _WHOLE_FILE)
        os.ftruncate(handle, 0)
    except (BlockingIOError, PermissionError):
        return False
    finally:
        os.close(handle)
    return True


def holders(lock: Path) -> Iterator[tuple[int, str]]:
    """Other processes of this machine that have a lock file open: number and state (as ps says it).

    None where the system has no /proc, and none of other users.
    """
    name = str(lock.resolve())
    for pid in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else ()):
        try:
            files = [os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")]
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if name in files and int(pid) != os.getpid():
            yield int(pid), state
