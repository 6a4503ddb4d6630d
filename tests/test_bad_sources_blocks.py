"""Bad input of N5 and precomputed; see test_bad_sources.py for what is where and which cases cannot be."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bad_sources import (
    FINE,
    FLOATS,
    GZIPPED,
    IMAGES,
    SIGNED,
    SIZE,
    VOLUME,
    Row,
    check_row,
    edited,
    ids,
    n5,
    precomputed,
    sharded,
    spoilt,
    torn,
    without,
)
from image_files import cut

BOMB = gzip.compress(bytes(2**20)) * 3000 + gzip.compress(b"")[:-4] + struct.pack("<I", 3 * 2**30)  # 3 MB
FIRST = "4_5_40/5-21_6-22_7-11"  # chunk of `precomputed`


def n5_of(**values: Any) -> Callable[[Path], Path]:
    """An N5 whose attributes say something else."""
    return lambda folder: edited(n5(folder), "attributes.json", lambda said: said.update(values))


def scale_of(**values: Any) -> Callable[[Path], Path]:
    """A precomputed volume whose scale is said to be another."""
    return lambda folder: edited(precomputed(folder), "info", lambda info: info["scales"][0].update(values))


def header(side: int) -> Callable[[bytes], bytes]:
    """A block of N5 that says it has other sides."""
    return lambda block: block[:4] + struct.pack(">3I", side, side, side) + block[16:]


def sharding_of(**values: Any) -> Callable[[Path], Path]:
    return lambda folder: edited(sharded(folder), "info", lambda info: info["scales"][0]["sharding"].update(values))


ROWS: list[Row] = [
    ("N5", "truncated", lambda p: torn(n5(p), "attributes.json"), SIZE, "is not JSON .*: copy"),
    ("N5", "empty", lambda p: torn(n5(p), "attributes.json", 0), SIZE, "is not JSON .*: copy"),
    ("N5", "half a block", lambda p: torn(n5(p), "0/0/0", 30), SIZE, '"0/0/0": .*: copy it again'),
    ("N5", "a bomb", lambda p: spoilt(n5(p), "0/0/0", lambda b: b[:16] + GZIPPED), SIZE,
     "End of data expected; at byte .*: copy it again"),
    ("N5", "a vast block", lambda p: spoilt(n5(p), "0/0/0", header(2**31)), SIZE, "exceeds blockSize.*: copy it again"),
    ("N5", "a small block", lambda p: spoilt(n5(p), "0/0/0", header(1)), SIZE, "End of data expected.*: copy it again"),
    *(("N5", f"blocks of {side}", n5_of(blockSize=[side, 16, 2]), SIZE, 'opened as n5 .*"blockSize".*: copy')
      for side in (-16, 0, 2**31)),
    ("N5", "two axes", lambda p: n5(p, VOLUME[0]), SIZE, "is one section, not a volume: stack sections"),
    ("N5", "two channels", lambda p: n5(p, np.stack([VOLUME] * 2)), SIZE, "has 4 axes: keep one channel"),
    ("N5", "RGB", lambda p: n5(p, np.stack([VOLUME] * 3)), SIZE, "has 4 axes: keep one channel"),
    ("N5", "an axis of length 0", n5_of(dimensions=[50, 0, 5]), SIZE, "holds no voxel: an axis has"),
    ("N5", "an axis below 0", n5_of(dimensions=[50, -1, 5]),
     SIZE, 'cannot be opened as n5 .*"dimensions".*: copy it again'),
    ("N5", "float", lambda p: n5(p, FLOATS), SIZE, f"is float32, {IMAGES}"),
    ("N5", "signed", lambda p: n5(p, SIGNED), SIZE, f"is int8, {IMAGES}"),
    ("N5", "an unknown type", n5_of(dataType="char"), SIZE,
     'cannot be opened as n5 .*"dataType".*: copy it again'),
    ("N5", "nothing stored", lambda p: without(n5(p), "*/*/*"), SIZE, "holds no data, .*: write or copy it"),
    ("N5", "10^12 sections", n5_of(dimensions=[50, 40, 10**12]),
     SIZE, "shards of .* at most 2097152 are planned: enlarge"),
    ("N5", "64 TiB, large shards", n5_of(dimensions=[2**16, 2**16, 2**14]), SIZE | FINE,
     "declares 70368744177664 bytes .* are stored: copy it again"),
    ("precomputed", "truncated", lambda p: torn(precomputed(p), "info"), {}, "is not JSON .*: copy"),
    ("precomputed", "empty", lambda p: torn(precomputed(p), "info", 0), {}, "is not JSON .*: copy"),
    ("precomputed", "half a chunk", lambda p: torn(precomputed(p), FIRST, 9), {}, f"{FIRST}.*: try again"),
    ("precomputed", "an empty chunk", lambda p: torn(precomputed(p), FIRST, 0), {}, f"{FIRST} is missing"),
    ("precomputed, gzip", "half a chunk", lambda p: torn(precomputed(p, compress="gzip"), f"{FIRST}.gz", 99), {},
     rf"99 bytes of gzip cannot hold \d+, chunk {FIRST}.: try again, or copy the volume again"),
    ("precomputed, gzip", "a few bytes", lambda p: torn(precomputed(p, compress="gzip"), f"{FIRST}.gz", 9), {},
     rf"9 bytes of gzip cannot hold \d+, chunk {FIRST}.: try again"),
    ("precomputed, gzip", "a bomb", lambda p: spoilt(precomputed(p, compress="gzip"), f"{FIRST}.gz",
     lambda _: BOMB), {},
     f"bytes of gzip cannot hold 3221225472, chunk {FIRST}.: try again"),
    ("precomputed, gzip", "an empty chunk", lambda p: torn(precomputed(p, compress="gzip"), f"{FIRST}.gz", 0), {},
     f"zero bytes.* chunk {FIRST}.: try again, or copy"),
    ("precomputed, JPEG", "half a chunk", lambda p: torn(precomputed(p, encoding="jpeg"), FIRST, 400),
     {}, f"Premature end of JPEG file, chunk {FIRST}.: try again"),
    ("precomputed in shards", "half a shard", lambda p: cut(sharded(p) / "4_4_40/0.shard", 0.2).parents[1], {},
     r"0.shard\): try again, or copy the volume again"),
    ("precomputed", "a missing chunk", lambda p: without(precomputed(p), FIRST), {},
     f"chunk {FIRST} is missing inside the bounds, empty, or may not be read: complete the copy, or state a region"),
    ("precomputed, gzip", "a missing chunk", lambda p: without(precomputed(p, compress="gzip"), f"{FIRST}.gz"), {},
     f"chunk {FIRST} is missing inside the bounds, .*: complete the copy"),
    ("precomputed in shards", "a missing shard", lambda p: without(sharded(p), "4_4_40/0.shard"), {},
     "is missing inside the bounds, .*: complete the copy"),
    ("precomputed", "nothing stored", lambda p: without(precomputed(p), "4_5_40/*"), {}, "is missing inside the bound"),
    ("precomputed", "RGB", lambda p: edited(precomputed(p), "info", lambda i: i.update(num_channels=3)), {},
     r"has 3 channels \(RGB\?\): keep one channel"),
    ("precomputed", "float", lambda p: precomputed(p, FLOATS), {}, f"is float32, {IMAGES}"),
    ("precomputed", "signed", lambda p: precomputed(p, SIGNED), {}, f"is int8, {IMAGES}"),
    ("precomputed", "an unknown type", lambda p: edited(precomputed(p), "info", lambda i: i.update(data_type="c8")), {},
     "data_type 'c8' is unknown: use one of uint8"),
    ("precomputed", "an axis of length 0", scale_of(size=[50, 0, 5]), {},
     r"size \[50, 0, 5\] of mip 0 is not three whole numbers from 1 on: mend its info"),
    ("precomputed", "axes reversed", precomputed, {"voxel_size_nm": [4, 5, 40]}, r"\(reversed axes\?\): correct"),
    ("precomputed", "10^45 voxels", scale_of(size=[10**15] * 3), {},
     "from voxel_offset .* on goes beyond 2147483647: mend its info"),
    ("precomputed", "64 TiB", scale_of(size=[2**16, 2**16, 2**14]), {},
     "is missing inside the bounds, .*: complete the copy"),
    ("precomputed", "chunks of 2 PiB", scale_of(chunk_sizes=[[2**17] * 3]), {},
     "more than 2 GiB each: write smaller chunks"),
    ("precomputed in shards", "an index of 2^64 bytes", sharding_of(minishard_bits=60), {},
     "minishard_bits 60, not a whole number from 0 to 22: mend its info"),
    ("precomputed in shards", "an index below 0", sharding_of(minishard_bits=-1), {},
     "minishard_bits -1, not a whole number from 0 to 22: mend its info"),
    ("precomputed in shards", "an unknown hash", sharding_of(hash="md5"), {},
     "hash 'md5', not identity or murmurhash3_x86_128: mend its info"),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=ids(ROWS))
def test_a_bad_source_is_one_line_before_anything_is_written(tmp_path, capfd, row):
    check_row(row, tmp_path, capfd)
