"""Image files for tests, as their own libraries write them."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import tifffile
from PIL import Image

SHAPE = (5, 40, 50)


def voxels(dtype: str = "uint8", shape=SHAPE) -> np.ndarray:
    top = 60000 if dtype == "uint16" else 256
    return np.random.default_rng(0).integers(0, top, shape).astype(dtype)


def tiff(path: Path, volume: np.ndarray | None = None, **how) -> Path:
    volume = voxels() if volume is None else volume
    tifffile.imwrite(path, volume, **{"photometric": "minisblack", **how})
    return path


def pages(path: Path, sections, **how) -> Path:
    """A page a section, each written for itself, without metadata."""
    with tifffile.TiffWriter(path, bigtiff=how.pop("bigtiff", False)) as writer:
        for section in sections:
            writer.write(section, metadata=None, contiguous=False, photometric="minisblack", **how)
    return path


def folder(path: Path, volume: np.ndarray | None = None, name: str = "s_{:02}.png", **how) -> Path:
    """A file a section, called by its number."""
    path.mkdir(parents=True, exist_ok=True)
    for z, section in enumerate(voxels() if volume is None else volume):
        file = path / name.format(z)
        tiff(file, section, **how) if file.suffix == ".tif" else Image.fromarray(section).save(file, **how)
    return path


def mrc(path: Path, volume: np.ndarray | None = None, **header) -> Path:
    """Header fields by name; voxel_size in angstrom, x y z."""
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(voxels("uint16") if volume is None else volume)
        file.voxel_size = header.pop("voxel_size", 0)
        for key, value in header.items():
            file.header[key] = value
    return path


def patched(path: Path, offset: int, data: bytes) -> Path:
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(data)
    return path


def cut(path: Path, part: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    return path
