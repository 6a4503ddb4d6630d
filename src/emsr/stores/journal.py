"""What an unfinished run already made: a small file beside an array, which is gone when all of it is done."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsr import durable
from emsr.geometry import Box, Triple, triple

if TYPE_CHECKING:
    from emsr.stores.versions import Versions

SCHEMA = 1
SUFFIX = ".unfinished"
OBJECTS = "objects"


class Journal:
    """Which shards an unfinished run made; `done` are the corners (z, y, x) of those that hold.

    The first line of the file says what they are made of, by hashes, and what that run had `found` before; a further
    line for each shard is appended once its voxels are durable. Lines are not forced to disk: losing one costs a shard
    and no more. Where what they are made of `changed`, no shard holds. Of a volume behind a server a line before that
    of a shard says which versions of objects were read: where one is another now, no shard holds.
    """

    def __init__(self, card: Path, of: Mapping[str, Any], versions: Versions | None = None) -> None:
        """Read the journal of the array beside `card`; `of` names all that voxels depend on, each a JSON value.

        `versions` are of the volume that shards are read from, if it lies behind a server.
        """
        self.file = card.with_suffix(SUFFIX)
        self.of = {name: hashlib.sha256(_line(value)).hexdigest() for name, value in of.items()}
        head, made, objects = _read(self.file)
        before: dict[str, str] = head.get("of", {})
        names = before.keys() | self.of if head else ()
        self.changed = sorted(name for name in names if before.get(name) != self.of.get(name))
        self.left = len(made)
        self.done: frozenset[Triple] = frozenset(() if self.changed else made)
        self.found: dict[str, Any] = {} if self.changed else head.get("found", {})
        self._versions, self._objects = versions, {} if self.changed or versions is None else objects
        if versions and (others := versions.changed(self._objects)):
            self.changed = [f"{len(others)} of {len(objects)} objects of the source, such as {others[0]},"]
            self.done, self.found, self._objects = frozenset(), {}, {}
        self._stream: int | None = None
        self._lock = threading.Lock()

    @contextmanager
    def open(self) -> Iterator[None]:
        """While shards are made, of which `add` says which; what was `found` until now is kept too."""
        head = {"schema": SCHEMA, "of": self.of, "found": self.found}
        known = self._taken() | self._objects
        objects = [{OBJECTS: known}] if known else []
        durable.write_bytes(self.file, b"".join(map(_line, [head, *objects, *sorted(self.done)])))
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
            taken = self._taken()
            os.write(self._stream, (_line({OBJECTS: taken}) if taken else b"") + _line(box.start))

    def _taken(self) -> dict[str, str]:
        """The versions of objects that were read since."""
        return self._versions.taken() if self._versions else {}

    def close(self) -> None:
        """After the card is written: nothing is unfinished."""
        self.file.unlink(missing_ok=True)


def _line(value: Any) -> bytes:
    return (json.dumps(value, sort_keys=True, separators=(",", ":")) + "\n").encode()


def _read(file: Path) -> tuple[dict[str, Any], list[Triple], dict[str, str]]:
    """The first line, the corners of shards, and the versions of objects; lines that a crash cut or spoilt do not
    count. SchemaError for a form that this emsr does not know.
    """
    try:
        first, *lines = file.read_bytes().split(b"\n")
    except FileNotFoundError:
        return {}, [], {}
    head = _parsed(first)
    durable.check_schema(file, head, SCHEMA)
    if not isinstance(head, dict) or "schema" not in head:
        return {}, [], {}
    corners: list[Triple] = []
    objects: dict[str, str] = {}
    for parsed in map(_parsed, lines[:-1]):
        if isinstance(parsed, dict) and isinstance(parsed.get(OBJECTS), dict):
            objects |= parsed[OBJECTS]
        elif isinstance(parsed, list):
            with suppress(ValueError):
                corners.append(triple(parsed))
    return head, corners, objects


def _parsed(line: bytes) -> Any:
    """A line as JSON; None where it is none."""
    try:
        return json.loads(line)
    except ValueError:
        return None
