"""Tables in one file, as numpy packs them: whole or absent, and never a damaged one taken for another."""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from emsr import durable
from emsr.stores.source import one_line

DAMAGE = (ValueError, LookupError, EOFError, RuntimeError, MemoryError, OverflowError, TypeError)
DAMAGE += (zipfile.BadZipFile, zlib.error, struct.error)  # type: ignore[assignment]
"""What numpy and zipfile raise over tables whose bits flipped."""


def save(file: Path, **tables: np.ndarray) -> None:
    """Write tables durably, whole or not at all."""
    stream = io.BytesIO()
    np.savez(stream, **tables)  # type: ignore[arg-type]
    durable.write_bytes(file, stream.getvalue())


def part(file: Path, name: str) -> np.ndarray:
    """One table of a file; ValueError, in one line, where it is torn or damaged."""
    return parts(file, name)[name]


def parts(file: Path, *names: str) -> dict[str, np.ndarray]:
    """Some tables of a file, or, with no name, all; ValueError, in one line, where it is torn or damaged."""
    with damage_named(file), file.open("rb") as stream, np.load(stream) as tables:
        return {name: tables[name] for name in names or sorted(tables.files)}


@contextmanager
def damage_named(file: Path) -> Iterator[None]:
    """Whatever goes wrong over the content of a file becomes a ValueError, in one line, that names it."""
    try:
        yield
    except DAMAGE as error:
        raise ValueError(f"{file} is damaged ({one_line(error)}): delete it and run agglomerate again") from None


def digest(tables: Mapping[str, np.ndarray]) -> str:
    """A hash of all tables of a file, whatever time it was written at."""
    found = hashlib.sha256()
    for name in sorted(tables):
        found.update(tables[name].tobytes())
    return found.hexdigest()
