"""Which sections of a volume are damaged: black, saturated, without content, or unlike their neighbours.

Everything is judged by the volume's own habits, so that a constant, dark or noisy volume is not damaged as a whole. A
section is compared with its neighbours on a coarse band-pass image (at most 64 x 64 block means, smoothed, background
subtracted): block means survive shot noise and drift of some pixels, correlation survives contrast changes, and the
background is subtracted because uneven lighting correlates between any two sections. Measured: neighbours correlate
0.99 (FIB-SEM, 10 nm), 0.93 (every fourth of them), 0.81 (serial ssTEM sections, 47.5 nm, drift of up to 5 pixels);
sections of another place at most 0.3, noise at most 0.15.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_opening, find_objects, gaussian_filter, label

BLOCKS = 64  # block means along the longer side of a section
FINE, COARSE = 1.0, 6.0  # sigma in blocks: what is smoothed away, and the background that is subtracted
NEAR_LIMIT = 2  # grey levels from the end of the range that count as black or saturated
FILLED = 0.95  # part of a section at one end of the range that makes it black or saturated
FAR_BELOW = 0.5  # part of the volume's own correlation under which a section is unlike its neighbours
DEVIATIONS = 6.0  # and so many robust standard deviations below it
LEAST_DEVIATION = 0.02
LEAST_BLOCKS = 4  # along y and x, of a damaged part of a section: a sixteenth of its longer side
CHANCE = 3.0  # standard deviations of a correlation by chance; the volume's own must exceed them to say anything


@dataclass(frozen=True)
class SectionStatistics:
    """What is kept of a section: parts of its voxels that are black and saturated, extremes, band-pass image, and for
    each block (y, x) -1 where its mean is black, 1 where it is saturated, else 0.
    """

    black: float
    saturated: float
    lowest: int
    highest: int
    pattern: np.ndarray
    ends: np.ndarray


@dataclass(frozen=True)
class Finding:
    """Why a section is not to be trusted: `state` is one word, `reason` says what was measured."""

    state: str
    reason: str


class SectionAccumulator:
    """Statistics of sections of (y, x) voxels that arrive as bands of rows, from the top down or in any order."""

    def __init__(self, depth: int, shape: tuple[int, int], top: int = 255) -> None:
        """`depth` sections at once; `top` is the largest grey level there is."""
        self.shape, self.top = shape, top
        self.block = block_side(shape)
        blocks = [-(-side // self.block) for side in shape]
        self.sums = np.zeros((depth, *blocks))
        self.black, self.saturated = np.zeros(depth, np.int64), np.zeros(depth, np.int64)
        self.lowest, self.highest = np.full(depth, top), np.zeros(depth, np.int64)

    def add(self, first_row: int, band: np.ndarray) -> None:
        """Take in `band` (depth, rows, x) of grey levels, whose first row is row `first_row` of the sections."""
        for z, section in enumerate(band):
            self.lowest[z] = min(self.lowest[z], section.min())
            self.highest[z] = max(self.highest[z], section.max())
            self.black[z] += np.count_nonzero(section <= NEAR_LIMIT)
            self.saturated[z] += np.count_nonzero(section >= self.top - NEAR_LIMIT)
        rows = np.arange(first_row, first_row + band.shape[1]) // self.block
        starts, lefts = np.flatnonzero(np.diff(rows, prepend=-1)), np.arange(0, self.shape[1], self.block)
        for start, stop in itertools.pairwise([*starts, len(rows)]):
            columns = band[:, start:stop].sum(axis=1, dtype=np.uint32)  # down first, along x: several times as fast
            self.sums[:, rows[start]] += np.add.reduceat(columns, lefts, axis=1, dtype=np.int64)

    def result(self) -> list[SectionStatistics]:
        """Statistics of each section, once every row was taken in."""
        heights, widths = (_sizes(side, self.block) for side in self.shape)
        means = self.sums / np.outer(heights, widths)
        voxels = self.shape[0] * self.shape[1]
        return [
            SectionStatistics(
                float(self.black[z] / voxels),
                float(self.saturated[z] / voxels),
                int(self.lowest[z]),
                int(self.highest[z]),
                _pattern(means[z]),
                (means[z] >= self.top - NEAR_LIMIT).astype(np.int8) - (means[z] <= NEAR_LIMIT),
            )
            for z in range(len(means))
        ]


def statistics(volume: np.ndarray) -> list[SectionStatistics]:
    """Statistics of every section of a uint8 volume (z, y, x) in memory."""
    accumulator = SectionAccumulator(volume.shape[0], (volume.shape[1], volume.shape[2]))
    accumulator.add(0, volume)
    return accumulator.result()


def find(sections: Sequence[SectionStatistics], missing: Collection[int] = ()) -> dict[int, Finding]:
    """Damaged sections of a volume by z; those in `missing` hold no data and are neither judged nor compared with."""
    present = [z for z in range(len(sections)) if z not in missing]
    found = _without_content(sections, present)
    found |= _unlike(sections, [z for z in present if z not in found])
    return dict(sorted(found.items()))


def table(findings: dict[int, Finding]) -> str:
    """Tab-separated lines z, state, reason, in order of z, under a header."""
    rows = [f"{z}\t{finding.state}\t{finding.reason}" for z, finding in sorted(findings.items())]
    return "\n".join(["z\tstate\treason", *rows]) + "\n"


@dataclass(frozen=True)
class Part:
    """A damaged part of a section: its state in one word, and its box as half-open ranges of voxels (y, x)."""

    state: str
    y: tuple[int, int]
    x: tuple[int, int]


def find_parts(
    sections: Sequence[SectionStatistics], shape: tuple[int, int], bad: Collection[int] = ()
) -> dict[int, list[Part]]:
    """Black and saturated parts of sections of `shape` (y, x) that are not damaged as a whole, by z.

    `bad` are sections that are damaged or missing. A part is at least `LEAST_BLOCKS` blocks long along y and x, and its
    box is one of whole blocks; what is at that end of the range in half of the sections is the volume's own, as padding
    is.
    """
    present = [z for z in range(len(sections)) if z not in bad]
    found: dict[int, list[Part]] = {}
    for state, end in (("black", -1), ("saturated", 1)):
        at_end = {z: sections[z].ends == end for z in present}
        own = 2 * sum(part.astype(np.int64) for part in at_end.values()) >= max(len(present), 1)
        for z, part in at_end.items():
            found.setdefault(z, []).extend(Part(state, *box) for box in _boxes(part & ~own, shape))
    return {z: parts for z, parts in sorted(found.items()) if parts}


def _boxes(blocks: np.ndarray, shape: tuple[int, int]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Voxels (y, x) of the boxes around connected blocks that are wide enough."""
    if not blocks.any():
        return []  # nearly always, and looking for boxes takes its time
    block = block_side(shape)
    wide = binary_opening(blocks, np.ones((LEAST_BLOCKS, LEAST_BLOCKS)))
    found = []
    for rows, columns in find_objects(label(wide)[0]):
        y, x = (
            (along.start * block, min(along.stop * block, side))
            for along, side in zip((rows, columns), shape, strict=True)
        )
        found.append((y, x))
    return found


