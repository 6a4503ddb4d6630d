"""What a voxel costs in small and in large volumes: the steps of super-resolution from an ingested lr to a proved sr.

python benchmarks/size.py [--json] [--largest 30] [--largest-gpemsr 26] [--rounds 5] [--rounds-gpemsr 1]
                          [--workers 2] [--folder FOLDER]

allocate, superresolve, stitch in one process, at x4 with `bicubic` from 2^24 to 2^30 voxels of sr, at x8 with gpemsr
`small` (random weights) from 2^22 to 2^26. Windows of 72 lr pixels that overlap by 8 cover sections of every size here
equally often, so that what is seen is what grows with size and nothing else. Each model first makes its smallest volume
once for nothing. Medians of the rounds, which go through all sizes in turn.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections import defaultdict
from math import prod
from pathlib import Path
from typing import Any

from project import Project, weights

WINDOW, OVERLAP = 72, 8
SHAPES = {  # of sr, by the power of two of its voxels
    "bicubic": {24: (16, 1024, 1024), 26: (16, 2048, 2048), 28: (64, 2048, 2048), 30: (64, 4096, 4096)},
    "gpemsr": {22: (4, 1024, 1024), 24: (16, 1024, 1024), 26: (16, 2048, 2048)},
}
SCALES = {"bicubic": 4, "gpemsr": 8}


def once(folder: Path, model: str, shape: tuple[int, int, int], workers: int) -> dict[str, Any]:
    """The seconds of each step for a volume that is made, super-resolved and removed."""
    scale = SCALES[model]
    made = Project(folder / "volume", weights(folder, model, scale, WINDOW), OVERLAP)
    made.folder.mkdir()
    made.write_lr((shape[0], shape[1] // scale, shape[2] // scale))
    took = made.run(workers)
    shutil.rmtree(made.folder)
    return took


def measured(stated: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """For each model and size: nanoseconds a voxel, of the whole and of each step."""
    largest = {"bicubic": stated.largest, "gpemsr": stated.largest_gpemsr}
    rounds = {"bicubic": stated.rounds, "gpemsr": stated.rounds_gpemsr}
    found: dict[str, Any] = {}
    for model, shapes in SHAPES.items():
        wanted = {power: shape for power, shape in shapes.items() if power <= largest[model]}
        once(folder, model, shapes[min(shapes)], stated.workers)
        took: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for _ in range(rounds[model]):
            for power, shape in wanted.items():
                took[power].append(once(folder, model, shape, stated.workers))
        found[model] = {str(power): _figures(shape, took[power]) for power, shape in wanted.items()}
        each = [size["nanoseconds_a_voxel"] for size in found[model].values()]
        found[model]["largest_over_smallest"] = round(each[-1] / each[0], 3)
        found[model]["most_over_least"] = round(max(each) / min(each), 3)
    return found


def _figures(shape: tuple[int, int, int], took: list[dict[str, Any]]) -> dict[str, Any]:
    whole = [sum(one[step] for step in ("allocate", "superresolve", "stitch")) for one in took]
    voxels = prod(shape)
    return {
        "shape": list(shape),
        "seconds": round(statistics.median(whole), 3),
        "nanoseconds_a_voxel": round(statistics.median(whole) / voxels * 1e9, 2),
        "rounds": [round(seconds / voxels * 1e9, 2) for seconds in whole],
        **{step: round(statistics.median(one[step] for one in took), 3) for step in ("superresolve", "stitch")},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--largest", type=int, default=30, help="power of two of voxels of sr, with bicubic")
    parser.add_argument("--largest-gpemsr", type=int, default=26, help="the same with gpemsr")
    parser.add_argument("--rounds", type=int, default=5, help="of all sizes with bicubic")
    parser.add_argument(
        "--rounds-gpemsr", type=int, default=1, help="the same with gpemsr, which is a hundred times slower"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where volumes lie while this runs")
    stated = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=stated.folder) as folder:
        found = measured(stated, Path(folder))
    if stated.json:
        print(json.dumps(found, indent=1))
        return 0
    for model, sizes in found.items():
        for power, one in sizes.items():
            words = one if isinstance(one, float) else ", ".join(f"{name} {value}" for name, value in one.items())
            print(f"{model} {power}: {words}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
