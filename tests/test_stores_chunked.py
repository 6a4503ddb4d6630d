"""Chunked arrays of others on disk: N5, zarr and precomputed are read with their place."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorstore as ts
import zarr

from chunked import SHAPE, VOLUME, n5, precomputed
from emsr.config import Source
from emsr.stores import open_source
from emsr.stores import precomputed as store

NM = {"unit": "nm", "dimensions": [4.0, 5.0, 40.0]}


# N5

PLACES = [
    ({"pixelResolution": NM}, (40, 5, 4), None, "n5-viewer"),
    ({"pixelResolution": NM, "downsamplingFactors": [2, 2, 1]}, (40, 10, 8), None, "a level of n5-viewer"),
    ({"pixelResolution": {**NM, "unit": "um"}}, (40e3, 5e3, 4e3), None, "micrometres"),
    ({"pixelResolution": {**NM, "unit": "pixel"}}, None, None, "pixels have no length"),
    ({"pixelResolution": [4.0, 5.0, 40.0]}, None, None, "no unit, no length"),
    ({"resolution": [4, 5, 40]}, (40, 5, 4), None, "BigDataViewer and Paintera: nm"),
    ({"resolution": [4, 5, 40], "units": ["um"] * 3}, (40e3, 5e3, 4e3), None, "neuroglancer's units"),
    ({"resolution": [4, 5, 40], "translate": [2, 3, 20]}, (40, 5, 4), (20, 3, 2), "centre of the first voxel"),
    (
        {"transform": {"axes": ["z", "y", "x"], "scale": [40, 5, 4], "translate": [1, 2, 3], "units": ["nm"] * 3}},
        (40, 5, 4),
        (1, 2, 3),
        "COSEM names its axes",
    ),
]


@pytest.mark.parametrize(("attributes", "size", "place", "why"), PLACES, ids=[why for *_, why in PLACES])
def test_n5_is_read_with_the_place_that_tools_write(tmp_path, attributes, size, place, why):
    source = open_source(n5(tmp_path / "x.n5/raw", attributes).parent, "raw")
    assert (source.format, source.shape, source.dtype.name) == ("n5", SHAPE, "uint8")
    assert (source.voxel_size_nm, source.translation_nm) == (size, place)
    np.testing.assert_array_equal(source.read((1, 2, 3), SHAPE), VOLUME[1:, 2:, 3:])


def test_levels_of_n5_find_their_factors_in_the_groups_above(tmp_path):
    group = tmp_path / "x.n5/setup0"
    for level in ("s0", "s1"):
        n5(group / "timepoint0" / level)
    (group / "attributes.json").write_text(json.dumps({"downsamplingFactors": [[1, 1, 1], [2, 4, 1]]}))
    (group / "timepoint0/attributes.json").write_text(json.dumps({"resolution": [4, 5, 40]}))
    assert open_source(tmp_path / "x.n5", "setup0/timepoint0").voxel_size_nm == (40, 5, 4)
    assert open_source(tmp_path / "x.n5", "setup0/timepoint0/s1").voxel_size_nm == (40, 20, 8)


@pytest.mark.parametrize("driver", ["zarr", "zarr3", "n5"])
def test_what_was_never_stored_is_fill_value_and_known(tmp_path, driver):
    path = tmp_path / "x"
    if driver == "n5":
        n5(path)
        removed = [path / "0/0", path / "1/0", path / "0/1", path / "1/1"]
    else:
        version = 2 if driver == "zarr" else 3
        array = zarr.create_array(path, shape=SHAPE, chunks=(4, 16, 16), dtype="u1", zarr_format=version)
        array[:] = VOLUME
        removed = [path / "c/0"] if version == 3 else []
        removed += list(path.glob("0.*"))
    for one in removed:
        for file in [one] if one.is_file() else [*one.rglob("*")]:
            if file.is_file() and (driver != "n5" or file.name == "0"):
                file.unlink()
    source = open_source(path)
    assert [source.stored(z) for z in range(6)] == [False] * 4 + [True] * 2
    np.testing.assert_array_equal(source.read((0, 0, 0), SHAPE)[4:], VOLUME[4:])
    assert not source.read((0, 0, 0), (4, 30, 20)).any()
    assert source.voxel_size_nm is None


# precomputed

ENCODED = [
    ({}, "raw"),
    ({"compress": "gzip"}, "raw, compressed as cloud-volume does"),
]


@pytest.mark.parametrize(("how", "why"), ENCODED, ids=[why for _, why in ENCODED])
@pytest.mark.parametrize("prefix", ["", "precomputed://file://"], ids=["path", "address"])
def test_precomputed_is_read_with_its_place(tmp_path, prefix, how, why):
    source = open_source(f"{prefix}{precomputed(tmp_path / 'em', **how)}")
    assert (source.format, source.shape, source.voxel_size_nm) == ("precomputed", SHAPE, (40, 5, 4))
    assert source.translation_nm == (7.5 * 40, 6.5 * 5, 5.5 * 4), "voxel_offset is a corner"
    read = source.read((1, 2, 3), SHAPE)
    np.testing.assert_array_equal(read, VOLUME[1:, 2:, 3:])
    assert read.flags.c_contiguous
    np.testing.assert_array_equal(source.read((5, 29, 19), SHAPE), VOLUME[5:, 29:, 19:])


def test_cloud_volume_reads_what_tensorstore_does_not_and_other_boxes_alike(tmp_path, monkeypatch):
    path = precomputed(tmp_path / "em", VOLUME)
    slow = store.open_source(path, None)
    slow.read.__self__.array = None
    with monkeypatch.context() as patch:
        patch.setattr("cloudvolume.CloudVolume", None)
        quick = open_source(path)
        for start, stop in (((0, 0, 0), SHAPE), ((3, 15, 7), (5, 17, 20)), ((5, 29, 19), SHAPE)):
            np.testing.assert_array_equal(quick.read(start, stop), VOLUME[tuple(map(slice, start, stop))])
    np.testing.assert_array_equal(slow.read((3, 15, 7), (5, 17, 20)), VOLUME[3:5, 15:17, 7:20])
    packed = precomputed(tmp_path / "packed", VOLUME, compress="gzip")
    chunk = sorted((packed / "4_5_40").iterdir())[-1]
    (path / "4_5_40" / chunk.name).write_bytes(chunk.read_bytes())
    (path / "4_5_40" / chunk.stem).unlink()
    np.testing.assert_array_equal(quick.read((0, 0, 0), SHAPE), VOLUME)
    chunk = path / "4_5_40" / sorted(path.glob("4_5_40/*"))[0].name
    chunk.write_bytes(chunk.read_bytes()[:-1])
    with pytest.raises(ValueError, match="cannot be read"):
        open_source(path).read((0, 0, 0), SHAPE)


def test_jpeg_is_read_to_a_few_grey_levels_and_half_of_it_is_an_error(tmp_path):
    ramp = np.broadcast_to(np.arange(20, dtype=np.uint8) * 8, SHAPE)
    path = precomputed(tmp_path / "em", ramp, encoding="jpeg")
    assert np.abs(open_source(path).read((0, 0, 0), SHAPE).astype(int) - ramp).max() <= 8
    for file in path.glob("4_5_40/*"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size * 3 // 4])
    with pytest.raises(ValueError, match="cannot be read"):
        open_source(path).read((0, 0, 0), SHAPE)


def test_labels_keep_every_bit_and_sharded_ones_too(tmp_path):
    ids = (VOLUME // 64).astype(np.uint64) * np.uint64(2**61)
    path = precomputed(tmp_path / "a", ids, encoding="compressed_segmentation", layer_type="segmentation")
    np.testing.assert_array_equal(open_source(path).read((0, 0, 0), SHAPE), ids)
    spec = {"driver": "neuroglancer_precomputed", "kvstore": {"driver": "file", "path": f"{tmp_path}/b/"}}
    spec["multiscale_metadata"] = {"type": "segmentation", "data_type": "uint64", "num_channels": 1}
    sharding = {"@type": "neuroglancer_uint64_sharded_v1", "hash": "identity", "preshift_bits": 1}
    spec["scale_metadata"] = {
        **{"size": [20, 30, 6], "resolution": [4, 4, 40], "chunk_size": [16, 16, 4], "encoding": "raw"},
        "sharding": {**sharding, "minishard_bits": 1, "shard_bits": 1},
    }
    ts.open(spec, create=True).result()[..., 0] = ids.T
    np.testing.assert_array_equal(open_source(tmp_path / "b").read((1, 2, 3), SHAPE), ids[1:, 2:, 3:])


def test_mip_chooses_the_scale(tmp_path):
    path = precomputed(tmp_path / "em", max_mip=1)
    coarse = open_source(path, mip=1)
    assert (coarse.shape, coarse.voxel_size_nm) == ((6, 15, 10), (40, 10, 8))
    with pytest.raises(ValueError, match=r"chunk 8_10_40.* is missing inside the bounds"):
        coarse.read((0, 0, 0), (1, 1, 1))
    n5(tmp_path / "x.n5/s0")
    with pytest.raises(ValueError, match="mip means nothing for format n5: leave it out"):
        open_source(tmp_path / "x.n5", mip=1)


def test_a_path_and_its_address_are_one_place(tmp_path):
    path = precomputed(tmp_path / "em")
    assert Source(path=str(path)).place == Source(path=f"precomputed://file://{path}", mip=0).place
    with pytest.raises(ValueError, match="nowhere does not exist"):
        Source(path=f"precomputed://file://{tmp_path}/nowhere")
