"""What a config names is opened before anything is written: sources, ranges, labels, weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

from emsr.commands.check import check, check_config
from emsr.config import parse

ROOT = Path(__file__).parents[1]
RAW = np.arange(6 * 32 * 32, dtype=np.uint8).reshape(6, 32, 32)


def write(path: Path, voxels: np.ndarray, resolution: bool = True, name: str = "volumes/raw") -> None:
    with h5py.File(path, "a") as file:
        file[name] = voxels
        if resolution:
            file[name].attrs["resolution"] = (40.0, 4.0, 4.0)


@pytest.fixture
def values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A config with one good volume, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "v.h5", RAW)
    write(tmp_path / "v.h5", RAW.astype(np.uint64), name="volumes/labels/neuron_ids")
    values: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())
    source = {"path": "v.h5", "dataset": "volumes/raw"}
    labels = {"path": "v.h5", "dataset": "volumes/labels/neuron_ids"}
    values["volumes"] = {"v": {"hr": source, "labels": labels, "degradation": {"kernel": "bicubic"}}}
    training = values["trainings"].pop("tissue")
    values["trainings"]["t"] = {**training, "data": [{"volume": "v", "train": [[0, 2]], "validation": [[4, 5]]}]}
    return values


def test_a_good_config_passes(values: dict[str, Any], tmp_path: Path) -> None:
    check_config(parse(values))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "mine.yaml").write_text("jobs: 3")
    check([tmp_path / "config.yaml", tmp_path / "mine.yaml"])


def source_of(voxels: np.ndarray, **how: Any) -> Callable[[dict[str, Any]], None]:
    """Replace hr by another file; labels go."""

    def change(values: dict[str, Any]) -> None:
        write(Path("w.h5"), voxels, **how)
        values["volumes"]["v"] = {"hr": {"path": "w.h5", "dataset": "volumes/raw"}, "degradation": {"kernel": "area"}}

    return change


def put(*where: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(values: dict[str, Any]) -> None:
        part = values
        for name in where[:-1]:
            part = part[name]
        part[where[-1]] = value

    return change


def with_weights(card: dict[str, Any], content: bytes = b"") -> Callable[[dict[str, Any]], None]:
    def change(values: dict[str, Any]) -> None:
        Path("w.safetensors").write_bytes(content)
        Path("w.json").write_text(json.dumps(card))
        values["volumes"]["v"]["weights"] = {"path": "w.safetensors"}

    return change


CARD = {
    "sha256": "0" * 64,
    "model": "gpemsr",
    "options": {},
    "scale": 8,
    "sections": 3,
    "stage": "fusion",
    "window": 64,
}
HR = ("volumes", "v", "hr")
MISTAKES = [
    ("range outside", put("trainings", "t", "data", value=[{"volume": "v", "train": [[0, 7]], "validation": []}]),
     "train [0, 7] does not lie in volume v of 6 sections"),
    ("test outside", put("volumes", "v", "test", value=[[5, 9]]), "test [5, 9] does not lie in volume v of 6 sections"),
    ("missing dataset", put(*HR, "dataset", value="volumes/ram"), "volumes/ram"),
    ("truncated", lambda values: Path("v.h5").write_bytes(Path("v.h5").read_bytes()[:3000]), "v.h5"),
    ("empty file", lambda values: Path("v.h5").write_bytes(b""), "0 bytes"),
    ("no voxel size", source_of(RAW, resolution=False), "voxel"),
    ("another voxel size", put(*HR, "voxel_size_nm", value=[40, 5, 5]), "voxel"),
    ("float", source_of(RAW.astype(np.float32)), "float32"),
    ("not a number", source_of(np.full((4, 8, 8), np.nan, np.float32)), "float32"),
    ("colour", source_of(np.zeros((8, 8, 8, 3), np.uint8)), "4 axes"),
    ("colour as last axis", source_of(np.zeros((8, 8, 3), np.uint8)), "RGB"),
    ("labels of another shape", lambda values: write(Path("v.h5"), RAW.astype(np.uint64)[:5], name="other")
     or values["volumes"]["v"]["labels"].update(dataset="other"), "labels /other have shape [5, 32, 32]"),
    ("negative labels", lambda values: write(Path("v.h5"), RAW.astype(np.int64), name="other")
     or values["volumes"]["v"]["labels"].update(dataset="other"), "int64"),
    ("stride finer than the scale", put("trainings", "t", "model", "options", value={"latent_stride": 4}),
     "trainings.t: latent_stride 4 is finer than scale 8"),
    ("window off the latent grid", lambda values: values["trainings"]["t"].update(
        window=68, scale=4, model={"name": "gpemsr", "preset": "small", "options": {"latent_stride": 32,
        "channels": [8] * 6, "indexer_channels": [8] * 5}}), "window 68 is not a multiple of 8"),
    ("card of nothing", with_weights({"scale": 8}), "is no card of weights"),
    ("another stage", with_weights({**CARD, "stage": "indexer"}), "are of stage indexer; the whole network is fusion"),
    ("overlap of the window", with_weights({**CARD, "window": 16}), "overlap 16 leaves no step for window 16"),
    ("other weights", with_weights(CARD, b"other"), "its card says 000000000000"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES])
def test_a_mistake_is_one_line_and_nothing_is_written(
    values: dict[str, Any], change: Callable[[dict[str, Any]], None], words: str
) -> None:
    change(values)
    before = sorted(Path().iterdir())
    with pytest.raises((ValueError, OSError)) as error:
        check_config(parse(values))
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert sorted(Path().iterdir()) == before
