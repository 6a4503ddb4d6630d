"""Arrays on disk: emsr's own are whole or an error, and others' are read with the place in space that they state."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from emsr.durable import read_json, write_json
from emsr.geometry import Box
from emsr.stores import open_source
from emsr.stores.card import read_card, root_sha256, write_card
from emsr.stores.ome import Layout, bounded_shard, level_count, parse_multiscale
from emsr.stores.pyramid import halve, pyramid
from emsr.stores.sections import section_sha256
from emsr.stores.shards import each, keep_or_write, read_box, shard_boxes
from emsr.stores.source import nanometres
from emsr.stores.zarr import create, open_array, recreate, write_box

SHAPE = (20, 100, 70)


def layout(dtype: str = "uint8", shape=SHAPE, shard=(16, 64, 64), chunk=(8, 32, 32), levels: int = 3) -> Layout:
    return Layout(shape, dtype, shard, chunk, (40.0, 4.0, 4.0), (20.0, 2.0, 2.0), levels)


def voxels(dtype: str = "uint8", shape=SHAPE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 5 if dtype == "uint64" else 256, shape).astype(dtype)


def filled(path: Path, dtype: str = "uint8", **how) -> np.ndarray:
    create(path, layout(dtype, **how))
    array, volume = open_array(path, write=True), voxels(dtype)
    for box in shard_boxes(array):
        write_box(array, box.start, volume[box.slices])
    return volume


# emsr's own arrays


@pytest.mark.parametrize("dtype", ["uint8", "uint64"])
def test_own_arrays_open_in_zarr_python_with_equal_voxels(tmp_path, dtype):
    volume = filled(tmp_path / "x.zarr", dtype)
    pyramid(tmp_path / "x.zarr", workers=2)
    group = zarr.open_group(tmp_path / "x.zarr", mode="r")
    np.testing.assert_array_equal(group["0"][:], volume)
    np.testing.assert_array_equal(group["1"][:], halve(volume))
    np.testing.assert_array_equal(group["2"][:], halve(halve(volume)))
    assert group["0"].metadata.dimension_names == ("z", "y", "x")


def test_own_arrays_pass_the_ome_zarr_schema_and_open_in_ome_zarr(tmp_path):
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader
    from ome_zarr_models.v05 import Image

    volume = filled(tmp_path / "x.zarr")
    pyramid(tmp_path / "x.zarr", workers=1)
    image = Image.from_zarr(zarr.open_group(tmp_path / "x.zarr", mode="r"))
    assert [axis.unit for axis in image.ome_attributes.multiscales[0].axes] == ["nanometer"] * 3
    (node,) = Reader(parse_url(tmp_path / "x.zarr"))()
    np.testing.assert_array_equal(np.asarray(node.data[0]), volume)
    assert len(node.data) == 3


def test_levels_keep_their_place_in_space(tmp_path):
    create(tmp_path / "x.zarr", layout())
    found = parse_multiscale(read_json(tmp_path / "x.zarr/zarr.json")["attributes"], "x")
    assert found.scales_nm == ((40, 4, 4), (40, 8, 8), (40, 16, 16))
    assert found.translations_nm == ((20, 2, 2), (20, 4, 4), (20, 8, 8)), "centres of 1, 2 x 2 and 4 x 4 voxels"


def test_creating_the_same_again_changes_nothing_and_something_else_is_refused(tmp_path):
    path = tmp_path / "x.zarr"
    volume = filled(path)
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    create(path, layout())
    recreate(path, layout())
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before
    with pytest.raises(ValueError, match="exists with another shape"):
        create(path, layout(shape=(20, 100, 71)))
    np.testing.assert_array_equal(open_array(path)[...].read().result(), volume)


def test_recreate_removes_an_own_array_of_another_layout_only(tmp_path):
    filled(tmp_path / "x.zarr")
    recreate(tmp_path / "x.zarr", layout(levels=2, shape=(20, 80, 70)))
    assert not (tmp_path / "x.zarr/2").exists()
    with pytest.raises(ValueError, match="NOT_FOUND"):
        open_array(tmp_path / "x.zarr")[...].read().result()
    zarr.create_array(tmp_path / "y.zarr", shape=(4, 4, 4), dtype="u1")
    with pytest.raises(ValueError, match="exists"):
        recreate(tmp_path / "y.zarr", layout())
    (tmp_path / "z.zarr").mkdir()
    (tmp_path / "z.zarr/thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match="not an array of emsr"):
        recreate(tmp_path / "z.zarr", layout())
    (tmp_path / "w.zarr").symlink_to(tmp_path / "x.zarr")
    with pytest.raises(ValueError, match="exists"):
        recreate(tmp_path / "w.zarr", layout())


def test_a_create_that_was_interrupted_is_completed(tmp_path):
    path = tmp_path / "x.zarr"
    create(path, layout())
    (path / "zarr.json").unlink()
    recreate(path, layout())
    (path / "zarr.json").unlink()
    recreate(path, layout(levels=2))
    assert read_json(path / "zarr.json")["zarr_format"] == 3
    assert not (path / "2").exists()


LAYOUTS = [
    ({"dtype": "int8"}, "data type", "signed voxels"),
    ({"shape": (0, 64, 64)}, "holds no voxel", "an empty axis"),
    ({"shard": (16, 100, 64)}, "not a multiple of chunk", "a shard of broken chunks"),
    ({"chunk": (0, 32, 32)}, "holds no voxel", "a chunk of nothing"),
]


@pytest.mark.parametrize(("how", "reason", "why"), LAYOUTS, ids=[why for *_, why in LAYOUTS])
def test_layouts_that_cannot_be_are_refused(how, reason, why):
    with pytest.raises(ValueError, match=reason):
        layout(**how)


def test_missing_and_damaged_shards_are_errors_and_black_ones_are_not(tmp_path):
    path = tmp_path / "x.zarr"
    create(path, layout())
    array = open_array(path, write=True)
    first, second, *_ = shard_boxes(array)
    write_box(array, first.start, np.zeros(first.shape, np.uint8))
    assert not read_box(open_array(path), first).any(), "black voxels are stored"
    with pytest.raises(ValueError, match=r"voxels \(0, 0, 64\) to .* cannot be read .*run the step"):
        read_box(open_array(path), second)
    file = next(file for file in (path / "0/c").rglob("*") if file.is_file())
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(ValueError, match="cannot be read"):
        read_box(open_array(path), first)
    assert keep_or_write(array, first, np.zeros(first.shape, np.uint8)), "a damaged shard is written again"
    assert not keep_or_write(array, first, np.zeros(first.shape, np.uint8)), "a good one is kept"


def test_reading_what_is_no_array_names_the_mend(tmp_path):
    with pytest.raises(FileNotFoundError, match="run the step that makes it"):
        open_array(tmp_path / "none.zarr")


def test_pyramid_bytes_depend_on_level_zero_alone(tmp_path):
    for name, workers in (("a", 1), ("b", 2)):
        filled(tmp_path / name)
        pyramid(tmp_path / name, workers)
    names = [file.relative_to(tmp_path / "a") for file in (tmp_path / "a").rglob("*") if "/c/" in str(file)]
    files = [name for name in names if (tmp_path / "a" / name).is_file()]
    assert len(files) == 8 + 2 + 2
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    before = {name: (tmp_path / "a" / name).stat().st_mtime_ns for name in files}
    pyramid(tmp_path / "a", 2)
    assert {name: (tmp_path / "a" / name).stat().st_mtime_ns for name in files} == before, "nothing is written twice"


HALVES = [
    ([[0, 1], [1, 1]], "uint8", [[1]], "3/4 rounds to 1"),
    ([[0, 0], [0, 1]], "uint8", [[0]], "1/4 rounds to 0"),
    ([[0, 0], [1, 1]], "uint8", [[1]], "a half rounds up"),
    ([[255, 255], [255, 255]], "uint8", [[255]], "the largest value does not overflow"),
    ([[1, 2, 9]], "uint8", [[2, 9]], "odd sides: the last column stands for itself"),
    ([[7, 5], [5, 5]], "uint64", [[5]], "the most frequent id"),
    ([[7, 5], [5, 9]], "uint64", [[5]], "a pair wins"),
    ([[7, 5], [9, 9]], "uint64", [[9]], "a pair in the last row wins"),
    ([[7, 5], [9, 5]], "uint64", [[5]], "a pair in a column wins"),
    ([[7, 5], [5, 7]], "uint64", [[7]], "of two pairs the first"),
    ([[1, 2], [3, 4]], "uint64", [[1]], "of four ids the first"),
    ([[2**63, 2**63], [1, 2]], "uint64", [[2**63]], "large ids keep every bit"),
]


@pytest.mark.parametrize(("fine", "dtype", "coarse", "why"), HALVES, ids=[why for *_, why in HALVES])
def test_halving(fine, dtype, coarse, why):
    np.testing.assert_array_equal(halve(np.array([fine], dtype)), np.array([coarse], dtype))


@pytest.mark.parametrize("dtype", ["uint8", "uint64"])
def test_halving_equals_the_naive_way(dtype):
    volume = voxels(dtype, (2, 9, 7))
    padded = np.pad(volume, ((0, 0), (0, 1), (0, 1)), mode="edge")
    for z, y, x in np.ndindex(2, 5, 4):
        four = padded[z, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].ravel().tolist()
        expected = (
            (sum(four) + 2) // 4 if dtype == "uint8" else max(four, key=lambda v: (four.count(v), -four.index(v)))
        )
        assert halve(volume)[z, y, x] == expected


def test_section_hashes_are_of_the_voxels_whatever_the_shards(tmp_path):
    volume = filled(tmp_path / "a")
    filled(tmp_path / "b", shard=(4, 40, 20), chunk=(2, 20, 10))
    expected = [hashlib.sha256(section.tobytes()).hexdigest() for section in volume]
    assert section_sha256(tmp_path / "a", 1) == section_sha256(tmp_path / "b", 2) == expected


def test_no_more_tasks_run_at_once_than_there_are_workers():
    running, most, lock = [0], [0], threading.Lock()

    def task(box: Box) -> int:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        threading.Event().wait(0.01)
        with lock:
            running[0] -= 1
        return box.start[0]

    boxes = [Box((z, 0, 0), (z + 1, 1, 1)) for z in range(12)]
    assert each(task, boxes, 3, "test") == list(range(12)), "results come in the order of the boxes"
    assert most[0] <= 3


def test_an_exception_in_a_task_is_raised():
    def task(box: Box) -> None:
        raise ValueError("no light")

    with pytest.raises(ValueError, match="no light"):
        each(task, [Box((0, 0, 0), (1, 1, 1))], 2, "test")


@pytest.mark.parametrize(("shape", "count"), [((9, 256, 200), 1), ((9, 257, 3), 2), ((9, 10, 4096), 5)])
def test_level_count(shape, count):
    assert level_count(shape) == count


SHARDS = [
    ((32, 1024, 1024), (16, 128, 128), "uint8", (32, 1024, 1024), "32 MiB of grey levels"),
    ((32, 1024, 1024), (16, 128, 128), "uint64", (32, 512, 512), "256 MiB of ids"),
    ((32, 256, 4096), (16, 128, 128), "uint64", (32, 256, 1024), "the longer side is halved"),
    ((64, 384, 384), (16, 128, 128), "uint64", (64, 384, 384), "three chunks have no half"),
]


@pytest.mark.parametrize(("shard", "chunk", "dtype", "expected", "why"), SHARDS, ids=[why for *_, why in SHARDS])
def test_large_shards_of_ids_are_halved(shard, chunk, dtype, expected, why):
    assert bounded_shard(shard, chunk, dtype) == expected


def test_coarser_layout_keeps_the_tissue_where_it_is():
    coarse = Layout((5, 103, 64), "uint8", (4, 32, 32), (2, 16, 16), (40, 4, 4), (20, 2, 2)).coarser(8)
    assert coarse.shape == (5, 12, 8)
    assert coarse.voxel_size_nm == (40, 32, 32)
    assert coarse.translation_nm == (20, 16, 16), "the corner stays at 0"


# cards


def test_cards_are_read_back_and_others_are_refused(tmp_path):
    card = dict.fromkeys(("array", "shape", "dtype", "voxel_size_nm", "translation_nm", "source"))
    card |= {"damaged": {}, "missing": {}, "degradation": None, "hr_shape": None, "section_sha256": ["ab", "cd"]}
    write_card(tmp_path / "hr.json", card)
    assert read_card(tmp_path / "hr.json")["sha256"] == root_sha256(["ab", "cd"]) == hashlib.sha256(b"abcd").hexdigest()
    with pytest.raises(FileNotFoundError, match="run the step"):
        read_card(tmp_path / "none.json")
    write_json(tmp_path / "other.json", {"schema": 1})
    with pytest.raises(ValueError, match=r"no image card \(lacks array"):
        read_card(tmp_path / "other.json")
    (tmp_path / "torn.json").write_text('{"schema"')
    with pytest.raises(ValueError, match="is not JSON"):
        read_card(tmp_path / "torn.json")
    write_json(tmp_path / "new.json", {**card, "schema": 2, "sha256": ""})
    with pytest.raises(ValueError, match="schema 2"):
        read_card(tmp_path / "new.json")


def test_durable_files_leave_nothing_beside_them_and_equal_ones_alone(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": [1.5]})
    stamp = (tmp_path / "a.json").stat().st_mtime_ns
    write_json(tmp_path / "a.json", {"a": [1.5], "b": 1})
    assert (tmp_path / "a.json").stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


# others' arrays


def ome(version: str, dtype="u1", axes="zyx", unit: str | None = "nanometer", **transformations) -> dict:
    steps = [{"type": "scale", "scale": [40.0, 4.0, 4.0]}, {"type": "translation", "translation": [80.0, 6.0, 2.0]}]
    named = [{"name": name, "type": "space", **({"unit": unit} if unit else {})} for name in axes]
    multiscale = {"axes": named, "datasets": [{"path": "s0", "coordinateTransformations": steps}], **transformations}
    return (
        {"multiscales": [multiscale]} if version == "0.4" else {"ome": {"version": "0.5", "multiscales": [multiscale]}}
    )


def foreign(path: Path, version: str, attributes: dict, **how) -> np.ndarray:
    volume = voxels(shape=(6, 30, 20))
    group = zarr.create_group(path, zarr_format=2 if version == "0.4" else 3, attributes=attributes)
    array = group.create_array("s0", shape=volume.shape, chunks=(4, 16, 16), dtype=how.pop("dtype", "u1"), **how)
    array[:] = volume
    return volume


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("dataset", [None, "s0"], ids=["finest level", "named level"])
def test_ome_zarr_of_others_is_read_with_its_place(tmp_path, version, dataset):
    volume = foreign(tmp_path / "x.zarr", version, ome(version))
    source = open_source(tmp_path / "x.zarr", dataset)
    assert (source.shape, source.dtype.name, source.format) == (volume.shape, "uint8", "zarr")
    assert source.voxel_size_nm == (40, 4, 4)
    assert source.translation_nm == (80, 6, 2)
    np.testing.assert_array_equal(source.read((1, 2, 3), (6, 30, 20)), volume[1:, 2:, 3:])


def test_sharded_big_endian_and_fortran_order_arrays_are_read(tmp_path):
    volume = foreign(tmp_path / "x.zarr", "0.5", ome("0.5"), shards=(4, 32, 32))
    np.testing.assert_array_equal(open_source(tmp_path / "x.zarr").read((0, 0, 0), volume.shape), volume)
    volume = foreign(tmp_path / "y.zarr", "0.4", ome("0.4"), dtype=">u8", order="F")
    read = open_source(tmp_path / "y.zarr").read((0, 0, 0), volume.shape)
    np.testing.assert_array_equal(read, volume)
    assert read.dtype.isnative
    assert read.flags.c_contiguous


def test_units_are_turned_into_nanometres_and_unknown_ones_refused(tmp_path):
    foreign(tmp_path / "x.zarr", "0.5", ome("0.5", unit="micrometer"))
    assert open_source(tmp_path / "x.zarr").voxel_size_nm == (40e3, 4e3, 4e3)
    foreign(tmp_path / "none.zarr", "0.5", ome("0.5", unit=None))
    assert open_source(tmp_path / "none.zarr").voxel_size_nm is None
    foreign(tmp_path / "y.zarr", "0.5", ome("0.5", unit="furlong"))
    with pytest.raises(ValueError, match="unit 'furlong' is unknown"):
        open_source(tmp_path / "y.zarr")
    assert nanometres("angstrom", "here") == 0.1


def test_transformations_of_the_whole_multiscale_come_after_those_of_the_level(tmp_path):
    whole = [{"type": "scale", "scale": [2.0, 2.0, 2.0]}, {"type": "translation", "translation": [1.0, 1.0, 1.0]}]
    foreign(tmp_path / "x.zarr", "0.5", ome("0.5", coordinateTransformations=whole))
    source = open_source(tmp_path / "x.zarr")
    assert (source.voxel_size_nm, source.translation_nm) == ((80, 8, 8), (161, 13, 5))


def test_a_bare_array_states_no_voxel_size_and_single_channels_are_dropped(tmp_path):
    zarr.create_array(tmp_path / "bare.zarr", shape=(4, 8, 8), dtype="u1")[:] = 1
    assert open_source(tmp_path / "bare.zarr").voxel_size_nm is None
    attributes = ome("0.5")
    multiscale = attributes["ome"]["multiscales"][0]
    multiscale["axes"] = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}, *multiscale["axes"]]
    multiscale["datasets"][0]["coordinateTransformations"] = [{"type": "scale", "scale": [1.0, 1.0, 40.0, 4.0, 4.0]}]
    group = zarr.create_group(tmp_path / "five.zarr", attributes=attributes)
    group.create_array("s0", shape=(1, 1, 4, 8, 8), chunks=(1, 1, 2, 8, 8), dtype="u1")[:, :, 2:] = 3
    source = open_source(tmp_path / "five.zarr")
    assert (source.shape, source.voxel_size_nm, source.translation_nm) == ((4, 8, 8), (40, 4, 4), (0, 0, 0))
    assert source.read((2, 0, 0), (3, 2, 2)).tolist() == [[[3, 3], [3, 3]]]
    assert [source.stored(z) for z in range(4)] == [False, False, True, True]


def test_sections_that_were_never_stored_are_known(tmp_path):
    for version in ("0.4", "0.5"):
        group = zarr.create_group(tmp_path / version, zarr_format=2 if version == "0.4" else 3, attributes=ome(version))
        array = group.create_array("s0", shape=(4, 20, 20), chunks=(1, 8, 8), dtype="u1")
        array[1, 18:, 18:] = 1
        source = open_source(tmp_path / version)
        assert [source.stored(z) for z in range(4)] == [False, True, False, False]
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("raw", (6, 20, 20), "u1", chunks=(2, 8, 8))[2, 19, 19] = 1
    source = open_source(tmp_path / "x.h5", "raw")
    assert [source.stored(z) for z in range(6)] == [False, False, True, True, False, False]


def test_cremi_offsets_are_corners(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        raw = file.create_dataset("volumes/raw", data=voxels(shape=(6, 30, 20)))
        raw.attrs["resolution"], raw.attrs["offset"] = (40.0, 4.0, 4.0), (400.0, 8.0, 0.0)
    source = open_source(tmp_path / "x.h5", "volumes/raw")
    assert (source.voxel_size_nm, source.translation_nm) == ((40, 4, 4), (420, 10, 2))
    np.testing.assert_array_equal(source.read((1, 2, 3), (6, 30, 20)), voxels(shape=(6, 30, 20))[1:, 2:, 3:])


def hdf(path: Path, make) -> Path:
    with h5py.File(path, "w") as file:
        make(file)
    return path


def with_group(file: h5py.File) -> None:
    file.create_dataset("volumes/raw", data=voxels(shape=(6, 30, 20)))


def truncated(path: Path) -> Path:
    hdf(path, with_group)
    path.write_bytes(path.read_bytes()[:2000])
    return path


def linked(path: Path) -> Path:
    hdf(path.with_name("other.h5"), with_group)
    return hdf(path, lambda file: file.__setitem__("raw", h5py.ExternalLink("other.h5", "volumes/raw")))


def broken_zarr(path: Path, text: str) -> Path:
    foreign(path, "0.5", ome("0.5"))
    (path / "s0/zarr.json").write_text(text)
    return path


BAD_FILES = [
    (lambda p: p / "no.h5", "raw", "does not exist.*correct the path", "missing file"),
    (lambda p: (p / "x.h5").write_bytes(b"") or p / "x.h5", "raw", "is empty .0 bytes", "empty file"),
    (lambda p: truncated(p / "x.h5"), "volumes/raw", "cannot be opened as HDF5.*copy it again", "truncated file"),
    (
        lambda p: (p / "x.txt").write_text("hello") and p / "x.txt",
        None,
        "of no format that emsr reads",
        "another format",
    ),
    (lambda p: hdf(p / "x.h5", with_group), "raw", "has no dataset raw: it has volumes/raw", "missing dataset"),
    (lambda p: hdf(p / "x.h5", with_group), None, "no dataset is stated: name one of volumes/raw", "no dataset named"),
    (lambda p: hdf(p / "x.h5", with_group), "volumes", "is a group, not a dataset", "a group"),
    (lambda p: hdf(p / "x.h5", lambda file: None), "raw", "no dataset at all", "a file without datasets"),
    (lambda p: linked(p / "x.h5"), "raw", "is a link to the file .*other.h5", "an external link"),
    (
        lambda p: hdf(p / "x.h5", lambda f: f.create_dataset("raw", (1, 2, 2), "u1", external="/etc/hostname")),
        "raw",
        "keeps its voxels in other files",
        "external storage",
    ),
    (
        lambda p: hdf(p / "x.h5", lambda f: f.__setitem__("raw", h5py.SoftLink("/raw"))),
        "raw",
        "has no dataset raw",
        "a link to itself",
    ),
    (
        lambda p: hdf(p / "x.h5", lambda f: f.create_dataset("raw", (1 << 14, 1 << 15, 1 << 15), "u1", chunks=True)),
        "raw",
        "holds no data",
        "16 TiB of nothing",
    ),
    (
        lambda p: foreign(p / "x/raw", "0.5", ome("0.5")).any() and p / "x",
        "raw",
        "x does not say what it is, but .*x/raw is zarr: write that as path, dataset: null",
        "a dataset in a folder of nothing else",
    ),
    (lambda p: (p / "d").mkdir() or p / "d", None, "of no format that emsr reads", "an empty folder"),
    (lambda p: broken_zarr(p / "x.zarr", "{"), None, "is not JSON.*copy the array again", "torn metadata"),
    (lambda p: broken_zarr(p / "x.zarr", "[]"), None, "is no JSON object", "metadata of another kind"),
    (
        lambda p: foreign(p / "x.zarr", "0.5", ome("0.5")).any() and p / "x.zarr",
        "s1",
        "has no dataset s1: it has s0",
        "missing array",
    ),
    (lambda p: (zarr.create_group(p / "x.zarr"), p / "x.zarr")[1], None, "is a group, not an array", "a bare group"),
    (
        lambda p: foreign(p / "x.zarr", "0.5", ome("0.5", axes="xyz")).any() and p / "x.zarr",
        None,
        "axes are x, y, z",
        "axes reversed",
    ),
    (
        lambda p: foreign(p / "x.zarr", "0.5", {"ome": {"multiscales": [{"axes": []}]}}).any() and p / "x.zarr",
        None,
        "its multiscales lack 'datasets'",
        "metadata without levels",
    ),
    (
        lambda p: broken_zarr(p / "x.zarr", json.dumps({"zarr_format": 3, "node_type": "array"})),
        None,
        "cannot be opened as zarr.*copy it again",
        "metadata without shape",
    ),
    (lambda p: foreign(p / "x.zarr", "0.5", {}).any() and p / "x.zarr", "../x.zarr/../", "has no dataset", "escape"),
]


@pytest.mark.parametrize(("make", "dataset", "reason", "why"), BAD_FILES, ids=[why for *_, why in BAD_FILES])
def test_what_cannot_be_a_volume_is_refused_in_one_line(tmp_path, make, dataset, reason, why):
    path = make(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=reason) as refusal:
        open_source(path, dataset)
    assert "\n" not in str(refusal.value)


def test_a_damaged_chunk_of_a_source_is_an_error_with_its_place(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", data=voxels(shape=(6, 30, 20)), chunks=(6, 30, 20), compression="gzip")
        place = file["raw"].id.get_chunk_info(0)
    with path.open("r+b") as stream:
        stream.seek(place.byte_offset + place.size // 2)
        stream.write(b"\x00" * 64)
    source = open_source(path, "raw")
    with pytest.raises(ValueError, match=r"voxels \(0, 0, 0\) to \(1, 2, 2\) cannot be read"):
        source.read((0, 0, 0), (1, 2, 2))
    foreign(tmp_path / "x.zarr", "0.5", ome("0.5"))
    next(file for file in (tmp_path / "x.zarr/s0/c").rglob("*") if file.is_file()).write_bytes(b"junk")
    with pytest.raises(ValueError, match="cannot be read"):
        open_source(tmp_path / "x.zarr").read((0, 0, 0), (6, 30, 20))
