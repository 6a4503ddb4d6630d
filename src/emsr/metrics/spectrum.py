"""Fourier ring correlation of sections, and the resolution in nanometres up to which they agree.

Saxton & Baumeister 1982; van Heel & Schatz 2005. Sections lose their mean and are weighted by a Hann window. Between
sr and hr it says up to which detail sr agrees with hr; it is not the resolution of an image from two exposures.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

Criterion = Literal["1/7", "half-bit"]
OCTAVES = (0.0, 0.125, 0.25, 0.5, 1.0)

STATED: dict[str, object] = {
    "frc": "agreement of two images of one section, mean over sections; not a two-exposure resolution; blind to "
    "contrast, so an image that is only blurred agrees as far as rounding and noise let it",
    "weights": "mean removed, Hann window along y and x",
    "rings": "as wide as one period over the shorter side of the section, up to the sampling limit 1 / (2 voxels)",
    "resolution": "1 / frequency where the curve first falls below the criterion, linear between rings; null where it "
    "does not fall (agreement up to the sampling limit) or never is above",
    "half_bit": "van Heel & Schatz 2005, with half of a ring's samples, which are independent, of one section",
}
"""What the figures are, in words that go beside them."""


@dataclass(frozen=True, eq=False)
class Rings:
    """Frequencies of a section's spectrum by ring: ``index`` (y, x) int, 0 for what belongs to no ring.

    ``frequency`` (rings,) is the middle of rings 1, 2, ... in periods per nm; ``samples`` (rings,) their sizes;
    ``limit`` is the sampling limit (Nyquist frequency) of the longer side of a voxel.
    """

    index: np.ndarray
    frequency: np.ndarray
    samples: np.ndarray
    limit: float


def rings(shape: tuple[int, int], voxel_size: tuple[float, float]) -> Rings:
    """Rings for sections of ``shape`` (y, x) with voxels of ``voxel_size`` nm (y, x).

    Raises ValueError for voxels without size and for sections shorter than 8 pixels.
    """
    if min(voxel_size) <= 0:
        raise ValueError(f"voxel size {voxel_size} must be two lengths in nm above 0 (y, x)")
    if min(shape) < 8:
        raise ValueError(f"section of {shape} pixels has too few rings: give at least 8 x 8")
    y, x = (np.fft.fftfreq(length, size) for length, size in zip(shape, voxel_size, strict=True))
    width = 1 / min(length * size for length, size in zip(shape, voxel_size, strict=True))
    limit = 1 / (2 * max(voxel_size))
    index = np.rint(np.hypot(y[:, None], x[None, :]) / width).astype(np.int64)
    last = math.floor(limit / width + 1e-9)
    index[index > last] = 0
    samples = np.bincount(index.ravel(), minlength=last + 1)[1:]
    return Rings(index, np.arange(1, last + 1) * width, samples, limit)


def correlation(a: np.ndarray, b: np.ndarray, of: Rings) -> np.ndarray:
    """Fourier ring correlation of two sections (y, x), float64 (rings,), -1 to 1; 0 where a ring holds no signal.

    Re(sum A B*) / sqrt(sum |A|^2 sum |B|^2) over each ring. Raises ValueError for sections of another shape and for a
    constant section, which correlates with nothing.
    """
    if a.shape != b.shape or a.shape != of.index.shape:
        raise ValueError(f"sections {a.shape} and {b.shape} must both be {of.index.shape} (y, x) as the rings")
    spectra = [_spectrum(section) for section in (a, b)]
    cross, *power = (
        np.bincount(of.index.ravel(), (one * other.conj()).real.ravel(), len(of.frequency) + 1)[1:]
        for one, other in (spectra, [spectra[0]] * 2, [spectra[1]] * 2)
    )
    scale = np.sqrt(power[0] * power[1])
    return np.where(scale > 0, cross / np.where(scale > 0, scale, 1), 0.0)


def _spectrum(section: np.ndarray) -> np.ndarray:
    """Spectrum (y, x) of a section without its mean under a Hann window."""
    values = section.astype(np.float64)
    if values.min() == values.max():
        raise ValueError(f"section is {values.flat[0]:g} everywhere and has no spectrum: leave it out as damaged")
    # periodic: of its spectrum only three frequencies a side are not 0
    weights = [0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length) for length in section.shape]
    return np.asarray(np.fft.fft2((values - values.mean()) * weights[0][:, None] * weights[1]))


@dataclass(frozen=True, eq=False)
class Curve:
    """Correlations summed over ``sections``; curves of other sections of one shape and voxel size add up."""

    of: Rings
    total: np.ndarray
    sections: int

    def __add__(self, other: Curve) -> Curve:
        if not np.array_equal(self.of.frequency, other.of.frequency):
            raise ValueError(f"rings of {self.of.index.shape} and {other.of.index.shape} sections do not add up")
        return Curve(self.of, self.total + other.total, self.sections + other.sections)

    @property
    def mean(self) -> np.ndarray:
        """Mean correlation over the sections, float64 (rings,)."""
        return self.total / self.sections


def ring_correlation(pairs: Iterable[tuple[np.ndarray, np.ndarray]], voxel_size: tuple[float, float]) -> Curve:
    """The curve of pairs of sections (y, x) of one shape, read one after the other; ValueError without any."""
    of, total, sections = None, np.zeros(0), 0
    for a, b in pairs:
        of = of or rings((a.shape[0], a.shape[1]), voxel_size)
        total = correlation(a, b, of) + (total if sections else 0)
        sections += 1
    if of is None:
        raise ValueError("no section to correlate: every test section is damaged or missing")
    return Curve(of, total, sections)


def thresholds(of: Rings, criterion: Criterion) -> np.ndarray:
    """What the correlation is held against in each ring, float64 (rings,).

    1/7 (Rosenthal & Henderson 2003, who round it to 0.143) or the half-bit curve (van Heel & Schatz 2005) for half
    of a ring's samples, since the other half are their conjugates.
    """
    if criterion == "1/7":
        return np.full(len(of.frequency), 1 / 7)
    if criterion != "half-bit":
        raise ValueError(f"criterion {criterion!r} must be '1/7' or 'half-bit'")
    root = np.sqrt(of.samples / 2)
    return (0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root)


@dataclass(frozen=True)
class Resolution:
    """``nm`` is the period up to which the curve holds; where None, ``reason`` says why.

    ``limit_nm`` is the finest period that the voxels can hold, two voxels; ``at_limit`` says that the curve holds up to
    it, so that ``nm`` is None because it is at most that.
    """

    nm: float | None
    limit_nm: float
    reason: str | None = None
    at_limit: bool = False


def resolution(curve: Curve, criterion: Criterion = "1/7") -> Resolution:
    """Where the mean curve first falls below the criterion, as a period in nm."""
    above = curve.mean - thresholds(curve.of, criterion)
    limit = 1 / curve.of.limit
    fallen = np.flatnonzero(above < 0)
    if not fallen.size:
        return Resolution(None, limit, f"the correlation stays above {criterion} up to the sampling limit", True)
    if fallen[0] == 0:
        return Resolution(None, limit, f"the correlation is below {criterion} from the first ring on")
    last, first = fallen[0] - 1, fallen[0]
    part = above[last] / (above[last] - above[first])
    low, high = curve.of.frequency[last], curve.of.frequency[first]
    return Resolution(float(1 / (low + part * (high - low))), limit)


def bands(curve: Curve, edges: Sequence[float] = OCTAVES) -> list[float | None]:
    """Mean correlation over the samples of each band; None for a band without a ring.

    ``edges`` rise from at least 0 to at most 1, the sampling limit; a band holds the rings above its lower edge up to
    its upper one. Of scale s, what lies above 1 / s is what lr cannot hold.
    """
    if len(edges) < 2 or edges[0] < 0 or edges[-1] > 1 or any(low >= high for low, high in pairwise(edges)):
        raise ValueError(f"edges {tuple(edges)} of bands must rise within 0 to 1, parts of the sampling limit")
    part = curve.of.frequency / curve.of.limit
    inside = [(part > low + 1e-9) & (part <= high + 1e-9) for low, high in pairwise(edges)]
    return [
        float(np.average(curve.mean[band], weights=curve.of.samples[band])) if band.any() else None for band in inside
    ]
