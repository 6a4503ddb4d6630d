"""Where a network's time goes: operations and bytes of each part, and how far it is from what the machine can do.

python benchmarks/parts.py [--json] [--preset published] [--scale 8] [--window 32] [--rounds 3] [--device cpu]
                           [--precision float32]

A section enters and a centre is made, on one thread of a CPU or on a GPU. Of each part: multiply-accumulates, bytes
that its operations read and write (every tensor of every operation, nothing fused), seconds. The ceilings are measured
in the same run: multiply-accumulates a second of a large product of matrices or a wide convolution, if faster,
and bytes a second of a large copy. "of the ceiling" is the time that the part would take if it met the nearer of the
two, over the time that it took. Weights are random.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from emsr.inference.cost import of_network
from emsr.inference.precision import REDUCED, autocast
from emsr.inference.run import reproducible
from emsr.models import gpemsr

SECTIONS = 5
SIDE = {"cpu": 2048, "cuda": 8192}  # of the matrices
COPIED = {"cpu": 2**28, "cuda": 2**32}  # bytes
WIDE = 256  # channels of the convolution
REST = "rest"


@dataclass
class Traffic(TorchDispatchMode):
    """Bytes of all tensors that operations read and write, by the part that is at work; views move nothing."""

    bytes: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    part: str = REST

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            moved = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
            self.bytes[self.part] += sum(tensor.numel() * tensor.element_size() for tensor in moved)
        return result


@contextmanager
def by_part(network: Any, begin: Callable[[str], None], end: Callable[[str], None]) -> Iterator[None]:
    """Calls `begin` and `end` around the modules of each part of the network, and around what flow does beside them."""
    handles = []
    for part, module in _modules(network):
        handles.append(module.register_forward_pre_hook(lambda *_, part=part: begin(part)))
        handles.append(module.register_forward_hook(lambda *_, part=part: end(part)))
    whole = {name: getattr(network.flow, name) for name in ("pyramid", "between")}

    def within(method: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            begin("flow")
            try:
                return method(*arguments)
            finally:
                end("flow")

        return called

    for name, method in whole.items():
        setattr(network.flow, name, within(method))
    try:
        yield
    finally:
        for name in whole:
            delattr(network.flow, name)
        for handle in handles:
            handle.remove()


def _modules(network: Any) -> Iterator[tuple[str, nn.Module]]:
    """The parts' modules that are called as such."""
    there = dict(network.named_modules())
    for part, names in network.parts.items():
        for module in (there[name] for name in names if name in there and part != "flow"):
            for one in module if isinstance(module, nn.ModuleList) else (module,):
                yield part, one


def ceilings(device: str, precision: str) -> tuple[float, float]:
    """Multiply-accumulates and bytes a second of this machine: medians of ten."""
    dtype, side = REDUCED.get(precision, torch.float32), SIDE[device]
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    product = statistics.median(_timed(lambda: a @ b, device) for _ in range(10))
    wide = nn.Conv2d(WIDE, WIDE, 3, padding=1, bias=False).to(device, dtype, memory_format=torch.channels_last)
    image = torch.randn(1, WIDE, side // 16, side // 16, device=device, dtype=dtype)
    image = image.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        convolution = statistics.median(_timed(lambda: wide(image), device) for _ in range(10))
    source = torch.empty(COPIED[device], dtype=torch.uint8, device=device).fill_(1)
    target = torch.empty_like(source)
    copied = statistics.median(_timed(lambda: target.copy_(source), device) for _ in range(10))
    macs = max(side**3 / product, 9 * WIDE**2 * image[0, 0].numel() / convolution)
    return macs, 2 * source.numel() / copied


def measured(stated: argparse.Namespace) -> dict[str, Any]:
    """Ceilings, and what was found of every part."""
    torch.manual_seed(0)
    network = gpemsr.build(stated.scale, SECTIONS, gpemsr.PRESETS[stated.preset]).eval()
    cost = of_network(network, SECTIONS, stated.window, stated.precision)
    macs = {part: cost.section.macs.get(part, 0) + cost.centre.macs.get(part, 0) for part in [*network.parts, REST]}
    network = network.to(stated.device, memory_format=torch.channels_last)
    lr = torch.rand(1, 1, stated.window, stated.window, device=stated.device)
    compute, bandwidth = ceilings(stated.device, stated.precision)

    def once() -> None:
        state = network.section(lr)
        network.centre([state] * SECTIONS)

    seconds: defaultdict[str, list[float]] = defaultdict(list)
    with torch.inference_mode(), autocast(stated.device, stated.precision):
        once()
        traffic = Traffic()
        at = functools.partial(setattr, traffic, "part")
        with by_part(network, at, lambda _: at(REST)), traffic:
            once()
        for _ in range(stated.rounds):
            for part, took in _seconds(network, once, stated.device).items():
                seconds[part].append(took)
    parts = {}
    for part in seconds:
        took, moved = statistics.median(seconds[part]), traffic.bytes[part]
        least = max(macs.get(part, 0) / compute, moved / bandwidth)
        parts[part] = {
            **{
                "gmac": round(macs.get(part, 0) / 1e9, 6),
                "gigabytes": round(moved / 1e9, 6),
                "seconds": round(took, 4),
            },
            "bound": "compute" if macs.get(part, 0) / compute > moved / bandwidth else "memory",
            "of_ceiling": round(least / took, 3) if took else None,
        }
    return {
        "gmac_per_second": round(compute / 1e9, 1),
        "gigabytes_per_second": round(bandwidth / 1e9, 1),
        "parts": parts,
        **{key: getattr(stated, key) for key in ("preset", "scale", "window", "device", "precision")},
    }


def _seconds(network: Any, once: Callable[[], None], device: str) -> dict[str, float]:
    """Seconds in each part, and in none, of one round."""
    spent: defaultdict[str, float] = defaultdict(float)
    began: list[float] = []

    def begin(part: str) -> None:
        _wait(device)
        began.append(time.perf_counter())

    def end(part: str) -> None:
        _wait(device)
        spent[part] += time.perf_counter() - began.pop()

    with by_part(network, begin, end):
        whole = _timed(once, device)
    return {**spent, REST: max(0.0, whole - sum(spent.values()))}


def _timed(work: Callable[[], object], device: str) -> float:
    _wait(device)
    start = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--preset", default="published", choices=sorted(gpemsr.PRESETS))
    parser.add_argument("--scale", type=int, default=8, choices=gpemsr.SCALES)
    parser.add_argument("--window", type=int, default=32, help="lr pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="float32", choices=("float32", *REDUCED))
    stated = parser.parse_args()
    with reproducible():
        found = measured(stated)
    if stated.json:
        print(json.dumps(found, indent=1))
        return 0
    print(f"ceilings: {found['gmac_per_second']} GMAC/s, {found['gigabytes_per_second']} GB/s")
    for part, one in found["parts"].items():
        share = "–" if one["of_ceiling"] is None else f"{100 * one['of_ceiling']:.0f} % of {one['bound']}"
        print(f"{part:16} {one['gmac']:9.3f} GMAC {one['gigabytes']:8.3f} GB {one['seconds']:8.4f} s  {share}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
