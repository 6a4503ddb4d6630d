"""A lock on an output folder that beats like a heart, so that another machine can tell a live owner from a dead one.

Its files are `run-<number>.lock`; the owner is the one with the highest number. A live owner rewrites its file, in
place, every two seconds. Whoever wants the lock asks the kernel where it can, and else watches the content for a
minute: what does not change belongs to a dead one. No clocks are compared. A dead owner's lock is taken by creating the
next number, which only one can do.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

BEAT_SECONDS = 2.0
SILENT_SECONDS = 60.0  # without a beat: dead
LOOK_SECONDS = 0.25
WIDTH = 2048  # bytes of a file: written at once and of one length, so that a reader sees one beat or the next
NAME = re.compile(r"run-(\d+)\.lock")

log = logging.getLogger(__name__)
Json = Mapping[str, Any]


class Lock:
    """A lock that is held: `number` of its file, and what stands in it."""

    def __init__(self, folder: Path, number: int, stated: Json) -> None:
        self.path = folder / f"run-{number}.lock"
        self._stated: dict[str, Any] = dict(stated)
        self._writing, self._ended = threading.Lock(), threading.Event()

    @property
    def run(self) -> str:
        """The name of this run, which no other has."""
        return str(self._stated["run"])

    def state(self, **more: Any) -> None:
        """State more in the file, at once."""
        with self._writing:
            self._stated |= more
            self._write()

    def _write(self) -> None:
        self._stated["beat"] = self._stated.get("beat", 0) + 1
        with self.path.open("r+b") as stream:
            if (_parsed(stream.read()) or self._stated).get("run") != self.run:
                raise FileNotFoundError(f"{self.path} is another run's")
            stream.seek(0)
            stream.write(_text(self._stated))
            stream.flush()
            os.fsync(stream.fileno())

    def beat(self, lost: Callable[[], object]) -> None:
        """Rewrite the file until the lock is given back; calls `lost` and ends where another run has taken it."""
        gone = 0
        while not self._ended.wait(BEAT_SECONDS):
            try:
                with self._writing:
                    self._write()
                gone = 0
            except FileNotFoundError:
                gone += 1
                if gone > 1:
                    lost()
                    return
            except OSError as error:  # full disk, server away: others see no beat, and that is the truth
                log.info("the lock cannot be renewed: %s", error)

    def give_back(self) -> None:
        self._ended.set()
        with self._writing, suppress(OSError):
            if (_read(self.path) or self._stated).get("run") == self.run:
                self.path.unlink()


@contextmanager
def held(folder: Path, lost: Callable[[], object]) -> Iterator[tuple[Lock, Json | None]]:
    """Hold the lock of `folder`, which is made; with it comes what the file of a dead owner stated, if there was one.

    `lost` is called, from another thread, where another run took the lock because nothing was heard of this one for a
    minute. Raises ValueError, in one line, where the owner lives.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock, dead = _taken(folder, {"run": uuid.uuid4().hex[:12], **myself()})
    thread = threading.Thread(target=lock.beat, args=(lost,), daemon=True)
    thread.start()
    try:
        yield lock, dead
    finally:
        lock.give_back()


def _taken(folder: Path, stated: Json) -> tuple[Lock, Json | None]:
    while True:
        known = _files(folder)
        dead = _dead(known[max(known)]) if known else None
        lock = Lock(folder, max(known, default=0) + 1, stated)
        try:
            with lock.path.open("xb") as stream:
                stream.write(_text({**stated, "beat": 0}))
                stream.flush()
                os.fsync(stream.fileno())
        except FileExistsError:
            continue  # somebody else was faster: is it alive?
        if others := _files(folder).keys() - known.keys() - {max(known, default=0) + 1}:
            lock.give_back()
            raise ValueError(f"another emsr run began at the same time ({folder}/run-{max(others)}.lock): try again")
        for path in known.values():
            path.unlink(missing_ok=True)
        return lock, dead


def _files(folder: Path) -> dict[int, Path]:
    found = {match: folder / name for name in os.listdir(folder) if (match := NAME.fullmatch(name))}
    return {int(match[1]): path for match, path in found.items()}


def _dead(path: Path) -> Json | None:
    """What the file of a dead owner states; ValueError where it lives, None where the file went meanwhile."""
    first = _content(path)
    owner = _parsed(first) or {}
    if (here := lives(owner)) is False:
        return owner
    start = time.monotonic()
    said = False
    while here is None and time.monotonic() - start < SILENT_SECONDS:
        time.sleep(LOOK_SECONDS)
        if (now := _content(path)) != first:
            if not now and not path.exists():
                return None
            here = True
        elif not said and time.monotonic() - start > 2 * BEAT_SECONDS:
            log.warning("nothing is heard of %s: waiting %.0f s to be sure", _named(owner), SILENT_SECONDS)
            said = True
    if here:
        raise ValueError(
            f"{_named(_parsed(_content(path)) or owner)} works on {path.parent.parent}: wait for it, or end it there"
        )
    return owner


def _named(owner: Json) -> str:
    return f"emsr run, process {owner.get('pid', '?')} on {owner.get('host', 'an unknown machine')},"


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _read(path: Path) -> dict[str, Any] | None:
    return _parsed(_content(path))


def _parsed(content: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(content)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _text(stated: Json) -> bytes:
    return json.dumps(stated).encode().ljust(WIDTH)


# -- processes --------------------------------------------------------------------------------------------------------


def myself() -> dict[str, Any]:
    """What another process of this machine knows this one by."""
    return {"host": socket.gethostname(), "kernel": kernel(), "pid": os.getpid(), "start": started(os.getpid())}


def kernel() -> str:
    """This boot of this machine, and the numbers of processes that are seen here; empty where that cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def started(pid: int) -> str | None:
    """When a process started, by the kernel's count; None where there is no such process, or it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def lives(owner: Json) -> bool | None:
    """Whether the process that a lock names is there; None where it is of another machine."""
    if not owner.get("kernel") or (owner["host"], owner["kernel"]) != (socket.gethostname(), kernel()):
        return None
    return started(int(owner["pid"])) == owner["start"]
