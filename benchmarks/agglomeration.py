"""Seconds and memory of agglomeration in memory and out of core on a made-up graph, and its segments against waterz.

python benchmarks/agglomeration.py EDGES [--until 0.9] [--memory-mb 1500] [--noise]       both ways, and their histories
python benchmarks/agglomeration.py --volume 20 512 512                                    segments and merges of waterz

Fragments lie on a lattice, six edges each, 125 to a cell, and their graph is written as that of eight shards. With
`--noise` there are no cells, so that one region takes in the others one by one. Each way runs as the step does it, in a
process of its own, one with memory without end and one with `--memory-mb`; peaks are those of the whole process.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from scipy import ndimage

from emsr.geometry import Box, Triple, triple
from emsr.metrics.segmentation import Contingency, variation_of_information
from emsr.segmentation.agglomeration import agglomerate
from emsr.segmentation.binned import agglomerate_binned
from emsr.segmentation.fragments import BlockGrid, fragments_in
from emsr.segmentation.graph import contacts, empty, merged, summed
from emsr.segmentation.lookup import FIRST, merged_first_voxels, roots
from emsr.segmentation.whole import waterz_whole
from emsr.steps import graph_files

SHARDS, CELL, ENDLESS_MB = 8, 5, 10**9
OFFSETS = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1))  # z, y, x


def made_graph(edges: int, noise: bool) -> np.ndarray:
    """About so many edges (`EDGE`) of a lattice."""
    rng = np.random.default_rng(0)
    side = max(2, round((edges / len(OFFSETS)) ** (1 / 3)))
    parts = []
    for offset in OFFSETS:
        at = np.indices([side - step for step in offset]).reshape(3, -1)
        to = at + np.array(offset)[:, None]
        table = empty(at.shape[1])
        table["u"], table["v"] = (np.ravel_multi_index(tuple(place), (side,) * 3) + 1 for place in (at, to))
        together = (at // CELL == to // CELL).all(axis=0)
        cells = np.where(together, 0.7, 0.15) + rng.normal(0, 0.1, len(table))
        share = rng.uniform(0, 1, len(table)) if noise else np.clip(cells, 0, 1)
        table["count"] = rng.integers(2, 60, len(table))
        table["sum"] = share * 255 * table["count"]
        parts.append(table)
    return summed(np.concatenate(parts))


def shards_of(graph: np.ndarray) -> Iterator[np.ndarray]:
    """The graphs of shards; of an edge between two of them each has half of the contacts."""
    last = int(graph["v"].max())
    u, v = (((graph[name] - np.uint64(1)) * np.uint64(SHARDS) // np.uint64(last)).astype(int) for name in ("u", "v"))
    half, rest = graph[u != v], graph.copy()
    half["sum"] = half["sum"] * (half["count"] // 2) // half["count"]
    half["count"] //= 2
    for name in ("count", "sum"):
        rest[name][u != v] -= half[name]
    for shard in range(SHARDS):
        yield merged([rest[u == shard], half[v[u != v] == shard]])


def make(folder: Path, edges: int, noise: bool) -> None:
    """Files as those of the step, one for each shard."""
    graph = made_graph(edges, noise)
    first = np.empty(int(graph["v"].max()), FIRST)
    first["fragment"] = first["voxel"] = np.arange(1, len(first) + 1)
    for number, table in enumerate(shards_of(graph)):
        graph_files.save(folder / f"{number}.npz", edges=table, first=first[number::SHARDS])


def side(folder: Path, until: float, memory_mb: int) -> None:
    """Agglomerate the graph in a folder and print seconds, peaks and the hash of the history as JSON."""
    before, clock = peak_mb(), time.perf_counter()
    files = sorted(folder.glob("*.npz"))
    first = merged_first_voxels(graph_files.part(file, "first") for file in files)
    history = graph_files.history("exact", until, files, first["fragment"], folder / "scratch", memory_mb)
    found = {"seconds": time.perf_counter() - clock, "before_mb": before, "peak_mb": peak_mb()}
    found |= {"fragments": len(first), "edges": sum(map(graph_files.edge_count, files)), "merges": len(history.merges)}
    print(json.dumps({**found, "sha256": hashlib.sha256(history.merges.tobytes()).hexdigest()}))


def peak_mb() -> float:
    """Largest resident memory of this process so far, 10^6 bytes (Linux)."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in status if line.startswith("VmHWM"))


