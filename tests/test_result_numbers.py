"""Result numbers: what a step makes of fixed inputs is committed, and may change only together with its number.

After an intended change raise the number beside the step's function and run this file as a program: it writes the new
goldens. Voxels may differ by one grey level and figures by a thousandth, because CPU types differ in float bits.
Recipes and presets are named in the config, not spelt out, so their values count as output of ``train``: each is in
``recipes_<number>/``, with the model's own RESULT in its name where the file states one. What is only added (a model, a
scale, a key that changes nothing) needs no new number.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import h5py
import numpy as np
import pytest

from emsr import plugins
from emsr.models.stage import Stage
from emsr.slices import RESULTS, result_number

MODELS = plugins.names("models")
GOLDEN = Path(__file__).parent / "golden"
LAYOUT = {"shard": [4, 64, 64], "chunk": [4, 32, 32]}
ELSEWHERE = {  # test_superresolve.py, test_segment_numbers.py, test_registration.py, test_registered_labels.py
    *("register", "register-labels"),
    *("superresolve", "allocate-affinities", "affinities", "prove-affinities", "allocate-fragments", "fragments"),
    *("prove-fragments", "agglomerate", "choose-threshold", "segment", "score-segments"),
    "discard",  # makes nothing (test_discard.py)
}
Made = dict[str, np.ndarray]


def golden_path(step: str) -> Path:
    """Of a step, of one of its stages as ``train_flow``, or of the recipes."""
    if step in MODELS:
        file = plugins.file_of("models", step)
        own = f"_{plugins.literal(file, 'RESULT')}" if plugins.has(file, "RESULT") else ""
        return GOLDEN / f"recipes_{result_number('train')}" / f"{step}{own}.json"
    return GOLDEN / f"{step}_{result_number(step.split('_')[0])}.npz"


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


NETWORK = {  # all parts of the network
    **{"latent_stride": 4, "channels": [8, 8, 8], "latent": 8, "entries": 16, "tail_blocks": 1},
    **{"indexer_channels": [8, 8], "width": 8, "front_blocks": 1, "back_blocks": 1, "deformable_groups": 2},
    **{"flow_levels": 2, "flow_widths": [8], "flow_kernel": 3, "flow_features": 4, "discriminator_channels": [4, 8]},
}


GPEMSR = {"name": "gpemsr", "preset": "small", "options": NETWORK}
EDSR = {"name": "edsr", "preset": "small", "options": {"width": 8, "blocks": 2}}


def stage(
    folder: Path, name: str, earlier: tuple[str, ...] = (), model: dict[str, Any] = GPEMSR, **overrides: Any
) -> tuple[Any, Made]:
    """Three steps of a stage on sections 0 to 2: the network, and what its curves say of every step."""
    from emsr.models.checkpoint import load
    from emsr.steps.train import train

    data = {"volume": "v", "hr": str(folder / "hr.json"), "lr": str(folder / "lr_x4.json")}
    data |= {"train": [[0, 3]], "validation": [[5, 6]]}  # type: ignore[dict-item]
    settings = {
        **TRAINING,
        "model": model,
        "stage": name,
        "cards": {one: str(folder / "stages" / f"{one}.json") for one in earlier},
        "data": [data],
        "overrides": {"steps": 3, "batch": 2, "patch": 8, "warmup": 0, "precision": "float32", **overrides},
    }
    with mock.patch("emsr.steps.networks.cost", return_value={}):  # takes longer than the training
        train(settings, out := folder / "stages" / f"{name}.json")
    curve = json.loads(out.with_suffix(".curve.json").read_text())
    losses = [row[key] for row in curve["training"] for key in sorted(row) if key != "step"]
    score = np.array([curve["validation"][-1]["score"]])
    return load(out), {"losses": np.array(losses), "score": score}


def lr_sections(folder: Path) -> Any:
    """Sections 0 to 2 of lr as (1, 3, 1, 16, 16) in [0, 1]."""
    import torch

    return torch.from_numpy(voxels(folder / "lr_x4.json")[None, :3, None, :16, :16] / np.float32(255))


def train_codebook(folder: Path) -> Made:
    """Reconstruction, entries that follow and start anew, and a discriminator with its penalty."""
    entries = {"kmeans_vectors": 64, "unquantised": 0.34, "restart_after": 1, "codebook_weight": 1.0}
    critic = {"adversarial_weight": 0.05, "adversarial_from": 1, "penalty_weight": 0.01, "penalty_every": 2}
    network, made = stage(folder, "codebook", patch=32, learning_rate=0.01, **entries, **critic)
    image = network.decoder(network.encoder(lr_sections(folder)[:, 0]))[1]
    return {**made, "decoded": (255 * image.clamp(0, 1)).round().byte().numpy()}


def train_flow(folder: Path) -> Made:
    """Warps, the levels' error and how they join."""
    network, made = stage(folder, "flow", patch=16, learning_rate=0.01)
    lr = lr_sections(folder)
    flow = network(lr[:, 0], lr[:, 1])
    return {**made, "flow": (128 + 32 * flow).clamp(0, 255).round().byte().numpy()}


