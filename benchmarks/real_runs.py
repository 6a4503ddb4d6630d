"""The real runs of docs/results.md: FIB-SEM x4 and serial-section TEM x8; bicubic, edsr and gpemsr on equal terms.

python benchmarks/real_runs.py [--cores N] [RUN ...]     runs, or goes on with, the examples; then prints the tables

A run is a file of examples/ and needs its data below data/ (the file says which). Whatever was finished is kept, so
that the script may be stopped and started at any time. Times are those of the processes (CPU), one thread a training.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from emsr.durable import read_json

SNAKEMAKE = (sys.executable, "-m", "snakemake")
IMAGES = ("bicubic", "sr", "hr")


@dataclass(frozen=True)
class Run:
    """An example, and for each network the volume that it made and the training it is of."""

    results: str
    networks: dict[str, tuple[str, str]]


RUNS = {
    "fib_medulla": Run("results_fib_medulla", {"edsr": ("fib_edsr", "edsr"), "gpemsr": ("fib", "fib")}),
    "vnc": Run("results_vnc", {"edsr": ("vnc_edsr", "edsr"), "gpemsr": ("vnc", "vnc")}),
}


def image_rows(run: Run, root: Path) -> Iterator[tuple[str, ...]]:
    """Network, PSNR, SSIM, what these are over bicubic, CPU minutes of training."""
    for name, (volume, training) in run.networks.items():
        image = read_json(root / volume / "scores.json")["image"]
        floor, found = image["bicubic"], image["sr"]
        if name == next(iter(run.networks)):
            yield "bicubic", f"{floor['psnr']:.2f}", f"{floor['ssim']:.3f}", "", "0"
        gain = f"{found['psnr'] - floor['psnr']:+.2f} dB, {found['ssim'] - floor['ssim']:+.3f}"
        yield name, f"{found['psnr']:.2f}", f"{found['ssim']:.3f}", gain, minutes(root, training)


def minutes(root: Path, training: str) -> str:
    """CPU minutes of every stage of a training, all attempts that it went on from; "–" where one was not measured."""
    files = (root / "trainings" / training).glob("*.stats.json")
    seconds = [read_json(file).get("cpu_seconds") for file in files]
    return "–" if not seconds or None in seconds else f"{sum(seconds) / 60:.0f}"


def membrane_rows(run: Run, root: Path) -> Iterator[tuple[str, ...]]:
    """Segmentation, 2D VOI and adapted Rand error (means over sections), F1 and AUC of membrane; bicubic first.

    Every network is a volume of its own with its sr; the other segmentations are those of the last volume.
    """
    found: list[tuple[str, str, tuple[object, ...]]] = []
    for network, (volume, _) in run.networks.items():
        file = root / volume / "segmentation.json"
        scores = read_json(file) if file.exists() else {"segmentation": {}}
        found = [row for row in found if row[0] == "sr"]
        for name, row in scores["segmentation"].items():
            of_sections, membrane = scores["sections"][name], scores["membrane"][name]
            figures = of_sections["voi"], of_sections["arand"], membrane["f1"], membrane["auc"]
            found.append((row["image"], network if row["image"] == "sr" else name, figures))
    for _, name, figures in sorted(found, key=lambda row: IMAGES.index(row[0])):
        yield name, *("–" if figure is None else f"{figure:.3f}" for figure in figures)


def table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"of {', '.join(RUNS)}; all if none is named")
    parser.add_argument("--cores", default="all")
    args = parser.parse_args()
    if unknown := [name for name in args.runs if name not in RUNS]:
        parser.error(f"run {unknown[0]!r} is not one of {', '.join(RUNS)}")
    for name in args.runs or RUNS:
        config = Path("examples") / f"{name}.yaml"
        done = subprocess.run([*SNAKEMAKE, "--cores", args.cores, "--configfile", str(config)], check=False)
        if done.returncode:
            return done.returncode
    for name in args.runs or RUNS:
        run, root = RUNS[name], Path(RUNS[name].results)
        print(f"\n{name}\n")
        print(table(("network", "PSNR, dB", "SSIM", "over bicubic", "CPU minutes"), image_rows(run, root)))
        if rows := list(membrane_rows(run, root)):
            head = ("segmentation", "2D VOI, bits", "2D adapted Rand error", "membrane F1", "membrane AUC")
            print("\n" + table(head, iter(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
