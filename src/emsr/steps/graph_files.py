"""Graphs as files: those of shards, and what agglomeration keeps of one that is too large for memory."""

from __future__ import annotations

import logging
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from emsr.segmentation.agglomeration import agglomerate
from emsr.segmentation.binned import agglomerate_binned
from emsr.segmentation.graph import EDGE, merge_streams, merged
from emsr.segmentation.history import History
from emsr.segmentation.memory import rows_within
from emsr.segmentation.streamed import Source, agglomerate_streamed
from emsr.stores.tables import damage_named, part, parts

log = logging.getLogger(__name__)


def is_of(file: Path, inputs: str) -> bool:
    """Whether a shard's graph is there, whole, and made from `inputs`."""
    try:
        return file.is_file() and str(parts(file)["inputs"]) == inputs
    except (ValueError, KeyError):
        return False


@contextmanager
def _edges(file: Path) -> Iterator[tuple[int, IO[bytes]]]:
    """The number of edges of a shard's graph, and a stream of their bytes."""
    with damage_named(file), zipfile.ZipFile(file) as archive, archive.open("edges.npy") as stream:
        np.lib.format.read_magic(stream)
        (rows,), _, dtype = np.lib.format.read_array_header_1_0(stream)
        assert dtype == EDGE
        yield rows, stream


def edge_count(file: Path) -> int:
    """The number of edges of a shard's graph; they are not read."""
    with _edges(file) as (rows, _):
        return rows


def history(
    method: str, until: float, files: Sequence[Path], fragments: np.ndarray, scratch: Path, memory_mb: int
) -> History:
    """Every merge of the sum of shards' graphs: in memory where it fits, else in rounds over files in `scratch`.

    The same history whatever `memory_mb` (10^6 bytes) says. `method` is "exact" or "waterz"; `fragments` are all ids,
    rising. Raises ValueError where `memory_mb` is too little for either way.
    """
    shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed
    rows = rows_within(sum(map(edge_count, files)), len(fragments), method, memory_mb)
    log.info("%s", "graph in memory" if rows is None else f"graph over files, {rows} edges in memory")
    if rows is not None:
        return _streamed(until, files, fragments, scratch, rows)
    graph = merged(part(file, "edges") for file in files)
    return (agglomerate_binned if method == "waterz" else agglomerate)(graph, until)


def _streamed(until: float, files: Sequence[Path], fragments: np.ndarray, scratch: Path, rows: int) -> History:
    shelf = Files(scratch)
    sources = [shelf.keep(_in_pieces(file, max(1, rows // len(files)))) for file in files]
    try:
        return agglomerate_streamed(
            lambda: merge_streams([source() for source in sources]), fragments, until, shelf, rows
        )
    finally:
        shutil.rmtree(scratch)


def _in_pieces(file: Path, rows: int) -> Iterator[np.ndarray]:
    """A shard's edges, so many rows at a time; no more are in memory."""
    with _edges(file) as (_, stream):
        while piece := stream.read(rows * EDGE.itemsize):
            yield np.frombuffer(piece, EDGE)


class Files:
    """Scratch of `agglomerate_streamed`: a file for each table, removed when it is let go; none is held open."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.number = folder, 0
        folder.mkdir(parents=True)

    def keep(self, pieces: Iterator[np.ndarray]) -> _Kept:
        """Write pieces down as they come."""
        self.number += 1
        kept = _Kept(self.folder / f"{self.number}")
        with kept.file.open("wb") as stream:
            for piece in pieces:
                piece.tofile(stream)
                kept.rows.append(len(piece))
                kept.dtype = piece.dtype
        return kept

    def drop(self, source: Source) -> None:
        """Remove the file of a table."""
        assert isinstance(source, _Kept)
        source.file.unlink()


class _Kept:
    """Replays the pieces of a table from its file."""

    def __init__(self, file: Path) -> None:
        self.file, self.dtype = file, EDGE
        self.rows: list[int] = []

    def __call__(self) -> Iterator[np.ndarray]:
        first = 0
        for rows in self.rows:
            yield np.fromfile(self.file, self.dtype, rows, offset=first * self.dtype.itemsize)
            first += rows
