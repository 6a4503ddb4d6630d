"""An lr that is unlike the images that weights were trained on is found before anything is written."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from skimage.io import imread

from emsr import noise
from emsr.config import parse
from emsr.degradation import degrade, restore, upsample
from emsr.durable import read_json
from emsr.metrics.likeness import looks, mismatch
from emsr.models.checkpoint import load_card
from emsr.settings import Settings
from emsr.steps import sampled
from emsr.steps.superresolve import ALLOCATE_RESULT, allocate
from emsr.steps.train import train
from emsr.stores.card import write_card
from emsr.tissue import grow
from sr_project import SrProject, write_weights
from test_config import ROOT
from train_project import put, settings, texture

SIZE = (40.0, 32.0, 32.0)
U8 = np.dtype(np.uint8)


def whole(sections: np.ndarray, scale: int) -> np.ndarray:
    """Cut to a multiple of `scale` along y and x."""
    return sections[:, : sections.shape[1] // scale * scale, : sections.shape[2] // scale * scale]


def tissue() -> tuple[np.ndarray, np.ndarray]:
    raw = np.concatenate([grow((2, 384, 384), (40, 4, 4), seed).raw for seed in (1, 2)])
    return tuple(degrade(part, 4) for part in (raw[:2], raw[2:]))


def fib(shared: Path) -> tuple[np.ndarray, np.ndarray]:
    with h5py.File(shared / "data/fib_medulla/train.h5") as file:
        part = file["volumes/raw"][::32]
    return tuple(degrade(whole(each, 4), 4) for each in (part[:4], part[4:]))


def vnc(shared: Path) -> tuple[np.ndarray, np.ndarray]:
    files = sorted((shared / "data/vnc_sstem/sections").glob("*.tif"))
    return tuple(degrade(np.stack([imread(file) for file in part]), 8) for part in (files[:4], files[16:]))


@pytest.fixture(scope="module", params=["tissue", "fib", "vnc"])
def pair(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    """lr of training and of other sections of one tissue (for synthetic tissue of another volume)."""
    if request.param == "tissue":
        return tissue()
    return {"fib": fib, "vnc": vnc}[request.param](request.getfixturevalue("shared"))


def noisy(lr: np.ndarray) -> np.ndarray:
    return restore(
        np.stack([noise.add(section.astype(float), noise.Noise(10.0, 0.0), 0, z) for z, section in enumerate(lr)]), U8
    )


CHANGES: list[tuple[Callable[[np.ndarray], np.ndarray], float, str]] = [
    (lambda lr: lr, 1, ""),
    (lambda lr: lr[:1], 1, ""),
    (lambda lr: lr, 1.1, ""),
    (lambda lr: upsample(lr, 2), 1, "power spectra differ"),
    (lambda lr: upsample(lr, 2), 0.5, "power spectra differ"),
    (lambda lr: degrade(whole(lr, 2), 2), 2, "voxel size is"),
    (noisy, 1, "power spectra differ"),
    (lambda lr: 255 - lr, 1, "contrast is inverted"),
    (lambda lr: lr // 2, 1, "grey levels by"),
]
NAMES = ["other sections", "one section", "rounded size", "enlarged", "finer", "coarser", "noise", "inverted", "dark"]


def patches(lr: np.ndarray) -> list[np.ndarray]:
    side = min(64, *lr.shape[1:])
    draw = np.random.default_rng(0)
    corners = [draw.integers(0, [len(lr), lr.shape[1] - side + 1, lr.shape[2] - side + 1]) for _ in range(64)]
    return [lr[z, y : y + side, x : x + side] for z, y, x in corners]


@pytest.mark.parametrize(("change", "factor", "reason"), CHANGES, ids=NAMES)
def test_other_sections_are_like_and_other_images_are_not(pair, change, factor, reason):
    seen = {**looks(patches(pair[0])), "voxel_size_nm": SIZE}
    size = [SIZE[0], SIZE[1] * factor, SIZE[2] * factor]
    found = ", ".join(mismatch({**looks(patches(change(pair[1]))), "voxel_size_nm": size}, seen))
    assert reason in found
    assert bool(found) == bool(reason), found


def test_looks_of_white_noise_are_flat_and_of_nothing_none():
    draw = np.random.default_rng(0).normal(128, 20, (32, 64, 64))
    found = looks(list(restore(draw, U8)))
    np.testing.assert_allclose(found["spectrum"], 0, atol=0.8)  # each band holds the variance
    assert sum(found["histogram"]) == pytest.approx(1, abs=1e-3)
    assert abs(found["skew"]) < 0.02
    assert looks([]) is looks([np.zeros((64, 64), np.uint8)]) is looks([np.eye(16, dtype=np.uint8)]) is None


# the steps


def project(tmp_path: Path, lr: np.ndarray, **said: object) -> SrProject:
    """A coarse volume, and weights whose card says `said` besides."""
    tmp_path.mkdir(exist_ok=True)
    card = write_weights(tmp_path, "bicubic", 4)
    card.write_text(json.dumps({**read_json(card), **said}))
    made = SrProject(tmp_path, card)
    made.write_lr(lr)
    return made


def allocated(made: SrProject, accept: bool = False) -> bool:
    """Run the step; whether it wrote."""
    made.allocation.parent.mkdir(parents=True, exist_ok=True)
    stated = {**made.settings, "result": ALLOCATE_RESULT}
    allocate(stated, made.lr, made.card, made.allocation, accept_mismatch=accept)
    return made.allocation.is_file()


def test_a_mismatch_stops_before_anything_is_written_unless_it_is_accepted(tmp_path, caplog):
    train_lr = texture(4, 96, 96)
    other = project(tmp_path / "seen", train_lr)
    made = project(tmp_path / "mine", upsample(train_lr, 2), looks={"t": sampled.looks(other.lr), "empty": None})
    with pytest.raises(
        ValueError, match=r"lr.json is unlike .*power spectra differ by \d+.*accept_mismatch: true"
    ) as refusal:
        allocated(made)
    assert "\n" not in str(refusal.value)
    assert not list((tmp_path / "mine").glob("sr-*"))
    assert allocated(made, accept=True)
    assert "accepted" in caplog.text
    caplog.clear()
    assert allocated(project(tmp_path / "same", train_lr, looks={"t": sampled.looks(other.lr)}))
    assert not caplog.records, "the same tissue needs no word"


@pytest.mark.parametrize(
    ("said", "warning"),
    [
        ({}, "does not say how training images looked"),
        ({"looks": {"t": None}}, "does not say how training images looked"),
        ({"looks": {"t": {"voxel_size_nm": [1, 1, 1]}}}, "shows too little"),
        ({"looks": {}}, None),
    ],
    ids=["old card", "training too small", "lr too small", "nothing was trained"],
)
def test_what_cannot_be_compared_passes_with_a_warning(tmp_path, caplog, said, warning):
    assert allocated(project(tmp_path, texture(3, 24, 24), **said))
    assert [record.levelno for record in caplog.records] == ([logging.WARNING] if warning else [])
    assert (warning or "") in caplog.text


@pytest.mark.parametrize(
    ("seen", "own", "reason"),
    [
        ({"a": None}, None, None),
        ({"a": None}, {"low": 0, "high": 9}, "mapped by stated limits, not as in the source"),
        ({"a": {"low": 0, "high": 9}}, {"low": 5, "high": 7}, None),
        ({"a": {"low": 0, "high": 9, "percentiles": [1, 99]}}, None, "as in the source, not mapped by percentiles"),
        (
            {"a": None, "b": {"low": 0, "high": 9, "percentiles": [1, 99]}},
            {"low": 1, "high": 2, "percentiles": [0, 9]},
            None,
        ),
        (None, {"low": 0, "high": 9}, None),
    ],
)
def test_grey_levels_are_mapped_as_in_training(tmp_path, seen, own, reason):
    intensity = {"dtype": "uint8", **({} if seen is None else {"mapping": seen})}
    made = project(tmp_path, texture(3, 24, 24), intensity=intensity, looks={})
    if own:
        made.lr.write_text(json.dumps({**read_json(made.lr), "intensity": own}))
    if reason:
        with pytest.raises(ValueError, match=reason):
            allocated(made)
    else:
        assert allocated(made)
        assert json.loads(made.allocation.read_text())["lr"].get("intensity") == own


def test_training_records_what_its_lr_looks_like(tmp_path):
    """Of the training sections only: the others are white noise."""
    lr = texture(14, 48, 48)
    lr[8:] = np.random.default_rng(0).integers(0, 256, lr[8:].shape)
    volume = {"lr": str(put(tmp_path, "lr", lr, {})), "hr": str(put(tmp_path, "hr", upsample(lr, 4), {}))}
    changes = {"steps": 1, "batch": 1, "patch": 16, "validate_every": 1, "checkpoint_every": 1}
    train(settings("flow", volume, tmp_path, overrides=changes), tmp_path / "flow.json")
    card = load_card(tmp_path / "flow.json")
    assert card["intensity"] == {"dtype": "uint8", "range": [0, 255], "mapping": {"v": None}}
    assert card["looks"] == {"v": sampled.looks(Path(volume["lr"]), [[0, 8]])}
    assert mismatch({**sampled.looks(Path(volume["lr"]), [[8, 14]])}, card["looks"]["v"])


def test_training_on_a_real_pair_and_on_degraded_hr_records_both(tmp_path):
    changes = {"steps": 1, "batch": 1, "patch": 16, "validate_every": 1, "checkpoint_every": 1}
    data = []
    for name, made in (("pair", None), ("made", {"kernel": "area", "scale": 4})):
        (tmp_path / name).mkdir()
        lr = put(tmp_path / name, "lr", texture(14, 48, 48), {})
        write_card(lr, {**read_json(lr), "degradation": made})
        data.append({"volume": name, "hr": None, "lr": str(lr), "train": [[0, 8]], "validation": [[10, 14]]})
    for used, recorded in ((data, {"pair": None, "made": {"kernel": "area", "scale": 4}}), (data[1:], None)):
        train(settings("flow", {}, tmp_path, overrides=changes, data=used), tmp_path / "flow.json")
        card = load_card(tmp_path / "flow.json")
        assert card.get("degradations") == recorded
        assert card["degradation"] == (None if recorded else {"kernel": "area", "scale": 4})


def test_the_config_passes_acceptance_on_and_reruns_nothing_else():
    values = yaml.safe_load((ROOT / "config.yaml").read_text())
    plain = Settings(parse(values))
    values["volumes"]["tissue"]["accept_mismatch"] = True
    accepting = Settings(parse(values))
    assert (plain.accept_mismatch("tissue"), accepting.accept_mismatch("tissue")) == ("", "--accept-mismatch")
    assert plain.superresolve("tissue") == accepting.superresolve("tissue")
