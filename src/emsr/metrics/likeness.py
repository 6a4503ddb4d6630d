"""Whether an image looks like those that a network was trained on: figures of both, and how far they lie apart.

Frequencies are parts of the sampling limit, because that is what a network sees: for it voxels have no size. Power
spectra of tissue are nearly a power law, so an image that is truly coarser looks almost the same by its spectrum; that
is what voxel sizes are compared for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from emsr.metrics.spectrum import rings

BANDS = 16  # of equal width, from 0 to the sampling limit
LEVELS = 32  # bins of the histogram, each 8 grey levels wide
LEAST_SIDE = 32  # pixels of a patch, so that every band holds a ring
DETAIL = 2.0  # pixels, sigma of the background that is taken away before contrast is judged
FLOOR = 1e-9  # part of the variance that counts as no power

Json = Mapping[str, Any]

# Measured on lr of FIB-SEM, ssTEM and synthetic tissue at x2 to x8: other sections of one tissue lie up to 1.1 dB and 6
# grey levels apart, enlarged x1.5 5 dB, blurred by one pixel 10 dB, at 20 electrons a pixel 2 dB and 10 grey levels;
# |skew| is 0.13 to 0.33, and its sign is that of the contrast.
LIMITS = {"spectrum": 1.5, "histogram": 20.0, "voxel_size": 0.2}
SURE = 0.1  # |skew| from which on its sign says something


def looks(patches: Iterable[np.ndarray]) -> dict[str, Any] | None:
    """What ``patches`` (y, x) of uint8, all of one size, look like; None where they show nothing or are too small.

    "spectrum" (BANDS,): mean power of each band over the variance of all pixels, in decibels, under a Hann window.
    "histogram" (LEVELS,): parts of the pixels. "skew": of the image without its background, its sign is the contrast's.
    """
    seen = [patch for patch in patches if min(patch.shape) >= LEAST_SIDE]
    if not seen or not (variance := float(np.var(seen))):
        return None
    power = np.mean([_bands(patch) for patch in seen], axis=0) / variance
    detail = np.stack([patch - gaussian_filter(patch.astype(np.float64), DETAIL) for patch in seen])
    histogram = np.bincount(np.ravel(seen), minlength=256).reshape(LEVELS, -1).sum(axis=1) / np.size(seen)
    return {
        "spectrum": [round(float(value), 2) for value in 10 * np.log10(np.maximum(power, FLOOR))],
        "histogram": [round(float(value), 5) for value in histogram],
        "skew": round(float((detail**3).mean() / max((detail**2).mean() ** 1.5, FLOOR)), 3),
    }


def _bands(patch: np.ndarray) -> np.ndarray:
    """Mean power of a patch in each band, float64 (BANDS,); of white noise it is the variance."""
    of = rings((patch.shape[0], patch.shape[1]), (1.0, 1.0))
    weights = np.outer(*[0.5 - 0.5 * np.cos(2 * np.pi * np.arange(side) / side) for side in patch.shape])
    power = abs(np.fft.fft2((patch - patch.mean()) * weights)) ** 2 / (weights**2).sum()
    edges = np.ceil(of.frequency / of.limit * BANDS - 1e-9).astype(np.int64)
    band = np.concatenate([[0], edges])[of.index].ravel()
    return np.asarray(np.bincount(band, power.ravel(), BANDS + 1)[1:] / np.bincount(band, minlength=BANDS + 1)[1:])


def apart(one: Json, other: Json) -> dict[str, float]:
    """How far two looks, with "voxel_size_nm" beside their figures, lie apart; zero for equal ones.

    "spectrum": dB, mean over bands. "histogram": how many grey levels a pixel would have to move in the mean (earth
    mover's distance). "voxel_size": largest relative difference along z, y and x. "contrast": 1 where one is inverted.
    """
    a, b = (np.asarray(each["spectrum"]) for each in (one, other))
    moved = np.cumsum(np.asarray(one["histogram"]) - np.asarray(other["histogram"]))
    sizes = zip(one["voxel_size_nm"], other["voxel_size_nm"], strict=True)
    inverted = one["skew"] * other["skew"] < 0 and min(abs(one["skew"]), abs(other["skew"])) >= SURE
    return {
        "spectrum": float(abs(a - b).mean()),
        "histogram": float(abs(moved).sum() * 256 / LEVELS),
        "voxel_size": max(abs(size - seen) / seen for size, seen in sizes),
        "contrast": float(inverted),
    }


def mismatch(lr: Json, seen: Json) -> list[str]:
    """In words and figures, in what ``lr`` is unlike what was ``seen`` in training; [] where it is not."""
    found = apart(lr, seen)
    sizes = [[round(float(side), 3) for side in each["voxel_size_nm"]] for each in (lr, seen)]
    said = {
        "spectrum": f"power spectra differ by {found['spectrum']:.1f} dB (limit {LIMITS['spectrum']:g})",
        "histogram": f"grey levels by {found['histogram']:.0f} (limit {LIMITS['histogram']:g})",
        "voxel_size": f"voxel size is {sizes[0]} nm, not {sizes[1]}",
    }
    parts = [said[key] for key, limit in LIMITS.items() if found[key] > limit]
    if found["contrast"]:
        parts.append(f"contrast is inverted (skew {lr['skew']:g}, not {seen['skew']:g})")
    return parts
