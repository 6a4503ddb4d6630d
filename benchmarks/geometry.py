"""What windows, overlap and jobs cost, counted: nothing is computed.

python benchmarks/geometry.py [--json] [--jobs 16] [--lr 64 4096 4096]

Operations of published gpemsr at x8 (window 128) and x16 (window 64) with several overlaps, and what a volume in jobs
costs over one pass without windows: all jobs' operations, with overlap, borders of jobs and lead-in of sections; and
the part of it that is overlap alone (one job). Shards are 1024 x 1024 voxels of sr and 32 or 64 sections deep: jobs are
one shard deep, so that depth decides between borders in the plane and lead-in.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from emsr.inference import cost, forecast
from emsr.models import gpemsr
from emsr.plan import Plan, neighbour_table

SECTIONS = 5
WINDOWS = {8: 128, 16: 64}
OVERLAPS = (4, 8, 16)
DEPTHS = (32, 64)  # sections of a shard


def rows(lr: tuple[int, int, int], jobs: int) -> list[dict[str, Any]]:
    """Every scale and overlap."""
    found = []
    for scale, window in WINDOWS.items():
        of_window = cost.of_network(gpemsr.build(scale, SECTIONS, gpemsr.PRESETS["published"]), SECTIONS, window)
        area = (window * scale / 1024) ** 2
        for overlap in OVERLAPS:
            table = neighbour_table(lr[0], SECTIONS, 1, (), ())
            whole = Plan(lr, scale, window, overlap, (lr[0], 1024, 1024), table)
            once = forecast.one_pass(whole, of_window)
            costs = {"overlap": _cost(whole, of_window, 1) / once}
            for depth in DEPTHS:
                plan = Plan(lr, scale, window, overlap, (depth, 1024, 1024), table)
                costs[f"shards_of_{depth}"] = _cost(plan, of_window, jobs) / once
            found.append({
                **{"scale": scale, "window": window, "overlap": overlap},
                "gmac": round((of_window.section.total + of_window.centre.total) / area / 1e9, 2),
                "sampling_millions": round((of_window.section.sampling + of_window.centre.sampling) / area / 1e6, 1),
                "cost": {name: round(value, 4) for name, value in costs.items()},
            })  # fmt: skip
    return found


def _cost(plan: Plan, of_window: cost.Cost, jobs: int) -> int:
    return sum(work.macs(of_window) for work in forecast.of_jobs(plan, jobs, 1))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--jobs", type=int, default=16)
    parser.add_argument("--lr", type=int, nargs=3, default=(64, 4096, 4096), metavar=("Z", "Y", "X"))
    stated = parser.parse_args()
    lr = tuple(stated.lr)
    found = {"lr": list(lr), "jobs": stated.jobs, "rows": rows(lr, stated.jobs)}
    if stated.json:
        print(json.dumps(found, indent=1))
        return 0
    for row in found["rows"]:
        print(", ".join(f"{name} {value}" for name, value in row.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
