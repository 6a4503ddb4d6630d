"""The schema: what config.yaml may say, and the one line for everything that it may not."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from emsr import limits, plugins
from emsr.config import Config, parse
from emsr.schema import Report, Superresolve
from emsr.schema_parts import Layout, Source
from emsr.schema_training import Data, Model, Training
from emsr.schema_volume import Degradation, Tissue, Volume
from emsr.settings import Settings

ROOT = Path(__file__).parents[1]


@pytest.fixture
def values() -> dict[str, Any]:
    return copy.deepcopy(yaml.safe_load((ROOT / "config.yaml").read_text()))


def put(values: dict[str, Any], where: str, value: Any) -> dict[str, Any]:
    """Set the value at a dotted place."""
    *parents, last = where.split(".")
    part = values
    for name in parents:
        part = part[name]
    part[last] = value
    return values


def test_the_committed_config_is_valid_and_says_every_key(values: dict[str, Any]) -> None:
    config = parse(values)
    assert config.trainings["tissue"].last_stage == "fusion"
    assert config.owner("tissue", "codebook") == "tissue"
    text = (ROOT / "config.yaml").read_text()
    for part in (Config, Report, Layout, Superresolve, Volume, Source, Tissue, Degradation, Training, Data, Model):
        for key in part.model_fields:
            assert re.search(rf"\b{key}\b", text), f"{part.__name__}.{key}"


TRAINING = "trainings.tissue"
MISTAKES = [
    ("reslts", "x", "key 'reslts' is unknown; did you mean 'results'?"),
    ("superresolve.overlop", 3, "key 'superresolve.overlop' is unknown; did you mean 'superresolve.overlap'?"),
    (f"{TRAINING}.windw", 64, "did you mean 'trainings.tissue.window'?"),
    (f"{TRAINING}.scale", 3, "scale 3 is not one that model gpemsr has: 4, 8, 16"),
    (f"{TRAINING}.scale", 0, "scale 0 is none: write a number of at least 1"),
    (f"{TRAINING}.scale", "8", "scale '8' is none: write a number of at least 1"),
    (f"{TRAINING}.window", 30, "window 30 is not a multiple of 4"),
    (f"{TRAINING}.window", 8, "overlap 8 is not less than window 8"),
    (f"{TRAINING}.sections", 4, "sections 4 must be odd"),
    (f"{TRAINING}.model.name", "gpemrs", "model name 'gpemrs' is unknown; did you mean 'gpemsr'?"),
    (f"{TRAINING}.model.preset", "tiny", "preset 'tiny' is unknown"),
    (f"{TRAINING}.model.options", {"latent_strid": 8}, "did you mean 'latent_stride'?"),
    (f"{TRAINING}.model.options", {"latent_stride": "8"}, "latent_stride is '8', which is no int"),
    (f"{TRAINING}.stages.codebook", {"stepps": 4}, "stage codebook: key 'stepps' is unknown; did you mean 'steps'?"),
    (f"{TRAINING}.stages.codebook", {"use": "other"}, "training 'other' is unknown"),
    (f"{TRAINING}.stages.codebook", {"use": "tissue"}, "uses itself"),
    (f"{TRAINING}.stages.codebook", {"steps": -3}, "stage codebook: key steps is -3; it must be at least 0"),
    (f"{TRAINING}.stages.fusion", {"batch": 0}, "key batch is 0; it must be at least 1"),
    (f"{TRAINING}.stages.fusion", {"patch": 2}, "key patch is 2; it must be at least 4"),
    (f"{TRAINING}.stages.flow", {"learning_rate": float("nan")}, "key learning_rate is nan; it must be at least 0"),
    (f"{TRAINING}.stages.flow", {"clip": float("inf")}, "key clip is inf; it must be at least 0"),
    (f"{TRAINING}.stages.codebook", {"unquantised": 1.5}, "unquantised is 1.5; it must lie between 0 and 1"),
    (f"{TRAINING}.stages.codebook", {"betas": [0.9, 1.0]}, "betas is [0.9, 1.0]; it must lie between 0 and 0.999999"),
    (f"{TRAINING}.stages.codebook", {"betas": [0.9]}, "betas is [0.9]; write two numbers"),
    (f"{TRAINING}.stages.indexer", {"objective": "none"}, "key 'objective' says what the stage is"),
    (f"{TRAINING}.stages.indexer", {"name": "codebook"}, "key 'name' says what the stage is"),
    (
        f"{TRAINING}.stages",
        {"codebook": {}},
        "stages must be flow, codebook, indexer, fusion; flow, indexer, fusion missing",
    ),
    (
        f"{TRAINING}.init_from",
        {"fusion": "nowhere.safetensors"},
        "init_from.fusion: nowhere.safetensors does not exist",
    ),
    (f"{TRAINING}.data", [{"volume": "other", "train": [], "validation": []}], "volume 'other' is unknown"),
    (
        f"{TRAINING}.data",
        [{"volume": "tissue", "train": [[0, 27]], "validation": []}],
        "train [0, 27] of tissue and test [26, 32] of tissue overlap",
    ),
    (
        f"{TRAINING}.data",
        [{"volume": "tissue", "train": [[0, 20]], "validation": [[20, 22]]}],
        "have less than 1 section between them",
    ),
    (
        f"{TRAINING}.data",
        [{"volume": "tissue", "train": [[0, 20]], "validation": [[21, 25]]}],
        "have less than 2 sections between them",
    ),
    (
        f"{TRAINING}.data",
        [{"volume": "tissue", "train": [[5, 5]], "validation": []}],
        "range [5, 5] of tissue is empty",
    ),
    ("volumes.tissue.weights", "none", "training 'none' is unknown"),
    ("volumes.tissue.weights", {"path": "w.safetensors"}, "w.safetensors does not exist"),
    ("volumes.tissue.degradation", None, "degradation must say how"),
    ("volumes.tissue.degradation", {"kernel": "lanczos"}, "'lanczos': Input should be 'bicubic' or 'area'"),
    ("volumes.tissue.hr", {"path": "nowhere.h5"}, "path nowhere.h5 does not exist"),
    ("volumes.a b", {"hr": None}, "volumes is 'a b': names hold letters, digits and _, at most 100"),
    ("volumes.logs", "TISSUE", "volume name 'logs' is a folder that emsr writes itself"),
    ("superresolve.chunk", [16, 100, 128], "shard [16, 512, 512] is not a multiple of chunk [16, 100, 128]"),
    ("superresolve.overlap", -1, "greater than or equal to 0"),
    ("jobs", 0, "greater than or equal to 1"),
    ("workers", True, "valid integer"),
]


@pytest.mark.parametrize(("where", "value", "words"), MISTAKES, ids=[f"{row[0]}={row[1]}"[:50] for row in MISTAKES])
def test_a_mistake_is_one_line(values: dict[str, Any], where: str, value: Any, words: str) -> None:
    value = values["volumes"]["tissue"] if value == "TISSUE" else value
    with pytest.raises(ValueError) as error:  # noqa: PT011
        parse(put(values, where, value))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_overlay_removes_entries_by_null(values: dict[str, Any]) -> None:
    values["volumes"]["tissue"] = None
    values["trainings"] = dict.fromkeys(values["trainings"])
    config = parse(values)
    assert not config.volumes
    assert not config.trainings


def test_a_borrowed_stage_brings_the_stages_that_it_was_made_with(values: dict[str, Any]) -> None:
    """An indexer's indices point into one codebook only."""
    twin = copy.deepcopy(values["trainings"]["tissue"])
    twin["stages"] = {"flow": {}, "codebook": {}, "indexer": {"use": "tissue"}, "fusion": {}}
    values["trainings"]["twin"] = twin
    with pytest.raises(ValueError, match="made with the codebook of tissue, not of twin; use tissue for codebook too"):
        parse(values)