def compare_ways(edges: int, until: float, memory_mb: int, noise: bool) -> None:
    """Print a line for each way."""
    with TemporaryDirectory() as name:
        run("make", name, str(edges), str(int(noise)))
        ways = [json.loads(run("side", name, str(until), str(limit))) for limit in (ENDLESS_MB, memory_mb)]
    found = ways[0]
    print(f"{found['fragments']} fragments, {found['edges']} edges, {found['merges']} merges below {until}")
    for limit, found in zip(("without limit", f"{memory_mb} MB"), ways, strict=True):
        used = (found["peak_mb"] - found["before_mb"]) * 1e6
        print(
            f"{limit:>13}: {found['seconds']:.1f} s, peak {found['peak_mb']:.0f} MB ({found['before_mb']:.0f} before): "
            f"{used / found['edges']:.0f} bytes per edge, {used / found['fragments']:.0f} per fragment"
        )
    print("histories equal bit for bit:", ways[0]["sha256"] == ways[1]["sha256"])


def run(*words: str) -> str:
    """What this program prints in a process of its own."""
    return subprocess.run([sys.executable, __file__, *words], check=True, stdout=subprocess.PIPE, text=True).stdout


def made_volume(shape: Triple) -> tuple[np.ndarray, np.ndarray]:
    """Affinities uint8 (3, z, y, x) of blobs about 20 pixels wide, and their fragments in blocks of 128."""
    rng = np.random.default_rng(0)
    field = np.abs(ndimage.gaussian_filter(rng.standard_normal(shape), (1, 10, 10)))
    inside = np.clip(4 * field / field.max() - 0.1, 0.1, 0.9)
    pairs = np.stack([np.minimum(inside, np.roll(inside, 1, axis)) for axis in range(3)])
    affinities = np.uint8(np.clip(255 * pairs + rng.normal(0, 25, pairs.shape), 0, 255))
    grid = BlockGrid(shape, (1, 128, 128), (0, 32, 32))
    whole = Box((0, 0, 0), shape)
    return affinities, fragments_in(whole, grid, lambda box: affinities[(slice(None), *box.slices)])


def compare_waterz(shape: Triple, threshold: float = 0.5) -> None:
    """Print how segments and merges of both methods differ from those of waterz."""
    affinities, fragments = made_volume(shape)
    graph, ids = contacts(fragments, affinities), np.unique(fragments)
    print(f"{len(ids)} fragments, {len(graph)} edges, threshold {threshold}")
    for name, method, bins in (("exact", agglomerate, 0), ("waterz", agglomerate_binned, 256)):
        theirs, merges = waterz_whole(affinities, fragments, threshold, bins)
        history = method(graph, threshold)
        ours = roots(history, ids, threshold)[np.searchsorted(ids, fragments)]
        shared = len(np.intersect1d(history.merges[["a", "b"]], merges[["a", "b"]]))
        split, merge = variation_of_information(Contingency.of(theirs, ours))
        print(
            f"{name} against discretize_queue {bins}: segments equal {np.array_equal(ours, theirs)}, VOI "
            f"{split + merge:.6f} bits, {shared} merges in both of {len(history.merges)} and {len(merges)}; "
            f"{len(np.unique(history.merges['score']))} different scores"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("edges", type=int, nargs="?")
    parser.add_argument("--until", type=float, default=0.9)
    parser.add_argument("--memory-mb", type=int, default=1500)
    parser.add_argument("--noise", action="store_true")
    parser.add_argument("--volume", type=int, nargs=3)
    stated = parser.parse_args()
    if stated.edges:
        compare_ways(stated.edges, stated.until, stated.memory_mb, stated.noise)
    if stated.volume:
        compare_waterz(triple(stated.volume))


if __name__ == "__main__":
    if sys.argv[1:2] == ["make"]:
        make(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "1")
    elif sys.argv[1:2] == ["side"]:
        side(Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