def train_indexer(folder: Path) -> Made:
    """Cross entropy against the frozen codebook."""
    network, made = stage(folder, "indexer", ("codebook",), learning_rate=0.02)
    shares = network(lr_sections(folder)[:, 0]).softmax(-1)
    return {**made, "shares": (255 * shares).round().byte().numpy()}


def train_fusion(folder: Path) -> Made:
    """Both terms of the loss, the frozen parts and neighbours."""
    network, made = stage(folder, "fusion", ("flow", "codebook", "indexer"), contextual_weight=0.1, learning_rate=0.003)
    sr = network(lr_sections(folder))
    return {**made, "sr": (255 * sr.clamp(0, 1)).round().byte().numpy()}


def train_image(folder: Path) -> Made:
    """The single-section network, whose only stage reads hr and lr."""
    network, made = stage(folder, "image", model=EDSR, learning_rate=0.003)
    sr = network(lr_sections(folder))
    return {**made, "sr": (255 * sr.clamp(0, 1)).round().byte().numpy()}


def stated(stage: Stage) -> dict[str, Any]:
    """The fields of a recipe that are not what they are by default, so that new ones change no golden."""
    defaults = {part.name: part.default for part in fields(Stage)}
    return {name: value for name, value in asdict(stage).items() if value != defaults[name]}


def recipes(name: str) -> Any:
    """A model's presets and, for every scale, the recipe of each, as JSON."""
    model = plugins.load("models", name)
    found = {
        preset: {
            "options": asdict(options),
            "stages": {str(scale): [stated(part) for part in model.stages(preset, scale)] for scale in model.SCALES},
        }
        for preset, options in model.PRESETS.items()
    }
    return json.loads(json.dumps(found))


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
    keys = ("psnr", "ssim", "ms_ssim", "frc_nm", "frc_half_bit_nm")
    return {name: np.array([image[name][key] for key in keys], float) for name in ("bicubic", "sr")}


def report(folder: Path) -> Made:
    from emsr.steps.score import report

    paths = {name: str(folder / f"{name}.json") for name in ("hr", "sr", "scores")}
    paths |= {"lr": str(folder / "lr_x4.json"), "allocate": str(folder / "sr" / "allocate.json")}
    volume = {**paths, "scale": 4, "card": str(folder / "untrained.json")}
    settings = {"title": "Golden", "config": {"volumes": {"v": {"weights": "t"}}, "trainings": {}}, "trainings": {}}
    report({**settings, "volumes": {"v": volume}, "benchmarks": str(folder)}, folder / "report.html")
    rows = [line.split("\t") for line in (folder / "report" / "headline.tsv").read_text().splitlines()]
    return {"headline": np.array(rows)}


STEPS: list[Callable[[Path], Made]] = [grow, ingest, degrade, enlarge, train, train_codebook, train_flow, train_indexer]
STEPS += [train_fusion, train_image, allocate, stitch, score, report]


@cache
def everything() -> dict[str, Made]:
    with TemporaryDirectory() as folder:
        return {step.__name__: step(Path(folder)) for step in STEPS}


def test_every_step_has_a_golden() -> None:
    assert {step.__name__.split("_")[0] for step in STEPS} | ELSEWHERE == set(RESULTS)


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


@pytest.mark.parametrize("name", MODELS)
def test_recipes_and_presets_change_only_with_the_result_number(name: str) -> None:
    assert recipes(name) == json.loads(golden_path(name).read_text())


if __name__ == "__main__":
    for step in sys.argv[1:] or [*MODELS, *(step.__name__ for step in STEPS)]:
        if step in MODELS:
            golden_path(step).parent.mkdir(exist_ok=True)
            golden_path(step).write_text(json.dumps(recipes(step), indent=1, sort_keys=True) + "\n")
        else:
            np.savez_compressed(golden_path(step), **everything()[step])  # type: ignore[arg-type]
