"""What is made of sr at real and anisotropic scales lies where sr lies: exports, views, segmentations, their scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from skimage.metrics import variation_of_information

import test_export
from emsr import scales
from emsr.commands.export import export
from emsr.durable import read_json
from emsr.steps.data import degrade
from emsr.steps.segment_scores import score_segments
from emsr.stores import open_source
from emsr.stores.card import write_card
from emsr.stores.zarr import open_array
from emsr.viewing.layers import layers_of
from emsr.viewing.state import viewer_state
from segment_project import Chain, image, weights
from sr_project import SrProject, tissue_like, write_weights

REAL = [3.7, (3.5, 2)]
HR = (5, 75, 66)
Lengths = list[float]
Read = Callable[[Path], tuple[np.ndarray, Lengths, Lengths]]  # voxels z y x, voxel size and corner in nm


@pytest.fixture(scope="module", params=REAL, ids=scales.name)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[scales.Scale, SrProject]:
    """sr of an lr that was made of hr, whose voxels are 40 x 4 x 4 nm with the outer corner at (0, 0, 0)."""
    folder, scale = tmp_path_factory.mktemp("real") / "cells", request.param
    one = SrProject(folder, write_weights(folder.parent, "bicubic", scales.stated(scale)))
    one.settings |= {"shard": [2, 48, 40], "chunk": [1, 16, 8]}
    how = {"scale": scales.stated(scale), "degradation": {"kernel": "area"}, "shard": [5, 32, 32], "chunk": [5, 32, 32]}
    degrade(how, image(folder, tissue_like(HR)), one.lr, workers=1)
    one.all()
    return scale, one


def voxels(folder: Path, name: str = "sr") -> np.ndarray:
    found: np.ndarray = open_array(folder / f"{name}.zarr").read().result()
    return found


def first(read: Callable[[Path], test_export.Found]) -> Read:
    """The finest level of what a library reads."""
    return lambda out: read(out)[0]


def of_tiff(out: Path) -> tuple[np.ndarray, Lengths, Lengths]:
    with tifffile.TiffFile(out) as opened:
        pixels = tifffile.xml2dict(opened.ome_metadata)["OME"]["Image"]["Pixels"]
        size = [float(pixels[f"PhysicalSize{axis}"]) for axis in "ZYX"]
        per_cm = [np.divide(*opened.pages[0].tags[f"{axis}Resolution"].value) for axis in "YX"]
        np.testing.assert_allclose(np.divide(1e7, per_cm), size[1:], rtol=1e-6)
        centre = [float(pixels["Plane"][0][f"Position{axis}"]) for axis in "ZYX"]
        return opened.asarray(), size, [at - side / 2 for at, side in zip(centre, size, strict=True)]


WAYS: dict[str, tuple[str, Read]] = {
    "ome-zarr-0.4": ("sr.ome.zarr", first(test_export.with_ome_zarr)),
    "cremi": ("sr.h5", first(test_export.with_h5py)),
    "n5": ("sr.n5", first(test_export.with_tensorstore)),
    "precomputed": ("sr.precomputed", first(test_export.with_cloud_volume)),
    "tiff": ("sr.tif", of_tiff),
}


@pytest.mark.parametrize("format", WAYS)
def test_exports_have_its_shape_voxel_size_and_place(made: Any, tmp_path: Path, format: str) -> None:
    """hr's voxel size and place, and the rounded shape, as another library reads them."""
    scale, one = made
    name, read = WAYS[format]
    export(one.folder / "sr.json", tmp_path / name, format=format)
    found, size, corner = read(tmp_path / name)
    assert list(found.shape) == [HR[0], *scales.fine_plane(scales.coarse_plane(HR[1:], scale), scale)]
    np.testing.assert_array_equal(found, voxels(one.folder))
    np.testing.assert_allclose(size, [40, 4, 4], rtol=1e-9)
    np.testing.assert_allclose(corner, [0, 0, 0], atol=1e-6)


def test_coarser_levels_lie_at_the_same_corner(made: Any, tmp_path: Path) -> None:
    _, one = made
    export(one.folder / "sr.json", tmp_path / "sr.zarr", format="ome-zarr-0.4", level=0)
    for level, (_, size, corner) in enumerate(test_export.with_ome_zarr(tmp_path / "sr.zarr")):
        np.testing.assert_allclose(size, [40, 4 * 2**level, 4 * 2**level], rtol=1e-9)
        np.testing.assert_allclose(corner, [0, 0, 0], atol=1e-6)


