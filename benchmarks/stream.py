"""How much faster a network streams than it goes window at a time: same weights, same output, both sides in one run.

python benchmarks/stream.py [--json] [--preset published] [--scales 8 16] [--depth 32] [--every 4] [--rounds 3]
                            [--device cpu] [--precision float32] [--sides x8=32 x16=16]

Streamed: a column of --depth centres as a job does it, lead-in included, each section entering once. Window at a time:
the module's own `forward` of all the sections that a centre is made from, for every --every-th centre, in turn with the
stream. The ratio is seconds a centre window at a time over seconds a centre streamed, median of the rounds; both sides
are compared voxel by voxel. Weights are random: time does not depend on them. On a CPU both sides have one thread, and
windows are smaller than the published 128 and 64 lr pixels, so that it ends in minutes: --sides x8=128 x16=64 takes
those.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emsr.geometry import Box
from emsr.inference.cost import of_network
from emsr.inference.precision import autocast
from emsr.inference.run import reproducible
from emsr.inference.stream import stream_column
from emsr.models import gpemsr
from emsr.plan import Plan, neighbour_table

SIDES = {8: 32, 16: 16, 4: 64}  # lr pixels
SECTIONS = 5


class Timed:
    """A network as `stream_column` calls it, which keeps the results on the device and the seconds inside."""

    def __init__(self, module: Any, device: str) -> None:
        self.module, self.device, self.seconds = module, device, 0.0

    def section(self, lr: np.ndarray) -> tuple[Tensor, ...]:
        return self._timed(lambda: tuple(self.module.section(self.image(lr)[:, 0])))

    def centre(self, states: list[tuple[Tensor, ...]], *where: Any) -> Any:
        return self._timed(lambda: self.module.centre(states))

    def window(self, volume: np.ndarray) -> Tensor:
        return self._timed(lambda: self.module(self.image(volume)))

    def image(self, voxels: np.ndarray) -> Tensor:
        image = torch.from_numpy(np.ascontiguousarray(voxels)).to(self.device).float() / 255
        return image.reshape(1, -1, 1, *voxels.shape[-2:])

    def _timed(self, call: Any) -> Any:
        self._wait()
        start = time.perf_counter()
        result = call()
        self._wait()
        self.seconds += time.perf_counter() - start
        return result

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def smooth(depth: int, side: int) -> np.ndarray:
    """uint8 (depth, side, side) that drifts by a pixel from section to section."""
    y, x = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    return np.stack([128 + 90 * np.sin((y + z) / 3) * np.cos((x - z) / 5) for z in range(depth)]).astype(np.uint8)


def rounds(network: Timed, scale: int, side: int, depth: int, every: int) -> Iterator[tuple[float, float, float]]:
    """Seconds a centre window at a time, seconds a centre streamed, largest difference: of one round after another."""
    margin = SECTIONS // 2
    volume = smooth(depth + 2 * margin, side)
    table = neighbour_table(len(volume), SECTIONS, 1, (), ())
    plan = Plan((len(volume), side, side), scale, side, 0, (len(volume), side * scale, side * scale), table)
    centres = range(margin, margin + depth)

    def read(box: Box) -> np.ndarray:
        return volume[box.slices]

    while True:
        streamed = by_window = worst = 0.0
        checked = 0
        network.seconds = 0.0
        for z, image in stream_column(network, plan, (0, 0), centres, read):  # type: ignore[arg-type]
            streamed, network.seconds = streamed + network.seconds, 0.0
            if (z - margin) % every:
                continue
            whole = network.window(np.stack([volume[section] for section in plan.table[z] or ()]))
            by_window, network.seconds = by_window + network.seconds, 0.0
            worst = max(worst, float((whole.float() - image.float()).abs().max()))
            checked += 1
        yield by_window / checked, streamed / depth, worst


def measured(stated: argparse.Namespace, scale: int) -> dict[str, Any]:
    """Ratio, its extremes, seconds, the largest difference, and the ratio of the operations of the same column."""
    side, depth = stated.sides.get(scale, SIDES[scale]), stated.depth
    torch.manual_seed(0)
    module = gpemsr.build(scale, SECTIONS, gpemsr.PRESETS[stated.preset]).eval()
    cost = of_network(module, SECTIONS, side, stated.precision)
    whole = SECTIONS * cost.section.total + cost.centre.total
    own = (depth + SECTIONS - 1) / depth * cost.section.total + cost.centre.total
    network = Timed(module.to(stated.device, memory_format=torch.channels_last), stated.device)
    with torch.inference_mode(), autocast(stated.device, stated.precision):
        network.window(smooth(SECTIONS, side))  # what is set up late
        running = rounds(network, scale, side, depth, stated.every)
        found = [next(running) for _ in range(stated.rounds)]
    ratios = [by_window / streamed for by_window, streamed, _ in found]
    return {
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "ratio_of_operations": round(whole / own, 3),
        "seconds_window_at_a_time": round(statistics.median(one[0] for one in found), 4),
        "seconds_streamed": round(statistics.median(one[1] for one in found), 4),
        "gmac_per_second_streamed": round(own / statistics.median(one[1] for one in found) / 1e9, 1),
        "largest_difference": max(one[2] for one in found),
        **{"window": side, "centres": depth, "preset": stated.preset, "precision": stated.precision},
        "device": torch.cuda.get_device_name() if stated.device == "cuda" else "cpu",
    }


def line(name: str, one: dict[str, Any]) -> str:
    """What was found, for people."""
    spread = f"{min(one['ratios']):.2f}-{max(one['ratios']):.2f}"
    return (
        f"{name}: {one['ratio']:.2f} times as fast [{spread}], operations {one['ratio_of_operations']:.2f}; "
        f"a centre of {one['window']} lr pixels in {one['seconds_streamed']:.2f} s, window at a time "
        f"{one['seconds_window_at_a_time']:.2f} s; largest difference {one['largest_difference']:.1e}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object, by scale")
    parser.add_argument("--preset", default="published", choices=sorted(gpemsr.PRESETS))
    parser.add_argument("--scales", type=int, nargs="+", default=[8, 16], choices=gpemsr.SCALES)
    parser.add_argument("--sides", nargs="*", default=[], metavar="xSCALE=LR_PIXELS")
    parser.add_argument("--depth", type=int, default=32, help="centres of the column: a job's shards are as deep")
    parser.add_argument("--every", type=int, default=4, help="of which every so many are also done window at a time")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16", "float16"))
    stated = parser.parse_args()
    stated.sides = {int(scale.removeprefix("x")): int(side) for scale, side in (one.split("=") for one in stated.sides)}
    with reproducible():
        found = {f"x{scale}": measured(stated, scale) for scale in stated.scales}
    if stated.json:
        print(json.dumps(found, indent=1))
        return 0
    print("\n".join(line(name, one) for name, one in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
