"""How fast ingest copies: voxels per second against the plainest copy of the same source into the same array.

python benchmarks/ingest.py [--megavoxels 64] [--rounds 5] [--workers 2] [--sources zarr n5 ...] [--folder FOLDER]

Three sides take turns, each from a source in the page cache to an array whose files are forced to disk:

- plain: one `target.write(source).result()` of tensorstore; of formats that tensorstore does not read (HDF5, TIFF,
  precomputed in gzipped files) a loop over layers of shards with the format's own library and the same write;
- copy: what ingest does to make level 0, from opening the source on;
- step: all of ingest: checks, copy, levels, hash and statistics of every section, read back from disk, and the card.

Arrays are as config.yaml lays them out. Grey levels are smooth noise with shot noise, about as compressible as FIB-SEM.
A ratio is the median of the rounds, in which the sides have the same neighbours on the machine; extremes in brackets.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tensorstore as ts
import tifffile
import yaml
from cloudvolume import CloudVolume
from scipy.ndimage import gaussian_filter

from emsr.steps.data import ingest
from emsr.stores import open_source
from emsr.stores.fill import Making, fill
from emsr.stores.journal import Journal
from emsr.stores.ome import Layout
from emsr.stores.pieces import CACHE_BYTES
from emsr.stores.zarr import create, open_array, recreate

SIDE, DEEP = 1024, 64  # voxels along y and x, and of a chunk of the sources
SIZE_NM = (40.0, 4.0, 4.0)
LAID = yaml.safe_load((Path(__file__).parents[1] / "config.yaml").read_text())["ingest"]
SHARD, CHUNK = tuple(LAID["shard"]), tuple(LAID["chunk"])


@dataclass(frozen=True)
class Case:
    """A source on disk, where `dataset` is the name inside, and the plainest copy of it into an array."""

    path: Path
    plain: Callable[[ts.TensorStore], object]
    dataset: str | None = None


def grey_levels(depth: int) -> np.ndarray:
    """uint8 (depth, SIDE, SIDE): a smooth pattern that repeats along y and x, and noise that does not."""
    generator = np.random.default_rng(0)
    smooth = gaussian_filter(generator.normal(size=(depth, SIDE // 4, SIDE // 4)), (1, 2, 2), mode="wrap")
    volume = np.empty((depth, SIDE, SIDE), np.uint8)
    for section, pattern in zip(volume, 35 / smooth.std() * smooth, strict=True):
        noise = generator.standard_normal((SIDE, SIDE), np.float32)
        section[:] = np.clip(128 + np.tile(pattern, (4, 4)) + 6 * noise, 0, 255)
    return volume


def layers(target: ts.TensorStore, read: Callable[[slice], np.ndarray]) -> None:
    """The loop of formats that tensorstore does not read: a layer of shards is read, then written."""
    for z in range(0, target.shape[0], SHARD[0]):
        part = slice(z, min(z + SHARD[0], target.shape[0]))
        target[part].write(read(part)).result()


# sources


def stored(driver: str, path: Path, **new: Any) -> ts.TensorStore:
    """An array opened by tensorstore with the cache that ingest takes; created where `new` says how."""
    context = ts.Context({"cache_pool": {"total_bytes_limit": CACHE_BYTES}})
    spec = {"driver": driver, "kvstore": {"driver": "file", "path": f"{path}/"}, **new}
    return ts.open(spec, open=not new, create=bool(new), context=context).result()


def zarr(path: Path, volume: np.ndarray, chunk: tuple[int, ...] = (DEEP, DEEP, DEEP)) -> Case:
    """zarr v3, chunks compressed by zstd."""
    grid = {"name": "regular", "configuration": {"chunk_shape": chunk}}
    codecs = [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": 3}}]
    made = {"shape": volume.shape, "data_type": "uint8", "chunk_grid": grid, "codecs": codecs}
    stored("zarr3", path, metadata=made).write(volume).result()
    return Case(path, lambda target: target.write(stored("zarr3", path)).result())


def sections(path: Path, volume: np.ndarray) -> Case:
    """The same with a section a chunk."""
    return zarr(path, volume, (1, *volume.shape[1:]))


def ome(path: Path, volume: np.ndarray) -> Case:
    """OME-Zarr 0.5, with other shards and chunks than those of the result."""
    create(path, Layout(volume.shape, "uint8", (DEEP, 1024, 1024), (DEEP // 2, 128, 128), SIZE_NM))
    open_array(path, write=True).write(volume).result()
    return Case(path, lambda target: target.write(stored("zarr3", path / "0")).result())


def n5(path: Path, volume: np.ndarray) -> Case:
    """N5, blocks compressed by gzip."""
    made = {"dimensions": volume.T.shape, "blockSize": [DEEP] * 3, "dataType": "uint8"}
    stored("n5", path, metadata={**made, "compression": {"type": "gzip", "level": 1}}).write(volume.T).result()
    return Case(path, lambda target: target.write(stored("n5", path).T).result())


def precomputed(path: Path, volume: np.ndarray) -> Case:
    """Precomputed, raw."""
    _precomputed(path, volume, False)
    return Case(path, lambda target: target.write(stored("neuroglancer_precomputed", path)[..., 0].T).result())


def precomputed_gz(path: Path, volume: np.ndarray) -> Case:
    """Precomputed as cloud-volume compresses it."""
    _precomputed(path, volume, "gzip")

    def plain(target: ts.TensorStore) -> None:
        source = CloudVolume(f"file://{path}", progress=False)
        layers(target, lambda part: np.asarray(source[:, :, part])[..., 0].T)

    return Case(path, plain)


def _precomputed(path: Path, volume: np.ndarray, compress: str | bool) -> None:
    """A volume as cloud-volume writes it."""
    what = {"num_channels": 1, "layer_type": "image", "data_type": "uint8", "encoding": "raw"}
    where = {"resolution": SIZE_NM[::-1], "voxel_offset": (0, 0, 0), "volume_size": volume.T.shape}
    info = CloudVolume.create_new_info(**what, **where, chunk_size=[DEEP] * 3)
    made = CloudVolume(f"file://{path}", info=info, compress=compress, progress=False)
    made.commit_info()
    made[:] = volume.T[..., None]


def hdf5(path: Path, volume: np.ndarray) -> Case:
    """HDF5, chunks compressed by gzip."""
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", data=volume, chunks=(16, 128, 128), compression="gzip", compression_opts=1)

    def plain(target: ts.TensorStore) -> None:
        with h5py.File(path) as file:
            layers(target, lambda part: file["raw"][part])

    return Case(path, plain, "raw")


def tiff(path: Path, volume: np.ndarray) -> Case:
    """TIFF of many pages, compressed by deflate."""
    tifffile.imwrite(path, volume, photometric="minisblack", compression="zlib", compressionargs={"level": 1})

    def plain(target: ts.TensorStore) -> None:
        with tifffile.TiffFile(path) as file:
            layers(target, lambda part: np.stack([page.asarray() for page in file.pages[part]]))

    return Case(path, plain)


SOURCES = (zarr, sections, ome, n5, precomputed, precomputed_gz, hdf5, tiff)


# sides


def plain(case: Case, laid: Layout, out: Path, workers: int) -> None:
    recreate(out, laid)
    case.plain(open_array(out, write=True))


def copy(case: Case, laid: Layout, out: Path, workers: int) -> None:
    source = open_source(case.path, case.dataset)
    making = Making(lambda box: source.read(box.start, box.stop), "copy", source.depth)
    fill(out, laid, making, Journal(out, {}), workers)
    source.close()


def step(case: Case, laid: Layout, out: Path, workers: int) -> None:
    source = {"path": str(case.path), "dataset": case.dataset, "voxel_size_nm": list(SIZE_NM)}
    ingest({"image": "hr", "source": source, "region": None, **LAID}, out.with_suffix(".json"), workers=workers)


def seconds(side: Callable[..., None], case: Case, laid: Layout, folder: Path, workers: int) -> tuple[float, float]:
    """How long a side takes, on the clock and of all processors; what it wrote is removed."""
    out = folder / "out" / "hr.zarr"
    with contextlib.redirect_stderr(io.StringIO()):
        begin, used = time.perf_counter(), time.process_time()
        side(case, laid, out, workers)
        taken = time.perf_counter() - begin, time.process_time() - used
    shutil.rmtree(out.parent)
    return taken


def measured(case: Case, laid: Layout, folder: Path, rounds: int, workers: int) -> str:
    """One line: of each side million voxels per second and processor seconds, and what it holds of the plain copy."""
    sides = (plain, copy, step)
    taken = np.array([[seconds(side, case, laid, folder, workers) for side in sides] for _ in range(rounds)])
    (clock, used), cells = np.moveaxis(taken, -1, 0), []
    for number in range(len(sides)):
        speed, held = np.prod(laid.shape) / 1e6 / np.median(clock[:, number]), clock[:, 0] / clock[:, number]
        part = f"{np.median(held):6.2f} [{held.min():.2f}-{held.max():.2f}]" if number else ""
        cells.append(f"{speed:7.1f} {np.median(used[:, number]):6.2f}{part}")
    return "  ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megavoxels", type=int, default=64, help="of 2^20 voxels, a section each")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sources", nargs="+", choices=[source.__name__ for source in SOURCES])
    parser.add_argument("--folder", type=Path, help="where sources and arrays lie while this runs")
    stated = parser.parse_args()
    volume = grey_levels(stated.megavoxels)
    laid = Layout(volume.shape, "uint8", SHARD, CHUNK, SIZE_NM)
    print(f"{volume.shape} voxels, {stated.workers} workers, {stated.rounds} rounds")
    print("million voxels/s, processor seconds, and the part of the plain copy's speed that is held: plain, copy, step")
    for source in SOURCES:
        if stated.sources and source.__name__ not in stated.sources:
            continue
        with tempfile.TemporaryDirectory(dir=stated.folder) as folder:
            case = source(Path(folder) / f"{source.__name__}.{'h5' if source is hdf5 else 'data'}", volume)
            seconds(copy, case, laid, Path(folder), stated.workers)  # what is imported late, and the page cache
            print(
                f"{source.__name__:15} {measured(case, laid, Path(folder), stated.rounds, stated.workers)}", flush=True
            )


if __name__ == "__main__":
    main()
