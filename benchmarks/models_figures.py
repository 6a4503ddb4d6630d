"""What benchmarks/models.py made, as figures, as the tables of docs/models.md and as a picture.

python benchmarks/models_figures.py [--rounds 3] [fib] [vnc]                       figures/models.json, docs/models.md
python benchmarks/models_figures.py --pages                                        the page from figures that are kept
python benchmarks/models_figures.py --picture Z docs/models_fib.png                one place of section Z (fib)

Seconds are those of `emsr.superresolve` of SECTIONS sections (of clips more, so that several share sections) in this
process on one thread, all models in turn, round by round; medians. They have the overlap of windows and clips, which
multiply-accumulates a megapixel have not.
Everything else is read from results: cards, scores, records of trainings. Without results of a model it has no row.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

import emsr
from emsr import plugins
from emsr.degradation import upsample
from emsr.durable import read_json
from emsr.inference import cost
from models import SAMPLES, Sample, models
from performance import machine
from picture import voxels

FIGURES = Path(__file__).parent / "figures" / "models.json"
PAGE = Path(__file__).parents[1] / "docs" / "models.md"
BEGIN, END = "<!-- figures: benchmarks/models_figures.py -->", "<!-- end of figures -->"
NAMES = {
    "fib": "FIB-SEM of the medulla, x4 (10 nm; 42 sections of 248 x 248 voxels)",
    "vnc": "Serial-section TEM of the nerve cord, x8 (4.6 nm; 4 sections of 1024 x 512 voxels)",
}
SECTIONS = 4
SIDE, SHOWN, GAP, TITLE, COLUMNS = 112, 224, 8, 22, 7  # hr pixels, pixels of a panel and around it, panels of a row

Json = dict[str, Any]


# -- figures ----------------------------------------------------------------------------------------------------------


def card_of(sample: Sample, name: str) -> Path:
    """The card of the weights of a model's last stage."""
    last = list(plugins.load("models", name).NEEDS)[-1]
    return Path(sample.results, "trainings", name, f"{last}.json")


def finished(sample: Sample) -> list[str]:
    """Models with scores."""
    return [name for name in models(sample.scale) if Path(sample.results, name, "scores.json").is_file()]


def figures(sample: Sample, name: str) -> Json:
    """Everything about a model but its speed."""
    folder, card = Path(sample.results, name), read_json(card_of(sample, name))
    scores, sr, window = read_json(folder / "scores.json"), read_json(folder / "sr.json"), sample.window
    took = cost.of_card(card, window)
    macs = took.section.total + took.centre.total
    image, seams = scores["image"]["sr"], [seam for seam in sr["seams"]["window"].values() if seam]
    return {
        "parameters": took.parameters,
        "gmac_a_megapixel": macs / 1e9 / (window * sample.scale) ** 2 * 1e6,
        **trained(sample, name),
        **{key: image[key] for key in ("psnr", "ssim", "frc_nm")},
        "consistency": scores["consistency"]["sr"]["psnr"],
        "seams": max(seams, default=None),
        **({"caution": card["caution"]} if "caution" in card else {}),
        **segmented(scores, "sr"),
    }


def trained(sample: Sample, name: str) -> Json:
    """Steps of the last stage, multiply-accumulates of all and minutes of CPU."""
    macs, folder = read_json(Path(sample.results, "arithmetic.json"))[name], card_of(sample, name).parent
    stats = {stage: read_json(folder / f"{stage}.stats.json") for stage in plugins.load("models", name).NEEDS}
    return {
        "steps": {stage: int(each["steps"]) for stage, each in stats.items()},
        "training_macs": sum(each["steps"] * macs[stage] for stage, each in stats.items()),
        "cpu_minutes": sum(each["cpu_seconds"] for each in stats.values()) / 60,
    }


def segmented(scores: Json, name: str) -> Json:
    """Of a segmentation: VOI and adapted Rand error in 3D and section by section, F1 and AUC of membrane."""
    found: Json = {}
    if row := (scores["segmentation"] or {}).get(name):
        found |= {"voi": row["voi"], "arand": row["arand"]}
    if row := (scores["membrane"] or {}).get(name):
        found |= {"f1": row["f1"], "auc": row["auc"]}
    return found


