"""A bright blob lies at the same nanometres in hr, lr and sr, as zarr-python and ome-zarr read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

from emsr.steps.data import degrade, ingest
from emsr.steps.superresolve import allocate, stitch, superresolve
from emsr.steps.train import train

LAYOUT = {"shard": [3, 64, 64], "chunk": [3, 32, 32]}
VOXEL = (40.0, 5.0, 4.0)
OFFSET = (80.0, 1000.0, 333.0)


def centre_nm(path: Path, level: int = 0) -> np.ndarray:
    """Centre of mass (z, y, x) in nm, from voxels and OME-Zarr metadata."""
    group = zarr.open_group(path, mode="r")
    dataset = group.attrs["ome"]["multiscales"][0]["datasets"][level]  # type: ignore[index, call-overload]
    steps: list[dict[str, Any]] = dataset["coordinateTransformations"]  # type: ignore[assignment, index, call-overload]
    scale = next(np.array(step["scale"]) for step in steps if step["type"] == "scale")
    first = next((np.array(step["translation"]) for step in steps if step["type"] == "translation"), np.zeros(3))
    mass = np.asarray(group[str(dataset["path"])][:], np.float64)  # type: ignore[index, call-overload]
    centre = np.array([(np.indices(mass.shape)[axis] * mass).sum() for axis in range(3)]) / mass.sum()
    return first + scale * centre


@pytest.fixture(params=[4, 8, 16])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[int, Path]:
    """hr, lr and sr (bicubic) of a blob, by the steps of the workflow."""
    scale, side = request.param, 16 * request.param
    y, x = np.mgrid[:side, :side]
    blob = 250 * np.exp(-((y - 0.46 * side) ** 2 + (x - 0.55 * side) ** 2) / (2 * (side / 9) ** 2))
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["raw"] = np.stack([0.5 * blob, blob, 0.3 * blob]).round().astype(np.uint8)
        file["raw"].attrs["resolution"], file["raw"].attrs["offset"] = VOXEL, OFFSET
    source = {"path": str(tmp_path / "v.h5"), "dataset": "raw", "voxel_size_nm": None}
    ingest({"image": "hr", "source": source, "region": None, **LAYOUT}, tmp_path / "hr.json")
    settings = {"scale": scale, "degradation": {"kernel": "bicubic"}, **LAYOUT}
    degrade(settings, tmp_path / "hr.json", tmp_path / "lr.json")
    training = {
        **{"stage": "untrained", "model": {"name": "bicubic", "preset": "small", "options": {}}, "overrides": {}},
        **{"scale": scale, "sections": 1, "section_step": 1, "window": 8, "seed": 0, "threads": 1, "device": "cpu"},
        **{"data": [], "cards": {}, "init_from": None, "perceptual": None, "spynet": None},
    }
    train(training, tmp_path / "weights.json")
    sr = {"overlap": 4, "precision": "float32", "device": "cpu", **LAYOUT}
    plan, mark = tmp_path / "sr" / "allocate.json", tmp_path / "sr" / "jobs" / "1-of-1.json"
    allocate(sr, tmp_path / "lr.json", tmp_path / "weights.json", plan)
    superresolve(sr, plan, "1-of-1", mark, workers=1)
    stitch(sr, plan, [mark], tmp_path / "sr.json", workers=1)
    return scale, tmp_path


def test_a_blob_stays_where_it_is(made: tuple[int, Path]) -> None:
    scale, folder = made
    hr = centre_nm(folder / "hr.zarr")
    assert hr[1] == pytest.approx(OFFSET[1] + VOXEL[1] * (0.46 * 16 * scale + 0.5), abs=0.05 * VOXEL[1])
    np.testing.assert_allclose(centre_nm(folder / "sr.zarr"), hr, atol=0.05 * min(VOXEL))
    np.testing.assert_allclose(centre_nm(folder / "lr.zarr"), hr, atol=0.05 * min(VOXEL) * scale)


def test_ome_zarr_reads_the_super_resolved_volume(made: tuple[int, Path]) -> None:
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    scale, folder = made
    location = parse_url(folder / "sr.zarr")
    assert location is not None
    levels = next(iter(Reader(location)())).data
    assert levels[0].shape == (3, 16 * scale, 16 * scale)
    np.testing.assert_array_equal(np.asarray(levels[0]), zarr.open_group(folder / "sr.zarr", mode="r")["0"][:])
