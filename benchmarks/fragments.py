"""What cutting into blocks costs: VOI of segments from blocks with a halo against those from whole sections, in bits.

python benchmarks/fragments.py results/VOLUME/segmentations/NAME/affinities.json 512+0 512+32 512+64
    [--threshold 0.5] [--sections FIRST STOP]

512+64 is a block of 512 by 512 pixels of one section with a halo of 64. Fragments are made from the affinities of a
finished run, merged exactly below the threshold, and compared voxel by voxel; `--sections` takes a part of the volume,
which must fit into memory at 30 bytes per voxel.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from emsr.durable import read_json
from emsr.geometry import Box, Triple, triple
from emsr.metrics.segmentation import Contingency, variation_of_information
from emsr.segmentation.agglomeration import agglomerate
from emsr.segmentation.fragments import BlockGrid, fragments_in
from emsr.segmentation.graph import merged, read_graph
from emsr.segmentation.lookup import roots
from emsr.stores.shards import read_box
from emsr.stores.zarr import open_array


def read_affinities(card: Path, sections: tuple[int, int] | None) -> np.ndarray:
    """Affinities uint8 (3, z, y, x) of these sections, or of all."""
    of = read_json(card)
    depth, height, width = triple(of["shape"])
    first, stop = sections or (0, depth)
    if not 0 <= first < stop <= depth:
        raise SystemExit(f"sections {first} to {stop} are not within the volume's {depth}")
    array = open_array((card.parent / of["array"]).resolve())
    return read_box(array, Box((first, 0, 0), (stop, height, width)))


def segmented(affinities: np.ndarray, grid: BlockGrid, threshold: float) -> tuple[np.ndarray, int]:
    """Segments uint64 (z, y, x), each with the id of its smallest fragment, and the number of fragments."""

    def near(box: Box) -> np.ndarray:
        return affinities[(slice(None), *box.slices)]

    boxes = layers(grid.shape)
    fragments = np.concatenate([fragments_in(box, grid, near) for box in boxes])
    graph = merged(read_graph(box, lambda part: fragments[part.slices], near) for box in boxes)
    ids = np.unique(fragments)
    root = roots(agglomerate(graph, threshold), ids, threshold)
    for section in fragments:
        section[:] = root[np.searchsorted(ids, section)]
    return fragments, len(ids)


def layers(shape: Triple) -> list[Box]:
    """Every section as a box."""
    return [Box((z, 0, 0), (z + 1, *shape[1:])) for z in range(shape[0])]


def difference(whole: np.ndarray, blocks: np.ndarray) -> tuple[float, float]:
    """VOI split and merge of the segments of blocks, with those of whole sections for truth."""
    return variation_of_information(Contingency.sum(map(Contingency.of, whole, blocks)))


def rows(affinities: np.ndarray, asked: list[tuple[int, int]], threshold: float) -> Iterator[tuple[object, ...]]:
    """(block, halo, fragments, segments, VOI split, merge, sum) of whole sections and of each block with its halo."""
    shape = triple(affinities.shape[1:])
    whole, count = segmented(affinities, BlockGrid(shape, (1, *shape[1:])), threshold)
    yield "whole", "", count, len(np.unique(whole)), "", "", ""
    for block, halo in asked:
        found, count = segmented(affinities, BlockGrid(shape, (1, block, block), (0, halo, halo)), threshold)
        split, merge = difference(whole, found)
        bits = (f"{value:.4f}" for value in (split, merge, split + merge))
        yield block, halo, count, len(np.unique(found)), *bits


def pair(text: str) -> tuple[int, int]:
    """512+64 as (512, 64)."""
    block, halo = map(int, text.split("+"))
    return block, halo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("affinities", type=Path)
    parser.add_argument("blocks", type=pair, nargs="+", help="BLOCK+HALO")
    parser.add_argument("--threshold", type=float, default=0.5)
    parser.add_argument("--sections", type=int, nargs=2)
    stated = parser.parse_args()
    affinities = read_affinities(stated.affinities, stated.sections)
    print(f"affinities {affinities.shape[1:]}, exact agglomeration below {stated.threshold}, VOI in bits")
    heads = ("block", "halo", "fragments", "segments", "split", "merge", "sum")
    for row in [heads, *rows(affinities, stated.blocks, stated.threshold)]:
        print(" ".join(f"{value!s:>10}" for value in row), flush=True)


if __name__ == "__main__":
    main()
