"""The picture that the report opens with: a bar for each share of the gap that super-resolution closes."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from emsr.report.blocks import minus
from emsr.report.charts import WIDTH
from emsr.report.evidence import Card
from emsr.report.style import GOOD, INK, MUTED, SERIES, SR, WARN

METRICS = {
    "voi": ("VOI, bits", "variation of information"),
    "arand": ("adapted Rand error", "adapted Rand error"),
    "membrane_f1": ("membrane F1", "F1 of membrane"),
    "membrane_best_f1": ("membrane F1, best", "F1 of membrane at its best threshold"),
    "ssim": ("SSIM", "SSIM"),
}
ROW, APART, TOP, FOOT = 0.33, 0.14, 0.58, 0.5  # inches: a line, between metrics, above and below a volume's lines
LEFT, RIGHT, FIGURES = 2.65, 6.75, 8.95  # inches: where the bars begin and end, and where the figures stand
NARROW = 0.05  # intervals narrower than this are written with a decimal
LONGEST = 30  # letters of a rival's name
BOUNDS = (-1.0, 2.0)  # shares beyond these are drawn as arrows


@dataclass(frozen=True)
class Line:
    """The share of the gap from segmentation ``rival`` to hr that sr closes in one metric, as ``found`` states it."""

    metric: str
    rival: str
    found: Card

    @property
    def label(self) -> str:
        """The metric, shortly, with an arrow to where it is better."""
        return f"{METRICS[self.metric][0]} {'↑' if self.found['higher_is_better'] else '↓'}"

    @property
    def words(self) -> str:
        """The share and its interval: "68% (55% to 79%)"; "–" where it is undefined."""
        return f"{self.share} ({self.interval or 'no interval'})" if self.found["share"] is not None else "–"

    @property
    def share(self) -> str:
        """The share alone: "68%"."""
        return "–" if self.found["share"] is None else minus(f"{self.found['share']:.0%}")

    @property
    def interval(self) -> str:
        """Its ends, or nothing."""
        low, high = self.found["low"], self.found["high"]
        if low is None or high is None:
            return ""
        digits = 0 if high - low >= NARROW else 1
        return minus(f"{low:.{digits}%} to {high:.{digits}%}")

    @property
    def reason(self) -> str:
        """Why there is no share or no interval, or nothing."""
        return self.found["reason"] or ""

    @property
    def figures(self) -> tuple[str, str, str]:
        """The metric itself of the rival, of sr and of hr."""
        bicubic, sr, hr = (
            "–" if self.found[name] is None else f"{self.found[name]:.3f}" for name in ("bicubic", "sr", "hr")
        )
        return bicubic, sr, hr


def worth_chart(volumes: Mapping[str, Sequence[Line]]) -> Figure:
    """A bar for each share of the volumes, by name, with interval and figures in words. Draw inside ``styled()``."""
    heights = [_height(shown) for shown in volumes.values()]
    figure = Figure(figsize=(WIDTH, sum(heights)))
    limits = _limits([line for shown in volumes.values() for line in shown])
    top = 0.0
    for (name, shown), height in zip(volumes.items(), heights, strict=True):
        axes = _scale(figure, (top + TOP, height - TOP - FOOT), limits)
        _write(axes, 0, -0.29, name, INK, 10.5)
        _bars(axes, shown)
        top += height
    return figure


def _height(shown: Sequence[Line]) -> float:
    """Inches that the lines of a volume take."""
    return TOP + FOOT + ROW * len(shown) + APART * (len({line.metric for line in shown}) - 1)


def _limits(shown: Sequence[Line]) -> tuple[float, float]:
    """The shares at the ends of the scale: 0 to 1 and what lies beyond, within ``BOUNDS``."""
    known = [value for line in shown for key in ("share", "low", "high") if (value := line.found[key]) is not None]
    low, high = min([0.0, *known]), max([1.0, *known])
    return max(low, BOUNDS[0]) - 0.06, min(high, BOUNDS[1]) + 0.06


def _scale(figure: Figure, place: tuple[float, float], limits: tuple[float, float]) -> Axes:
    """Empty axes from one end of ``limits`` to the other, at ``place``: top and height in inches."""
    (top, height), whole = place, figure.get_figheight()
    axes = figure.add_axes((LEFT / WIDTH, 1 - (top + height) / whole, (RIGHT - LEFT) / WIDTH, height / whole))
    axes.set(xlim=limits, ylim=(height, 0), yticks=[])
    axes.spines["left"].set_visible(False)
    axes.axvline(0, color=MUTED, lw=0.9, zorder=1)
    axes.axvline(1, color=GOOD, lw=1.2, zorder=1)
    step = 0.25 if limits[1] - limits[0] < 1.7 else 0.5
    ticks = [tick for tick in np.arange(-1, 2.01, step) if limits[0] <= tick <= limits[1]]
    axes.set_xticks(
        ticks, [minus(f"{tick:.0%}") + {0.0: "\nas the rival", 1.0: "\nas hr"}.get(tick, "") for tick in ticks]
    )
    return axes


def _bars(axes: Axes, shown: Sequence[Line]) -> None:
    """The lines of one volume below each other, a little apart where another metric begins."""
    rivals, y = list(dict.fromkeys(line.rival for line in shown)), -APART
    _write(axes, RIGHT + 0.15, -0.27, "share of the gap (interval)", MUTED, 8)
    _write(axes, FIGURES, -0.27, "rival → sr → hr", MUTED, 8)
    for number, line in enumerate(shown):
        first = not number or shown[number - 1].metric != line.metric
        y += APART * first
        if first:
            _write(axes, 0, y + ROW / 2, line.label, INK, 9.2)
        _line(axes, line, y + ROW / 2, (SR, *SERIES[2:])[rivals.index(line.rival) % 5])
        y += ROW


def _line(axes: Axes, line: Line, y: float, colour: str) -> None:
    """A bar from 0 to the share, its interval, and the words beside it; the reason where there is none."""
    rival = line.rival if len(line.rival) <= LONGEST else line.rival[: LONGEST - 1] + "…"
    _write(axes, LEFT - 0.12, y, f"against {rival}", MUTED, 8.2, "right")
    _write(axes, RIGHT + 0.15, y, line.words, INK, 9.2)
    _write(axes, FIGURES, y, " → ".join(line.figures), MUTED, 8.2)
    share = line.found["share"]
    if share is None:
        reason = "\n".join(textwrap.wrap(f"undefined: {line.reason}", 76)[:2])
        _write(axes, LEFT + 0.3, y, reason, MUTED, 6.8).set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})
        return
    ends = [value for key in ("low", "high") if (value := line.found[key]) is not None]
    axes.barh(y, share, height=0.6 * ROW, color=WARN if share < 0 else colour, zorder=2)
    axes.plot(ends, [y] * len(ends), color=INK, lw=1.3, marker="|", ms=6, zorder=3)
    low, high = axes.get_xlim()
    for side, marker, beyond in ((low, "<", min([share, *ends]) < low), (high, ">", max([share, *ends]) > high)):
        if beyond:
            axes.plot([side], [y], marker, color=INK, ms=6, zorder=4, clip_on=False)


def _write(axes: Axes, left: float, y: float, words: str, colour: str, size: float, side: str = "left") -> Text:
    """Words at ``left`` inches of the figure, beside ``y`` of the axes."""
    x = (left - LEFT) / (RIGHT - LEFT)
    place: Any = {"transform": axes.get_yaxis_transform(), "ha": side, "va": "center", "clip_on": False}
    return axes.text(x, y, words, color=colour, fontsize=size, parse_math=False, **place)
