"""Chunked sources that cannot be volumes, and addresses that are not read, are one line and nothing is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
import zarr

from chunked import VOLUME, n5, precomputed, settings
from emsr.config import parse
from emsr.steps.data import ingest
from emsr.stores import open_source


def edited(path: Path, change) -> Path:
    file = next(path / name for name in ("info", "attributes.json", "zarr.json") if (path / name).is_file())
    said = json.loads(file.read_text())
    change(said)
    file.write_text(json.dumps(said))
    return path


def scale(**values):
    return lambda info: info["scales"][0].update(values)


def cut(path: Path) -> Path:
    file = next(path / name for name in ("info", "attributes.json") if (path / name).is_file())
    file.write_text(file.read_text()[:30])
    return path


def emptied(path: Path) -> Path:
    for folder in path.glob("[014]*"):
        shutil.rmtree(folder)
    return path


def shortened(path: Path) -> Path:
    for file in [*path.glob("4_5_40/*"), *path.glob("0/0/0")]:
        file.write_bytes(file.read_bytes()[:100])
    return path


def vast(path: Path, value: int) -> Path:
    zarr.create_array(path, shape=(2**14, 2**16, 2**16), chunks=(8, 8, 8), dtype="u1")[:8, :8, :8] = value
    return path


def em(p: Path, **how) -> Path:
    return precomputed(p / "em", **how)


BAD = [
    (lambda p: cut(em(p)), "info is not JSON", "truncated info"),
    (lambda p: edited(em(p), lambda i: i.pop("scales")), "lists no scales", "an info of something else"),
    (lambda p: edited(em(p), lambda i: i.update(redirect="file:///etc")), "redirects elsewhere", "a redirect"),
    (lambda p: edited(em(p), scale(encoding="rot13")), "encoding 'rot13' is unknown: use one of raw", "encoding"),
    (lambda p: edited(em(p), scale(size=[20, 0, 6])), "size .20, 0, 6. of mip 0 is not three", "an axis of length 0"),
    (lambda p: edited(em(p), scale(chunk_sizes=[[0, 1, 1]])), "chunk size .0, 1, 1. of mip 0", "chunks of nothing"),
    (lambda p: edited(em(p), scale(resolution=[4, 0, 40])), "resolution .40.0, 0.0, 4.0. is not three pos", "0 nm"),
    (lambda p: edited(em(p), scale(key="../em")), "no key below the folder", "an escape"),
    (lambda p: edited(em(p), scale(voxel_offset=[0.5, 0, 0])), "voxel_offset .0.5, 0, 0. of mip 0", "half a voxel"),
    (lambda p: edited(em(p), lambda i: i.update(num_channels=3)), "has 3 channels .RGB", "RGB"),
    (lambda p: edited(em(p), lambda i: i.update(data_type="complex64")), "data_type 'complex64' is", "complex"),
    (lambda p: em(p, voxels=VOLUME.astype("f4")), "is float32, images are uint8", "float"),
    (
        lambda p: edited(em(p), scale(size=[2**17, 2**17, 2**12])),
        "is missing inside the bounds",
        "64 TiB, little there",
    ),
    (lambda p: edited(em(p), scale(chunk_sizes=[[2**17] * 3])), "more than 2 GiB each", "2 PiB in a chunk"),
    (lambda p: emptied(em(p)), "is missing inside the bounds", "no chunk at all"),
    (lambda p: shortened(em(p)), "cannot be read .ValueError", "half a chunk"),
    (lambda p: shortened(em(p, compress="gzip")), "cannot be read .*try again, or copy", "half a compressed chunk"),
    (lambda p: cut(n5(p / "x.n5")), "attributes.json is not JSON", "truncated attributes"),
    (lambda p: edited(n5(p / "x"), lambda a: a.update(dimensions=[20, 0, 6])), "holds no voxel", "N5 of length 0"),
    (lambda p: edited(n5(p / "x"), lambda a: a["compression"].update(type="y")), "opened as n5", "unknown compression"),
    (
        lambda p: edited(n5(p / "x"), lambda a: a.update(blockSize=[2**17] * 3)),
        "cannot be opened as n5",
        "2 PiB in a block",
    ),
    (lambda p: emptied(n5(p / "x")), "holds no data", "an N5 without a block"),
    (lambda p: shortened(n5(p / "x")), "cannot be read", "half a block"),
    (lambda p: n5(p / "x", dtype="float32"), "is float32, images are uint8", "float in N5"),
    (
        lambda p: n5(p / "x", {"pixelResolution": {"unit": "nm", "dimensions": [4, 5]}}),
        "Resolution .5.0, 4.0. is not three positive",
        "two numbers",
    ),
    (lambda p: n5(p / "x", {"transform": {"axes": []}}), "not as N5 tools write them", "half a transform"),
    (lambda p: n5(p / "x.n5/raw").parent, "is a group, not an array: name as dataset one of raw", "a group"),
    (lambda p: vast(p / "x", 0), "holds no data, nothing was ever written", "64 TiB of nothing"),
    (lambda p: vast(p / "x", 1), "at most 2097152 are planned: enlarge ingest.shard", "64 TiB of nearly nothing"),
]


@pytest.mark.parametrize(("make", "reason", "why"), BAD, ids=[why for *_, why in BAD])
def test_bad_sources_are_refused_in_one_line_before_anything_is_written(tmp_path, make, reason, why):
    path = make(tmp_path)
    with pytest.raises(ValueError, match=reason) as refusal:
        ingest(settings(path, voxel_size_nm=None if "x" not in path.name else [40, 5, 4]), tmp_path / "out/hr.json")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out").exists()


ADDRESSES = [
    ("graphene://https://x.org/segmentation/table/y", "graphene is unverified"),
    ("gs://bucket/em", "write precomputed://"),
    ("precomputed://ftp://x.org/em", "scheme 'ftp' is unknown: use file, gs, s3, https, http"),
    ("precomputed://https://x.org/em?token=hunter2", "holds a query or a login"),
    ("precomputed://https://me:hunter2@x.org/em", "holds a query or a login"),
    ("precomputed://https://", "names no folder"),
    ("precomputed://https://x.org/a\nb", "names no folder, or has blanks"),
]


@pytest.mark.parametrize(("address", "reason"), ADDRESSES)
def test_addresses_that_are_not_read_are_one_line_without_secrets(address, reason):
    values = yaml.safe_load((Path(__file__).parents[1] / "config.yaml").read_text())
    volume = {"hr": {"path": address}, "degradation": {"kernel": "area"}}
    config = {**values, "volumes": {"far": volume}, "trainings": {}}
    for refused in (lambda: open_source(address), lambda: parse(config)):
        with pytest.raises(ValueError, match=reason) as refusal:
            refused()
        assert "\n" not in str(refusal.value)
        assert "hunter2" not in str(refusal.value)
