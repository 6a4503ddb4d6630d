"""Runs the benchmarks and writes docs/performance.md from what they found.

python benchmarks/performance.py [NAME ...] [--write-only] [--trained FOLDER CARD]        (make bench runs all of them)

What a benchmark found is kept in benchmarks/figures/NAME.json, so that one may be measured again alone, or on another
machine (`gpu`), and the page is made from all that are there. `trained` needs a finished run: a volume's folder and the
card of its weights.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
FIGURES, PAGE = HERE / "figures", HERE.parent / "docs" / "performance.md"
COMMANDS = {  # in the order of the page
    "stream": ("stream.py",),
    "plan": ("geometry.py",),
    "pipeline": ("pipeline.py",),
    "train": ("train.py",),
    "parts": ("parts.py",),
    "size": ("size.py",),
    "trained": ("trained.py",),
    "gpu": ("gpu.py",),
}
NEEDS_GPU = ("gpu",)
Json = dict[str, Any]


def machine() -> Json:
    """What figures depend on and what says nothing of whose machine it is."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    vectors = next((name for name in ("avx512f", "avx2", "asimd") if name in flags), "unknown")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cores": cores, "cpu": platform.machine(), "vectors": vectors, "torch": torch.__version__, "gpu": gpu}


def measure(name: str, trained: Sequence[str]) -> None:
    """Run a benchmark and keep what it found."""
    more = list(trained) if name == "trained" else []
    command = [sys.executable, str(HERE / COMMANDS[name][0]), "--json", *more]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    FIGURES.mkdir(exist_ok=True)
    text = json.dumps({"machine": machine(), "found": json.loads(found)}, indent=1)
    (FIGURES / f"{name}.json").write_text(text + "\n")


# -- the page ---------------------------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Iterator[Sequence[object]]) -> Iterator[str]:
    """Lines of a table."""
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    yield from ("| " + " | ".join(map(str, row)) + " |" for row in rows)


def spread(values: Sequence[float]) -> str:
    """The extremes."""
    return f"[{min(values):.2f}-{max(values):.2f}]"


def stream(found: Json) -> Iterator[str]:
    yield "## Streaming against a window at a time"
    yield ""
    yield (
        "What depends on one section is computed once and kept while z advances. Both sides have the same weights "
        "(published sizes) and give the same voxels; window at a time is the module's own `forward` of five sections."
    )
    yield ""
    head = ("scale", "times as fast", "rounds", "times fewer operations", "s a centre, streamed", "window at a time")
    yield from table(
        (*head, "window, lr pixels", "largest difference"),
        (
            (
                *(name, f"**{one['ratio']:.2f}**", spread(one["ratios"]), f"{one['ratio_of_operations']:.2f}"),
                *(f"{one['seconds_streamed']:.2f}", f"{one['seconds_window_at_a_time']:.2f}", one["window"]),
                f"{one['largest_difference']:.0e}",
            )
            for name, one in found.items()
        ),
    )


def plan(found: Json) -> Iterator[str]:
    yield "## Operations"
    yield ""
    yield (
        "Multiply-accumulates of a streamed section and its centre, published sizes, counted on tensors without "
        "memory, for 1024 x 1024 voxels of sr; sampling between pixels is counted apart. The published code takes 7042 "
        f"and 6218. Cost: all operations of {' x '.join(map(str, found['lr']))} lr in {found['jobs']} jobs (overlap, "
        "borders of jobs, lead-in of sections) over those of one pass without windows."
    )
    yield ""
    head = ("scale", "window", "overlap", "GMAC a section", "samples, millions", "cost of overlap alone")
    yield from table(
        (*head, "cost, shards 32 deep", "64 deep"),
        (
            (
                *(f"x{one['scale']}", one["window"], one["overlap"], f"{one['gmac']:.1f}"),
                *(f"{one['sampling_millions']:.0f}", *(f"{cost:.3f}" for cost in one["cost"].values())),
            )
            for one in found["rows"]
        ),
    )


def pipeline(found: Json) -> Iterator[str]:
    one, copied, memory = found["busy"], found["copying"], found["memory"]
    two = one["two_in_flight_over_one"]
    yield "## A job"
    yield ""
    yield (
        f"gpemsr `small` at x8. One window in flight is in the network {100 * one['network_share']['1']:.1f} % of "
        f"the time, two {100 * one['network_share']['2']:.1f} %. Two in flight make **{two['ratio']:.2f}** times the "
        f"voxels of one {spread(two['ratios'])}: {one['voxels_per_second']['2']:,} against "
        f"{one['voxels_per_second']['1']:,} sr voxels/s."
    )
    yield ""
    yield (
        "Reading and writing alone, with overlaps, halo, hashes and durable records, hold "
        f"**{copied['ratio']:.2f}** {spread(copied['ratios'])} of one plain tensorstore copy of an array like sr "
        f"({copied['plain_voxels_per_second'] / 1e6:.0f} million voxels/s). A volume of 1024 sections takes "
        f"{memory['ratio']:.3f} times the memory of one of 128 ({memory['peak_mb']['1']:.0f} and "
        f"{memory['peak_mb']['8']:.0f} MiB)."
    )


def train(found: Json) -> Iterator[str]:
    yield "## Training"
    yield ""
    yield from found["page"]


