"""The chapter of one volume: what it is, how it looks, how it scores, what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from emsr import scales
from emsr.report import caveats, deviation, registration, segmentation, tables
from emsr.report.blocks import Block, Chapter, Headline, Image, Paragraph, Points, Table, decibels, numbered
from emsr.report.charts import score_chart, use_chart
from emsr.report.evidence import VolumeEvidence
from emsr.report.pictures import section_picture
from emsr.report.planes import cross_picture
from emsr.report.style import pixels, styled, svg, webp


@dataclass(frozen=True)
class Drawings:
    """The pictures of a volume, (rows, columns, 3) each: of every chosen section, and of the planes across them.

    ``segments`` are those of its segmentations by kind ("splits", "merges", "invented", "lost"), ``samples`` those of
    how far samples lie apart.
    """

    sections: Sequence[np.ndarray] = ()
    planes: np.ndarray | None = None
    samples: Sequence[np.ndarray] = ()
    segments: Mapping[str, Sequence[np.ndarray]] = field(default_factory=dict)


def draw(volume: VolumeEvidence) -> Drawings:
    """Draw the pictures, once for the page and for files of their own."""
    with styled():
        sections = [pixels(section_picture(view)) for view in volume.sections]
        planes = pixels(cross_picture(volume.crosses)) if volume.crosses else None
        samples = deviation.draw(volume.deviation)
    return Drawings(sections, planes, samples, segmentation.draw(volume.segments))


def headline(volume: VolumeEvidence) -> Headline:
    """The large figures of bicubic and of sr with the gain: PSNR, SSIM; FRC; consistency where there is no truth."""
    image = volume.scores.get("image")
    subtitle = f"×{scales.name(volume.scale)}, {_nm(volume.lr['voxel_size_nm'])} to {_nm(volume.sr['voxel_size_nm'])}"
    state, words = caveats.verdict(volume)
    figures = []
    if image:
        for measure in (tables.PSNR, tables.SSIM):
            before, after = (image[name][measure.key] for name in ("bicubic", "sr"))
            figures.append(
                (measure.title, measure.written(before), measure.written(after), measure.gain(before, after))
            )
        before, after = (tables.mean(volume, name, tables.FRC) for name in ("bicubic", "sr"))
        figures.append(("agrees with hr down to (FRC), nm", before, after, ""))
    else:
        found = volume.scores.get("consistency") or {}
        before, after = ((found.get(name) or {}).get("psnr") for name in ("bicubic", "sr"))
        figures.append(("consistency with lr, dB", decibels(before), decibels(after), ""))
    return Headline(volume.name, subtitle, figures, words, state)


def chapter(volume: VolumeEvidence, drawings: Drawings) -> Chapter:
    """Everything about ``volume``."""
    return Chapter(
        f"Volume {volume.name}",
        _facts(volume),
        [
            Chapter("Sections side by side", _side_by_side(volume, drawings.sections)),
            Chapter("Across the sections", _across(drawings.planes)),
            Chapter("Scores", _scores(volume)),
            *deviation.chapters(volume.deviation, drawings.samples),
            *registration.chapters(volume),
            Chapter("Seams", [tables.seam_table(volume)]),
            Chapter("Damaged and missing sections", [tables.damage_table(volume)]),
        ],
        fresh=True,
    )


def _nm(size: Sequence[float]) -> str:
    return " × ".join(f"{value:.4g}" for value in size) + " nm"


def _facts(volume: VolumeEvidence) -> list[Block]:
    rows = [
        ("low resolution", f"{tables.voxels(volume.lr['shape'])} voxels of {_nm(volume.lr['voxel_size_nm'])} (z y x)"),
        ("super-resolved", f"{tables.voxels(volume.sr['shape'])} voxels of {_nm(volume.sr['voxel_size_nm'])}"),
        *_made_of(volume.sr),
        ("weights", volume.weights or "–"),
        ("computed with", _made_by(volume.sr)),
        ("low resolution comes from", _origin(volume)),
        ("truth", _truth(volume.hr)),
        *registration.facts(volume.hr),
        ("root hash of the super-resolved voxels", str(volume.sr.get("sha256", "–"))),
    ]
    with styled():
        use = Image(
            svg(use_chart(volume)), "image/svg+xml", "Sections by use. Scores are those of the test sections only."
        )
    return [Table("", ("", ""), rows), use]


STAND_INS = {
    "missing": "without data",
    "damaged": "damaged themselves",
    "neighbour": "another section in place of a damaged or missing neighbour",
    "end": "the end section in place of those past an end",
    "mirrored": "mirrored, being smaller than a window",
}


def _made_of(sr: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was not made, and what was not made from whole data."""
    rows = [("not made", left)] if (left := caveats.not_made(sr)) else []
    sections = (sr.get("valid") or {}).get("sections") or {}
    by_reason: dict[str, list[int]] = {}
    for z, reason in sections.items():
        by_reason.setdefault(reason, []).append(int(z))
    words = [f"{numbered(sorted(by_reason[key]))} ({STAND_INS[key]})" for key in STAND_INS if key in by_reason]
    return rows + [("not made from whole data", "; ".join(words))] if words else rows


