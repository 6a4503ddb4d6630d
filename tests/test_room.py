"""What arrays take on disk is known before they are there; what does not fit is refused before anything is written."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from emsr import cli
from emsr.commands.check import read_configs
from emsr.commands.space import check_space, of_volume
from emsr.geometry import ShardGrid, Triple
from emsr.stores import room
from emsr.stores.pyramid import pyramid
from emsr.stores.zarr import Layout, create, level_count, open_array, write_box
from project import ROOT
from segment_project import Chain, weights
from sr_project import SrProject, tissue_like, write_weights

NM = (40.0, 4.0, 4.0)


def taken(*paths: Path) -> tuple[int, int]:
    """Bytes, in whole blocks, and files below folders."""
    files = [file for path in paths for file in path.resolve().rglob("*") if file.is_file()]
    return sum(room.blocks(file.stat().st_size) for file in files), len(files)


NOISE: list[tuple[Triple, str, int, float, str]] = [
    ((8, 128, 128), "uint8", 0, 0.97, "whole shards and chunks"),
    ((9, 301, 270), "uint8", 0, 0.9, "cropped shards, whose chunks are stored whole, and a level"),
    ((8, 64, 128), "uint64", 0, 0.97, "eight bytes a voxel"),
    ((5, 64, 100), "uint8", 3, 0.9, "channels"),
]


@pytest.mark.parametrize(("shape", "dtype", "channels", "near", "why"), NOISE, ids=[row[-1] for row in NOISE])
def test_voxels_that_do_not_compress_take_what_was_foretold(
    tmp_path: Path, shape: Triple, dtype: str, channels: int, near: float, why: str
) -> None:
    levels = 1 if channels else level_count(shape)
    laid = Layout(shape, dtype, (4, 64, 64), (2, 32, 32), NM, levels=levels, channels=channels)
    create(tmp_path / "a.zarr", laid)
    array, rng = open_array(tmp_path / "a.zarr", write=True), np.random.default_rng(0)
    for box in ShardGrid(shape, laid.shard).boxes():
        noise = rng.integers(0, np.iinfo(dtype).max, laid.whole(box.shape), dtype=dtype, endpoint=True)
        write_box(array, box.start, noise)
    pyramid(tmp_path / "a.zarr", 1)
    foretold = room.of_array("a", laid)
    bytes_, files = taken(tmp_path / "a.zarr")
    assert files == foretold.files
    assert near * foretold.bytes <= bytes_ <= foretold.bytes, why


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config of one volume, lr alone, super-resolved and segmented by weights from files."""
    monkeypatch.chdir(tmp_path)
    values: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())
    np_lr = tmp_path / "source"
    create(np_lr, Layout((6, 20, 28), "uint8", (6, 20, 28), (6, 20, 28), NM))
    write_box(open_array(np_lr, write=True), (0, 0, 0), tissue_like((6, 20, 28)))
    files = {"sr": write_weights(tmp_path, "bicubic", 4), "affinity": weights(tmp_path)}
    named = {name: {"path": str(file.with_suffix(".safetensors"))} for name, file in files.items()}
    values["volumes"] = {
        "v": {
            "lr": {"path": str(np_lr), "dataset": None, "voxel_size_nm": None},
            "weights": named["sr"],
            "segmentations": {"sr": {"image": "sr", "weights": named["affinity"], "threshold": 0.5}},
        }
    }
    values["trainings"], laid = {}, {"shard": [3, 32, 32], "chunk": [3, 16, 16]}
    values["superresolve"] |= {"overlap": 4, **laid}
    values["segment"] |= {**laid, "overlap": 8, "depth_overlap": 2}
    values["segment"]["fragments"] = {"method": "watershed", "block": [1, 16, 16], "halo": [0, 8, 8]}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "config.yaml"