def test_a_source_is_the_same_however_it_is_spelt(values: dict[str, Any], tmp_path: Path) -> None:
    """Test sections of a file are not those that another spelling of it was trained on."""
    (tmp_path / "v.h5").touch()
    kernel = {"kernel": "area"}
    values["volumes"] = {
        "a": {"hr": {"path": str(tmp_path / "v.h5"), "dataset": "raw"}, "degradation": kernel},
        "b": {"hr": {"path": str(tmp_path / "." / "v.h5"), "dataset": "/raw", "voxel_size_nm": [1, 1, 1]},
              "degradation": kernel, "weights": "t", "test": [[3, 9]]},
    }  # fmt: skip
    data = [{"volume": "a", "train": [[0, 6]], "validation": [[12, 13]]}]
    values["trainings"] = {"t": values["trainings"]["tissue"] | {"data": data}}
    with pytest.raises(ValueError, match=r"train \[0, 6\] of a and test \[3, 9\] of b overlap"):
        parse(values)
    values["volumes"]["b"]["region"] = [[10, 30], [0, 9], [0, 9]]
    with pytest.raises(ValueError, match=r"validation \[12, 13\] of a and test \[3, 9\] of b overlap"):
        parse(values)


def pyramid(folder: Path, *levels: str) -> None:
    """A folder that says, as OME-Zarr 0.4 does, that it is a pyramid of these levels."""
    for level in levels:
        (folder / level).mkdir(parents=True)
    datasets = [{"path": level} for level in levels]
    (folder / ".zattrs").write_text(json.dumps({"multiscales": [{"datasets": datasets}]}))