def test_views_put_lr_sr_and_hr_over_each_other(made: Any) -> None:
    scale, one = made
    layers = {layer.name: layer for layer in layers_of([one.folder])}
    assert set(layers) == {"lr", "sr", "hr"}
    ends = {}
    for name, layer in layers.items():
        np.testing.assert_allclose(layer.corner_nm, [0, 0, 0], atol=1e-6)
        ends[name] = np.multiply(layer.shape, layer.voxel_size_nm)
    np.testing.assert_allclose(ends["lr"], ends["sr"], rtol=1e-9)
    assert (ends["hr"] - ends["sr"] >= 0).all()
    assert (ends["hr"] - ends["sr"] < 4 * np.max(scales.pair(scale))).all()
    state = viewer_state(list(layers.values()), "http://x", "4panel")
    assert [state["dimensions"][axis] for axis in "xyz"] == [pytest.approx([side * 1e-9, "m"]) for side in (4, 4, 40)]


# segmentations


@pytest.fixture(scope="module")
def segmented(made: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[SrProject, dict[str, Chain]]:
    _, one = made
    folder = tmp_path_factory.mktemp("segmented")
    found, weight = {name: Chain(folder / name, jobs=1) for name in ("sr", "hr")}, weights(folder)
    for name, chain in found.items():
        chain.all(one.folder / f"{name}.json", weight)
    return one, found


def settings(one: SrProject, chains: dict[str, Chain], labels: Path) -> dict[str, Any]:
    parts = ("segments", "affinities", "threshold")
    return {
        **{"volume": "cells", "test": [[1, 4]], "validation": None, "labels": str(labels)},
        **{"border_nm": 0.0, "membrane_nm": 5.0, "in_plane": True, "absorb": 0, "windows": 30, "seed": 0},
        "segmentations": {
            name: {"image": name, **{part: str(chain.folder / f"{part}.json") for part in parts}}
            for name, chain in chains.items()
        },
    }


def test_segments_lie_on_sr_and_are_scored_where_labels_lie(segmented: Any, tmp_path: Path) -> None:
    """Of labels of all that hr shows what sr has is scored, from the common corner; scikit-image finds the same."""
    one, chains = segmented
    sr, card = read_json(one.folder / "sr.json"), read_json(chains["sr"].folder / "segments.json")
    for key in ("shape", "voxel_size_nm", "translation_nm"):
        assert card[key] == sr[key]
    rows, columns = sr["shape"][1:]
    assert (rows, columns) != HR[1:]
    truth = np.kron(np.arange(1, 31, dtype=np.uint64).reshape(1, 6, 5), np.ones((5, 13, 14), np.uint64))[:, :75, :66]
    score_segments(settings(one, chains, image(tmp_path, truth, name="labels")), tmp_path / "scores.json")
    scores = read_json(tmp_path / "scores.json")
    for name, chain in chains.items():
        ids = chain.voxels("segments.json")[1:4, :rows, :columns]
        merge, split = variation_of_information(truth[1:4, :rows, :columns], ids)
        row = scores["segmentation"][name]
        assert (row["voi_split"], row["voi_merge"]) in (pytest.approx((split, merge)), pytest.approx((merge, split)))
        assert row["voi"] == pytest.approx(split + merge)
        assert row["voxels"] == 3 * rows * columns


def test_labels_of_another_grid_are_one_line(segmented: Any, tmp_path: Path) -> None:
    one, chains = segmented
    only = {"sr": chains["sr"]}
    rows, columns = read_json(one.folder / "sr.json")["shape"][1:]
    small = image(tmp_path, np.ones((5, rows - 1, columns), np.uint64), name="small")
    with pytest.raises(ValueError, match=r"labels must have the same sections and at least as many voxels in y and x"):
        score_segments(settings(one, only, small), tmp_path / "scores.json")
    other = image(tmp_path, np.ones(HR, np.uint64), name="other")
    write_card(other, {**read_json(other), "voxel_size_nm": [40.0, 4.1, 4.0]})
    with pytest.raises(ValueError, match=r"sr has voxels of \[40.0, 4.0.*\] nm and .* score one grid"):
        score_segments(settings(one, only, other), tmp_path / "scores.json")


def test_an_export_is_ingested_where_sr_lies(made: Any, tmp_path: Path) -> None:
    _, one = made
    export(one.folder / "sr.json", tmp_path / "sr.n5", format="n5")
    source = open_source(tmp_path / "sr.n5")
    np.testing.assert_allclose(source.voxel_size_nm, [40, 4, 4], rtol=1e-9)
    np.testing.assert_allclose(source.translation_nm, [20, 2, 2], atol=1e-6)
    source.close()
