"""What super-resolution is worth: the share of the gap between bicubic and hr that sr closes, with intervals.

The figures are of whole volumes, from tallies of sub-volumes that add up. The interval is the percentile bootstrap
(Efron 1979) over sub-volumes: each resample takes as many of them, some several times, the same ones for bicubic, sr
and hr, adds their tallies, and makes the figures and the share anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import numpy as np


class Addable(Protocol):
    """A tally: sums over voxels that add up over sub-volumes."""

    def __add__(self, other: Self, /) -> Self: ...


T = TypeVar("T", bound=Addable)
Figure = Callable[[np.ndarray], float | None]
"""A metric of a resample, given how often it takes each sub-volume, int64 (sub-volumes,); None where undefined."""

STATED: dict[str, object] = {
    "share": "(sr - rival) / (hr - rival): 0 is as the rival, 1 as hr, below 0 worse than the rival, which is bicubic "
    "or the segmentation that worth_against names; its figure stands under bicubic",
    "interval": "percentile bootstrap over sub-volumes, the same resamples for the rival, sr and hr",
    "undefined": "None where hr is not better than the rival, and no interval where that is so in more resamples than "
    "an interval leaves out at one end",
}
"""What the shares are, in words that go beside them."""


@dataclass(frozen=True)
class Rivals:
    """The figures of one metric for the three images; ``higher_is_better`` says which way is up.

    ``name`` is that of the rival, bicubic or another segmentation that the gap is measured from, in reasons.
    """

    rival: Figure
    sr: Figure
    hr: Figure
    higher_is_better: bool
    name: str = "bicubic"


@dataclass(frozen=True)
class Draws:
    """How many ``resamples``, and which part of them the interval spans."""

    resamples: int = 1000
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if self.resamples < 1 or not 0 < self.confidence < 1:
            raise ValueError(
                f"{self.resamples} resamples at confidence {self.confidence}: give at least 1, and more than 0 and "
                "less than 1"
            )


@dataclass(frozen=True)
class Share:
    """The ``share`` of the gap and its interval ``low`` to ``high``; what is None has its ``reason``.

    ``undefined`` is the part of the resamples that have no share.
    """

    share: float | None
    low: float | None
    high: float | None
    undefined: float
    reason: str | None = None


def of_sums(tallies: Sequence[T], metric: Callable[[T], float | None]) -> Figure:
    """The figure that ``metric`` makes of the sum of the tallies of the sub-volumes taken.

    ``metric`` returns None where it is undefined. Tables of labels add up faster through
    ``segmentation.weighted_sums``. Raises ValueError without tallies.
    """
    if not tallies:
        raise ValueError("no sub-volume to resample")

    def figure(times: np.ndarray) -> float | None:
        taken = [tally for tally, count in zip(tallies, times, strict=True) for _ in range(count)]
        total = taken[0]
        for tally in taken[1:]:
            total = total + tally
        return metric(total)

    return figure


def fixed(value: float) -> Figure:
    """A figure that no resample changes, as the SSIM of hr with itself, 1."""
    return lambda times: value


def closed(bicubic: float | None, sr: float | None, hr: float | None, higher_is_better: bool) -> float | None:
    """(sr - bicubic) / (hr - bicubic); None unless all three are finite numbers and hr is better than bicubic."""
    if bicubic is None or sr is None or hr is None or not np.isfinite([bicubic, sr, hr]).all():
        return None
    gap = hr - bicubic
    return (sr - bicubic) / gap if (gap > 0 if higher_is_better else gap < 0) else None


def share_of_gap(rivals: Rivals, sub_volumes: int, generator: np.random.Generator, draws: Draws = Draws()) -> Share:
    """The share of the gap that sr closes, of all sub-volumes once, and its bootstrap interval.

    Depends on nothing but its arguments and the state of ``generator``. Raises ValueError without sub-volumes.
    """
    if sub_volumes < 1:
        raise ValueError("no sub-volume to resample")
    once = np.ones(sub_volumes, np.int64)
    share = _share(rivals, once)
    if share is None:
        return Share(None, None, None, 1.0, _why_not(rivals, once))
    if sub_volumes == 1:
        return Share(share, None, None, 0.0, "one sub-volume gives no interval: score more than one")
    taken = generator.integers(0, sub_volumes, (draws.resamples, sub_volumes))
    shares = [_share(rivals, np.bincount(row, minlength=sub_volumes)) for row in taken]
    defined = [value for value in shares if value is not None]
    undefined = 1 - len(defined) / len(shares)
    tail = (1 - draws.confidence) / 2
    if undefined > tail:
        return Share(share, None, None, undefined, _too_often(rivals.name, undefined))
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Share(share, float(low), float(high), undefined)


def _share(rivals: Rivals, times: np.ndarray) -> float | None:
    return closed(rivals.rival(times), rivals.sr(times), rivals.hr(times), rivals.higher_is_better)


def _too_often(rival: str, undefined: float) -> str:
    return f"in {undefined:.1%} of the resamples hr is not better than {rival} or a figure is undefined"


def _why_not(rivals: Rivals, times: np.ndarray) -> str:
    rival, sr, hr = (figure(times) for figure in (rivals.rival, rivals.sr, rivals.hr))
    for name, value in ((rivals.name, rival), ("sr", sr), ("hr", hr)):
        if value is None or not np.isfinite(value):
            return f"the figure of {name} is {'undefined' if value is None else value}"
    return f"hr ({hr:.4g}) is not better than {rivals.name} ({rival:.4g}): there is no gap to close"