SAME = [
    ("the finest level is the default", ("v.zarr", None), ("v.zarr", "0"), True),
    ("levels of one pyramid", ("v.zarr", "0"), ("v.zarr", "1"), True),
    ("a level by its own path", ("v.zarr/0", None), ("v.zarr", None), True),
    ("a pyramid further in", ("n.zarr", "volumes/raw"), ("n.zarr/volumes", "/raw/s0/"), True),
    ("levels that nothing names", ("plain.zarr", "s0"), ("plain.zarr", "s1"), True),
    ("arrays of a plain group", ("plain.zarr", "0"), ("plain.zarr", "1"), False),
    ("images of one file of a microscope", ("series.zarr/0", "0"), ("series.zarr/1", "0"), False),
    ("folders that are no zarr", ("s1", None), ("s2", None), False),
    ("datasets of a file", ("v.h5", "a//b/"), ("v.h5", "/a/b"), True),
    ("other datasets of a file", ("v.h5", "a/0"), ("v.h5", "a/1"), False),
]


@pytest.mark.parametrize(("one", "other", "same"), [row[1:] for row in SAME], ids=[row[0] for row in SAME])
def test_levels_of_a_pyramid_are_one_place(
    one: tuple[str, str | None], other: tuple[str, str | None], same: bool, tmp_path: Path
) -> None:
    """Training on one level and testing on another would be testing on what was trained on."""
    pyramid(tmp_path / "v.zarr", "0", "1")
    pyramid(tmp_path / "n.zarr" / "volumes" / "raw", "s0", "s1")
    for name in ("plain.zarr/0", "plain.zarr/1", "plain.zarr/s0", "plain.zarr/s1", "s1", "s2"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "plain.zarr" / ".zgroup").write_text('{"zarr_format": 2}')
    for name in ("0", "1"):
        pyramid(tmp_path / "series.zarr" / name, "0")
    (tmp_path / "series.zarr" / ".zattrs").write_text('{"bioformats2raw.layout": 3}')
    (tmp_path / "v.h5").touch()
    a, b = (Source(path=str(tmp_path / path), dataset=dataset).place for path, dataset in (one, other))
    assert (a == b) is same


def test_every_number_of_a_recipe_has_its_limits() -> None:
    known = plugins.fields(plugins.PACKAGE / "models" / "stage.py", "Stage")
    numbers = {name for name, kind in known.items() if "int" in kind or "float" in kind}
    assert limits.STAGE.keys() == {name for name in numbers if not known[name].startswith("Literal")}
    assert set(limits.OF_THE_MODEL) <= set(known)