def parts(found: Json) -> Iterator[str]:
    yield "## Where a network's time goes"
    yield ""
    yield (
        f"gpemsr `{found['preset']}` at x{found['scale']}, a section and a centre of {found['window']} lr pixels, "
        f"{'one thread' if found['device'] == 'cpu' else found['device']}, {found['precision']}. Ceilings of the "
        f"machine, measured in the same run: {found['gmac_per_second']:.0f} GMAC/s, "
        f"{found['gigabytes_per_second']:.0f} GB/s."
    )
    yield ""
    yield from table(
        ("part", "GMAC", "GB read and written", "seconds", "bound by", "of that ceiling"),
        (
            (
                *(name, f"{one['gmac']:.2f}", f"{one['gigabytes']:.2f}", f"{one['seconds']:.3f}", one["bound"]),
                "–" if one["of_ceiling"] is None else f"{100 * one['of_ceiling']:.0f} %",
            )
            for name, one in found["parts"].items()
        ),
    )


def size(found: Json) -> Iterator[str]:
    yield "## Cost against size"
    yield ""
    yield (
        "allocate, superresolve and stitch in one process, two workers. Windows cover sections of every size equally "
        "often."
    )
    yield ""
    yield from table(
        ("model", "sr voxels", "shape", "seconds", "ns a voxel", "rounds"),
        (
            (
                *(model, f"2^{power}", " x ".join(map(str, one["shape"])), f"{one['seconds']:.1f}"),
                *(f"{one['nanoseconds_a_voxel']:.1f}", spread(one["rounds"]) if len(one["rounds"]) > 1 else "one"),
            )
            for model, sizes in found.items()
            for power, one in sizes.items()
            if isinstance(one, dict)
        ),
    )
    yield ""
    for model, sizes in found.items():
        yield (
            f"{model}: a voxel of the largest costs {sizes['largest_over_smallest']:.2f} times one of the smallest, "
            f"of the dearest {sizes['most_over_least']:.2f} times one of the cheapest."
        )


def trained(found: Json) -> Iterator[str]:
    yield "## Overlap and precision, with trained weights"
    yield ""
    yield (
        f"{found['about']} (docs/results.md), {' x '.join(map(str, found['sr']))} voxels of sr. Seams: how much "
        "steeper grey levels are at borders of windows than elsewhere (1: nothing to see)."
    )
    yield ""
    yield from table(
        ("overlap, lr pixels", "seams y", "seams x", "PSNR, dB", "cost in 16 jobs"),
        (
            (overlap, one["seams"]["y"], one["seams"]["x"], f"{one['psnr']:.3f}", f"{one['cost']:.2f}")
            for overlap, one in found["overlap"].items()
        ),
    )
    yield ""
    yield from table(
        ("precision", "PSNR, dB", "change", "largest difference", "same indices"),
        (
            (
                *(precision, f"{one['psnr']:.3f}", f"{one.get('psnr_change', 0):+.4f}"),
                *(one.get("largest_difference", 0), _share(one.get("same_indices", 1.0))),
            )
            for precision, one in found["precision"].items()
        ),
    )


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"


def gpu(found: Json) -> Iterator[str]:
    yield f"## {found['device']}"
    yield ""
    variants = list(found["rows"][0]["variants"])
    yield "Million voxels of sr a second (peak MiB of the device)."
    yield ""
    yield from table(
        ("scale", "window", "precision", *variants),
        (
            (
                f"x{row['scale']}",
                row["window"],
                row["precision"],
                *(_variant(row["variants"][name]) for name in variants),
            )
            for row in found["rows"]
        ),
    )


def _variant(one: Json) -> str:
    return "failed" if "failed" in one else f"{one['megavoxels_per_second']:.2f} ({one['peak_mib']})"


CHAPTERS: dict[str, Callable[[Json], Iterator[str]]] = {
    **{"stream": stream, "plan": plan, "pipeline": pipeline, "train": train},
    **{"parts": parts, "size": size, "trained": trained, "gpu": gpu},
}


def page() -> str:
    """The whole page, from every figure that is there."""
    lines = [
        "# Performance",
        "",
        "Made by `make bench` from `benchmarks/`; every ratio has both sides in one run, medians of rounds, extremes "
        "in brackets.",
    ]
    for name, chapter in CHAPTERS.items():
        file = FIGURES / f"{name}.json"
        if not file.is_file():
            continue
        kept = json.loads(file.read_text())
        on = kept["machine"]
        where = on["gpu"] or f"{on['cores']} cores ({on['cpu']}, {on['vectors']})"
        lines += ["", *chapter(kept["found"]), "", f"`benchmarks/{COMMANDS[name][0]}`; {where}, torch {on['torch']}."]
    absent = [name for name in NEEDS_GPU if not (FIGURES / f"{name}.json").is_file()]
    if absent:
        lines += ["", "Not measured yet, for want of a GPU: `python benchmarks/gpu.py` says there what pays."]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(COMMANDS)}; all that can run by default"
    )
    parser.add_argument("--write-only", action="store_true", help="measure nothing, write the page")
    parser.add_argument("--trained", nargs=2, default=(), metavar=("FOLDER", "CARD"))
    stated = parser.parse_args()
    if unknown := [name for name in stated.names if name not in COMMANDS]:
        parser.error(f"{unknown[0]!r} is no benchmark: name some of {', '.join(COMMANDS)}")
    default = [
        name
        for name in COMMANDS
        if (name not in NEEDS_GPU or torch.cuda.is_available()) and (name != "trained" or stated.trained)
    ]
    for name in [] if stated.write_only else stated.names or default:
        print(f"{name} ...", file=sys.stderr, flush=True)
        measure(name, stated.trained)
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
