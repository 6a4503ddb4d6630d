"""`emsr export`: what each format's own library reads is the volume, voxel by voxel, at its place in nanometres."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tensorstore as ts
import tifffile

from emsr import cli
from emsr.commands.export import export
from emsr.durable import read_json, write_json
from emsr.stores import open_source
from emsr.stores.card import write_card
from emsr.stores.export_precomputed import _scale
from emsr.stores.link import write_link
from emsr.stores.ome import Layout
from emsr.stores.pyramid import halve, pyramid
from emsr.stores.sections import section_sha256
from emsr.stores.shards import shard_boxes
from emsr.stores.zarr import create, open_array, write_box

SHAPE, SIZE, CORNER = (20, 100, 70), (40.0, 3.7, 3.7), (-280.0, 118.4, 14.8)  # corner: voxels -7, 32, 4
LAID = Layout(SHAPE, "uint8", (16, 64, 64), (8, 32, 32), SIZE, (-260.0, 120.25, 16.65), levels=3)
Found = list[tuple[np.ndarray, list[float], list[float]]]  # of each level voxels z y x, voxel size and corner in nm


def voxels(dtype: str, step: int = 2**61 + 1) -> np.ndarray:
    """Grey levels, or ids up to four times `step`."""
    values = np.random.default_rng(0).integers(0, 256 if dtype == "uint8" else 5, SHAPE).astype(dtype)
    values[:8, :64, :64] = 0  # chunks without anything must be stored too
    return values * np.uint64(step) if dtype == "uint64" else values


def volume(folder: Path, dtype: str = "uint8", values: np.ndarray | None = None, laid: Layout = LAID) -> Path:
    """A finished card and its array with levels, in the folder of a volume."""
    folder = folder / "cells"
    laid, values = replace(laid, dtype=dtype), voxels(dtype) if values is None else values
    create(folder / "hr.zarr", laid)
    array = open_array(folder / "hr.zarr", write=True)
    for box in shard_boxes(array):
        write_box(array, box.start, values[box.slices])
    pyramid(folder / "hr.zarr", 1)
    place = {"voxel_size_nm": list(laid.voxel_size_nm), "translation_nm": list(laid.translation_nm)}
    fixed = {"source": {}, "degradation": None, "hr_shape": None, "damaged": {}, "missing": {}}
    stated = {"array": "hr.zarr", "shape": list(laid.shape), "dtype": dtype, **place, **fixed}
    write_card(folder / "hr.json", {**stated, "section_sha256": section_sha256(folder / "hr.zarr", 1)})
    return folder / "hr.json"


def with_cloud_volume(out: Path) -> Found:
    from cloudvolume import CloudVolume

    found = []
    for mip in CloudVolume(f"file://{out}", progress=False).available_mips:
        level = CloudVolume(f"file://{out}", mip=mip, progress=False, fill_missing=False)
        size = np.asarray(level.resolution)
        found.append((np.asarray(level[:])[..., 0].T, list(size[::-1]), list((level.voxel_offset * size)[::-1])))
    return found


def with_ome_zarr(out: Path) -> Found:
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    node = next(iter(Reader(parse_url(out))()))
    assert [axis["unit"] for axis in node.metadata["axes"]] == ["nanometer"] * 3
    found = []
    for level, (scale, shift) in zip(node.data, node.metadata["coordinateTransformations"], strict=True):
        corner = [at - size / 2 for at, size in zip(shift["translation"], scale["scale"], strict=True)]
        found.append((np.asarray(level), scale["scale"], corner))
    return found


def with_h5py(out: Path) -> Found:
    with h5py.File(out) as file:
        assert file.attrs["file_format"] == "0.2"
        (group,) = file["volumes"].values()
        stored = group["neuron_ids"] if isinstance(group, h5py.Group) else group
        assert stored.name in ("/volumes/raw", "/volumes/labels/neuron_ids")
        return [(stored[:], list(stored.attrs["resolution"]), list(stored.attrs["offset"]))]


def with_tifffile(out: Path) -> Found:
    files = [out] if out.is_file() else sorted(out.iterdir())
    sections, places = [], []
    for file in files:
        with tifffile.TiffFile(file) as opened:
            assert opened.is_bigtiff == out.is_file()
            pixels = tifffile.xml2dict(opened.ome_metadata)["OME"]["Image"]["Pixels"]
            assert {pixels[f"PhysicalSize{axis}Unit"] for axis in "XYZ"} == {"nm"}
            per_cm = np.divide(*opened.pages[0].tags["XResolution"].value)
            assert (per_cm, opened.pages[0].tags["ResolutionUnit"].value) == (pytest.approx(1e7 / SIZE[2]), 3)
            planes = pixels["Plane"] if isinstance(pixels["Plane"], list) else [pixels["Plane"]]
            places += [[float(plane[f"Position{axis}"]) for axis in "ZYX"] for plane in planes]
            sections.append(opened.asarray().reshape(-1, *SHAPE[1:]))
    size = [float(pixels[f"PhysicalSize{axis}"]) for axis in "ZYX"]
    np.testing.assert_allclose(np.diff(places, axis=0), [[size[0], 0, 0]] * (len(places) - 1))
    return [(np.concatenate(sections), size, [at - side / 2 for at, side in zip(places[0], size, strict=True)])]


def with_tensorstore(out: Path) -> Found:
    """zarr-python 3 reads no N5; attributes as neuroglancer and BigDataViewer read them: factors on the size of s0."""
    whole, found = read_json(out / "attributes.json"), []
    for level, factors in enumerate(whole["downsamplingFactors"]):
        spec = {"driver": "n5", "kvstore": {"driver": "file", "path": f"{out}/s{level}/"}}
        array, own = ts.open(spec, open=True).result(), read_json(out / f"s{level}" / "attributes.json")
        assert own["downsamplingFactors"] == factors
        assert own["pixelResolution"] == {"dimensions": whole["resolution"], "unit": "nm"}
        size = [f * r for f, r in zip(factors, whole["resolution"], strict=True)][::-1]
        assert (own["transform"]["axes"], own["transform"]["scale"]) == (["z", "y", "x"], size)
        corner = [at - side / 2 for at, side in zip(own["transform"]["translate"], size, strict=True)]
        found.append((array.read().result().T, size, corner))
        if level == 0:
            assert [unit.multiplier for unit in array.dimension_units] == whole["resolution"]
    return found


WAYS: dict[str, tuple[str, str, Callable[[Path], Found], int]] = {
    "precomputed": ("precomputed", "out", with_cloud_volume, 3),
    "sharded": ("precomputed", "out", with_cloud_volume, 3),
    "ome-zarr-0.4": ("ome-zarr-0.4", "out.zarr", with_ome_zarr, 3),
    "cremi": ("cremi", "out.h5", with_h5py, 1),
    "tiff": ("tiff", "out.tif", with_tifffile, 1),
    "sections": ("tiff", "out", with_tifffile, 1),
    "n5": ("n5", "out.n5", with_tensorstore, 3),
}


@pytest.mark.parametrize("dtype", ["uint8", "uint64"])
@pytest.mark.parametrize("way", WAYS)
def test_the_format_s_own_library_reads_the_same_volume(tmp_path: Path, way: str, dtype: str) -> None:
    format, name, read, levels = WAYS[way]
    out = tmp_path / "a folder" / name
    expected = voxels(dtype, 2**29 + 1 if format == "tiff" else 2**61 + 1)
    export(volume(tmp_path, dtype, expected), out, format=format, sharded=way == "sharded")
    found = read(out)
    assert len(found) == levels
    for level, (values, size, corner) in enumerate(found):
        np.testing.assert_array_equal(values, expected)
        assert values.dtype == ("uint32" if format == "tiff" and dtype == "uint64" else dtype)
        np.testing.assert_allclose(size, [SIZE[0], SIZE[1] * 2**level, SIZE[2] * 2**level])
        np.testing.assert_allclose(corner, CORNER)
        expected = halve(expected)
    assert [path.name for path in out.parent.iterdir()] == [name], "nothing is left beside it"
    if way == "sharded":
        assert len(list(out.rglob("*.shard"))) < len(list(out.rglob("*"))), "shards hold many chunks"


def said_in_cremi(out: Path) -> str:
    with h5py.File(out) as file:
        return file["volumes/raw"].attrs["caution"]


def said_in_tiff(out: Path) -> str:
    with tifffile.TiffFile(out if out.is_file() else out / "000003.tif") as opened:
        return tifffile.xml2dict(opened.ome_metadata)["OME"]["Image"]["Description"]


SAID: dict[str, Callable[[Path], str]] = {
    "precomputed": lambda out: read_json(out / "info")["caution"],
    "ome-zarr-0.4": lambda out: read_json(out / ".zattrs")["caution"],
    "cremi": said_in_cremi,
    "tiff": said_in_tiff,
    "n5": lambda out: read_json(out / "attributes.json")["caution"],
}


@pytest.mark.parametrize("way", WAYS)
def test_what_the_card_warns_of_is_in_the_export(tmp_path: Path, way: str, caplog: pytest.LogCaptureFixture) -> None:
    format, name, read, _ = WAYS[way]
    card, out = volume(tmp_path), tmp_path / "out" / name
    state(tmp_path, "hr.json", caution="perceptual, <not> for measurement")
    export(card, out, format=format, sharded=way == "sharded")
    assert SAID[format](out) == "perceptual, <not> for measurement"
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warned == [f"{card}: perceptual, <not> for measurement, as {out} states too"]
    np.testing.assert_array_equal(read(out)[0][0], voxels("uint8"))


@pytest.mark.parametrize("way", ["precomputed", "ome-zarr-0.4", "cremi", "n5"])
def test_emsr_reads_what_it_exported(tmp_path: Path, way: str) -> None:
    format, name, *_ = WAYS[way]
    export(volume(tmp_path), tmp_path / name, format=format, level=1)
    source = open_source(tmp_path / name, "volumes/raw" if way == "cremi" else None)
    np.testing.assert_array_equal(source.read((0, 0, 0), source.shape), halve(voxels("uint8")))
    np.testing.assert_allclose(source.voxel_size_nm, [40.0, 7.4, 7.4])
    np.testing.assert_allclose(np.subtract(source.translation_nm, np.divide(source.voxel_size_nm, 2)), CORNER)
    source.close()


def test_shards_hold_many_chunks_and_little_memory() -> None:
    whole = replace(LAID, shape=(1000, 50_000, 40_000), shard=(32, 1024, 1024), chunk=(32, 128, 128), dtype="uint64")
    spec = _scale(whole, 0, True)["sharding"]
    chunks = 2 ** (spec["preshift_bits"] + spec["minishard_bits"])
    assert chunks * 32 * 128 * 128 * 8 == 64 * 2**20
    assert 2 ** spec["shard_bits"] * chunks >= 32 * 391 * 313


def test_a_linked_source_is_exported_without_levels(tmp_path: Path) -> None:
    card = volume(tmp_path)
    write_link(tmp_path / "cells" / "hr.link", open_source(tmp_path / "cells" / "hr.zarr"))
    state(tmp_path, "hr.json", array="hr.link")
    export(card, tmp_path / "out", format="precomputed")
    ((values, _, corner),) = with_cloud_volume(tmp_path / "out")
    np.testing.assert_array_equal(values, voxels("uint8"))
    np.testing.assert_allclose(corner, CORNER)


# a corner that is no whole number of voxels


def test_precomputed_leaves_out_levels_that_would_lie_elsewhere(tmp_path: Path) -> None:
    laid = replace(LAID, translation_nm=(-260.0, 120.25, 9.25))  # x: voxel 2, of level 2 half a one
    card = volume(tmp_path, laid=laid)
    export(card, tmp_path / "exact", format="precomputed")
    assert [scale["voxel_offset"] for scale in read_json(tmp_path / "exact" / "info")["scales"]] == [
        [2, 32, -7],
        [1, 16, -7],
    ]
    export(card, tmp_path / "rounded", format="precomputed", round_offset=True)
    assert [scale["voxel_offset"][0] for scale in read_json(tmp_path / "rounded" / "info")["scales"]] == [2, 1, 1]


def test_precomputed_refuses_half_voxels_unless_told(tmp_path: Path) -> None:
    card = volume(tmp_path, laid=replace(LAID, translation_nm=(0.0, 0.0, 0.0)))
    with pytest.raises(ValueError, match=r"corner \[-20.0, -1.85, -1.85\] nm is no whole number .* add --round-offset"):
        export(card, tmp_path / "out", format="precomputed")
    export(card, tmp_path / "out", format="precomputed", round_offset=True)
    np.testing.assert_array_equal(with_cloud_volume(tmp_path / "out")[0][0], voxels("uint8"))


# bad input


def lost_shard(folder: Path) -> None:
    next(path for path in (folder / "cells" / "hr.zarr" / "1" / "c").rglob("*") if path.is_file()).unlink()


def state(folder: Path, file: str, **values: Any) -> None:
    """Make a document of the volume state something else."""
    write_json(folder / "cells" / file, {**read_json(folder / "cells" / file), **values})


BAD: list[tuple[str, dict[str, Any], Callable[[Path], object], str]] = [
    ("out", {"format": "zarr"}, lambda f: None, "format 'zarr'"),
    ("out", {"format": "cremi", "level": 3}, lambda f: None, "level 3 does not exist: .* has levels 0 to 2"),
    ("out", {"format": "cremi", "level": -1}, lambda f: None, "level -1 does not exist"),
    ("out", {"format": "n5", "sharded": True}, lambda f: None, "--sharded means nothing for format n5"),
    ("out", {"format": "n5", "workers": 0}, lambda f: None, "workers 0"),
    ("gs://bucket/out", {"format": "n5"}, lambda f: None, "is an address"),
    ("out.h5", {"format": "tiff"}, lambda f: None, "the name out.h5 says cremi and --format tiff"),
    ("out", {"format": "tiff"}, lambda f: (f / "out").mkdir(), "exists: remove it, write elsewhere"),
    ("out", {"format": "tiff"}, lambda f: (f / "out").symlink_to(f / "nowhere"), "exists: remove it"),
    ("cells/hr.json/out", {"format": "n5"}, lambda f: None, "lies among the results in .*cells"),
    ("cells/hr.zarr/0/out", {"format": "n5"}, lambda f: None, "lies among the results in .*cells"),
    ("file/out", {"format": "n5"}, lambda f: (f / "file").touch(), "file cannot be written to"),
    ("out", {"format": "n5"}, lambda f: (f / "cells" / "hr.json").unlink(), "hr.json does not exist"),
    ("out", {"format": "n5"}, lambda f: write_json(f / "cells" / "hr.json", {}), "is no image card"),
    ("out", {"format": "n5"}, lambda f: state(f, "hr.json", shape=[20, 100, 71]), "not as .*hr.json states"),
    ("out", {"format": "n5"}, lambda f: state(f, "hr.json", voxel_size_nm=[0, 4, 4]), "not three positive numbers"),
    ("out", {"format": "n5"}, lost_shard, "1 is unfinished, 1 of its 2 shards are there"),
    (
        "out",
        {"format": "n5"},
        lambda f: state(f, "hr.zarr/2/zarr.json", shape=[20, 25, 10**9]),
        "no level of the array",
    ),
    ("out", {"format": "cremi"}, lambda f: state(f, "hr.json", section_sha256=["0" * 64] * 20), "section 0 of level 0"),
    ("out", {"format": "n5"}, lambda f: state(f, "hr.json", section_sha256=[]), "has hashes of 0 sections"),
    ("data/out", {"format": "n5"}, lambda f: state(f, "hr.json", source={"path": str(f / "data")}), "lies in .*data"),
]


@pytest.mark.parametrize(("name", "stated", "spoil", "message"), BAD, ids=[row[3] for row in BAD])
def test_bad_input_is_one_line_and_nothing_is_left(
    tmp_path: Path, name: str, stated: dict[str, Any], spoil: Callable[[Path], object], message: str
) -> None:
    card = volume(tmp_path)
    spoil(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises((ValueError, OSError), match=message) as refused:
        export(card, Path(name) if ":" in name else tmp_path / name, **stated)
    assert "\n" not in str(refused.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("named", "near"), [("cells", "cells/sr.json"), ("cells/hr.zarr", "cells/hr.json")])
def test_a_folder_instead_of_a_card_is_told_the_card(tmp_path: Path, named: str, near: str) -> None:
    volume(tmp_path)
    with pytest.raises(ValueError, match=rf"{named} is a folder: name a card, a file such as .*{near}$"):
        export(tmp_path / named, tmp_path / "out", format="n5")


def test_ids_beyond_what_readers_of_tiff_take_are_refused(tmp_path: Path) -> None:
    card = volume(tmp_path, "uint64", voxels("uint64", 2**33))
    with pytest.raises(ValueError, match=r"id 34359738368 is larger than 4294967295, which tiff holds"):
        export(card, tmp_path / "out.tif", format="tiff")


def test_from_the_command_line(tmp_path: Path) -> None:
    words = ["export", str(volume(tmp_path)), str(tmp_path / "out"), "--format", "precomputed", "--level", "2"]
    assert cli.main(words) == 0
    (scale,) = json.loads((tmp_path / "out" / "info").read_text())["scales"]
    assert (scale["resolution"], scale["voxel_offset"]) == ([14.8, 14.8, 40.0], [1, 8, -7])
    assert cli.main(words) == 1, "it exists now"
