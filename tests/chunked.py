"""Small chunked volumes on disk, written by others' libraries, and what ingest is told of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tensorstore as ts
from cloudvolume import CloudVolume

SHAPE = (6, 30, 20)
BLOCKS = {"dimensions": [20, 30, 6], "blockSize": [16, 16, 4], "compression": {"type": "gzip"}}
VOLUME = np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)


def n5(
    folder: Path, attributes: dict | None = None, dtype: str = "uint8", voxels: np.ndarray = VOLUME, **metadata
) -> Path:
    spec = {"driver": "n5", "kvstore": {"driver": "file", "path": f"{folder}/"}}
    spec["metadata"] = {**BLOCKS, "dimensions": voxels.T.shape, "dataType": dtype, **metadata}
    ts.open(spec, create=True).result()[...] = voxels.T.astype(dtype)
    said = json.loads((folder / "attributes.json").read_text())
    (folder / "attributes.json").write_text(json.dumps({**said, **(attributes or {})}))
    return folder


def precomputed(folder: Path, voxels: np.ndarray = VOLUME, **how) -> Path:
    """A volume at offset (x 5, y 6, z 7), as cloud-volume writes it."""
    how = {"compress": False, "encoding": "raw", "layer_type": "image", "chunk_size": (16, 16, 4), **how}
    compress = how.pop("compress")
    info = CloudVolume.create_new_info(
        num_channels=1,
        data_type=voxels.dtype.name,
        resolution=(4, 5, 40),
        voxel_offset=(5, 6, 7),
        volume_size=voxels.T.shape,
        **how,
    )
    volume = CloudVolume(f"file://{folder}", info=info, compress=compress, progress=False)
    volume.commit_info()
    volume[:] = voxels.T[..., None]
    return folder


def settings(path: Path | str, **source) -> dict:
    stated = {"path": str(path), "dataset": None, "voxel_size_nm": None, **source}
    return {"image": "hr", "source": stated, "region": None, "shard": [4, 16, 16], "chunk": [4, 8, 8]}
