"""Grey levels of other ranges: mapped as the config says or refused, by limits that the cards name."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import yaml

from emsr import intensity
from emsr.config import parse
from emsr.settings import Settings
from emsr.steps.data import degrade, enlarge, ingest
from emsr.stores.card import read_card
from test_config import ROOT, put
from test_steps_data import all_of, coarse, cremi, settings

RAW = np.random.default_rng(0).integers(500, 40_000, (6, 50, 70)).astype(np.uint16)


def made(tmp_path: Path, raw: np.ndarray, mapping: dict | None, image: str = "hr", **changes) -> Path:
    """The card of an ingested image."""
    stated = settings(
        cremi(tmp_path / f"{image}.h5", raw), **({} if mapping is None else {"intensity": mapping}), **changes
    )
    ingest(stated | {"image": image}, tmp_path / f"{image}.json", workers=2)
    return tmp_path / f"{image}.json"


def test_stated_limits_become_black_and_white(tmp_path):
    card = made(tmp_path, RAW, {"low": 1000.0, "high": 30_000.0})
    expected = np.clip(np.rint((RAW - 1000.0) * (255 / 29_000)), 0, 255)
    np.testing.assert_array_equal(all_of(card), expected)
    assert read_card(card)["dtype"] == "uint8"
    assert read_card(card)["intensity"] == {"dtype": "uint16", "low": 1000, "high": 30_000}


@pytest.mark.parametrize("asked", [(0.5, 99.5), (0, 100), (25, 60)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_percentiles_are_exact_over_the_volume_and_on_the_card(tmp_path, asked, dtype):
    raw = (RAW // 200).astype(dtype)
    raw[3] = 0  # an empty section does not count
    limits = np.percentile(np.delete(raw, 3, axis=0), asked, method="inverted_cdf")
    mapping = {"percentiles": list(asked)}
    found = read_card(made(tmp_path, raw, mapping))["intensity"]
    assert (found["low"], found["high"]) == tuple(limits)
    assert (found["percentiles"], found["dtype"]) == (list(asked), np.dtype(dtype).name)
    other = read_card(made(tmp_path / "b", raw, mapping, shard=[6, 32, 32], chunk=[2, 32, 32]))
    assert other["sha256"] == read_card(tmp_path / "hr.json")["sha256"], "parts change nothing"


def test_percentiles_of_a_region_are_those_of_the_region(tmp_path):
    raw = RAW.copy()
    raw[:, :25] //= 10
    card = read_card(made(tmp_path, raw, {"percentiles": [0, 100]}, region=[[0, 6], [0, 25], [0, 70]]))
    assert card["intensity"]["high"] == raw[:, :25].max()


def test_hr_takes_the_limits_of_lr_and_images_made_of_hr_keep_the_statement(tmp_path):
    lr = cremi(tmp_path / "lr.h5", RAW[:, ::2, ::2] // 3)
    of = {"path": str(lr), "dataset": "volumes/raw", "voxel_size_nm": None}
    card = made(tmp_path, RAW, {"percentiles": [0, 100], "of": of})
    stated = read_card(card)["intensity"]
    assert (stated["low"], stated["high"], stated["of"]) == (
        (RAW[:, ::2, ::2] // 3).min(),
        (RAW[:, ::2, ::2] // 3).max(),
        str(lr),
    )
    degrade(coarse(4), card, tmp_path / "lr_x4.json")
    enlarge(coarse(4), tmp_path / "lr_x4.json", tmp_path / "bicubic_x4.json")
    assert all(read_card(tmp_path / f"{name}_x4.json")["intensity"] == stated for name in ("lr", "bicubic"))
    eight = cremi(tmp_path / "eight.h5", (RAW[:, ::2, ::2] // 256).astype(np.uint8))
    with pytest.raises(ValueError, match=r"is uint16, .*eight.h5 uint8, so percentiles of one are no limits"):
        made(tmp_path / "c", RAW, {"percentiles": [0, 100], "of": {**of, "path": str(eight)}})


def test_uint8_stays_as_it_lies_unless_asked(tmp_path):
    raw = (RAW // 256).astype(np.uint8)
    card = made(tmp_path, raw, None)
    np.testing.assert_array_equal(all_of(card), raw)
    assert "intensity" not in read_card(card)


def test_a_table_is_monotone_and_covers_the_range():
    grey = intensity.table(np.dtype(np.uint16), 100, 65_000)
    assert (grey[0], grey[100], grey[65_000], grey[-1]) == (0, 0, 255, 255)
    assert (np.diff(grey.astype(int)) >= 0).all()


BAD = [
    (RAW, None, r"is uint16, images are uint8: state intensity, as \{percentiles"),
    (RAW, {"low": 70_000.0, "high": 80_000.0}, "none lies between intensity low 70000 and high 80000"),
    (RAW, {"low": -9.0, "high": 0.0}, "none lies between intensity low -9"),
    (RAW.astype(np.float32), {"low": 0.0, "high": 1.0}, "is float32, images are uint8 or uint16"),
    (np.full((6, 50, 70), 7, np.uint16), {"percentiles": [1, 99]}, "every section is the same everywhere"),
    (np.where(RAW > 39_900, 9, 8).astype(np.uint16), {"percentiles": [1, 60]}, "are both grey level 8"),
]


@pytest.mark.parametrize(("raw", "mapping", "reason"), BAD)
def test_what_cannot_be_mapped_is_refused_in_one_line_before_anything_is_written(tmp_path, raw, mapping, reason):
    source = cremi(tmp_path / "x.h5", raw)
    with pytest.raises(ValueError, match=reason) as refusal:
        ingest(settings(source, **({} if mapping is None else {"intensity": mapping})), tmp_path / "out/hr.json")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out").exists()


# the config


@pytest.fixture
def values(tmp_path: Path) -> dict:
    """The committed config with a volume `mine` of coarse and fine images on disk."""
    committed = copy.deepcopy(yaml.safe_load((ROOT / "config.yaml").read_text()))
    sources = {
        image: {"path": str(cremi(tmp_path / f"{image}.h5", RAW)), "dataset": "volumes/raw"} for image in ("hr", "lr")
    }
    committed["volumes"]["mine"] = {**sources, "intensity": {"percentiles": [0.5, 99.5]}}
    return committed


MISTAKES = [
    ("intensity", {"low": 1}, "either low and high, or percentiles"),
    ("intensity", {"low": 1, "high": 2, "percentiles": [1, 2]}, "either low and high, or percentiles"),
    ("intensity", {"low": 9, "high": 9}, "from 9 to 9 leaves no grey level"),
    ("intensity", {"percentiles": [99, 1]}, "from 99 to 1 leaves no grey level"),
    ("intensity", {"percentiles": [1, 101]}, "less than or equal to 100"),
    ("intensity", {"lwo": 1, "high": 2}, "did you mean 'volumes.mine.intensity.low'"),
    ("lr.link", True, "lr.link: its intensity is mapped"),
    ("labels", {"path": "config.yaml", "intensity": {"low": 0, "high": 1}}, "labels are no grey levels"),
    ("accept_mismatch", "yes please", "valid boolean"),
    ("degradation", {"kernel": "area", "noise": {"dose": 3, "seed": 0}}, "noise needs read"),
    ("degradation", {"kernel": "area", "noise": {"dose": 0, "read": 0, "seed": 0}}, "greater than 0"),
    ("degradation", {"kernel": "area", "noise": {"read": -1, "seed": 0}}, "greater than or equal to 0"),
    ("degradation", {"kernel": "area", "noise": {"read": 1}}, "seed is missing"),
    ("degradation", {"kernel": "area", "noise": {"estimate": "mine", "read": 1, "seed": 0}}, "estimated from mine"),
    ("degradation", {"kernel": "area", "noise": {"estimate": "nine", "seed": 0}}, "did you mean 'mine'"),
    ("degradation", {"kernel": "area", "noise": {"estimate": "tissue", "seed": 0}}, "tissue has no lr of its own"),
]


@pytest.mark.parametrize(("where", "value", "reason"), MISTAKES)
def test_mistakes_in_the_config_are_one_line(values, where, value, reason):
    with pytest.raises(ValueError, match=reason) as refusal:
        parse(put(values, f"volumes.mine.{where}", value))
    assert "\n" not in str(refusal.value)


def test_slices_hold_the_mapping_and_the_source_that_percentiles_are_of(values):
    made = Settings(parse(values))
    lr, hr = (yaml.safe_load(made.ingest("mine", image)) for image in ("lr", "hr"))
    assert lr["intensity"] == {"percentiles": [0.5, 99.5]}
    assert hr["intensity"]["of"] == lr["source"]
    assert len(made.source("mine", "hr")) == 2, "hr is made again when lr changes"
    own = put(values, "volumes.mine.hr.intensity", {"low": 0, "high": 9})
    made = Settings(parse(own))
    assert yaml.safe_load(made.ingest("mine", "hr"))["intensity"] == {"low": 0, "high": 9}
    assert len(made.source("mine", "hr")) == 1
    assert "intensity" not in made.ingest("tissue", "hr"), "what is not mapped is not made again"


def test_slices_of_degrade_name_the_image_that_noise_is_estimated_from(values):
    assert yaml.safe_load(Settings(parse(values)).degrade("tissue", "8"))["degradation"] == {"kernel": "bicubic"}
    put(values, "volumes.tissue.degradation.noise", {"estimate": "mine", "seed": 3})
    made = Settings(parse(values))
    assert made.noise_image("tissue") == ["results/mine/lr.json"]
    noise = yaml.safe_load(made.degrade("tissue", "8"))["degradation"]["noise"]
    assert noise == {"dose": None, "read": None, "estimate": "results/mine/lr.json", "seed": 3}