def parts_table(parts: Mapping[int, Sequence[Part]]) -> str:
    """Tab-separated lines z, y0, y1, x0, x1, state under a header."""
    rows = [f"{z}\t{p.y[0]}\t{p.y[1]}\t{p.x[0]}\t{p.x[1]}\t{p.state}" for z, of in parts.items() for p in of]
    return "\n".join(["z\ty0\ty1\tx0\tx1\tstate", *rows]) + "\n"


def block_side(shape: tuple[int, int]) -> int:
    """Side in voxels of a block of a section of `shape` (y, x)."""
    return max(1, -(-max(shape) // BLOCKS))


def _sizes(side: int, block: int) -> np.ndarray:
    """Lengths of the blocks of one axis; the last may be shorter."""
    return np.diff(np.append(np.arange(0, side, block), side))


def _pattern(means: np.ndarray) -> np.ndarray:
    """Block means (y, x), band-passed, with mean 0 and norm 1; all zero where there is no contrast. float16."""
    band = gaussian_filter(means, FINE) - gaussian_filter(means, COARSE)
    band -= band.mean()
    norm = float(np.linalg.norm(band))
    return (band / norm if norm > 1e-6 * means.size else np.zeros_like(band)).astype(np.float16)


def _without_content(sections: Sequence[SectionStatistics], present: Sequence[int]) -> dict[int, Finding]:
    """Black, saturated and constant sections of a volume that also has others."""
    found = {}
    black_habit = min((sections[z].black for z in present), default=1.0) < FILLED / 2
    bright_habit = min((sections[z].saturated for z in present), default=1.0) < FILLED / 2
    varied_habit = any(sections[z].lowest < sections[z].highest for z in present)
    for z in present:
        section = sections[z]
        if section.black >= FILLED and black_habit:
            found[z] = Finding("black", f"{section.black:.1%} of the voxels are black")
        elif section.saturated >= FILLED and bright_habit:
            found[z] = Finding("saturated", f"{section.saturated:.1%} of the voxels are saturated")
        elif section.lowest == section.highest and varied_habit:
            found[z] = Finding("constant", f"every voxel is {section.lowest}")
    return found


def _unlike(sections: Sequence[SectionStatistics], good: Sequence[int]) -> dict[int, Finding]:
    """Sections whose best correlation with those around them is far below the volume's own."""
    if len(good) < 3:
        return {}
    patterns = [sections[z].pattern for z in good]
    best, chance = _best_correlations(patterns), CHANCE * _correlation_by_chance(patterns)
    own = float(np.median(best))
    deviation = max(LEAST_DEVIATION, 1.4826 * float(np.median(np.abs(best - own))))
    if own < chance:
        return {}
    limit = min(FAR_BELOW * own, own - DEVIATIONS * deviation)
    if chance < FAR_BELOW * own:  # what is no more than chance is far below, however much the others differ
        limit = max(limit, chance)
    return {
        z: Finding("unlike", f"correlates {value:.2f} with its neighbours, sections of this volume {own:.2f}")
        for z, value in zip(good, best, strict=True)
        if value < limit
    }


def _correlation_by_chance(patterns: Sequence[np.ndarray]) -> float:
    """Root mean square of correlations that mean nothing: those of patterns with the mirrored next one.

    At least what independent blocks would give; a Gaussian covers 4 pi sigma^2 of them.
    """
    pairs = itertools.pairwise(patterns)
    mirrored = [_correlation(a, m) for a, b in pairs for m in (b[::-1], b[:, ::-1], b[::-1, ::-1])]
    independent = patterns[0].size / (4 * np.pi * FINE**2)
    return max(float(np.sqrt(np.mean(np.square(mirrored)))), independent**-0.5)


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two patterns, which have mean 0 and norm 1."""
    return float((one.astype(np.float32) * other.astype(np.float32)).sum(dtype=np.float64))


def _best_correlations(patterns: Sequence[np.ndarray]) -> np.ndarray:
    """For each pattern the largest correlation with one at distance 1 or 2: one damaged neighbour does not spoil it."""
    best = np.full(len(patterns), -1.0)
    for distance in (1, 2):
        for z in range(len(patterns) - distance):
            value = _correlation(patterns[z], patterns[z + distance])
            best[z], best[z + distance] = max(best[z], value), max(best[z + distance], value)
    return best
