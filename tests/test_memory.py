"""Ingest, pyramid and degrade hold a few shards a worker, however large the volume is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

SHARD, CHUNK, WORKERS = (16, 256, 256), (8, 64, 64), 2
RUN = """
import json, sys
import emsr.stores.hdf, emsr.stores.pyramid, emsr.stores.sections, emsr.degradation, emsr.damage
from emsr.steps.data import degrade, ingest

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024

emsr.stores.hdf.CACHE_BYTES = 2**20  # a bound of its own, which HDF5 uses up whatever it reads
layout, path, before = json.loads(sys.argv[1]), sys.argv[2], peak()
source = {"path": path + "/x.h5", "dataset": "volumes/raw", "voxel_size_nm": None}
ingest({"image": "hr", "source": source, "region": None, **layout}, path + "/hr.json", workers=layout["workers"])
kernel = {"scale": 4, "degradation": {"kernel": "bicubic"}}
degrade({**kernel, **layout}, path + "/hr.json", path + "/lr_x4.json", workers=layout["workers"])
print(peak() - before)
"""


def noise(path: Path, shape: tuple[int, int, int]) -> None:
    """A volume of voxels that do not compress, written slab by slab."""
    slab = np.random.default_rng(0).integers(0, 256, (16, *shape[1:]), dtype=np.uint8)
    with h5py.File(path, "w") as file:
        raw = file.create_dataset("volumes/raw", shape, "u1", chunks=(16, 128, 128))
        raw.attrs["resolution"] = (40.0, 4.0, 4.0)
        for z in range(0, shape[0], 16):
            raw[z : z + 16] = slab[: shape[0] - z]


def bound_mib(shape: tuple[int, int, int]) -> float:
    """The promise: 64 MiB, sixteen shards a worker, 10 KiB a section, besides unpacked chunks of the source."""
    return 64 + WORKERS * 16 * np.prod(SHARD) / 2**20 + 10 * shape[0] / 1024


SIZES = [
    ((64, 512, 512), "16 MiB"),
    ((640, 512, 512), "ten times as deep"),
    ((64, 1600, 1632), "ten times as wide"),
]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured by Linux")
@pytest.mark.parametrize(("shape", "why"), SIZES, ids=[why for _, why in SIZES])
def test_peak_memory_does_not_grow_with_the_volume(tmp_path, shape, why):
    noise(tmp_path / "x.h5", shape)
    layout = json.dumps({"shard": SHARD, "chunk": CHUNK, "workers": WORKERS})
    command = [sys.executable, "-c", RUN, layout, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    used = float(done.stdout)
    assert used < bound_mib(shape), f"{used:.0f} MiB for {np.prod(shape) / 2**20:.0f} MiB of voxels"
    assert json.loads((tmp_path / "lr_x4.json").read_text())["shape"] == [shape[0], shape[1] // 4, shape[2] // 4]
