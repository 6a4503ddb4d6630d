"""A mask of tissue: shards without any are skipped, whatever grid the mask is on; one that does not fit is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

from emsr.commands.check import check_config
from emsr.config import parse
from emsr.durable import read_json
from emsr.geometry import Box
from emsr.inference.extent import MaskGrid, Placed, mask_grid
from emsr.settings import Settings
from emsr.steps.data import ingest
from sr_project import SrProject, tissue_like, write_weights

ROOT = Path(__file__).parents[1]
SHAPE = (7, 20, 28)  # lr of 40 x 32 x 32 nm, its corner at -20, -16, -16; sr 7 x 80 x 112 in shards of 4 x 64 x 64
CORNER = [-20.0, -16.0, -16.0]
Sides = tuple[int, int, int]


def write_mask(path: Path, tissue: np.ndarray, size: list[float], corner: list[float] = CORNER) -> None:
    with h5py.File(path, "w") as file:
        file["mask"] = tissue
        file["mask"].attrs.update({"resolution": size, "offset": corner})


def mask_card(folder: Path, tissue: np.ndarray, size: list[float], corner: list[float] = CORNER) -> str:
    """The mask as the workflow ingests it; the path of its card."""
    write_mask(folder / "mask.h5", tissue, size, corner)
    source = {"path": str(folder / "mask.h5"), "dataset": "mask", "voxel_size_nm": None}
    settings = {"image": "mask", "source": source, "region": None, "shard": [4, 32, 32], "chunk": [4, 16, 16]}
    ingest(settings, folder / "mask.json")
    return str(folder / "mask.json")


def with_one_voxel(shape: Sides, place: Sides) -> np.ndarray:
    tissue = np.zeros(shape, bool)
    tissue[place] = True
    return tissue


@pytest.mark.parametrize(
    ("tissue", "size", "computed", "reason"),
    [
        (with_one_voxel(SHAPE, (3, 15, 16)), [40, 32, 32], ["0_0_1"], "lr's grid, the last section of a shard"),
        (with_one_voxel((7, 80, 112), (4, 64, 63)), [40, 8, 8], ["1_1_0"], "the grid of hr"),
        (with_one_voxel((7, 80, 112), (4, 64, 63)).astype("u1") * 255, [40, 8, 8], ["1_1_0"], "uint8"),
        (with_one_voxel((2, 2, 3), (0, 0, 1)), [160, 320, 320], ["0_0_0", "0_0_1"], "coarser, across two shards"),
        (with_one_voxel((1, 1, 2), (0, 0, 1)), [160, 320, 320], None, "too small a mask"),
        (with_one_voxel((1, 2, 3), (0, 1, 0)), [160, 320, 320], ["0_0_0", "0_1_0", "1_0_0", "1_1_0"], "the last voxel "
         "stands for sections 4 to 6"),
    ],
)  # fmt: skip
def test_shards_without_tissue_are_skipped(
    tmp_path: Path, tissue: np.ndarray, size: list[float], computed: list[str] | None, reason: str
) -> None:
    made = SrProject(tmp_path, write_weights(tmp_path, "bicubic", 4))
    made.write_lr(tissue_like(SHAPE))
    made.settings["mask"] = mask_card(tmp_path, tissue, size)
    if computed is None:
        with pytest.raises(ValueError, match="give a mask of the whole volume"):
            made.allocate()
        assert not list(tmp_path.glob("sr-*"))
        return
    card = made.all()
    assert made.stats("1-of-1")["computed"] == computed, reason
    assert card["skipped"]["reasons"] == {"mask": 8 - len(computed)}


def test_empty_sections_of_a_mask_are_not_damaged(tmp_path: Path) -> None:
    card = read_json(Path(mask_card(tmp_path, with_one_voxel(SHAPE, (3, 0, 0)), [40, 32, 32])))
    assert (card["damaged"], card["missing"], card["dtype"]) == ({}, {}, "uint8")


def test_pilot_and_mask_together(tmp_path: Path) -> None:
    made = SrProject(tmp_path, write_weights(tmp_path, "bicubic", 4))
    made.write_lr(tissue_like(SHAPE))
    made.settings["mask"] = mask_card(tmp_path, with_one_voxel(SHAPE, (0, 0, 0)), [40, 32, 32])
    made.settings["pilot"] = [[0, 1], [0, 20], [0, 28]]
    assert made.all()["skipped"]["reasons"] == {"mask": 3, "pilot": 4}
    made.settings["pilot"] = [[6, 7], [0, 20], [0, 28]]
    with pytest.raises(ValueError, match="no tissue in the pilot"):
        made.allocate()


SR = Placed((7, 80, 112), (40.0, 8.0, 8.0), (0.0, -12.0, -12.0))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (Placed((7, 20, 28), (40, 30, 30), (0, -1, -1)), "no whole multiple"),
        (Placed((7, 160, 224), (40, 4, 4), (0, -14, -14)), "no whole multiple"),
        (Placed((7, 20, 28), (40, 32, 32), (0, 0, 32)), r"from 16.0 to 912.0 nm along x, the volume from -16.0 to 880"),
        (Placed((6, 20, 28), (40, 32, 32), (0, 0, 0)), "along z"),
        (Placed((7, 2**50, 1), (40, 32, 32), (0, 0, 0)), "along x"),
    ],
)
def test_masks_of_another_place_are_refused(mask: Placed, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        mask_grid("mask.json", mask, SR)
    assert "\n" not in str(caught.value)


def test_a_mask_that_begins_before_the_volume() -> None:
    grid = mask_grid("mask.json", Placed((9, 12, 15), (40, 64, 64), (-40, -128, -64)), SR)
    assert grid == MaskGrid((9, 12, 15), (1, 8, 8), (1, 18, 10))
    assert grid.box(Box((0, 0, 0), (4, 64, 64))) == Box((1, 2, 1), (5, 11, 10))


# -- in a config ------------------------------------------------------------------------------------------------------


@pytest.fixture
def values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A config with one volume, made from hr, and a mask on the grid of hr."""
    monkeypatch.chdir(tmp_path)
    with h5py.File("v.h5", "w") as file:
        file["raw"] = np.arange(6 * 64 * 64, dtype=np.uint8).reshape(6, 64, 64)
        file["raw"].attrs["resolution"] = (40.0, 4.0, 4.0)
    write_mask(tmp_path / "m.h5", np.ones((6, 64, 64), bool), [40, 4, 4], [0, 0, 0])
    values: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())
    values["volumes"] = {
        "v": {
            **{"hr": {"path": "v.h5", "dataset": "raw"}, "mask": {"path": "m.h5", "dataset": "mask"}},
            **{"degradation": {"kernel": "bicubic"}, "weights": "t", "pilot": [[0, 6], [0, 8], [0, 8]]},
        }
    }
    data = [{"volume": "v", "train": [[0, 2]], "validation": [[4, 5]]}]
    values["trainings"] = {"t": {**values["trainings"]["tissue"], "data": data}}
    return values