def test_a_card_that_is_none_is_noticed_before_rules_are_read(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    values["volumes"]["tissue"]["weights"] = {"path": "w.safetensors"}
    Path("w.safetensors").touch()
    for card, words in (
        ("{}", "w.json states no scale, so it is no card of weights"),
        ("[]", "w.json states no scale"),
        ('{"scale": true}', "w.json states no scale"),
        ('{"scale": 0}', "w.json states scale 0"),
        ("", "w.json is not JSON"),
        ('{"scale": 3}', "shard [16, 512, 512] is not a multiple of scale 3 in y and x, which volume tissue needs"),
    ):
        Path("w.json").write_text(card)
        with pytest.raises(SystemExit) as end:
            Settings.read(values)
        text = str(end.value)
        assert text.startswith("emsr: error: config: ")
        assert words in text
        assert "\n" not in text
    Path("w.json").write_text('{"scale": 4}')
    assert Settings.read(values).scale("tissue") == 4


def test_twins_share_stages_and_their_sections_count_as_seen(values: dict[str, Any]) -> None:
    """A stage taken from another training brings that training's sections with it."""
    twin = copy.deepcopy(values["trainings"]["tissue"])
    twin["stages"] = {stage: {"use": "tissue"} for stage in ("flow", "codebook", "indexer")} | {"fusion": {}}
    twin["data"] = [{"volume": "tissue", "train": [[0, 10]], "validation": [[22, 24]]}]
    values["trainings"]["twin"] = twin
    changed = {"weights": "twin", "test": [[21, 30]], "segmentations": None}
    values["volumes"]["again"] = copy.deepcopy(values["volumes"]["tissue"]) | changed
    with pytest.raises(ValueError, match=r"train \[0, 20\] of tissue and test \[21, 30\] of again overlap"):
        parse(values)
    values["volumes"]["again"]["test"] = [[26, 30]]
    assert parse(values).owner("twin", "indexer") == "tissue"


RIVAL = "trainings.membranes_of_bicubic"
VALIDATED = [{"volume": "tissue", "image": "bicubic_x8", "train": [[0, 20]], "validation": [[22, 23]]}]


def test_networks_that_segment_one_volume_share_validation_sections(values: dict[str, Any]) -> None:
    """What chooses thresholds of one network must not be left out, or trained on, for another."""
    put(values, f"{RIVAL}.data", VALIDATED)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        parse(values)
    assert (
        "volumes.tissue: validation [[22, 24]] of training membranes is not [[22, 23]] of membranes_of_bicubic"
    ) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("why", "where", "value"),
    [
        ("nothing is scored", "volumes.tissue.test", None),
        (
            "it segments nothing",
            "volumes.tissue.segmentations.bicubic_retrained",
            {"image": "hr", "weights": "membranes"},
        ),
        ("validated elsewhere", f"{RIVAL}.data", [VALIDATED[0] | {"validation": []}]),
        ("written twice", f"{RIVAL}.data", [VALIDATED[0] | {"validation": [[22, 24], [22, 24]]}]),
    ],
)
def test_other_networks_may_validate_elsewhere(values: dict[str, Any], why: str, where: str, value: Any) -> None:
    put(values, f"{RIVAL}.data", VALIDATED)
    put(values, "volumes.tissue.segmentations.bicubic_retrained.threshold", 0.5)
    parse(put(values, where, value))


def test_sr_is_not_trained_on_what_chooses_its_thresholds(values: dict[str, Any]) -> None:
    values["trainings"]["tissue"]["data"] = [{"volume": "tissue", "train": [[0, 6], [8, 23]], "validation": []}]
    with pytest.raises(ValueError) as error:  # noqa: PT011
        parse(values)
    assert (
        "trainings.tissue: train [8, 23] of tissue and trainings.membranes, which segments its sr: validation [22, 24] "
        "of tissue overlap or have less than 1 section between them"
    ) in str(error.value)
    assert "\n" not in str(error.value)
    del values["volumes"]["tissue"]["segmentations"]["sr"]
    parse(values)
