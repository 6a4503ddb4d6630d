"""Two images of one section, taken apart: the similarity between them, their contrast, and how well they then agree.

Positions are complex numbers x + iy, in pixels from the corner of an image: the centre of pixel (row, column) lies at
column + 1/2 + (row + 1/2)i. So images of one place whose corners coincide need no half pixels. The fixed image stays,
the moving one is brought onto it; pixels of both are about as large.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.fft
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.signal.windows import tukey
from skimage.measure import ransac
from skimage.registration import phase_cross_correlation
from skimage.transform import SimilarityTransform

Span = tuple[int, int]  # half-open
Area = tuple[Span, Span]  # y, x

ANGLES = np.deg2rad(np.arange(-6.0, 6.1, 1.5))  # rotations that are tried
FACTORS = 1 + 0.015 * np.arange(-3, 4)  # deviations from the stated voxel sizes that are tried
LARGEST, SMALLEST = 96, 24  # sides of a tile in pixels
LEAST_SIDE = 2 * SMALLEST  # of the part that both images show
MOST_TILES = 7  # along y and x
LEAST_TILES = 6
ROUNDS = 8  # of measuring tiles and fitting them
SETTLED = 0.001  # pixels that the last fit may still move a tile
UPSAMPLED = 300  # parts of a pixel that the shift of a tile is told by
INLIER = 1.0  # pixels between a tile and a fit that it counts for
MARGIN = 12  # pixels around a tile by which the influence of a spline's ends is gone
ROBUST = 1 / math.sqrt(math.log(2))  # root mean square over median of a normal displacement in the plane
TOLERATED = 0.02  # pixels by which a border may lie outside


@dataclass(frozen=True)
class Similarity:
    """Takes position u of the fixed image to ``turn`` u + ``shift`` of the moving one: rotation, scale and shift."""

    turn: complex
    shift: complex

    def __call__(self, at: np.ndarray) -> np.ndarray:
        """Positions of the moving image for those of the fixed one."""
        return self.turn * at + self.shift

    def back(self, at: complex) -> complex:
        """The position of the fixed image for one of the moving one."""
        return (at - self.shift) / self.turn

    def scaled(self, by: float) -> Similarity:
        """The same between images with ``by`` times as many pixels along y and x."""
        return Similarity(self.turn, self.shift * by)

    def area(self, fixed: tuple[int, int], moving: tuple[float, float]) -> Area:
        """Pixels of the fixed image, an upright rectangle, that the moving one covers; shapes are (y, x)."""
        (height, width), (h, w) = fixed, moving
        nw, ne, sw, se = (self.back(at) for at in (0j, complex(w, 0), complex(0, h), complex(w, h)))
        top, bottom = max(nw.imag, ne.imag), min(sw.imag, se.imag)
        left, right = max(nw.real, sw.real), min(ne.real, se.real)
        return _whole(top, bottom, height), _whole(left, right, width)

    def around(self, area: Area) -> Area:
        """The area of the fixed image, not cut at its ends, that holds all of an area of the moving one."""
        (top, bottom), (left, right) = area
        corners = [self.back(complex(x, y)) for y in (top, bottom) for x in (left, right)]
        y, x = (
            (math.floor(min(along) + TOLERATED), math.ceil(max(along) - TOLERATED))
            for along in ([at.imag for at in corners], [at.real for at in corners])
        )
        return y, x


def between(one: Similarity, other: Similarity, part: float) -> Similarity:
    """The similarity ``part`` (0 to 1) of the way from one to the other."""
    turn, shift = ((1 - part) * a + part * b for a, b in ((one.turn, other.turn), (one.shift, other.shift)))
    return Similarity(turn, shift)


@dataclass(frozen=True)
class Image:
    """A section of ``shape`` (y, x) whose pixels ``read`` gives as float, area by area."""

    shape: tuple[int, int]
    read: Callable[[Area], np.ndarray]

    @classmethod
    def of(cls, pixels: np.ndarray) -> Image:
        """An image in memory."""
        height, width = pixels.shape
        return cls((height, width), lambda area: pixels[slice(*area[0]), slice(*area[1])])


@dataclass(frozen=True)
class Fit:
    """A similarity, and what is left: ``residual``, the robust root mean square displacement of tiles in fixed pixels.

    ``tiles`` were measured, ``agreeing`` of them lie within ``INLIER`` pixels; fixed is ``gain`` moving + ``offset``.
    """

    similarity: Similarity
    residual: float
    tiles: int
    agreeing: int
    gain: float
    offset: float


def search(fixed: np.ndarray, moving: np.ndarray, ratio: float) -> Similarity:
    """The best of a grid of rotations and scales, each with its best shift, of small images (y, x).

    ``ratio`` is the length of a fixed pixel in moving pixels by the stated voxel sizes.
    """
    fixed, moving = _pattern(fixed), _pattern(moving)
    sides = [scipy.fft.next_fast_len(math.ceil(a + 1.1 * b)) for a, b in zip(fixed.shape, moving.shape, strict=True)]
    spectrum = scipy.fft.fft2(fixed, sides)
    whole, around = Image.of(moving), ((0, moving.shape[0]), (0, moving.shape[1]))
    middle = complex(moving.shape[1], moving.shape[0]) / 2
    best, found = math.inf, Similarity(complex(ratio), 0j)
    for angle, factor in itertools.product(ANGLES, FACTORS):
        turn = ratio * factor * complex(math.cos(angle), math.sin(angle))
        centred = Similarity(turn, middle - turn * middle)
        turned = scipy.fft.fft2(moved(whole, centred, around), sides)
        (y, x), error, _ = phase_cross_correlation(spectrum, turned, space="fourier", normalization=None)
        if error < best:
            best, found = error, Similarity(turn, centred.shift - turn * complex(x, y))
    return found


def refine(fixed: Image, moving: Image, start: Similarity) -> Fit | None:
    """Measure shifts of tiles and fit them robustly, again and again, from a similarity that is right to some pixels.

    None where the images share too little, or too few tiles show anything.
    """
    similarity = start
    for remaining in reversed(range(ROUNDS)):
        pairs = list(_pairs(fixed, moving, similarity))
        if len(pairs) < LEAST_TILES:
            return None
        centres = np.array([centre for centre, *_ in pairs])
        shifts = np.array([_shift(still, other) for _, still, other in pairs])
        fitted = _fit(centres, similarity(centres - shifts)) if remaining else None
        if fitted is None or np.abs(fitted(centres) - similarity(centres)).max() < SETTLED:
            break
        similarity = fitted
    still, other = (np.concatenate(tiles) for tiles in list(zip(*pairs, strict=True))[1:])
    gain, offset = contrast(still.ravel(), other.ravel())
    residual = ROBUST * float(np.median(np.abs(shifts)))
    return Fit(similarity, residual, len(pairs), int((np.abs(shifts) < INLIER).sum()), gain, offset)


def contrast(fixed: np.ndarray, moving: np.ndarray) -> tuple[float, float]:
    """Gain and offset that take grey levels of the moving image to those of the fixed one; outliers are left out."""
    keep = np.full(fixed.shape, True)
    for _ in range(3):
        gain, offset = np.polyfit(moving[keep], fixed[keep], 1)
        error = np.abs(fixed - gain * moving - offset)
        keep = error <= 4.5 * np.median(error) + 1e-6  # three robust standard deviations
    return float(gain), float(offset)


def positions(similarity: Similarity, area: Area) -> np.ndarray:
    """Positions of the moving image (y, x), complex, for the pixels of an area of the fixed one."""
    rows, columns = (np.arange(low, high) + 0.5 for low, high in area)
    return similarity(columns[None, :] + 1j * rows[:, None])


def moved(moving: Image, similarity: Similarity, area: Area) -> np.ndarray:
    """The moving image at the pixels of an area of the fixed one, as float, by a cubic spline; its edges go on."""
    at = positions(similarity, area)
    box: list[Span] = []
    for places, length in zip((at.imag, at.real), moving.shape, strict=True):
        low = min(max(math.floor(places.min()) - MARGIN, 0), length - 1)
        box.append((low, max(low + 1, min(math.ceil(places.max()) + MARGIN, length))))
    (top, bottom), (left, right) = box
    part = moving.read(((top, bottom), (left, right)))
    return map_coordinates(part, [at.imag - 0.5 - top, at.real - 0.5 - left], np.float64, order=3, mode="nearest")


def _whole(low: float, high: float, length: int) -> Span:
    """The whole pixels between two positions of an axis; none is (low, low)."""
    first = min(max(math.ceil(low - TOLERATED), 0), length)
    return first, max(first, min(math.floor(high + TOLERATED), length))


def _pattern(image: np.ndarray) -> np.ndarray:
    """The image without noise and background, of mean 0, faded out at its borders; outliers are cut off."""
    band = gaussian_filter(image, 1.0) - gaussian_filter(image, 8.0)
    spread = 3 * float(band.std())
    return np.clip(band, -spread, spread) * _window(image.shape, 0.2)


def _window(shape: tuple[int, ...], fade: float) -> np.ndarray:
    """1 in the middle, falling to 0 over the ``fade`` part of the sides (Tukey's window)."""
    return np.outer(*(tukey(side + 2, fade)[1:-1] for side in shape))


def _fit(centres: np.ndarray, targets: np.ndarray) -> Similarity | None:
    """The similarity that takes most centres to their targets; None where there is none."""
    source, goal = (np.stack([at.real, at.imag], axis=1) for at in (centres, targets))
    model, _ = ransac((source, goal), SimilarityTransform, min_samples=2, residual_threshold=INLIER, rng=0)
    if not model:
        return None
    (p, _, x), (q, _, y), _ = model.params.tolist()
    return Similarity(complex(p, q), complex(x, y))


def _pairs(fixed: Image, moving: Image, similarity: Similarity) -> Iterator[tuple[complex, np.ndarray, np.ndarray]]:
    """Centre, fixed pixels and moving ones of every tile that shows something."""
    for area in _tiles(similarity.area(fixed.shape, moving.shape)):
        still, other = fixed.read(area), moved(moving, similarity, area)
        if min(still.std(), other.std()) > 1e-3:
            (top, bottom), (left, right) = area
            yield complex(left + right, top + bottom) / 2, still, other


def _tiles(shared: Area) -> list[Area]:
    """Square tiles spread evenly over the part that both images show."""
    lengths = [high - low for low, high in shared]
    if min(lengths) < LEAST_SIDE:
        return []
    side = min(LARGEST, max(SMALLEST, min(lengths) // 3))
    starts = []
    for low, high in shared:
        count = min(MOST_TILES, max(3, 2 * (high - low) // side - 1))
        starts.append(np.linspace(low, high - side, count).round().astype(int).tolist())
    return [((y, y + side), (x, x + side)) for y, x in itertools.product(*starts)]


def _shift(still: np.ndarray, other: np.ndarray) -> complex:
    """By how much the other tile has to move to lie on the still one, in pixels."""
    window = _window(still.shape, 1.0)
    pair = [(tile - gaussian_filter(tile, still.shape[0] / 8)) * window for tile in (still, other)]
    (y, x), _, _ = phase_cross_correlation(*pair, upsample_factor=UPSAMPLED, normalization=None)
    return complex(x, y)
