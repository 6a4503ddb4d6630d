"""A volume whose coarse and fine sections were imaged apart, in a space that is known exactly, as a project."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from emsr import degradation
from tiny_project import tiny_config

SCALE, DEPTH = 4, 9
LR_SIDES, LR_NM = (60, 56), 32.0
HR_SIDES, HR_NM = (238, 226), 8.2  # stated; sections were taken 1 % larger or smaller than that
WARPS = [(0.3 * z - 2.35, 0.2 * z - 1.7, 0.6 - 0.1 * z, 1.01 - 0.002 * z) for z in range(DEPTH)]
"""Of each section: shift along y and x in lr pixels, rotation in degrees, scale, about the middle."""
BENT = 8  # the section that a similarity brings only near the other
TEST = [[7, 9]]


@cache
def _waves() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(5)
    length = 2 * np.pi / np.exp(draw.uniform(np.log(40), np.log(500), 90))  # periods in nm
    return length * np.exp(1j * draw.uniform(0, 2 * np.pi, 90)), draw.uniform(0, 2 * np.pi, 90), draw.normal(0, 0.4, 90)


def tissue(at: np.ndarray, z: int) -> np.ndarray:
    """Grey levels around 128 at positions x + iy in nm from the middle; sections resemble their neighbours."""
    wave, phase, drift = _waves()
    parts = zip(wave, phase, drift, strict=True)
    return 128 + 32 * sum(np.cos(w.real * at.real + w.imag * at.imag + p + d * z) for w, p, d in parts) / np.sqrt(45)


def positions(sides: tuple[int, int], size: float) -> np.ndarray:
    """Centres of pixels of ``size`` nm, from the middle of an image of ``sides`` (y, x)."""
    y, x = ((np.arange(side) + 0.5 - side / 2) * size for side in sides)
    return x[None, :] + 1j * y[:, None]


def in_lr(at: np.ndarray, z: int) -> np.ndarray:
    """Where a place of hr lies in lr, both in nm from the middle."""
    y, x, degrees, scale = WARPS[z]
    return scale * np.exp(1j * np.deg2rad(degrees)) * at + LR_NM * complex(x, y)


def grey(values: np.ndarray, noise: float, seed: int) -> np.ndarray:
    noisy = values + np.random.default_rng(seed).normal(0, noise, values.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def lr_section(z: int) -> np.ndarray:
    fine = tissue(positions((LR_SIDES[0] * SCALE, LR_SIDES[1] * SCALE), LR_NM / SCALE), z)
    return grey(0.8 * degradation.degrade(fine, SCALE, "area") + 20, 3, z)


def hr_section(z: int) -> np.ndarray:
    at = in_lr(positions(HR_SIDES, HR_NM), z)
    if z == BENT:
        at = at + 14 * np.sin(at.real / 110) * np.exp(1j * at.imag / 130)
    return grey(tissue(at, z), 4, 100 + z)


def cells(at: np.ndarray, z: int) -> np.ndarray:
    """The cell at positions x + iy in nm from the middle: slanted columns about 200 nm wide; ids no float holds."""
    y, x = (np.floor((along + 9 * z) / 200).astype(np.int64) + 50 for along in (at.imag, at.real))
    return (2**60 + 1 + 100 * y + x).astype(np.uint64)  # type: ignore[no-any-return]


def hr_labels(z: int) -> np.ndarray:
    return cells(in_lr(positions(HR_SIDES, HR_NM), z), z)


def write(folder: Path) -> None:
    """hr, lr and labels of the project."""
    with h5py.File(folder / "pair.h5", "w") as file:
        file["hr"] = np.stack([hr_section(z) for z in range(DEPTH)])
        file["lr"] = np.stack([lr_section(z) for z in range(DEPTH)])
        file["labels"] = np.stack([hr_labels(z) for z in range(DEPTH)])


def config() -> dict[str, Any]:
    """One volume of both images, a tiny network that is trained on it, and test sections."""
    made = tiny_config()
    made["jobs"] = 1
    sizes = {"hr": HR_NM, "lr": LR_NM}
    images = {
        name: {"path": "pair.h5", "dataset": name, "voxel_size_nm": [40, size, size]} for name, size in sizes.items()
    }
    pair = {**images, "registration": {"limit_nm": 16.0, "kernel": "area"}, "weights": "tiny", "test": TEST}
    made["volumes"] = {"pair": pair}
    model = {"name": "edsr", "preset": "small", "options": {"width": 4, "blocks": 1}}
    stage = {"steps": 2, "batch": 1, "patch": 12, "warmup": 0, "validate_every": 2, "checkpoint_every": 1}
    made["trainings"]["tiny"] |= {
        **{"model": model, "stages": {"image": {**stage, "precision": "float32"}}, "window": 32},
        "data": [{"volume": "pair", "train": [[0, 3]], "validation": [[4, 5]]}],
    }
    return made
