"""One array holds the work of one network, wherever it lies."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from emsr.durable import read_json, write_json
from sr_project import SrProject, tissue_like, write_weights


def project(folder: Path, model: str = "bicubic") -> SrProject:
    folder.mkdir(parents=True, exist_ok=True)
    made = SrProject(folder, write_weights(folder, model, 4))
    made.write_lr(tissue_like((9, 24, 20)))
    return made


def test_weights_and_card_swapped_between_two_jobs_are_refused(tmp_path: Path) -> None:
    """As a training that writes into the file of a running volume does: file and card agree, and are others."""
    made = project(tmp_path, "gpemsr")
    made.allocate()
    made.job("1-of-2")
    other = write_weights(tmp_path / "other", "gpemsr", 4, seed=1)
    for suffix in (".safetensors", ".json"):
        shutil.copy(other.with_suffix(suffix), made.card.with_suffix(suffix))
    with pytest.raises(ValueError, match=r"has changed since .* was allocated \(weights_sha256 .*run snakemake again"):
        made.job("2-of-2")
    assert not made.mark("2-of-2").exists()


def test_a_card_that_says_another_thing_of_the_same_weights_is_refused(tmp_path: Path) -> None:
    made = project(tmp_path, "gpemsr")
    made.allocate()
    write_json(made.card, {**read_json(made.card), "section_step": 2})
    with pytest.raises(ValueError, match="card_sha256"):
        made.job("1-of-1")


def test_results_may_lie_behind_a_link(tmp_path: Path) -> None:
    """The link sr.zarr leads from where the folder is, not from how it was named."""
    real = tmp_path / "a" / "deep" / "place" / "volume"
    real.mkdir(parents=True)
    (tmp_path / "volume").symlink_to(real)
    made = project(tmp_path / "volume")
    made.all(n=2)
    assert (tmp_path / "volume" / "sr.zarr").exists()
    assert (real / "sr.zarr" / "zarr.json").is_file()
    assert made.voxels().any()
    real.rename(tmp_path / "moved")
    assert (tmp_path / "moved" / "sr.zarr" / "zarr.json").is_file()


def test_weights_without_a_window_take_that_of_the_settings(tmp_path: Path) -> None:
    made = project(tmp_path)
    card = read_json(made.card)
    del card["window"]
    write_json(made.card, card)
    with pytest.raises(ValueError, match=r"states no window: set superresolve\.window"):
        made.allocate()
    made.settings["window"] = 16
    assert made.all()["window"] == 16
