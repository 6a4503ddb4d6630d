"""Rule agglomerate of segment.smk: one region graph, one history of merges."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsr import durable, plan
from emsr.geometry import Box, ShardGrid, triple

if TYPE_CHECKING:
    import numpy as np

    from emsr.segmentation.history import History
    from emsr.segmentation.streamed import Source

AGGLOMERATE_RESULT = 1

ROWS_IN_MEMORY = 20_000_000  # edges of 32 bytes; a larger graph is agglomerated in rounds over files
PIECE = 500_000  # edges that are read at a time from each shard's graph

log = logging.getLogger(__name__)


def agglomerate(settings: dict, fragments: Path, out: Path, *, workers: int) -> None:
    """Merge fragments by mean affinity: region graph of each shard, their sum, every merge up to `until`.

    `settings`: method ("exact", or "waterz", as published, with 256 bins), until (the largest threshold that can be
    asked for), affinities (path of their card). `fragments` is what `prove_fragments` wrote. Beside `out`, in the
    folder of its name without suffix: `graph/<shard>.npz` (edges u, v, count, sum; first voxel of each fragment), and
    `history.npz` (merges, first voxels). A shard's graph that stands on disk for the same voxels is not made again.
    """
    import numpy as np

    from emsr.segmentation.lookup import merged_first_voxels

    of, near = durable.read_json(fragments), durable.read_json(Path(settings["affinities"]))
    folder = out.with_suffix("")
    files = _graphs(settings, (fragments, of), near, folder / "graph", workers)
    first = merged_first_voxels(_part(file, "first") for file in files)
    history = _history(settings, files, first["fragment"], folder)
    _save(folder / "history.npz", merges=history.merges, first=first, until=np.array(history.until))
    edges = sum(len(_part(file, "edges")) for file in files)
    counts = {"fragments": len(first), "edges_of_shards": edges, "merges": len(history.merges)}
    log.info("agglomeration: %s", counts)
    keys = ("shape", "shard", "voxel_size_nm", "translation_nm", "damaged", "missing", "image_sha256")
    fixed = {"history": f"{folder.name}/history.npz", "method": settings["method"], "until": settings["until"]}
    place = {"fragments": os.path.relpath(fragments, out.parent), "fragments_sha256": of["sha256"]}
    stated = {"schema": 1, **fixed, **place, **{key: of[key] for key in keys}, "counts": counts}
    durable.write_json(out, {**stated, "sha256": _hash_of(folder / "history.npz")})


def _hash_of(file: Path) -> str:
    import hashlib

    import numpy as np

    with np.load(file) as tables:
        return hashlib.sha256(b"".join(tables[name].tobytes() for name in sorted(tables.files))).hexdigest()


def _save(file: Path, **tables: np.ndarray) -> None:
    """Write tables durably, whole or not at all."""
    import io

    import numpy as np

    stream = io.BytesIO()
    np.savez(stream, **tables)  # type: ignore[arg-type]
    durable.write_bytes(file, stream.getvalue())


def _part(file: Path, name: str) -> np.ndarray:
    import numpy as np

    with np.load(file) as tables:
        found: np.ndarray = tables[name]
    return found


def _graphs(
    settings: Mapping[str, Any],
    fragments: tuple[Path, Mapping[str, Any]],
    affinities: Mapping[str, Any],
    folder: Path,
    workers: int,
) -> list[Path]:
    """The file of every shard's graph, in raster order of the shards."""
    import numpy as np

    from emsr.segmentation.graph import read_graph
    from emsr.segmentation.lookup import first_voxels
    from emsr.stores.shards import each, read_box
    from emsr.stores.zarr import open_array

    path, of = fragments
    grid = ShardGrid(triple(of["shape"]), triple(of["shard"]))
    ids = open_array((path.parent / of["array"]).resolve())
    near = open_array((Path(settings["affinities"]).parent / affinities["array"]).resolve())
    of_box = {grid.box(index): index for index in grid.indices}

    def make(box: Box) -> Path:
        file, inputs = folder / f"{plan.shard_name(of_box[box])}.npz", _inputs(grid, box, of, affinities)
        if file.is_file() and str(_part(file, "inputs")) == inputs:
            return file
        edges = read_graph(box, lambda part: read_box(ids, part), lambda part: read_box(near, part))
        first = first_voxels(read_box(ids, box), box, grid.shape)
        _save(file, edges=edges, first=first, inputs=np.array(inputs))
        return file

    return each(make, list(of_box), workers, "region graph")


def _inputs(grid: ShardGrid, box: Box, fragments: Mapping[str, Any], affinities: Mapping[str, Any]) -> str:
    """The hash of all voxels that a shard's graph is made from: its own and those of its lower neighbours."""
    own = triple([first // edge for first, edge in zip(box.start, grid.shard, strict=True)])
    low = triple([max(number - 1, 0) for number in own])
    near = Box(low, triple([number + 1 for number in own])).indices()
    named = [plan.shard_name(index) for index in near]
    return plan.settings_sha256([[fragments["shards"][name], affinities["shards"][name]] for name in named])


def _history(settings: Mapping[str, Any], files: list[Path], fragments: np.ndarray, folder: Path) -> History:
    """Every merge: in memory where the graph fits, else in rounds over files. The same history."""
    from emsr.segmentation.agglomeration import agglomerate
    from emsr.segmentation.binned import agglomerate_binned
    from emsr.segmentation.graph import merge_streams, merged
    from emsr.segmentation.streamed import agglomerate_streamed

    until = float(settings["until"])
    if settings["method"] == "waterz":
        return agglomerate_binned(merged(_part(file, "edges") for file in files), until)
    if sum(len(_part(file, "edges")) for file in files) <= ROWS_IN_MEMORY:
        return agglomerate(merged(_part(file, "edges") for file in files), until)
    return agglomerate_streamed(
        lambda: merge_streams([_pieces(file) for file in files]), fragments, until, Files(folder / "scratch")
    )


def _pieces(file: Path) -> Iterator[np.ndarray]:
    """A shard's graph, in pieces."""
    edges = _part(file, "edges")
    for row in range(0, len(edges), PIECE):
        yield edges[row : row + PIECE]


class Files:
    """Scratch of `agglomerate_streamed`: tables of edges as files, removed when they are let go."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.number = folder, 0
        folder.mkdir(parents=True, exist_ok=True)

    def keep(self, pieces: Iterator[np.ndarray]) -> _Kept:
        """Write pieces down as they come."""
        import numpy as np

        self.number += 1
        kept = _Kept(self.folder / f"{self.number}")
        kept.folder.mkdir(exist_ok=True)
        for count, piece in enumerate(pieces):
            np.save(kept.folder / f"{count}.npy", piece)
            kept.count = count + 1
        return kept

    def drop(self, source: Source) -> None:
        """Remove the files of a source."""
        import shutil

        assert isinstance(source, _Kept)
        shutil.rmtree(source.folder)


class _Kept:
    """Replays the pieces of a table from files."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0

    def __call__(self) -> Iterator[np.ndarray]:
        import numpy as np

        for number in range(self.count):
            yield np.load(self.folder / f"{number}.npy")