def references(sample: Sample, name: str) -> Json:
    """Bicubic and hr, which stand beside the first model."""
    scores = read_json(Path(sample.results, name, "scores.json"))
    bicubic = scores["image"]["bicubic"]
    floor = {key: bicubic[key] for key in ("psnr", "ssim", "frc_nm")} | segmented(scores, "bicubic")
    floor["consistency"] = scores["consistency"]["bicubic"]["psnr"]
    return {"bicubic": floor, "hr": segmented(scores, "hr")}


def sections_of(card: Json) -> int:
    """How many sections are timed: of clips, so many that they share as large a part as in a long volume."""
    return 4 * (card["depth"] - card["depth_overlap"]) if "depth_overlap" in card else SECTIONS


def speeds(sample: Sample, names: list[str], rounds: int) -> dict[str, list[float]]:
    """Voxels of sr a second in every round."""
    first = sample.test[0] - sample.shown[0]
    coarse = Path(sample.results, names[0], f"lr_x{sample.scale}.json")
    counts = {name: sections_of(read_json(card_of(sample, name))) for name in names}
    lr = np.stack([voxels(coarse, z) for z in range(sample.shown[1] - sample.shown[0])])
    how: Json = {"window": sample.window, "overlap": sample.overlap, "device": "cpu", "workers": 1}
    found: dict[str, list[float]] = {name: [] for name in names}
    for again in range(rounds + 1):
        for name in names:
            some = np.take(lr, range(first, first + (counts[name] if again else 1)), 0, mode="wrap")
            began = time.perf_counter()
            made = emsr.superresolve(some, card_of(sample, name).with_suffix(".safetensors"), **how)
            if again:  # the first is for nothing
                found[name].append(made.size / (time.perf_counter() - began))
    return found


def measured(key: str, rounds: int) -> Json:
    """Figures of all models of one of the data."""
    sample = SAMPLES[key]
    names = finished(sample)
    found = {name: figures(sample, name) for name in names}
    for name, each in speeds(sample, names, rounds).items():
        found[name]["voxels_a_second"] = statistics.median(each)
        found[name]["rounds"] = each
    beside = next(name for name in names if "hr" in (read_json(Path(sample.results, name, "scores.json"))["membrane"]))
    return {"references": references(sample, beside), "models": found}


# -- page -------------------------------------------------------------------------------------------------------------

HEAD = {
    "fib": ("PSNR, dB", "SSIM", "FRC, nm", "VOI, bits", "adapted Rand", "seams"),
    "vnc": ("PSNR, dB", "SSIM", "FRC, nm", "membrane F1", "membrane AUC", "seams"),
}
SHOWS = {
    "fib": {"psnr": 2, "ssim": 3, "frc_nm": 1, "voi": 3, "arand": 3, "seams": 3},
    "vnc": {"psnr": 2, "ssim": 3, "frc_nm": 1, "f1": 3, "auc": 3, "seams": 3},
}
COSTS = ("parameters", "GMAC a megapixel", "10^3 voxels/s", "steps", "CPU minutes")


def rows(key: str, found: Json) -> Iterator[tuple[str, ...]]:
    """bicubic, the models from the best PSNR down, hr."""

    def shown(figures: Json) -> Iterator[str]:
        for name, digits in SHOWS[key].items():
            value = figures.get(name)
            yield "–" if value is None else f"{value:.{digits}f}"

    yield "bicubic", *shown(found["references"]["bicubic"]), *("",) * len(COSTS)
    for name, each in sorted(found["models"].items(), key=lambda item: -item[1]["psnr"]):
        steps = ", ".join(f"{steps:,}" for steps in each["steps"].values())
        speed, macs = each["voxels_a_second"] / 1e3, each["gmac_a_megapixel"]
        costs = thousands(each["parameters"]), f"{macs:.3g}", f"{speed:,.0f}", steps, f"{each['cpu_minutes']:.1f}"
        yield (f"`{name}`" + "*" * ("caution" in each), *shown(each), *costs)
    yield "hr", *shown(found["references"]["hr"]), *("",) * len(COSTS)