def test_pilot_and_mask_are_in_the_slices_of_what_they_decide(values: dict[str, Any]) -> None:
    check_config(parse(values))
    values["volumes"]["v"]["region"] = [[0, 6], [8, 64], [0, 64]]
    settings = Settings(parse(values))
    stated = json.loads(settings.allocate("v"))
    assert (stated["pilot"], stated["mask"]) == ([[0, 6], [0, 8], [0, 8]], "results/v/mask.json")
    assert settings.mask("v") == ["results/v/mask.json"]
    assert settings.source("v", "mask") == ["m.h5"]
    ingested = json.loads(settings.ingest("v", "mask"))
    assert (ingested["image"], ingested["region"]) == ("mask", None), "a mask lies in space, uncut"
    del values["volumes"]["v"]["mask"], values["volumes"]["v"]["pilot"]
    bare = json.loads(Settings(parse(values)).allocate("v"))
    assert stated == {**bare, "pilot": stated["pilot"], "mask": stated["mask"]}, "nothing else, and no key without them"


@pytest.mark.parametrize(
    ("voxels", "size", "corner", "message"),
    [
        (np.ones((6, 64, 64), "u2"), [40, 4, 4], [0, 0, 0], "is uint16, masks are uint8 or bool"),
        (np.ones((6, 64, 64), "f4"), [40, 4, 4], [0, 0, 0], "is float32, masks are uint8 or bool"),
        (np.ones((6, 64, 64), bool), [40, 6, 6], [0, 0, 0], "no whole multiple"),
        (np.ones((6, 64, 64), bool), [40, 4, 4], [0, 0, 8], "give a mask of the whole volume"),
        (np.ones((6, 8, 8), bool), [40, 32, 32], [0, 0, 0], None),
    ],
)
def test_check_opens_the_mask(
    values: dict[str, Any], voxels: np.ndarray, size: list[float], corner: list[float], message: str | None
) -> None:
    write_mask(Path("m.h5"), voxels, size, corner)
    if message is None:
        check_config(parse(values))
        return
    with pytest.raises(ValueError, match=message) as caught:
        check_config(parse(values))
    assert str(caught.value).startswith("volumes.v: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pilot": [[0, 6], [0, 9], [0, 8]]}, r"reaches beyond lr of shape \[6, 8, 8\]"),
        ({"pilot": [[3, 3], [0, 8], [0, 8]]}, "holds no voxel"),
        ({"weights": None}, "pilot says what is super-resolved, which takes weights"),
        ({"weights": None, "pilot": None}, "mask says what is super-resolved"),
        ({"mask": {"path": "none.h5"}}, "none.h5 does not exist"),
        ({"mask": {"path": "m.h5", "dataset": "mask", "intensity": {"low": 0, "high": 9}}}, "no grey levels"),
    ],
)
def test_pilots_and_masks_that_mean_nothing_are_refused(
    values: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    values["volumes"]["v"] |= changes
    with pytest.raises(ValueError, match=message) as caught:
        check_config(parse(values))
    assert "\n" not in str(caught.value)
