"""The flow networks on known warps of real sections: endpoint error in lr pixels, by the length of the displacement.

python benchmarks/flows.py FOLDER VOLUME.h5 [--dataset volumes/raw] [--steps 400] [--seeds 1] [--flows correlation]

Each network is trained by stage flow of preset small, for equally many steps, on sections 0 to 180 of hr made --scale
times coarser; FOLDER keeps what was trained, so that the script may be stopped and started. Test sections are 184 on.
"own": a section is displaced against itself, with another contrast and grain, as in training. "neighbour": against the
section --step further, which shows other tissue, as in use; sections of the volume must be aligned. The time is that of
the process (CPU), one thread.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from emsr.degradation import degrade
from emsr.durable import read_json, write_json
from emsr.models import gpemsr
from emsr.training import warps
from emsr.training.data import Batch, Series, generator
from emsr.training.loop import Run, train
from emsr.training.objectives.context import Context, unit
from emsr.training.objectives.flow import Flow, Pair, make

TRAIN, VALIDATION, TEST = (0, 180), (184, 196), (200, 256)
PATCHES = 96  # of each test
LENGTHS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)  # lr pixels


def coarse(args: argparse.Namespace) -> np.ndarray[Any, Any]:
    """The volume made coarser, uint8 z y x."""
    kept = args.folder / f"lr_x{args.scale}.npy"
    if not kept.exists():
        with h5py.File(args.volume) as file:
            np.save(kept, np.stack([degrade(section, args.scale) for section in file[args.dataset]]))
    made: np.ndarray[Any, Any] = np.load(kept)
    return made


def series(lr: np.ndarray[Any, Any], first: int, stop: int, step: int = 0) -> tuple[Series, ...]:
    """Sections from ``first`` on, each alone, or with the one ``step`` further."""
    stop = min(stop, len(lr)) - step
    return (Series("volume", lr, None, tuple((z, z + step) if step else (z,) for z in range(first, stop))),)


def objective(name: str, lr: np.ndarray[Any, Any], args: argparse.Namespace, seed: int) -> Flow:
    options = replace(gpemsr.PRESETS["small"], flow=name)
    stage = replace(gpemsr.stages("small", args.scale)[0], steps=args.steps, validate_every=100, checkpoint_every=25)
    torch.manual_seed(seed)
    network = gpemsr.flow_network(options).to(memory_format=torch.channels_last)
    parts = series(lr, *TRAIN), series(lr, *VALIDATION)
    return make(Context(stage, network, args.scale, *parts, seed, flow_scale=options.flow_scale))


def trained(name: str, lr: np.ndarray[Any, Any], args: argparse.Namespace, seed: int) -> tuple[Flow, float]:
    """The objective with its trained network, and the CPU seconds that this took."""
    made, label = objective(name, lr, args, seed), f"{name}_{args.steps}_{seed}"
    weights, record = args.folder / f"{label}.pt", args.folder / f"{label}.json"
    if not record.exists():
        result = train(made, made.stage, Run(args.folder / label, label, label))
        torch.save(result.weights, weights)
        write_json(record, result.stats)
    made.network.load_state_dict(torch.load(weights, weights_only=True))
    made.network.eval()
    return made, read_json(record)["cpu_seconds"]


def tests(made: Flow, lr: np.ndarray[Any, Any], args: argparse.Namespace, kind: str) -> Iterator[Pair]:
    """Pairs of patches of test sections with known displacements, the same for every network."""
    step = args.step if kind == "neighbour" else 0
    context = replace(made.context, validation=series(lr, *TEST, step))
    for number, batch in enumerate(context.fixed(made.request, PATCHES)):
        draw = generator(0, f"test {kind}", number)
        if not step:
            yield made.pair(batch, draw)
            continue
        other = unit(batch.lr, "cpu")[:, 1]
        pair = made.pair(Batch(batch.places, batch.lr[:, :1], None), draw)
        shown = torch.from_numpy(warps.recontrast(other.numpy(), draw, made.stage.contrast))
        yield pair._replace(fixed=shown)


@torch.inference_mode()
def errors(made: Flow, lr: np.ndarray[Any, Any], args: argparse.Namespace, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """True lengths and endpoint errors of all pixels whose place lies inside the patch."""
    lengths, found = [], []
    for pair in tests(made, lr, args, kind):
        inside = pair.inside[:, 0] > 0
        lengths.append(pair.truth.norm(dim=1)[inside])
        found.append((made.flow(made.network, pair) - pair.truth).norm(dim=1)[inside])
    return torch.cat(lengths).numpy(), torch.cat(found).numpy()


def milliseconds(made: Flow, rounds: int = 20) -> float:
    """Median CPU time of the flow of one pair of windows of 64 x 64 lr pixels."""
    images = [torch.rand(1, 1, 64, 64) for _ in range(2)]
    spent = []
    with torch.inference_mode():
        for _ in range(rounds):
            start = time.process_time()
            made.network(*images)
            spent.append(1000 * (time.process_time() - start))
    return float(np.median(spent))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("volume", type=Path)
    parser.add_argument("--dataset", default="volumes/raw")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--step", type=int, default=4, help="sections between neighbours")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--flows", nargs="+", default=list(gpemsr.FLOWS), choices=gpemsr.FLOWS)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    lr, rows = coarse(args), []
    for seed in range(args.seeds):
        for name in args.flows:
            made, spent = trained(name, lr, args, seed)
            count = sum(parameter.numel() for parameter in made.network.parameters())
            for kind in ("own", "neighbour"):
                lengths, found = errors(made, lr, args, kind)
                within = [(lengths >= low) & (lengths < high) for low, high in pairwise(LENGTHS)]
                cells = [f"{found[part].mean():.2f}" for part in within]
                rows.append((kind, name, seed, *cells, f"{found.mean():.2f}", f"{lengths.mean():.2f}", count,
                             f"{spent:.0f}", f"{milliseconds(made):.1f}"))  # fmt: skip
    spans = [f"{low:g} to {high:g}" for low, high in pairwise(LENGTHS)]
    head = ("against", "flow", "seed", *spans, "all", "no flow", "parameters", "CPU s of training", "ms of a pair")
    print(f"| {' | '.join(head)} |\n{'| --- ' * len(head)}|")
    for row in sorted(rows):
        print(f"| {' | '.join(map(str, row))} |")


if __name__ == "__main__":
    main()