def thousands(count: int) -> str:
    return f"{count / 1e6:.2f} M" if count >= 1e6 else f"{count / 1e3:.0f} k"


def table(head: tuple[str, ...], lines: Iterator[tuple[str, ...]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ("---",) * len(head), *lines))


def section(found: Json) -> str:
    """What docs/models.md says of figures."""
    parts = []
    for key, each in found["data"].items():
        parts += [f"### {NAMES[key]}", table(("model", *HEAD[key], *COSTS), rows(key, each))]
    return "\n\n".join(parts)


def page(found: Json) -> str:
    """docs/models.md with these figures."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    return f"{before}{BEGIN}\n\n{section(found)}\n\n{END}{rest.partition(END)[2]}"


# -- picture ----------------------------------------------------------------------------------------------------------


def panels(sample: Sample, z: int) -> Mapping[str, np.ndarray]:
    """One place of section z (counted in the whole) as each model makes it, by title."""
    names, at = finished(sample), z - sample.shown[0]
    folder, scale = Path(sample.results, names[0]), sample.scale
    lr, hr = voxels(folder / f"lr_x{scale}.json", at), voxels(folder / "hr.json", at)
    of_sections = {name: psnr_of(Path(sample.results, name), at) for name in names}
    floor = psnr_of(folder, at, "bicubic")
    found = {f"coarse, x{scale}": lr.repeat(scale, 0).repeat(scale, 1), f"bicubic  {floor:.2f}": upsample(lr, scale)}
    for name in sorted(names, key=lambda name: of_sections[name]):
        found[f"{name}  {of_sections[name]:.2f}"] = voxels(Path(sample.results, name, "sr.json"), at)
    found["fine"] = hr
    y, x = ((length - SIDE) // 2 // scale * scale for length in lr.shape for length in (length * scale,))
    return {title: image[y : y + SIDE, x : x + SIDE] for title, image in found.items()}


def psnr_of(folder: Path, z: int, image: str = "sr") -> float:
    row = next(row for row in read_json(folder / "scores.json")["per_section"] if row["z"] == z)
    return float(row[image]["psnr"])


def draw(images: Mapping[str, np.ndarray]) -> Image.Image:
    """The panels in rows, with titles (PSNR of the section, dB)."""
    lines = -(-len(images) // COLUMNS)
    sheet = Image.new("L", (COLUMNS * (SHOWN + GAP) - GAP, lines * (SHOWN + TITLE + GAP) - GAP), 255)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=15)
    for i, (title, image) in enumerate(images.items()):
        left, top = i % COLUMNS * (SHOWN + GAP), i // COLUMNS * (SHOWN + TITLE + GAP)
        pen.text((left + 2, top + 1), title, fill=0, font=font)
        sheet.paste(Image.fromarray(image).resize((SHOWN, SHOWN), Image.Resampling.NEAREST), (left, top + TITLE))
    return sheet


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("samples", nargs="*", metavar="DATA", help=f"of {', '.join(SAMPLES)}; all if none is named")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pages", action="store_true")
    parser.add_argument("--picture", nargs=2, metavar=("Z", "FILE"))
    args = parser.parse_args()
    if args.picture:
        draw(panels(SAMPLES["fib"], int(args.picture[0]))).save(args.picture[1], optimize=True)
        return 0
    if unknown := [name for name in args.samples if name not in SAMPLES]:
        parser.error(f"data {unknown[0]!r} are not one of {', '.join(SAMPLES)}")
    kept: Json = json.loads(FIGURES.read_text()) if FIGURES.is_file() else {"data": {}}
    if not args.pages:
        torch.set_num_threads(1)
        for key in args.samples or SAMPLES:
            kept["data"][key] = measured(key, args.rounds)
        FIGURES.write_text(json.dumps({**kept, "machine": machine()}, indent=1) + "\n")
    PAGE.write_text(page(kept))
    return 0


if __name__ == "__main__":
    sys.exit(main())
