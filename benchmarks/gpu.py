"""What pays on a GPU: precisions, memory formats, compilation, CUDA graphs, batches of windows; memory of a window.

python benchmarks/gpu.py [--json] [--device cuda] [--preset published] [--scales 8 16] [--windows 64 128] [--rounds 5]
                         [--variants eager contiguous compile graphs batch2 batch4 copies pinned]
                         [--precisions float32 bfloat16 float16]

For each scale, window and precision: a section enters and a centre is made, again and again, with random weights;
million voxels of sr a second (medians) and the most memory of the device that was held. Variants: `eager` is what emsr
does (one window a call, channels last); `contiguous` the same in the other memory format; `compile` torch.compile;
`graphs` torch.compile with CUDA graphs; `batchN` N windows a call; `copies` adds what emsr copies for a window, bytes
in and 16-bit steps out; `pinned` does that through page-locked memory while the next window is computed. All variants
of a row take turns, some calls at a time on a GPU. A variant that fails says why. Nothing here is used by emsr unless
its ratio over `eager`, or of `pinned` over `copies`, shows that it pays.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from emsr.inference.blend import STEPS
from emsr.inference.precision import REDUCED, autocast
from emsr.inference.run import reproducible
from emsr.models import gpemsr

SECTIONS = 5
CALLS = 4  # between two waits for a GPU
VARIANTS = ("eager", "contiguous", "compile", "graphs", "batch2", "batch4", "copies", "pinned")


def prepared(variant: str, scale: int, preset: str, window: int, device: str) -> tuple[Callable[[], Tensor], int]:
    """A call that takes one section in and makes one centre, and how many windows it makes."""
    torch.manual_seed(0)
    network: Any = gpemsr.build(scale, SECTIONS, gpemsr.PRESETS[preset]).eval().to(device)
    layout = torch.contiguous_format if variant == "contiguous" else torch.channels_last
    network = network.to(memory_format=layout)
    batch = int(variant.removeprefix("batch")) if variant.startswith("batch") else 1
    lr = torch.rand(batch, 1, window, window, device=device).contiguous(memory_format=layout)
    section, centre = network.section, network.centre
    if variant in ("compile", "graphs"):
        mode = "reduce-overhead" if variant == "graphs" else None
        section, centre = (torch.compile(call, mode=mode) for call in (section, centre))

    def compute(lr: Tensor) -> Tensor:
        if variant == "graphs":
            torch.compiler.cudagraph_mark_step_begin()
        state = tuple(part.clone() for part in section(lr)) if variant == "graphs" else section(lr)
        made: Tensor = centre([state] * SECTIONS)
        return made

    if variant == "copies":
        read = torch.zeros(1, 1, window, window, dtype=torch.uint8)
        return lambda: steps(compute(read.to(device).float().div_(255))).cpu(), batch
    if variant == "pinned":
        return pinned(compute, window, scale, device), batch
    return lambda: compute(lr), batch


def steps(made: Tensor) -> Tensor:
    """What leaves the device, as in `emsr.inference.stream`."""
    return made.clamp_(0, 1).mul_(STEPS).round_().to(torch.int16)


def pinned(compute: Callable[[Tensor], Tensor], window: int, scale: int, device: str) -> Callable[[], Tensor]:
    """The same copies, through two page-locked buffers each way; a result is waited for when its buffer is needed."""
    read = torch.zeros(1, 1, window, window, dtype=torch.uint8).pin_memory()
    written = [torch.empty(1, 1, window * scale, window * scale, dtype=torch.int16).pin_memory() for _ in range(2)]
    aside, there, turns = torch.cuda.Stream(), [torch.cuda.Event(), torch.cuda.Event()], itertools.cycle((0, 1))

    def call() -> Tensor:
        turn = next(turns)
        made = steps(compute(read.to(device, non_blocking=True).float().div_(255)))
        there[turn].synchronize()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            written[turn].copy_(made, non_blocking=True)
            made.record_stream(aside)
            there[turn].record()
        return written[turn]

    return call


def row(stated: argparse.Namespace, scale: int, window: int, precision: str) -> dict[str, Any]:
    """Every variant of one scale, window and precision."""
    calls: dict[str, tuple[Callable[[], Tensor], int]] = {}
    found: dict[str, Any] = {}
    with reproducible(), torch.inference_mode(), autocast(stated.device, precision):
        for variant in stated.variants:
            try:
                before = _held(stated.device)
                calls[variant] = prepared(variant, scale, stated.preset, window, stated.device)
                found[variant] = {"peak_mib": _peak(calls[variant][0], stated.device, before)}
            except Exception as error:  # what a compiler or an allocator says is a finding
                calls.pop(variant, None)
                found[variant] = {"failed": str(error).strip().splitlines()[0] if str(error).strip() else repr(error)}
        took: dict[str, list[float]] = {variant: [] for variant in calls}
        for _ in range(stated.rounds):
            for variant, (call, _) in calls.items():
                took[variant].append(_timed(call, stated.device))
    voxels = (window * scale) ** 2
    for variant, (_, batch) in calls.items():
        speeds = [batch * voxels / seconds / 1e6 for seconds in took[variant]]
        found[variant] |= {
            "megavoxels_per_second": round(statistics.median(speeds), 4),
            "spread": [round(min(speeds), 4), round(max(speeds), 4)],
        }
    floor = found.get("eager", {}).get("megavoxels_per_second")
    for one in found.values():
        if floor and "megavoxels_per_second" in one:
            one["over_eager"] = round(one["megavoxels_per_second"] / floor, 3)
    return found


def _held(device: str) -> int:
    """Bytes of the device that are in use, as by the variants before."""
    return torch.cuda.memory_allocated() if device == "cuda" else 0


def _peak(call: Callable[[], Tensor], device: str, before: int) -> float | None:
    """MiB of the device that weights and the second call hold at most, beyond `before` bytes; None on a CPU.

    The first call sets up.
    """
    call()
    if device != "cuda":
        call()
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)


def _timed(call: Callable[[], Tensor], device: str) -> float:
    """Seconds of a call; a GPU is waited for after some of them, so that copies may overlap."""
    if device == "cuda":
        torch.cuda.synchronize()
    calls = CALLS if device == "cuda" else 1
    start = time.perf_counter()
    for _ in range(calls):
        call()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / calls


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parser.add_argument("--preset", default="published", choices=sorted(gpemsr.PRESETS))
    parser.add_argument("--scales", type=int, nargs="+", default=[8, 16], choices=gpemsr.SCALES)
    parser.add_argument("--windows", type=int, nargs="+", default=[64, 128], help="lr pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--precisions", nargs="+", default=["float32", *REDUCED], choices=("float32", *REDUCED))
    stated = parser.parse_args()
    if stated.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU: run this where there is one, or with --device cpu")
    found: dict[str, Any] = {"device": torch.cuda.get_device_name() if stated.device == "cuda" else "cpu", "rows": []}
    for scale in stated.scales:
        for window in stated.windows:
            for precision in stated.precisions:
                measured = row(stated, scale, window, precision)
                found["rows"].append({"scale": scale, "window": window, "precision": precision, "variants": measured})
                if not stated.json:
                    print(f"x{scale} window {window} {precision}: {measured}", flush=True)
    if stated.json:
        print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
