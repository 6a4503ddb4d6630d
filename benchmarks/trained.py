"""What overlap and precision do to the result of trained weights, on a finished run with a truth.

python benchmarks/trained.py FOLDER CARD [--json] [--sections 8] [--overlaps 4 8 16] [--precisions bfloat16 float16]
                             [--device cpu] [--workers 2]       e.g. results/tissue results/trainings/tissue/fusion.json

FOLDER holds the images of a volume (lr or lr_xN, hr), CARD says which weights. The last --sections of the volume are
super-resolved with each overlap: seam score (at borders of windows over elsewhere; 1 is none), PSNR against hr, and
what the overlap costs on 64 x 4096 x 4096 lr in 16 jobs, in operations of one windowless pass. Then with each reduced
precision, at the smallest overlap: PSNR against hr and what it changed by, the largest difference in grey levels, and
for networks with a codebook which part of the indices are those of float32.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emsr.durable import read_json
from emsr.inference import cost, forecast
from emsr.inference.precision import autocast
from emsr.models import checkpoint
from emsr.plan import Plan, neighbour_table
from emsr.stores.card import array_path, read_card
from emsr.stores.zarr import open_array
from project import Project

LARGE, JOBS = (64, 4096, 4096), 16


def decibels(one: np.ndarray, other: np.ndarray) -> float:
    """PSNR of 8-bit images."""
    error = float(np.mean((one.astype(np.float64) - other) ** 2))
    return 10 * np.log10(255**2 / error) if error else float("inf")


def last_sections(card: Path, count: int, like: tuple[int, ...] | None = None) -> np.ndarray:
    """The last sections of an image; its corner of the size `like` where it is larger."""
    read = read_card(card)
    array = open_array(array_path(card, read))
    depth = read["shape"][0]
    voxels: np.ndarray = array[max(0, depth - count) : depth].read().result()
    return voxels[:, : like[1], : like[2]] if like else voxels


def cost_of(card: dict[str, Any], overlap: int) -> float:
    """Operations of a large volume in 16 jobs over those of one pass without windows."""
    table = neighbour_table(LARGE[0], card["sections"], card.get("section_step", 1), (), ())
    shard = (LARGE[0], 1024, 1024)
    plan = Plan(LARGE, card["scale"], card["window"], overlap, shard, table)
    of_window = cost.of_card(card, card["window"])
    total = sum(work.macs(of_window) for work in forecast.of_jobs(plan, JOBS, 1))
    return total / forecast.one_pass(plan, of_window)


def indices(card: Path, lr: np.ndarray, precision: str, device: str) -> torch.Tensor | None:
    """The index map of every section, whole; None for a network without a codebook."""
    network: Any = checkpoint.load(card, device).eval()
    if getattr(network, "reference", None) is None:
        return None
    side = read_json(card)["window"]
    height, width = (min(length, side) // network.multiple * network.multiple for length in lr.shape[1:])
    found = []
    with torch.inference_mode(), autocast(device, precision):
        for section in lr[:, :height, :width]:
            image = torch.from_numpy(np.ascontiguousarray(section)).to(device).float()[None, None] / 255
            found.append(network.references(image).logits.argmax(-1))
    return torch.cat(found)


def measured(stated: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A row for each overlap, then one for each precision."""
    card = read_json(stated.card)
    names = ("lr.json", f"lr_x{card['scale']}.json")
    coarse = next(path for name in names if (path := stated.folder / name).is_file())
    lr, voxel_size_nm = last_sections(coarse, stated.sections), tuple(read_card(coarse)["voxel_size_nm"])
    size = (len(lr), lr.shape[1] * card["scale"], lr.shape[2] * card["scale"])
    hr = last_sections(stated.folder / "hr.json", stated.sections, size)

    def made(overlap: int, precision: str) -> tuple[np.ndarray, dict[str, Any]]:
        how = {"device": stated.device, "precision": precision, "voxel_size_nm": voxel_size_nm}
        one = Project(folder / f"{overlap}.{precision}", stated.card, overlap, **how)
        one.folder.mkdir()
        one.take_lr(lr)
        one.run(stated.workers)
        return one.sr(), read_json(one.folder / "sr.json")

    about = f"{card['model']} at x{card['scale']}, window {card['window']}, volume {stated.folder.resolve().name}"
    found: dict[str, Any] = {"about": about, "overlap": {}, "precision": {}, "device": stated.device, "sr": list(size)}
    full = {overlap: made(overlap, "float32") for overlap in stated.overlaps}
    for overlap, (voxels, sr) in full.items():
        found["overlap"][str(overlap)] = {
            "seams": {axis: None if s is None else round(s, 4) for axis, s in sr["seams"]["window"].items()},
            **{"psnr": round(decibels(voxels, hr), 3), "cost": round(cost_of(card, overlap), 3)},
        }
    least = min(stated.overlaps)
    voxels, _ = full[least]
    exact = indices(stated.card, lr, "float32", stated.device)
    found["precision"]["float32"] = {"psnr": round(decibels(voxels, hr), 4)}
    for precision in stated.precisions:
        reduced, _ = made(least, precision)
        same = indices(stated.card, lr, precision, stated.device)
        found["precision"][precision] = {
            "psnr": round(decibels(reduced, hr), 4),
            "psnr_change": round(decibels(reduced, hr) - decibels(voxels, hr), 4),
            "largest_difference": int(np.abs(reduced.astype(int) - voxels).max()),
            "same_indices": None if exact is None or same is None else round(float((exact == same).float().mean()), 5),
        }
    return found


def lines(found: dict[str, Any]) -> Iterator[str]:
    """What was found, for people."""
    for kind in ("overlap", "precision"):
        for name, row in found[kind].items():
            yield f"{kind} {name}: " + ", ".join(f"{key} {value}" for key, value in row.items())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of a volume in results")
    parser.add_argument("card", type=Path, help="of the weights")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--sections", type=int, default=8)
    parser.add_argument("--overlaps", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--precisions", nargs="*", default=["bfloat16", "float16"])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--workers", type=int, default=2)
    stated = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = measured(stated, Path(folder))
    print(json.dumps(found, indent=1) if stated.json else "\n".join(lines(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
