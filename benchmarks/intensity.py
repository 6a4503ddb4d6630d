"""How strong is segmentation without a network? VOI of smoothed intensities on labelled sections, over many settings.

python benchmarks/intensity.py FILE.h5 FIRST STOP --sigma 0.7,0.7,0.7 1,2,2 --dark 0.40 0.42 --bright 0.55 0.60

FILE holds volumes/raw (uint8) and volumes/labels/neuron_ids, as CREMI names them. Affinities of `models/intensity.py`,
watershed of whole sections, exact agglomeration, the best threshold; label 0 is not counted. One line a setting,
best last. All is in memory: for a few sections.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import h5py
import numpy as np
import torch

from emsr.geometry import Box, triple
from emsr.metrics.segmentation import Contingency, variation_of_information
from emsr.models import intensity
from emsr.segmentation.agglomeration import agglomerate
from emsr.segmentation.fragments import BlockGrid, fragments_in
from emsr.segmentation.graph import contacts
from emsr.segmentation.lookup import first_voxels, lookup, relabelled

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def best(raw: np.ndarray, labels: np.ndarray, options: intensity.Options) -> tuple[float, float, float, float]:
    """(VOI sum, split, merge, threshold) of the threshold with the least sum."""
    network = intensity.build(1, 1, options)
    padded = np.pad(raw, [(side, side) for side in network.geometry.halo], mode="reflect")
    with torch.inference_mode():
        made = network(torch.from_numpy(padded).float().div_(255)[None, None])[0]
    affinities = (made * 255).round().byte().numpy()
    whole, grid = Box((0, 0, 0), triple(raw.shape)), BlockGrid(triple(raw.shape), triple((1, *raw.shape[1:])))
    fragments = fragments_in(whole, grid, lambda box: affinities[(..., *box.slices)])
    history = agglomerate(contacts(fragments, affinities), max(THRESHOLDS))
    first = first_voxels(fragments, whole, triple(raw.shape))
    rows = []
    for threshold in THRESHOLDS:
        segments = relabelled(fragments, lookup(history, first, threshold))
        split, merge = variation_of_information(Contingency.of(labels, segments).without([0]))
        rows.append((split + merge, split, merge, threshold))
    return min(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("first", type=int)
    parser.add_argument("stop", type=int)
    parser.add_argument("--sigma", nargs="+", required=True, help="voxels z,y,x")
    parser.add_argument("--dark", nargs="+", type=float, required=True)
    parser.add_argument("--bright", nargs="+", type=float, required=True)
    args = parser.parse_args()
    with h5py.File(args.file) as file:
        raw, labels = (file[name][args.first : args.stop] for name in ("volumes/raw", "volumes/labels/neuron_ids"))
    found = []
    for sigma, dark, bright in product(args.sigma, args.dark, args.bright):
        if dark < bright:
            widths = tuple(float(part) for part in sigma.split(","))
            found.append((best(raw, labels, intensity.Options(widths, dark, bright)), sigma, dark, bright))
    for (voi, split, merge, threshold), sigma, dark, bright in sorted(found, reverse=True):
        at = f"sigma {sigma} dark {dark:g} bright {bright:g}"
        print(f"{at}: VOI {voi:.3f} (split {split:.3f}, merge {merge:.3f}) at {threshold:g}")


if __name__ == "__main__":
    main()
