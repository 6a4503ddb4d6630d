"""Result numbers: what a step makes of fixed inputs is committed, and may change only together with its number.

After an intended change raise the number beside the step's function and run this file as a program: it writes the new
goldens. Voxels may differ by one grey level and figures by a thousandth, because CPU types differ in float bits.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
import pytest

from emsr.slices import RESULTS, result_number

GOLDEN = Path(__file__).parent / "golden"
LAYOUT = {"shard": [4, 64, 64], "chunk": [4, 32, 32]}
ELSEWHERE = {  # tests/test_superresolve.py, tests/test_segment_numbers.py
    *("superresolve", "allocate-affinities", "affinities", "prove-affinities", "allocate-fragments", "fragments"),
    *("prove-fragments", "agglomerate", "choose-threshold", "segment", "score-segments"),
}
Made = dict[str, np.ndarray]


def golden_path(step: str) -> Path:
    return GOLDEN / f"{step}_{result_number(step)}.npz"


def voxels(card: Path) -> np.ndarray:
    from emsr.stores.card import array_path, read_card
    from emsr.stores.zarr import open_array

    return open_array(array_path(card, read_card(card)))[...].read().result()


def grow(folder: Path) -> Made:
    from emsr.steps.data import grow

    out = folder / "tissue.h5"
    grow({"shape": [6, 64, 72], "voxel_size_nm": [40, 8, 8], "seed": 3}, out)
    with h5py.File(out) as file:
        return {"raw": file["volumes/raw"][:], "labels": file["volumes/labels/neuron_ids"][:]}


def ingest(folder: Path) -> Made:
    from emsr.steps.data import ingest

    source = {"path": str(folder / "tissue.h5"), "dataset": "volumes/raw", "voxel_size_nm": None}
    region = [[0, 6], [0, 64], [3, 70]]
    ingest({"image": "hr", "source": source, "region": region, **LAYOUT}, folder / "hr.json", workers=1)
    card = json.loads((folder / "hr.json").read_text())
    return {"voxels": voxels(folder / "hr.json"), "place": np.array([card["voxel_size_nm"], card["translation_nm"]])}


def degrade(folder: Path) -> Made:
    from emsr.steps.data import degrade

    settings = {"scale": 4, "degradation": {"kernel": "bicubic"}, **LAYOUT}
    degrade(settings, folder / "hr.json", folder / "lr_x4.json", workers=1)
    card = json.loads((folder / "lr_x4.json").read_text())
    place = np.array([card["voxel_size_nm"], card["translation_nm"], card["hr_shape"]])
    return {"voxels": voxels(folder / "lr_x4.json"), "place": place}


def enlarge(folder: Path) -> Made:
    from emsr.steps.data import enlarge

    enlarge({"scale": 4, **LAYOUT}, folder / "lr_x4.json", folder / "bicubic_x4.json", workers=1)
    card = json.loads((folder / "bicubic_x4.json").read_text())
    place = np.array([card["voxel_size_nm"], card["translation_nm"]])
    return {"voxels": voxels(folder / "bicubic_x4.json"), "place": place}


TRAINING = {
    "model": {"name": "bicubic", "preset": "small", "options": {}},
    **{"scale": 4, "sections": 3, "section_step": 1, "window": 8, "seed": 0, "threads": 1, "device": "cpu"},
    **{"cards": {}, "init_from": None, "perceptual": None, "spynet": None, "overrides": {}},
}


def train(folder: Path) -> Made:
    """Two steps of the codebook stage: sampling, orientation, loss, optimiser and averaged weights."""
    import torch

    from emsr.models.checkpoint import load
    from emsr.steps.train import train

    options = {"latent_stride": 4, "channels": [8, 8, 8], "latent": 8, "entries": 16, "tail_blocks": 1}
    data = [{"volume": "v", "hr": str(folder / "hr.json"), "lr": str(folder / "lr_x4.json")}]
    data[0] |= {"train": [[0, 3]], "validation": [[5, 6]]}  # type: ignore[dict-item]
    overrides = {"steps": 3, "batch": 2, "patch": 32, "kmeans_vectors": 64, "unquantised": 0.5, "precision": "float32"}
    model = {"name": "gpemsr", "preset": "small", "options": options}
    settings = {**TRAINING, "model": model, "stage": "codebook", "data": data, "overrides": overrides}
    train(settings, folder / "codebook.json")
    network: Any = load(folder / "codebook.json")
    image = torch.from_numpy(voxels(folder / "hr.json")[:1, None, :32, :32] / np.float32(255))
    decoded = network.decoder(network.encoder(image))[1]
    return {"decoded": (255 * decoded.clamp(0, 1)).round().byte().numpy()}


def untrained(folder: Path) -> Path:
    from emsr.steps.train import train

    model = {"name": "bicubic", "preset": "small", "options": {}}
    train({**TRAINING, "model": model, "stage": "untrained", "data": []}, folder / "untrained.json")
    return folder / "untrained.json"


SR = {"overlap": 4, "precision": "float32", "device": "cpu", **LAYOUT}


def allocate(folder: Path) -> Made:
    from emsr.steps.superresolve import allocate

    out = folder / "sr" / "allocate.json"
    allocate(SR, folder / "lr_x4.json", untrained(folder), out)
    made = json.loads(out.read_text())
    table = np.array([named or [-1] * 3 for named in made["sections"]])
    return {"sections": table, "place": np.array([made["voxel_size_nm"], made["translation_nm"], made["shape"]])}


def stitch(folder: Path) -> Made:
    from emsr.steps.superresolve import stitch, superresolve

    mark = folder / "sr" / "jobs" / "1-of-1.json"
    superresolve(SR, folder / "sr" / "allocate.json", "1-of-1", mark, workers=1)
    stitch(SR, folder / "sr" / "allocate.json", [mark], folder / "sr.json", workers=1)
    card = json.loads((folder / "sr.json").read_text())
    seams = [[card["seams"][kind][axis] or 0 for axis in "yx"] for kind in ("window", "shard")]
    return {"seams": np.array(seams), "voxels": voxels(folder / "sr.json")}


def score(folder: Path) -> Made:
    from emsr.steps.score import score

    settings = {"volume": "v", "scale": 4, "test": [[3, 6]], **{k: str(folder / f"{k}.json") for k in ("hr", "sr")}}
    score({**settings, "lr": str(folder / "lr_x4.json")}, folder / "scores.json")
    image = json.loads((folder / "scores.json").read_text())["image"]
    return {name: np.array([image[name]["psnr"], image[name]["ssim"]]) for name in ("bicubic", "sr")}


def report(folder: Path) -> Made:
    from emsr.steps.score import report

    paths = {name: str(folder / f"{name}.json") for name in ("hr", "sr", "scores")}
    paths |= {"lr": str(folder / "lr_x4.json"), "allocate": str(folder / "sr" / "allocate.json")}
    volume = {**paths, "scale": 4, "card": str(folder / "untrained.json")}
    settings = {"title": "Golden", "config": {"volumes": {"v": {"weights": "t"}}, "trainings": {}}, "trainings": {}}
    report({**settings, "volumes": {"v": volume}, "benchmarks": str(folder)}, folder / "report.html")
    rows = [line.split("\t") for line in (folder / "report" / "headline.tsv").read_text().splitlines()]
    return {"headline": np.array(rows)}


STEPS: list[Callable[[Path], Made]] = [grow, ingest, degrade, enlarge, train, allocate, stitch, score, report]


@cache
def everything() -> dict[str, Made]:
    with TemporaryDirectory() as folder:
        return {step.__name__: step(Path(folder)) for step in STEPS}


def test_every_step_has_a_golden() -> None:
    assert {step.__name__ for step in STEPS} | ELSEWHERE == set(RESULTS)


@pytest.mark.parametrize("step", [step.__name__ for step in STEPS])
def test_output_changes_only_with_the_result_number(step: str) -> None:
    made = everything()[step]
    with np.load(golden_path(step)) as golden:
        assert set(golden.files) == set(made)
        for name in made:
            if made[name].dtype.kind == "U":
                assert golden[name].tolist() == made[name].tolist()
            elif made[name].dtype == np.uint8:
                assert np.abs(golden[name].astype(int) - made[name].astype(int)).max() <= 1, name
            else:
                np.testing.assert_allclose(made[name], golden[name], rtol=1e-3, err_msg=name)


if __name__ == "__main__":
    for step in sys.argv[1:] or [step.__name__ for step in STEPS]:
        np.savez_compressed(golden_path(step), **everything()[step])  # type: ignore[arg-type]
