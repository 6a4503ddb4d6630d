"""Times of the layers that compiled packages may compute, against PyTorch's in the same run (accelerators.sh).

python benchmarks/accelerators.py [--rounds N] [--device cpu|cuda]

Each round times PyTorch and every package that can be imported, one after the other; the figures are medians over
rounds and, in brackets, the quartiles. The ratio is of the times of one round: above 1 the package is faster.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from emsr.layers.accelerators import PACKAGES, PYTORCH, accelerate, check
from emsr.layers.correlation import Correlation
from emsr.layers.deform import DeformableConv

SIZES = {"small, lr 64": (32, 4, 16, 64), "published, lr 128": (64, 8, 32, 128)}  # width, groups, maps, side


def layers(width: int, groups: int, maps: int, side: int) -> dict[str, tuple[nn.Module, list[Tensor]]]:
    """Each layer with two arguments, as the network of this size has them."""
    torch.manual_seed(0)
    deform = DeformableConv(width, groups)
    nn.init.normal_(deform.offsets.weight, std=0.05)
    of_deform, of_correlation = ([torch.randn(1, n, side, side) for _ in range(2)] for n in (width, maps))
    return {"deform": (deform, of_deform), "correlation": (Correlation(4), of_correlation)}


def usable(layer: str) -> list[str]:
    """PyTorch, and the packages that can be imported; the others are named with the reason."""
    found = [PYTORCH]
    for package in PACKAGES[layer]:
        try:
            check({layer: package})
            found.append(package)
        except ValueError as error:
            print(f"left out: {error}")
    return found


def seconds(call: Callable[[], object], device: str) -> float:
    """What a call takes: time of the process on a CPU, whatever else runs there; of the clock on a GPU."""
    clock, wait = (time.process_time, int) if device == "cpu" else (time.perf_counter, torch.cuda.synchronize)
    wait()
    start = clock()
    call()
    wait()
    return clock() - start


def both_ways(module: nn.Module, arguments: list[Tensor]) -> None:
    module.zero_grad(set_to_none=True)
    module(*(argument.requires_grad_() for argument in arguments)).sum().backward()


@torch.no_grad()
def one_way(module: nn.Module, arguments: list[Tensor]) -> None:
    module(*arguments)


def spread(values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {args.device}, one thread, {args.rounds} rounds\n")
    packages = {layer: usable(layer) for layer in PACKAGES}
    head = ("layer", "size", "direction", "package", "ms", "PyTorch's time over its own")
    print(f"\n| {' | '.join(head)} |\n{'| --- ' * len(head)}|")
    for size, numbers in SIZES.items():
        for layer, (module, arguments) in layers(*numbers).items():
            module, arguments = module.to(args.device), [argument.to(args.device) for argument in arguments]
            for direction, way in (("forward", one_way), ("forward and backward", both_ways)):
                times: dict[str, list[float]] = {package: [] for package in packages[layer]}
                for number in range(args.rounds + 1):
                    for package, taken in times.items():
                        accelerate(module, {layer: package})
                        spent = seconds(lambda way=way, module=module, given=arguments: way(module, given), args.device)
                        taken.extend([spent] if number else [])  # the first round warms up
                for package, taken in times.items():
                    ratios = [a / b for a, b in zip(times[PYTORCH], taken, strict=True)]
                    shown = spread([1000 * each for each in taken]), spread(ratios)
                    print(f"| {' | '.join((layer, size, direction, package, *shown))} |", flush=True)


if __name__ == "__main__":
    main()
