"""What an attempt at a job leaves beside its mark: what it set out to do, how it goes, what it took."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsr import durable
from emsr.geometry import Triple
from emsr.shards import shard_name

if TYPE_CHECKING:
    from emsr.inference.records import Records

BEAT_SECONDS = 30.0


class Stats:
    """The stats of one attempt; written at its start too, so that attempts that were killed count."""

    def __init__(self, path: Path, array: str, mine: Sequence[Triple], todo: Sequence[Triple]) -> None:
        self.path = path
        attempts = _attempts(path)
        job = path.name.removesuffix(".stats.json")
        computed = [shard_name(index) for index in todo]
        self._stats: dict[str, Any] = {"schema": durable.SCHEMA, "job": job, "array": array}
        self._stats |= {"attempt": attempts + 1, "computed": computed}
        self.add({"skipped": len(mine) - len(todo), "state": "running", "started": round(time.time(), 3)})

    def add(self, found: Mapping[str, Any]) -> None:
        """State more, at once."""
        self._stats |= found
        durable.write_json(self.path, self._stats)


def _attempts(path: Path) -> int:
    """How many there were; damaged stats count as none, because they are bookkeeping."""
    try:
        return int(durable.read_json(path)["attempt"])
    except durable.SchemaError:
        raise
    except (OSError, ValueError, KeyError, TypeError):
        return 0


@contextmanager
def attempt(mark: Path, records: Records, mine: Sequence[Triple], todo: Sequence[Triple]) -> Iterator[Stats]:
    """Stats beside `mark` of an attempt at `todo`, those of a job's shards (`mine`) that it computes.

    While it runs, the file's time stamp is renewed twice a minute, so that one which was killed can be told from one
    that works; one that fails states the reason. What killed attempts left of records and marks is removed first.
    """
    path, ended = mark.with_suffix(".stats.json"), threading.Event()
    for folder in (records.folder, mark.parent):
        durable.sweep(folder)
    stats = Stats(path, records.array.name, mine, todo)
    beat = threading.Thread(target=_beat, args=(path, ended), daemon=True)
    beat.start()
    try:
        yield stats
    except BaseException as error:
        with suppress(OSError):
            stats.add({"state": "failed", "reason": " ".join(str(error).split()) or type(error).__name__})
        raise
    finally:
        ended.set()
        beat.join()


def _beat(path: Path, ended: threading.Event) -> None:
    while not ended.wait(BEAT_SECONDS):
        with suppress(OSError):
            os.utime(path)
