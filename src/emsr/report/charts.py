"""Charts: scores section by section, training curves, which sections were used for what. Draw inside ``styled()``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from emsr.report.evidence import StageEvidence, VolumeEvidence
from emsr.report.style import BICUBIC, GOOD, INK, MUTED, SERIES, SR, WARN

WIDTH = 10.8  # inches
PANELS = (("PSNR, dB", "psnr"), ("SSIM", "ssim"), ("consistency with lr, dB", "consistency"))
TELLING = {  # figures of validation in the order of their worth, by stage; "" for any other
    "codebook": ("psnr", "perplexity"),
    "indexer": ("cross_entropy", "top1"),
    "flow": ("endpoint_error", "endpoint_error_without_flow"),
    "": ("psnr", "ssim"),
}
KEPT: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "color": GOOD, "fontsize": 7.5}
USES = {"training": BICUBIC, "validation": "#b5892e", "test": SR}
NOT_CURVES = ("step", "score")  # columns of a curve that are not drawn: the abscissa, and a copy of another column


def score_chart(volume: VolumeEvidence) -> Figure | None:
    """PSNR, SSIM and consistency of every measured section, bicubic and sr; None if nothing was measured."""
    measured = [(label, found) for label, measure in PANELS if (found := _lines(volume, measure))]
    if not measured:
        return None
    figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
    for axes, (label, lines) in zip(figure.subplots(1, len(measured), squeeze=False)[0], measured, strict=True):
        for name, colour, words in (("bicubic", BICUBIC, "bicubic"), ("sr", SR, "super-resolved")):
            axes.plot(*zip(*lines[name], strict=True), color=colour, marker="o", ms=2.5, label=words)
        axes.set_title(label)
        axes.set_xlabel("section z")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.axes[0].legend(loc="best")
    return figure


def figure_of(row: Mapping[str, Any], name: str, measure: str) -> float | None:
    """One figure of one section of ``scores.json``: "psnr", "ssim" or "consistency" of bicubic or sr."""
    one, other = (measure, name) if measure == "consistency" else (name, measure)
    value: float | None = (row.get(one) or {}).get(other)
    return value


def _lines(volume: VolumeEvidence, measure: str) -> dict[str, list[tuple[int, float]]]:
    """(z, value) of bicubic and sr, without sections that have no finite figure; empty if there is none."""
    found: dict[str, list[tuple[int, float]]] = {"bicubic": [], "sr": []}
    for row in volume.scores.get("per_section") or ():
        for name, points in found.items():
            value = figure_of(row, name, measure)
            if value is not None:
                points.append((row["z"], value))
    return found if all(found.values()) else {}


def use_chart(volume: VolumeEvidence) -> Figure:
    """One bar of all sections: training, validation, test, and ticks where sections are damaged or missing."""
    figure = Figure(figsize=(WIDTH, 0.8), layout="constrained")
    axes = figure.subplots()
    axes.broken_barh([(0, volume.length)], (0, 1), color="#eef1f4")
    for use, ranges in volume.ranges.items():
        spans = [(first, last - first) for first, last in ranges]
        if spans:
            axes.broken_barh(spans, (0, 1), color=USES.get(use, MUTED), label=use)
    for found, colour, label in ((volume.damaged, WARN, "damaged"), (volume.missing, INK, "missing")):
        if found:
            axes.broken_barh([(z, 1) for z in found], (-0.35, 1.7), color=colour, label=label)
    axes.set(xlim=(0, volume.length), ylim=(-0.4, 1.4), yticks=[])
    axes.grid(False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside upper left", ncols=5, handlelength=1.2, borderpad=0)
    return figure


def curve_chart(stages: Sequence[StageEvidence]) -> Figure | None:
    """A row per stage with curves: losses while training on the left, figures on validation sections on the right."""
    drawn = [stage for stage in stages if any(stage.curves.values())]
    if not drawn:
        return None
    figure = Figure(figsize=(WIDTH, 2.4 * len(drawn)), layout="constrained")
    grid = figure.subplots(len(drawn), 2, squeeze=False)
    for (left, right), stage in zip(grid, drawn, strict=True):
        _training(left, stage)
        _validation(right, stage)
    for axes in grid[-1]:
        axes.set_xlabel("step")
    return figure


def _points(curve: Sequence[Mapping[str, float]], name: str) -> tuple[list[float], list[float]]:
    rows = [row for row in curve if row.get(name) is not None]
    return [row["step"] for row in rows], [row[name] for row in rows]


def _names(curve: Sequence[Mapping[str, float]], first: Sequence[str] = ()) -> list[str]:
    """Columns of a curve that are worth a line: those of ``first`` in that order, then others; copies of "loss" go."""
    found = dict.fromkeys(name for row in curve for name in row if name not in NOT_CURVES)
    copies = {name for name in found if name != "loss" and all(row.get(name) == row.get("loss") for row in curve)}
    return sorted(found.keys() - copies, key=lambda name: (first.index(name) if name in first else len(first), name))


def _training(axes: Axes, stage: StageEvidence) -> None:
    curve = stage.curves.get("training") or ()
    names = _names(curve, ("loss",))
    lines = {name: _points(curve, name) for name in names}
    logarithmic = bool(lines) and all(min(values) >= 0 for _, values in lines.values())
    for (name, points), colour in zip(lines.items(), SERIES, strict=False):
        axes.plot(*points, color=colour, lw=1.2, label=name.replace("_", " "))
    if logarithmic:
        axes.set_yscale("log", nonpositive="mask")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:.3g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_title(f"{stage.name}: losses while training")
    if len(names) > 1:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, borderaxespad=0.2)


def _validation(axes: Axes, stage: StageEvidence) -> None:
    """The two most telling figures, the second one on an axis of its own on the right, and the checkpoint kept."""
    curve = stage.curves.get("validation") or ()
    names = _names(curve, TELLING.get(stage.name, TELLING[""]))[:2]
    for number, (name, colour) in enumerate(zip(names, SERIES, strict=False)):
        side = axes if number == 0 else axes.twinx()
        side.plot(*_points(curve, name), color=colour, marker="o", ms=2.5, lw=1.2)
        side.tick_params(axis="y", labelcolor=colour)
        side.set_ylabel(name.replace("_", " "), color=colour)
        if number:
            side.grid(False)
            side.spines["right"].set_visible(True)
    best = (stage.card.get("scores") or {}).get("step")
    if best is not None and names:
        axes.axvline(best, color=GOOD, lw=1, ls=(0, (3, 2)))
        axes.annotate("kept", (best, 0), xycoords=("data", "axes fraction"), xytext=(-3, 3), **KEPT)
    axes.set_title(f"{stage.name}: validation sections")
