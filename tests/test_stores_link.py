"""Chunked sources are used where they lie: the same hashes as a copy, or the reason why a copy is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from chunked import SHAPE, VOLUME, n5, precomputed, settings
from emsr.commands.export import export
from emsr.durable import read_json
from emsr.steps.data import degrade, ingest
from emsr.stores import open_source
from emsr.stores.zarr import open_array


def linkable(path: Path, kind: str) -> Path:
    if kind == "n5":
        return n5(path, {"resolution": [4, 5, 40]})
    if kind == "precomputed":
        return precomputed(path)
    version = 2 if kind == "zarr 2" else 3
    zarr.create_array(path, shape=(1, *SHAPE), chunks=(1, 4, 16, 16), dtype="u1", zarr_format=version)[:] = VOLUME[None]
    return path


@pytest.mark.parametrize("kind", ["n5", "precomputed", "zarr 2", "zarr 3"])
def test_a_linked_source_gives_what_a_copy_gives(tmp_path, kind):
    path = linkable(tmp_path / "source", kind)
    size = [40, 5, 4] if kind.startswith("zarr") else None
    ingest(settings(path, voxel_size_nm=size), tmp_path / "copy/hr.json")
    ingest(settings(path, voxel_size_nm=size, link=True), tmp_path / "link/hr.json", workers=2)
    copied, linked = (read_json(tmp_path / name / "hr.json") for name in ("copy", "link"))
    assert (copied.pop("array"), linked.pop("array")) == ("hr.zarr", "hr.link")
    assert linked == copied
    beside = ["hr.damaged.tsv", "hr.json", "hr.link", "hr.sections.tsv"]
    assert sorted(file.name for file in (tmp_path / "link").iterdir()) == beside
    for name in ("copy", "link"):
        how = {"scale": 4, "degradation": {"kernel": "bicubic"}, "shard": [4, 8, 8], "chunk": [4, 8, 8]}
        degrade(how, tmp_path / name / "hr.json", tmp_path / name / "lr_x4.json")
    assert read_json(tmp_path / "link/lr_x4.json")["sha256"] == read_json(tmp_path / "copy/lr_x4.json")["sha256"]


@pytest.mark.parametrize("kind", ["n5", "precomputed", "zarr 2", "zarr 3", "chunks in .gz"])
def test_a_path_may_climb_by_dots(tmp_path, monkeypatch, kind):
    if kind == "chunks in .gz":
        precomputed(tmp_path / "data/source", compress="gzip")
    else:
        linkable(tmp_path / "data/source", kind)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    size = [40, 5, 4] if kind.startswith("zarr") else None
    for link in [None] if kind == "chunks in .gz" else [None, True]:
        ingest(settings("../data/source", voxel_size_nm=size, link=link), Path("../out/hr.json"))
        array = open_array(tmp_path / "out" / read_json(tmp_path / "out/hr.json")["array"])
        np.testing.assert_array_equal(array.read().result(), VOLUME)
        export(Path("../out/hr.json"), Path("../n5"), format="n5", overwrite=True)
        np.testing.assert_array_equal(open_source(Path("../n5"), "s0").read((0, 0, 0), SHAPE), VOLUME)


def test_sections_that_a_linked_source_lacks_are_missing(tmp_path):
    array = zarr.create_array(tmp_path / "z", shape=SHAPE, chunks=(1, 30, 20), dtype="u1")
    array[:2], array[3:] = VOLUME[:2], VOLUME[3:]
    ingest(settings(tmp_path / "z", voxel_size_nm=[40, 5, 4], link=True), tmp_path / "out/hr.json")
    assert read_json(tmp_path / "out/hr.json")["missing"] == {"2": "missing"}


UNLINKED = [
    (lambda p: n5(p / "x", dtype="uint16"), {}, "uint16", "grey levels that are mapped"),
    (lambda p: n5(p / "x"), {"region": [[0, 4], [0, 30], [0, 20]]}, "region cuts it", "a region"),
    (lambda p: n5(p / "x"), {"image": "labels"}, "labels become uint64", "labels"),
    (lambda p: precomputed(p / "em", compress="gzip"), {}, "tensorstore cannot read it", "chunks in .gz"),
]


@pytest.mark.parametrize(("make", "how", "reason", "why"), UNLINKED, ids=[why for *_, why in UNLINKED])
def test_a_source_that_must_be_copied_says_why(tmp_path, make, how, reason, why):
    stated = settings(make(tmp_path), voxel_size_nm=[40, 5, 4], link=True)
    with pytest.raises(ValueError, match=reason) as refusal:
        ingest({**stated, **how}, tmp_path / "out/hr.json")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out").exists()
