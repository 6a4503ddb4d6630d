"""What an unfinished run already made: a small file beside an array, which is gone when all of it is done."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emsr import durable
from emsr.geometry import Box, Triple, triple

SCHEMA = 1
SUFFIX = ".unfinished"


class Journal:
    """Which shards an unfinished run made; `done` are the corners (z, y, x) of those that hold.

    The first line of the file says what they are made of, by hashes, and what that run had `found` before; a further
    line for each shard is appended once its voxels are durable. Lines are not forced to disk: losing one costs a shard
    and no more. Where what they are made of `changed`, no shard holds.
    """

    def __init__(self, card: Path, of: Mapping[str, Any]) -> None:
        """Read the journal of the array beside `card`; `of` names all that voxels depend on, each a JSON value."""
        self.file = card.with_suffix(SUFFIX)
        self.of = {name: hashlib.sha256(_line(value)).hexdigest() for name, value in of.items()}
        head, made = _read(self.file)
        before: dict[str, str] = head.get("of", {})
        names = before.keys() | self.of if head else ()
        self.changed = sorted(name for name in names if before.get(name) != self.of.get(name))
        self.left = len(made)
        self.done: frozenset[Triple] = frozenset(() if self.changed else made)
        self.found: dict[str, Any] = {} if self.changed else head.get("found", {})
        self._stream: int | None = None
        self._lock = threading.Lock()

    @contextmanager
    def open(self) -> Iterator[None]:
        """While shards are made, of which `add` says which; what was `found` until now is kept too."""
        head = {"schema": SCHEMA, "of": self.of, "found": self.found}
        durable.write_bytes(self.file, b"".join(map(_line, [head, *sorted(self.done)])))
        # an older process that is not dead yet keeps its own file, which another one of this name replaces
        self._stream = os.open(self.file, os.O_WRONLY | os.O_APPEND)
        try:
            yield
        finally:
            os.close(self._stream)
            self._stream = None

    def add(self, box: Box) -> None:
        """After the voxels of a shard are durable."""
        if self._stream is None:
            raise RuntimeError(f"{self.file} is not open, so no shard can be added")
        with self._lock:
            os.write(self._stream, _line(box.start))

    def close(self) -> None:
        """After the card is written: nothing is unfinished."""
        self.file.unlink(missing_ok=True)


def _line(value: Any) -> bytes:
    return (json.dumps(value, sort_keys=True, separators=(",", ":")) + "\n").encode()


def _read(file: Path) -> tuple[dict[str, Any], list[Triple]]:
    """The first line and the corners of shards; lines that a crash cut or spoilt do not count. SchemaError for a form
    that this emsr does not know.
    """
    try:
        first, *lines = file.read_bytes().split(b"\n")
    except FileNotFoundError:
        return {}, []
    head = _parsed(first)
    durable.check_schema(file, head, SCHEMA)
    if not isinstance(head, dict) or "schema" not in head:
        return {}, []
    corners = []
    for line in lines[:-1]:
        try:
            corners.append(triple(_parsed(line)))
        except ValueError:
            continue
    return head, corners


def _parsed(line: bytes) -> Any:
    """A line as JSON; None where it is none."""
    try:
        return json.loads(line)
    except ValueError:
        return None
