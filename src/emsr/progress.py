"""Progress of long work: a bar on a terminal, counted lines elsewhere (SLURM logs, CI)."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0


class UnfinishedError(Exception):
    """Work that stopped cleanly before its end and goes on from there when it is started again."""


class OutOfTimeError(UnfinishedError):
    """It got on, and stopped because the wall time of its job is near: that alone is no failure, however often."""


class Progress(Protocol):
    """What a unit of work reports to: ``update(n)`` more units are done, ``note`` is a short state such as a loss."""

    def update(self, n: int = 1) -> object: ...

    def note(self, text: str) -> object: ...


class _Bar:
    """A tqdm bar on a terminal."""

    def __init__(self, total: int, label: str, unit: str, stream: TextIO) -> None:
        self._bar = tqdm(total=total, desc=label, unit=unit, file=stream, dynamic_ncols=True)

    def update(self, n: int = 1) -> None:
        self._bar.update(n)

    def note(self, text: str) -> None:
        self._bar.set_postfix_str(text, refresh=False)

    def close(self) -> None:
        self._bar.close()


class _Lines:
    """One counted line at most every ten seconds, and one at the end."""

    def __init__(self, total: int, label: str, unit: str, stream: TextIO) -> None:
        self._total, self._label, self._unit, self._stream = total, label, unit, stream
        self._done, self._text = 0, ""
        self._start = self._last = time.monotonic()

    def update(self, n: int = 1) -> None:
        self._done += n
        if time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self._write()

    def note(self, text: str) -> None:
        self._text = text

    def close(self) -> None:
        self._write()

    def _write(self) -> None:
        self._last = time.monotonic()
        elapsed = self._last - self._start
        left = f", {elapsed / self._done * (self._total - self._done):.0f} s left" if self._done else ""
        note = f", {self._text}" if self._text else ""
        self._stream.write(f"{self._label}: {self._done}/{self._total} {self._unit}, {elapsed:.0f} s{left}{note}\n")
        self._stream.flush()


class _Silence:
    """Nothing, for one of several processes that do the same work."""

    def update(self, n: int = 1) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass


@contextmanager
def progress(total: int, label: str, unit: str, stream: TextIO | None = None, shown: bool = True) -> Iterator[Progress]:
    """Report ``total`` units of work called ``label`` on ``stream`` (standard error by default), if it is ``shown``."""
    out = stream or sys.stderr
    kind = (_Bar if out.isatty() else _Lines) if shown else None
    reported = kind(total, label, unit, out) if kind else _Silence()
    try:
        yield reported
    finally:
        reported.close()