def test_a_run_takes_no_more_than_was_foretold(tmp_path: Path, config: Path) -> None:
    read = read_configs([config])
    rooms = {one.room.name: one.room for one in of_volume(read, "v", (6, 20, 28))}
    volume = SrProject(tmp_path / "results" / "v", tmp_path / "bicubic_x4_0.json")
    volume.settings |= {"shard": [3, 32, 32], "chunk": [3, 16, 16]}
    volume.folder.mkdir(parents=True)
    volume.write_lr(tissue_like((6, 20, 28)))
    volume.all(2)
    chain = Chain(volume.folder / "segmentations" / "sr", jobs=2, shard=(3, 32, 32))
    chain.all(volume.folder / "sr.json", tmp_path / "affinity.json")
    array = (volume.folder / "sr.zarr").resolve()
    folder = chain.folder
    wrote = {
        "v sr": (array,),
        "v sr records": (array.with_suffix(".records"),),
        "v valid": (volume.folder / "valid.zarr",),
        "v sr affinities": tuple((folder / "affinities").glob("*.zarr")),
        "v sr affinities records": tuple((folder / "affinities").glob("*.records")),
        "v sr fragments": tuple((folder / "fragments").glob("*.zarr")),
        "v sr fragments records": tuple((folder / "fragments").glob("*.records")),
        "v sr agglomeration (estimated)": (folder / "agglomeration",),
        "v sr segments": (folder / "segments.zarr",),
    }
    others = {"v lr", "v sr jobs", "v sr affinities jobs", "v sr fragments jobs"}
    assert rooms.keys() == wrote.keys() | others, "nothing is left out"
    for name, paths in wrote.items():
        bytes_, files = taken(*paths)
        assert files == rooms[name].files, name
        assert rooms[name].least <= bytes_, name
        if "estimated" not in name:
            assert bytes_ <= rooms[name].bytes, name
    for name, marks in {"v sr": volume.folder / "sr", "v sr affinities": folder / "affinities"}.items():
        each = sorted((marks / "jobs").iterdir())
        assert len(each) + 4 == rooms[f"{name} jobs"].files, "logs and benchmarks are Snakemake's"
        assert sum(room.blocks(file.stat().st_size) for file in each) <= rooms[f"{name} jobs"].bytes


def with_free(monkeypatch: pytest.MonkeyPatch, bytes_: int, files: int) -> None:
    found = SimpleNamespace(f_bavail=bytes_ // 4096, f_frsize=4096, f_files=max(files, 1), f_favail=files)
    monkeypatch.setattr(os, "statvfs", lambda path: found)


def test_what_cannot_fit_does_not_start(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_free(monkeypatch, 2**19, 10**6)
    assert cli.main(["check", str(config)]) == 1
    told = capsys.readouterr().err.strip()
    assert "what this config makes needs" in told
    assert f"and {config.parent} has 0.5 MiB free: free some, or write elsewhere" in told
    assert len(told.splitlines()) == 1
    with_free(monkeypatch, 2**40, 50)
    assert cli.main(["check", str(config)]) == 1
    assert "can hold 50 more: make shards larger" in capsys.readouterr().err
    assert not (config.parent / "results").exists()


def test_what_may_not_fit_is_said(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, shapes = read_configs([config]), {"v": (6, 20, 28)}
    need = room.total([one.room for one in of_volume(read, "v", (6, 20, 28))])
    with_free(monkeypatch, need.bytes, need.files)
    assert check_space(read, shapes) is None
    with_free(monkeypatch, need.bytes // 4096 * 4096 - 4096, need.files)
    assert "it fits only as far as voxels compress" in str(check_space(read, shapes))


def test_what_stands_already_is_not_needed_again(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, shapes = read_configs([config]), {"v": (6, 20, 28)}
    results = config.parent / "results" / "v"
    need = room.total([one.room for one in of_volume(read, "v", (6, 20, 28))])
    (results / "sr-0.zarr" / "0").mkdir(parents=True)
    for number in range(20):
        (results / "sr-0.zarr" / "0" / str(number)).write_bytes(bytes(4096))
    with_free(monkeypatch, 2**40, need.files - 20)
    assert check_space(read, shapes) is None, "twenty files of an unfinished array are there"
    with_free(monkeypatch, 2**40, need.files - 21)
    with pytest.raises(OSError, match=r"can hold .* more"):
        check_space(read, shapes)
    for one in of_volume(read, "v", (6, 20, 28)):
        card = config.parent / "results" / one.card
        card.parent.mkdir(parents=True, exist_ok=True)
        card.write_text("{}")
    with_free(monkeypatch, 0, 0)
    assert check_space(read, shapes) is None, "everything is there"


def test_allocate_writes_nothing_where_the_array_cannot_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = SrProject(tmp_path, write_weights(tmp_path, "bicubic", 4))
    made.write_lr(tissue_like((6, 20, 28)))
    with_free(monkeypatch, 8192, 10**6)
    with pytest.raises(OSError, match=r"sr-[0-9a-f]{12}.zarr needs .* has 0.0 MiB free"):
        made.allocate()
    assert not made.allocation.exists()
    assert not list(tmp_path.glob("sr-*"))
    with_free(monkeypatch, 2**30, 10**6)
    made.allocate()
    with_free(monkeypatch, 0, 0)
    made.allocate()  # it stands already


def test_plan_names_every_array(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", str(config)]) == 0, capsys.readouterr().err
    told = [line[12:] for line in capsys.readouterr().out.splitlines() if line.startswith("disk ")]
    rooms = [one.room for one in of_volume(read_configs([config]), "v", (6, 20, 28))]
    assert [line.partition(":")[0] for line in told[: len(rooms)]] == [one.name for one in rooms]
    assert told[-2] == f"all: at most {room.size(room.total(rooms).bytes)}, {room.total(rooms).files:,} files"
    assert told[-1].startswith(f"free in {config.parent}: ")
