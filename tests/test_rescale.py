"""Rescaling on disk and in memory: a network enlarges the lr that it made itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from emsr.inference import allocation, rescaling
from emsr.metrics.image import psnr
from emsr.models import checkpoint
from emsr.steps.data import ingest
from emsr.steps.rescale import rescale
from emsr.stores.card import read_card
from emsr.stores.zarr import open_array
from test_dual import learned
from train_project import put, texture


@pytest.fixture(scope="module")
def rescaler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return learned(tmp_path_factory.mktemp("irn"), "irn", steps=12, validate_every=12, protocol="rescaling")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return learned(tmp_path_factory.mktemp("given"), "irn", steps=1, validate_every=0)


def test_a_network_enlarges_its_own_lr(rescaler: Path) -> None:
    card = checkpoint.load_card(rescaler)
    assert card["protocol"] == "rescaling"
    assert set(card["health"]) == {"rescaled_psnr", "rescaled_ssim"}
    hr = texture(2, 43, 50)
    lr = rescaling.coarser(hr, rescaler)
    again = rescaling.finer(lr, rescaler)
    assert (lr.shape, lr.dtype, again.shape) == ((2, 11, 13), np.uint8, (2, 44, 52))
    network: Any = checkpoint.load(rescaler)
    padded = F.pad(torch.from_numpy(hr[:1, None]).float() / 255, (0, 2, 0, 1), mode="reflect")
    made = (network.down(padded)[0].clamp(0, 1) * 255).round()
    assert np.array_equal(made[0, 0].numpy(), lr[0])
    assert np.abs(again[:, :43, :50].astype(int) - hr).mean() < 30


def test_small_images_on_disk(rescaler: Path, trained: Path, tmp_path: Path) -> None:
    hr = texture(10, 43, 50)
    card, out = put(tmp_path, "hr", hr, {"4": "black"}), tmp_path / "small.json"
    rescale(card, rescaler, out)
    made, own = read_card(out), rescaling.coarser(hr[:, :40, :48], rescaler)
    assert np.array_equal(open_array(tmp_path / "small.zarr").read().result(), own)
    again = rescaling.finer(own, rescaler)
    rows = [psnr(hr[z, :40, :48], again[z]) for z in range(10) if z != 4]
    assert made["rescaled_psnr"] == pytest.approx(np.mean(rows))
    assert (made["voxel_size_nm"], made["damaged"]) == ([40, 16, 16], {"4": "black"})
    assert made["rescaled_sections"] == 9
    fine = tmp_path / "fine.json"
    rescale(out, rescaler, fine, back=True)
    assert np.array_equal(open_array(tmp_path / "fine.zarr").read().result(), again)
    for key in ("voxel_size_nm", "translation_nm", "damaged"):
        assert read_card(fine)[key] == read_card(card)[key]
    with pytest.raises(ValueError, match=r"hr\.json was not made by emsr rescale: without --back"):
        rescale(card, rescaler, tmp_path / "other.json", back=True)
    with pytest.raises(ValueError, match=r"small\.json is what emsr rescale keeps of fine images: say --back"):
        rescale(out, rescaler, tmp_path / "other.json")
    with pytest.raises(ValueError, match=r"small\.json is of protocol rescaling"):
        allocation.check_weights(checkpoint.load_card(trained), trained, made, out)
    source = {"path": str(tmp_path / "small.zarr"), "dataset": None, "voxel_size_nm": None}
    layout = {"region": None, "shard": [4, 32, 32], "chunk": [4, 16, 16]}
    with pytest.raises(ValueError, match=r"was made by a network \(protocol rescaling\) and is no image as"):
        ingest({"image": "lr", "source": source, **layout}, tmp_path / "lr.json")
    with pytest.raises(ValueError, match="was trained to enlarge lr that is given"):
        rescale(card, trained, tmp_path / "other.json")
    assert not (tmp_path / "other.zarr").exists()


def test_rescaling_goes_on_where_it_was_killed(rescaler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hr = texture(10, 40, 48)
    card, out, calls = put(tmp_path, "hr", hr, {}), tmp_path / "small.json", list[int]()

    def stopped(self: Any, section: np.ndarray, last: int) -> np.ndarray:
        calls.append(len(calls))
        if len(calls) > last:
            raise OSError("killed")
        return own(self, section)

    own = rescaling.Rescaler.coarser
    monkeypatch.setattr(rescaling.Rescaler, "coarser", lambda self, section: stopped(self, section, 9))
    with pytest.raises(OSError, match="killed"):
        rescale(card, rescaler, out)
    assert not out.exists()
    calls.clear()
    monkeypatch.setattr(rescaling.Rescaler, "coarser", lambda self, section: stopped(self, section, 99))
    rescale(card, rescaler, out)
    assert len(calls) == 2, "the eight sections of the finished shard are not made again"
    monkeypatch.setattr(rescaling.Rescaler, "coarser", own)
    assert np.array_equal(open_array(tmp_path / "small.zarr").read().result(), rescaling.coarser(hr, rescaler))