def _made_by(sr: Mapping[str, Any]) -> str:
    """What voxels depend on besides settings: precision, kind of device, torch, accelerators."""
    words = [str(sr[key]) for key in ("precision",) if sr.get(key)] + list(sr.get("devices") or ())
    words += [f"torch {version}" for version in sr.get("torch") or ()] + list(sr.get("accelerators") or ())
    windows = [f"{key} {sr[key]}" for key in ("window", "overlap") if sr.get(key) is not None]
    return ", ".join(words + windows) or "–"


def _origin(volume: VolumeEvidence) -> str:
    made = volume.lr.get("degradation")
    if made:
        return f"hr, made coarser: {listed(made)}"
    return _source(volume.lr)


def _truth(hr: Mapping[str, Any] | None) -> str:
    if not hr:
        return "none: this volume has only low resolution"
    return "hr, imaged apart and registered to lr" if hr.get("registration") else _source(hr)


def listed(values: Mapping[str, Any]) -> str:
    """Names with their values; parts of parts in brackets, what is not stated left out."""
    stated = [(key, value) for key, value in sorted(values.items()) if value is not None]
    return ", ".join(f"{key} ({listed(one)})" if isinstance(one, Mapping) else f"{key} {one}" for key, one in stated)


def _source(card: Mapping[str, Any] | None) -> str:
    source = (card or {}).get("source") or {}
    words = [str(source[key]) for key in ("path", "dataset") if source.get(key)]
    return " : ".join(words) + (f" ({source['format']})" if source.get("format") else "") if words else "–"


def _side_by_side(volume: VolumeEvidence, pictures: Sequence[np.ndarray]) -> list[Block]:
    if not volume.sections:
        return [Paragraph("No section could be shown: all are damaged or missing.", "warn")]
    truth = "hr" in volume.sections[0].images
    about = (
        "The zoom (yellow) is where the bicubic image varies most. Differences share one colour scale; the last panel "
        "shows where the network is nearer to the truth than bicubic and where it is farther."
        if truth
        else "There is no truth to compare with: the last column shows what the network changed, not whether rightly."
    )
    blocks: list[Block] = [Paragraph(about)]
    for view, picture in zip(volume.sections, pictures, strict=True):
        y, x = view.start
        rows, columns = view.images["sr"].shape
        place = f"y {y}–{y + rows}, x {x}–{x + columns}"
        caption = f"Section {view.z} of {volume.name}: {view.why}. Shown is {place} at ×{scales.name(volume.scale)}."
        blocks.append(Image(webp(picture), "image/webp", caption))
    return blocks


def _across(picture: np.ndarray | None) -> list[Block]:
    if picture is None:
        return [Paragraph("No plane could be shown.", "warn")]
    caption = (
        "Planes across the sections in the anatomy's proportions. Large orange triangles point at borders of jobs, "
        "small blue ones at borders of shards, orange dots at damaged sections; missing sections are tinted. "
        "Numbers are those of sections."
    )
    return [Image(webp(picture), "image/webp", caption)]


def _scores(volume: VolumeEvidence) -> list[Block]:
    blocks: list[Block] = []
    if not volume.scores.get("image"):
        reason = volume.scores.get("reason") or "there is no hr"
        words = (
            f"There are no scores for this volume: {reason}. Consistency says only that the result, made coarser "
            "again, gives back what the microscope saw; it cannot tell a true membrane from an invented one."
        )
        blocks.append(Paragraph(words, "note"))
    with styled():
        chart = score_chart(volume)
        if chart is not None:
            blocks.append(Image(svg(chart), "image/svg+xml", "Every measured section."))
    return [*blocks, *_score_tables(volume), Points(tables.stated(volume))]


def _score_tables(volume: VolumeEvidence) -> list[Block]:
    """Means and sections; without truth the headline and the chart have said all."""
    if not volume.scores.get("image"):
        return []
    return [tables.said(tables.score_table(volume)), tables.shown(tables.section_table(volume, tables.MEASURES))]
