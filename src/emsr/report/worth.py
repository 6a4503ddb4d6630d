"""What super-resolution is worth: the share of the gap between bicubic and hr that it closes, metric by metric."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emsr.report.blocks import Block, Chapter, Image, Paragraph, Points, Table, numbered
from emsr.report.canvas import DPI
from emsr.report.evidence import AffinityNetwork, SegmentEvidence, VolumeEvidence
from emsr.report.segment_terms import terms
from emsr.report.style import pixels, styled, svg
from emsr.report.worth_chart import METRICS, Line, worth_chart

FIRST = ("bicubic", "sr", "hr")
FAIRER = ". It is the fairer rival, as a network makes more of images like those that it was trained on"


def lines(segments: SegmentEvidence) -> list[Line]:
    """Every share of a volume: metric by metric, against bicubic first; empty where nothing was compared."""
    compared = segments.scores["worth"]
    if compared is None:
        return []
    against = {"bicubic": compared, **segments.scores["worth_against"]}
    f1 = "membrane_f1" if "membrane_f1" in compared else "membrane_best_f1"
    found = [
        Line(name, rival, of[name]) for name in ("voi", "arand", f1) for rival, of in against.items() if name in of
    ]
    return [*found, *([Line("ssim", "bicubic", segments.ssim)] if segments.ssim else [])]


def opening(volumes: Sequence[VolumeEvidence]) -> list[Chapter]:
    """The chapter that the page opens with; none where no volume has a share."""
    compared = _compared(volumes)
    if not compared:
        return []
    with styled():
        drawn = svg(worth_chart({name: lines(segments) for name, segments in compared}))
    over = " ".join(f"{name}: {_resampled(segments)}." for name, segments in compared)
    caption = (
        "How much of the gap between a rival and the fine image (hr) super-resolution (sr) closes, by metric: at 0% it "
        "is as good as the rival, at 100% as good as hr, below 0% worse than the rival. ↓: lower is better, ↑: higher "
        f"is better. Dark lines are bootstrap intervals. {over}"
    )
    caption += "".join(f" {name}: {terms(segments.scores)}." for name, segments in compared)
    blocks: list[Block] = [Image(drawn, "image/svg+xml", caption)]
    for name, segments in compared:
        blocks += [Paragraph(f"What was compared in {name}", "name"), Points(rivals(segments))]
    return [Chapter("What super-resolution is worth", blocks)]


def rivals(segments: SegmentEvidence) -> list[tuple[str, str]]:
    """What each rival of a volume is, as points: which image, segmented by which network."""
    of = segments.scores["segmentation"]
    made: dict[str, list[str]] = {}
    for name in ("bicubic", "sr", "hr", *segments.scores["worth_against"]):
        made.setdefault(of[name]["weights_sha256"], []).append(name)
    return [("info", _rival(segments, names)) for names in made.values()]


def _rival(segments: SegmentEvidence, names: Sequence[str]) -> str:
    """A sentence about the segmentations that one network made."""
    shown = [name if name in FIRST else f"{name} (the bicubic image again)" for name in names]
    unknown = AffinityNetwork(f"weights {segments.scores['segmentation'][names[0]]['weights_sha256'][:16]}")
    network = segments.networks.get(names[0], unknown)
    fairer = bool(network.learned) and all(image.startswith("bicubic") for image, _ in network.learned)
    words = f"{', '.join(shown)}: segmented by the network of {network.words}"
    return f"{words}{FAIRER if fairer and names[0] not in FIRST else ''}."


def _compared(volumes: Sequence[VolumeEvidence]) -> list[tuple[str, SegmentEvidence]]:
    """Name and segmentations of the volumes that have shares."""
    return [(one.name, one.segments) for one in volumes if one.segments and lines(one.segments)]


def _resampled(segments: SegmentEvidence) -> str:
    """What the intervals of a volume are over."""
    settings = segments.scores["settings"]
    over = f"{settings['sub_volumes']} sub-volumes"
    over += f" (SSIM: of {segments.ssim['sub_volumes']} sections)" if segments.ssim else ""
    draws, sections = settings["draws"], numbered(settings["sections"])
    return f"{draws['confidence']:.0%} of {draws['resamples']} resamples of {over}, {sections}"


def picture(volumes: Sequence[VolumeEvidence]) -> np.ndarray | None:
    """The chart as a picture (rows, columns, 3); None without any share."""
    compared = {name: lines(segments) for name, segments in _compared(volumes)}
    if not compared:
        return None
    with styled():
        chart = worth_chart(compared)
        chart.set_dpi(DPI)
        return pixels(chart)


def table(segments: SegmentEvidence) -> Table:
    """Every share of a volume with the figures that it is made of."""
    rows = [
        (line.label, line.rival, line.share, line.interval or "–", *line.figures, line.reason)
        for line in lines(segments)
    ]
    words = (
        f"The share of the gap between a rival and hr that super-resolution closes. Intervals: {_resampled(segments)}. "
        f"{terms(segments.scores)}"
    )
    columns = ("metric", "against", "share of the gap", "interval", "rival", "sr", "hr", "remark")
    return Table(words, columns, rows)


def share_list(volumes: Sequence[VolumeEvidence]) -> Table:
    """Every share of all volumes, numbers as they are."""
    keys = ("share", "low", "high", "bicubic", "sr", "hr", "sub_volumes", "undefined")
    columns = ("volume", "metric", "against", "share", "low", "high", "rival", "sr", "hr", "resampled", "undefined")
    rows = [
        (name, line.metric, line.rival, *(line.found[key] for key in keys), line.reason, said(line, segments))
        for name, segments in _compared(volumes)
        for line in lines(segments)
    ]
    return Table("Shares of all volumes", (*columns, "remark", "terms"), rows)


def said(line: Line, segments: SegmentEvidence) -> str:
    """What a share stands on; that of SSIM needs no labels."""
    return "" if line.metric == "ssim" else terms(segments.scores)


def doubts(segments: SegmentEvidence | None) -> list[tuple[str, str]]:
    """Where the segmentations speak against sr, and what of its worth is not known, as (state, sentence)."""
    if segments is None:
        return []
    scores = segments.scores
    if scores["worth"] is None:
        return [("unmeasured", f"What it is worth for the anatomy was not measured: {scores['worth_reason']}.")]
    points = [point for line in lines(segments) if line.metric != "ssim" for point in _doubt(line)]
    if scores["invented"]:
        row = scores["invented"][0]
        (z, y, x), (_, below, right) = row["start"], row["stop"]
        where = f"section {z}, y {y}–{below - 1}, x {x}–{right - 1}"
        words = f"Most membrane is invented in {where}: {row['share_of_membrane']:.1%} of that of sr is not in hr."
        points.append(("info", words))
    elif scores["invented_lost_reason"]:
        points.append(("unmeasured", f"Invented membrane was not measured: {scores['invented_lost_reason']}."))
    return points


def _doubt(line: Line) -> list[tuple[str, str]]:
    """What is to be said against one share, if anything."""
    share, low, name = line.found["share"], line.found["low"], METRICS[line.metric][1]
    if share is None:
        return [("unmeasured", f"No share of the gap from {line.rival} to hr in {name}: {line.reason}.")]
    if share < 0:
        rival, sr, _ = line.figures
        return [("warn", f"Segmented, {line.rival} is better in {name}: {rival}, and {sr} of sr.")]
    if low is None:
        return [("unmeasured", f"The share of the gap from {line.rival} in {name} has no interval: {line.reason}.")]
    if low < 0:
        return [("warn", f"Better than {line.rival} in {name} perhaps by chance: its share may be {line.interval}.")]
    return []
