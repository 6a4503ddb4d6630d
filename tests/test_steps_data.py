"""Ingest, degrade, grow: what goes in comes out at the same place, whole, once, and nothing bad goes in."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from scipy.ndimage import gaussian_filter

from emsr import degradation
from emsr.durable import read_json
from emsr.steps.data import degrade, grow, ingest
from emsr.stores.card import read_card, root_sha256
from emsr.stores.pyramid import halve
from emsr.stores.zarr import open_array

RESOLUTION = (40.0, 4.0, 4.0)


def tissue_like(shape=(12, 150, 130), seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    smooth = gaussian_filter(generator.normal(size=shape), (1, 2, 2))
    return np.clip(128 + 35 * smooth / smooth.std() + generator.normal(0, 8, shape), 0, 255).astype(np.uint8)


def cremi(path: Path, raw: np.ndarray, labels: np.ndarray | None = None, **attributes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, voxels in (("volumes/raw", raw), ("volumes/labels/neuron_ids", labels)):
            if voxels is not None:
                file.create_dataset(name, data=voxels)
                file[name].attrs.update({"resolution": RESOLUTION, **attributes})
    return path


def settings(path: Path, image: str = "hr", **changes) -> dict:
    dataset = {"labels": "volumes/labels/neuron_ids"}.get(image, "volumes/raw")
    source = {"path": str(path), "dataset": dataset, "voxel_size_nm": None, "fingerprint": None}
    source |= {key: changes.pop(key) for key in ("dataset", "voxel_size_nm") if key in changes}
    return {
        **{"image": image, "source": source, "region": None, "shard": [8, 64, 64], "chunk": [4, 32, 32], "result": 1},
        **changes,
    }


def coarse(scale: int, kernel: str = "bicubic") -> dict:
    return {
        "scale": scale,
        "degradation": {"kernel": kernel},
        "shard": [8, 32, 32],
        "chunk": [4, 16, 16],
        "result": 1,
    }


def all_of(card: Path) -> np.ndarray:
    return open_array(card.parent / read_json(card)["array"])[...].read().result()


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


# ingest


def test_ingest_keeps_every_voxel_and_its_place(tmp_path):
    raw = tissue_like()
    out = tmp_path / "v/hr.json"
    ingest(settings(cremi(tmp_path / "x.h5", raw, offset=(400.0, 0.0, 8.0))), out, workers=2)
    np.testing.assert_array_equal(all_of(out), raw)
    card = read_card(out)
    assert (card["array"], card["shape"], card["dtype"]) == ("hr.zarr", [12, 150, 130], "uint8")
    assert card["voxel_size_nm"] == [40, 4, 4]
    assert card["translation_nm"] == [420, 2, 10], "centre of the first voxel: corner and half a voxel"
    assert card["section_sha256"] == [hashlib.sha256(section.tobytes()).hexdigest() for section in raw]
    assert card["sha256"] == root_sha256(card["section_sha256"])
    assert (card["damaged"], card["missing"]) == ({}, {})
    assert (tmp_path / "v/hr.sections.tsv").read_text() == "z\tstate\treason\n"


def test_ingested_volume_has_levels_and_passes_the_ome_zarr_schema(tmp_path):
    from ome_zarr_models.v05 import Image

    raw = tissue_like((5, 300, 260))
    ingest(settings(cremi(tmp_path / "x.h5", raw)), tmp_path / "hr.json", workers=2)
    group = zarr.open_group(tmp_path / "hr.zarr", mode="r")
    Image.from_zarr(group)
    np.testing.assert_array_equal(group["1"][:], halve(raw))


def test_region_is_cut_and_moves_the_translation(tmp_path):
    raw = tissue_like()
    cut = settings(cremi(tmp_path / "x.h5", raw), region=[[2, 9], [10, 110], [1, 130]])
    ingest(cut, tmp_path / "hr.json", workers=2)
    np.testing.assert_array_equal(all_of(tmp_path / "hr.json"), raw[2:9, 10:110, 1:130])
    assert read_card(tmp_path / "hr.json")["translation_nm"] == [20 + 80, 2 + 40, 2 + 4]


def test_workers_and_shards_change_no_hash_and_reruns_no_byte(tmp_path):
    source = cremi(tmp_path / "x.h5", tissue_like())
    for name, shard, workers in (("a", [8, 64, 64], 1), ("b", [8, 64, 64], 2), ("c", [4, 32, 160], 2)):
        ingest(settings(source, shard=shard), tmp_path / name / "hr.json", workers=workers)
    a, b = state(tmp_path / "a"), state(tmp_path / "b")
    assert {name: content for name, (_, content) in a.items()} == {name: content for name, (_, content) in b.items()}
    assert read_card(tmp_path / "a/hr.json") == read_card(tmp_path / "c/hr.json")
    ingest(settings(source), tmp_path / "a/hr.json", workers=2)
    assert state(tmp_path / "a") == a, "a result that holds is neither deleted nor written again"


def test_a_changed_section_rewrites_its_shards_only(tmp_path):
    raw, out = tissue_like(), tmp_path / "v/hr.json"
    ingest(settings(cremi(tmp_path / "x.h5", raw)), out)
    before, old = state(tmp_path / "v"), read_card(out)
    raw[9, 100, 100] ^= 255
    ingest(settings(cremi(tmp_path / "x.h5", raw)), out)
    changed = {name for name, content in state(tmp_path / "v").items() if before[name] != content}
    assert changed == {"hr.json", "hr.zarr/0/c/1/1/1"}
    new = read_card(out)["section_sha256"]
    assert [z for z in range(12) if new[z] != old["section_sha256"][z]] == [9]


def test_another_region_replaces_the_array_and_a_killed_ingest_is_finished(tmp_path):
    raw, out = tissue_like(), tmp_path / "hr.json"
    source = cremi(tmp_path / "x.h5", raw)
    ingest(settings(source), out)
    ingest(settings(source, region=[[0, 6], [0, 64], [0, 64]]), out)
    np.testing.assert_array_equal(all_of(out), raw[:6, :64, :64])
    ingest(settings(source), out)
    finished = {name: content for name, (_, content) in state(tmp_path).items()}
    out.unlink()
    (tmp_path / "hr.zarr/0/c/1/1/1").unlink()
    (tmp_path / "hr.zarr/0/c/0/0/0").write_bytes(b"")
    (tmp_path / "hr.zarr/0/c/0/0/1.__lock").write_bytes(b"left by a killed writer")
    ingest(settings(source), out)
    again = {name: content for name, (_, content) in state(tmp_path).items() if not name.endswith(".__lock")}
    assert again == finished


def test_labels_keep_every_bit_and_are_not_judged(tmp_path):
    labels = np.zeros((6, 40, 50), np.uint64)
    labels[:, 10:, 10:], labels[3] = 2**63 + 1, 0
    source = cremi(tmp_path / "x.h5", tissue_like((6, 40, 50)), labels)
    hr = {"path": str(source), "dataset": "volumes/raw"}
    ingest(settings(source, "labels", hr=hr), tmp_path / "labels.json")
    np.testing.assert_array_equal(all_of(tmp_path / "labels.json"), labels)
    card = read_card(tmp_path / "labels.json")
    assert (card["dtype"], card["damaged"], card["missing"]) == ("uint64", {}, {})


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", ">u8"])
def test_labels_of_any_unsigned_type_are_read(tmp_path, dtype):
    labels = np.arange(6 * 20 * 20).reshape(6, 20, 20) % 200
    source = cremi(tmp_path / "x.h5", tissue_like((6, 20, 20)), labels.astype(dtype))
    ingest(settings(source, "labels"), tmp_path / "labels.json")
    np.testing.assert_array_equal(all_of(tmp_path / "labels.json"), labels)


SMALL = [
    ((1, 40, 40), "one section"),
    ((4, 40, 40), "fewer than five sections"),
    ((5, 9, 11), "sections smaller than a chunk"),
    ((9, 65, 33), "one voxel more than a shard"),
]


@pytest.mark.parametrize(("shape", "why"), SMALL, ids=[why for _, why in SMALL])
def test_odd_sizes_are_read_whole(tmp_path, shape, why):
    raw = tissue_like(shape)
    ingest(settings(cremi(tmp_path / "x.h5", raw)), tmp_path / "hr.json", workers=2)
    np.testing.assert_array_equal(all_of(tmp_path / "hr.json"), raw)
    degrade(coarse(4), tmp_path / "hr.json", tmp_path / "lr_x4.json", workers=2)
    assert read_card(tmp_path / "lr_x4.json")["shape"] == [shape[0], shape[1] // 4, shape[2] // 4]


@pytest.mark.parametrize("value", [0, 255, 128])
def test_constant_volumes_are_read(tmp_path, value):
    ingest(settings(cremi(tmp_path / "x.h5", np.full((6, 40, 40), value, np.uint8))), tmp_path / "hr.json")
    card = read_card(tmp_path / "hr.json")
    assert (card["damaged"], card["missing"]) == ({}, {})


def test_damaged_and_missing_sections_are_listed_with_the_reason(tmp_path):
    raw = tissue_like()
    raw[2], raw[5], raw[8], raw[10] = 0, 255, np.random.default_rng(5).integers(0, 256, raw[8].shape), 0
    path = tmp_path / "x.zarr"
    array = zarr.create_array(
        path, shape=raw.shape, chunks=(1, 64, 64), dtype="u1", config={"write_empty_chunks": True}
    )
    for z in (z for z in range(12) if z != 10):
        array[z] = raw[z]
    out = tmp_path / "hr.json"
    ingest(settings(path, dataset=None, voxel_size_nm=[40, 4, 4]), out, workers=2)
    card = read_card(out)
    assert card["damaged"] == {"2": "black", "5": "saturated", "8": "unlike"}
    assert card["missing"] == {"10": "missing"}
    assert card["source"] == {"path": str(path), "dataset": ".", "format": "zarr", "region": None}
    np.testing.assert_array_equal(all_of(out), raw)
    rows = [line.split("\t") for line in (tmp_path / "hr.sections.tsv").read_text().splitlines()]
    assert [row[:2] for row in rows[1:]] == [["2", "black"], ["5", "saturated"], ["8", "unlike"], ["10", "missing"]]
    assert all(len(row) == 3 and row[2] for row in rows)
    degrade(coarse(4), out, tmp_path / "lr_x4.json")
    lr = read_card(tmp_path / "lr_x4.json")
    assert (lr["damaged"], lr["missing"]) == (card["damaged"], card["missing"])
    assert len((tmp_path / "lr_x4.sections.tsv").read_text().splitlines()) == 5


def test_sections_never_stored_are_missing_whatever_the_fill_value(tmp_path):
    array = zarr.create_array(tmp_path / "x.zarr", shape=(6, 64, 64), chunks=(1, 64, 64), dtype="u1", fill_value=255)
    for z in (0, 1, 2, 4, 5):
        array[z] = tissue_like((6, 64, 64))[z]
    ingest(settings(tmp_path / "x.zarr", dataset=None, voxel_size_nm=[40, 4, 4]), tmp_path / "hr.json")
    card = read_card(tmp_path / "hr.json")
    assert (card["missing"], card["damaged"]) == ({"3": "missing"}, {})


def test_voxel_size_of_the_config_is_used_where_the_file_has_none_and_may_be_rounded(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["volumes/raw"] = tissue_like((3, 20, 20))
    ingest(settings(tmp_path / "x.h5", voxel_size_nm=[30, 8, 8]), tmp_path / "hr.json")
    assert read_card(tmp_path / "hr.json")["voxel_size_nm"] == [30, 8, 8]
    assert read_card(tmp_path / "hr.json")["translation_nm"] == [15, 4, 4]
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        file["volumes/raw"].attrs["offset"] = (100.0, 0.0, 40.0)
    ingest(settings(tmp_path / "x.h5", voxel_size_nm=[30, 8, 8]), tmp_path / "hr.json")
    assert read_card(tmp_path / "hr.json")["translation_nm"] == [115, 4, 44], (
        "the file's corner counts without its size"
    )
    source = cremi(tmp_path / "y.h5", tissue_like((3, 20, 20)))
    ingest(settings(source, voxel_size_nm=[40, 4.001, 4]), tmp_path / "y/hr.json")
    assert read_card(tmp_path / "y/hr.json")["voxel_size_nm"] == [40, 4, 4], "the file's own is the exact one"


RAW = tissue_like((6, 20, 24))
BAD = [
    ({"raw": RAW.astype(np.float32) / 255}, {}, "float32, images are uint8 or uint16: map its range", "float"),
    ({"raw": np.full(RAW.shape, np.nan)}, {}, "float64, images are uint8 or uint16", "NaN"),
    ({"raw": RAW.astype(np.uint16)}, {}, "uint16, images are uint8: state intensity", "uint16"),
    ({"raw": RAW.astype(np.int8)}, {}, "int8, images are uint8 or uint16", "signed"),
    ({"raw": RAW > 9}, {}, "bool, images are uint8 or uint16", "bool"),
    ({"raw": np.zeros((6, 20, 20, 3), np.uint8)}, {}, "has 4 axes: keep one channel", "RGB volume"),
    ({"raw": np.zeros((20, 20, 3), np.uint8)}, {}, "looks like RGB", "RGB section"),
    ({"raw": np.zeros((20, 20), np.uint8)}, {}, "is one section, not a volume", "2-D"),
    ({"raw": np.zeros((0, 20, 20), np.uint8)}, {}, "holds no voxel", "empty axis"),
    ({"raw": RAW}, {"dataset": "volumes/rwa"}, "has no dataset volumes/rwa: it has volumes/raw", "dataset"),
    (
        {"raw": RAW},
        {"voxel_size_nm": [30, 4, 4]},
        r"\[40.0, 4.0, 4.0\] nm, the config \[30, 4, 4\]: correct",
        "conflict",
    ),
    ({"raw": RAW}, {"voxel_size_nm": [4, 4, 40]}, "reversed axes", "axes reversed"),
    ({"raw": RAW, "resolution": (40, 0, 4)}, {}, "not three positive numbers", "voxel size zero"),
    ({"raw": RAW, "resolution": (40, 4)}, {}, "not three positive numbers", "two numbers"),
    ({"raw": RAW, "resolution": (40, np.nan, 4)}, {}, "not three positive numbers", "voxel size NaN"),
    ({"raw": RAW, "offset": (np.inf, 0, 0)}, {}, "not three finite numbers", "offset infinite"),
    (
        {"raw": RAW},
        {"region": [[0, 7], [0, 20], [0, 20]]},
        r"beyond shape \[6, 20, 24\].*shrink it",
        "region too large",
    ),
    ({"raw": RAW}, {"region": [[3, 3], [0, 20], [0, 20]]}, "holds no voxel", "empty region"),
    ({"raw": RAW}, {"shard": [8, 64, 60]}, "not a multiple of chunk", "broken shard"),
    ({"raw": RAW, "labels": RAW.astype(np.int64)}, {"image": "labels"}, "int64, labels are unsigned", "signed labels"),
    ({"raw": RAW, "labels": RAW.astype(float)}, {"image": "labels"}, "float64, labels are unsigned", "float labels"),
    (
        {"raw": RAW, "labels": RAW[:, :19].astype(np.uint64)},
        {"image": "labels", "hr": True},
        r"labels .* have shape \[6, 19, 24\] but hr .* has \[6, 20, 24\]: cut or pad",
        "labels of another shape",
    ),
]


@pytest.mark.parametrize(("file", "config", "reason", "why"), BAD, ids=[why for *_, why in BAD])
def test_bad_sources_are_refused_in_one_line_before_anything_is_written(tmp_path, file, config, reason, why):
    source, config = cremi(tmp_path / "x.h5", **file), dict(config)
    if config.get("hr"):
        config["hr"] = {"path": str(source), "dataset": "volumes/raw"}
    with pytest.raises(ValueError, match=reason) as refusal:
        ingest(settings(source, **config), tmp_path / "out/hr.json")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out").exists()


def test_no_voxel_size_anywhere_is_refused(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["volumes/raw"] = RAW
    with pytest.raises(ValueError, match=r"state voxel_size_nm: \[z, y, x\] in the config"):
        ingest(settings(tmp_path / "x.h5"), tmp_path / "out/hr.json")


def test_a_source_that_is_the_result_is_refused_and_stays(tmp_path):
    ingest(settings(cremi(tmp_path / "x.h5", RAW)), tmp_path / "hr.json")
    before = state(tmp_path)
    with pytest.raises(ValueError, match="lie in one another"):
        ingest(settings(tmp_path / "hr.zarr", dataset=None, region=[[0, 2], [0, 20], [0, 20]]), tmp_path / "hr.json")
    assert state(tmp_path) == before


# degrade


@pytest.mark.parametrize("scale", [3, 4, 8])
@pytest.mark.parametrize("kernel", ["bicubic", "area"])
def test_shards_equal_degrading_whole_sections(tmp_path, scale, kernel):
    raw = tissue_like((5, 283, 301))
    ingest(settings(cremi(tmp_path / "x.h5", raw)), tmp_path / "hr.json", workers=2)
    out = tmp_path / f"lr_x{scale}.json"
    degrade(coarse(scale, kernel), tmp_path / "hr.json", out, workers=2)
    y, x = 283 // scale * scale, 301 // scale * scale
    np.testing.assert_array_equal(all_of(out), degradation.degrade(raw[:, :y, :x], scale, kernel))
    card = read_card(out)
    assert card["hr_shape"] == [5, y, x]
    assert card["degradation"] == {"scale": scale, "kernel": kernel}
    assert card["voxel_size_nm"] == [40, 4 * scale, 4 * scale]


def test_workers_change_no_byte_and_reruns_write_none(tmp_path):
    ingest(settings(cremi(tmp_path / "x.h5", tissue_like())), tmp_path / "hr.json")
    for name, workers in (("a", 1), ("b", 3)):
        degrade(coarse(4), tmp_path / "hr.json", tmp_path / name / "lr_x4.json", workers=workers)
    a, b = state(tmp_path / "a"), state(tmp_path / "b")
    assert {name: content for name, (_, content) in a.items()} == {name: content for name, (_, content) in b.items()}
    degrade(coarse(4), tmp_path / "hr.json", tmp_path / "a/lr_x4.json", workers=2)
    assert state(tmp_path / "a") == a


def centre_nm(volume: np.ndarray, metadata: dict) -> np.ndarray:
    """Centre of mass in nm of what is brighter than the background, by the OME-Zarr metadata of level 0."""
    light = volume.astype(float) - 20
    places = np.meshgrid(*(np.arange(side) for side in volume.shape), indexing="ij")
    voxel = np.array([(place * light).sum() / light.sum() for place in places])
    first, second = metadata["attributes"]["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    return voxel * first["scale"] + second["translation"]


@pytest.mark.parametrize("scale", [4, 8, 16])
@pytest.mark.parametrize("kernel", ["bicubic", "area"])
def test_a_blob_stays_where_it_is(tmp_path, scale, kernel):
    z, y, x = np.meshgrid(np.arange(7), np.arange(200), np.arange(208), indexing="ij")
    blob = np.exp(-((z - 3.2) ** 2) / 2 - ((y - 91.3) ** 2 + (x - 117.8) ** 2) / (2 * 20**2))
    source = cremi(tmp_path / "x.h5", np.rint(20 + 200 * blob).astype(np.uint8), offset=(0.0, 1000.0, 64.0))
    ingest(settings(source), tmp_path / "hr.json", workers=2)
    degrade(coarse(scale, kernel), tmp_path / "hr.json", tmp_path / "lr.json", workers=2)
    centres = [
        centre_nm(all_of(tmp_path / f"{name}.json"), read_json(tmp_path / f"{name}.zarr/zarr.json"))
        for name in ("hr", "lr")
    ]
    np.testing.assert_allclose(centres[1], centres[0], atol=0.05 * 4)
    assert read_card(tmp_path / "lr.json")["translation_nm"][1] == 1000 + 2 + 4 * (scale - 1) / 2


def test_sections_smaller_than_the_scale_are_refused(tmp_path):
    ingest(settings(cremi(tmp_path / "x.h5", tissue_like((3, 12, 40)))), tmp_path / "hr.json")
    with pytest.raises(ValueError, match="12 x 40 voxels are smaller than scale 16: choose a smaller"):
        degrade(coarse(16), tmp_path / "hr.json", tmp_path / "out/lr.json")
    assert not (tmp_path / "out").exists()


def test_a_missing_shard_of_hr_is_not_black_in_lr(tmp_path):
    ingest(settings(cremi(tmp_path / "x.h5", tissue_like())), tmp_path / "hr.json")
    (tmp_path / "hr.zarr/0/c/1/1/1").unlink()
    with pytest.raises(ValueError, match=r"cannot be read .*run the step"):
        degrade(coarse(4), tmp_path / "hr.json", tmp_path / "lr.json")
    assert not (tmp_path / "lr.json").exists()


# grow


def test_grown_tissue_is_ingested_like_a_measured_volume(tmp_path):
    out = tmp_path / "v/tissue.h5"
    grow({"shape": [3, 64, 72], "voxel_size_nm": [40, 4, 4], "seed": 3, "result": 1}, out)
    first = out.read_bytes()
    grow({"shape": [3, 64, 72], "voxel_size_nm": [40, 4, 4], "seed": 3, "result": 1}, out)
    assert out.read_bytes() == first, "one seed, one tissue"
    assert [file.name for file in out.parent.iterdir()] == ["tissue.h5"]
    for image in ("hr", "labels"):
        ingest(settings(out, image), tmp_path / f"v/{image}.json")
    assert read_card(tmp_path / "v/hr.json")["shape"] == read_card(tmp_path / "v/labels.json")["shape"] == [3, 64, 72]
    assert json.loads((tmp_path / "v/labels.zarr/zarr.json").read_text())["attributes"]["ome"]["version"] == "0.5"


# real volumes


REAL = [
    ("fib_medulla/labelled.h5", (150, 250, 250)),
    ("gala_crop/crop.h5", (50, 100, 200)),
]


@pytest.mark.parametrize(("name", "shape"), REAL)
def test_real_volumes_have_no_damage(shared, tmp_path, name, shape):
    layout = {"shard": [32, 256, 256], "chunk": [16, 128, 128]}
    ingest(settings(shared / "data" / name, **layout), tmp_path / "hr.json", workers=2)
    card = read_card(tmp_path / "hr.json")
    assert (tuple(card["shape"]), card["voxel_size_nm"], card["damaged"]) == (shape, [10, 10, 10], {})
