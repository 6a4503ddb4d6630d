"""Where a segmentation goes wrong: the worst splits and merges, invented and lost membrane, as lists and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emsr.report.blocks import Block, Cell, Chapter, Image, Paragraph, Table
from emsr.report.evidence import Card, SegmentEvidence
from emsr.report.segment_pictures import ACROSS
from emsr.report.segment_terms import terms
from emsr.report.style import webp

MISTAKES = {
    "splits": (
        "An object in several segments keeps its largest piece; every other piece is a split.",
        ("object", "in segment", "its largest piece is segment", "of the object"),
    ),
    "merges": (
        "A segment over several objects keeps the one that it covers most of; every other object in it is a merge.",
        ("object", "in segment", "whose largest part is object", "of the segment"),
    ),
}
MEMBRANE = {
    "invented": "Membrane of sr that hr has nothing of within the tolerance: what the network may have made up.",
    "lost": "Membrane of hr that sr has nothing of within the tolerance.",
}
LINES = (
    "Above the super-resolved section with a ring around the voxel that the list names, below the same with borders: "
    "of the labels blue, of the segments orange, both where they lie on each other; the piece is tinted yellow. Of a "
    "mistake that happens between sections this one shows only the piece."
)
COLOURS = (
    "From above: sr, hr, and the membranes of both on a pale hr: in both grey, invented orange, lost blue. Of windows "
    "too large to show the middle is shown."
)
AXES = ("z", "y", "x")
Pictures = Sequence[np.ndarray]


def chapters(segments: SegmentEvidence, drawn: Mapping[str, Pictures]) -> list[Chapter]:
    """A part for each kind; ``drawn`` are the pictures by kind."""
    parts = [Chapter(f"Worst {kind}", mistakes(segments, kind, drawn.get(kind, ()))) for kind in MISTAKES]
    return parts + [
        Chapter(f"Most {kind} membrane", membrane(segments, kind, drawn.get(kind, ()))) for kind in MEMBRANE
    ]


def mistakes(segments: SegmentEvidence, kind: str, pictures: Pictures) -> list[Block]:
    """Words, pictures and the list of the worst "splits" or "merges" of sr."""
    about, (one, other, main, whole) = MISTAKES[kind]
    if segments.scores["worst"] is None:
        return [Paragraph("Not listed: no segmentation is named sr.", "note")]
    found = segments.scores["worst"][kind]
    if not found:
        return [Paragraph(f"The segmentation of sr has no {kind} in the scored sections.")]
    columns = ("", "bits", "voxel z, y, x", "centre z, y, x in nm", one, other, main, "voxels", whole)
    rows = [
        (
            *(number, f"{row['bits']:.5f}", _place(row["nearest"]), _nm(row["centre_nm"])),
            *(str(row["truth"]), str(row["segment"]), str(row["main"])),
            *(row["voxels"], f"{row['voxels'] / row['whole']:.1%}"),
        )
        for number, row in enumerate(found, 1)
    ]
    words = f"{about} Ranked by the bits that they add to VOI."
    return [
        Paragraph(words),
        *_shown(pictures, (kind.capitalize(), len(getattr(segments, kind))), LINES),
        Table(f"The worst {kind}. {terms(segments.scores)}", columns, rows),
    ]


def membrane(segments: SegmentEvidence, kind: str, pictures: Pictures) -> list[Block]:
    """Words, pictures and the list of the windows with most "invented" or "lost" membrane."""
    found, reason = segments.scores[kind], segments.scores["invented_lost_reason"]
    if found is None:
        return [Paragraph(f"Not measured: {reason}.", "note")]
    if not found:
        return [Paragraph(f"No membrane is {kind} in the scored sections.")]
    of = "sr" if kind == "invented" else "hr"
    columns = ("", "z", "y", "x", "centre z, y, x in nm", f"{kind} voxels", "of the window", f"of the membrane of {of}")
    rows = [
        (
            *(number, *_box(row), _nm(row["centre_nm"]), row[kind]),
            *(f"{row['share']:.2%}", _share(row["share_of_membrane"])),
        )
        for number, row in enumerate(found, 1)
    ]
    levels = segments.scores["invented_lost_levels"]
    at = f"Membrane is what has a probability of at least {levels['sr']:.3f} in sr and {levels['hr']:.3f} in hr."
    words = f"{MEMBRANE[kind]} {at} Ranked by the share of the window's voxels; of neighbouring sections the worst one."
    return [
        Paragraph(words),
        *_shown(pictures, ("Windows", len(getattr(segments, kind))), COLOURS),
        Table(f"The windows with most {kind} membrane. {terms(segments.scores)}", columns, rows),
    ]


def _shown(pictures: Pictures, what: tuple[str, int], words: str) -> list[Block]:
    """The pictures of ``what``, a name and how many are shown; the first one says how they are read."""
    found: list[Block] = []
    for number, picture in enumerate(pictures):
        first = number * ACROSS + 1
        last = min(first + ACROSS - 1, what[1])
        caption = f"{what[0]} {first} to {last}." if last > first else f"{what[0]}: {first}."
        caption += f" {words}" if not number else ""
        found.append(Image(webp(picture), "image/webp", caption))
    return found


def _place(voxel: Sequence[int]) -> str:
    return ", ".join(map(str, voxel))


def _nm(place: Sequence[float]) -> str:
    return ", ".join(f"{value:.0f}" for value in place)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _box(row: Card) -> tuple[Cell, Cell, Cell]:
    """A window of one section: z, and first to last voxel along y and x."""
    (z, y, x), (_, below, right) = row["start"], row["stop"]
    return z, f"{y}–{below - 1}", f"{x}–{right - 1}"


# -- as files ---------------------------------------------------------------------------------------------------------


def mistake_list(scores: Card) -> Table:
    """Every listed split and merge with a column for each number."""
    keys = ("kind", "bits", "truth", "segment", "main", "voxels", "whole")
    named = ("kind", "bits", "object", "segment", "largest", "voxels", "of voxels")
    found = [row for kind in MISTAKES for row in (scores["worst"] or {}).get(kind) or ()]
    columns, said = (*named, *AXES, *_columns(), "terms"), terms(scores)
    return Table("", columns, [(*(row[key] for key in keys), *row["nearest"], *_where(row), said) for row in found])


def window_list(scores: Card) -> Table:
    """Every listed window with a column for each number."""
    keys = ("invented", "lost", "sr", "hr", "voxels")
    columns, said = ("most", *keys, *_columns(), "level sr", "level hr", "terms"), terms(scores)
    levels = [(scores.get("invented_lost_levels") or {}).get(image) for image in ("sr", "hr")]
    found = [(kind, row) for kind in MEMBRANE for row in scores[kind] or ()]
    rows = [(kind, *(row[key] for key in keys), *_where(row), *levels, said) for kind, row in found]
    return Table("", columns, rows)


def _columns() -> tuple[str, ...]:
    """Names of the columns of a place: centre in nm, first voxel, voxel after the last."""
    return tuple(f"{axis} {what}" for what in ("nm", "first", "end") for axis in AXES)


def _where(row: Card) -> list[Any]:
    return [round(value, 3) for value in row["centre_nm"]] + list(row["start"]) + list(row["stop"])
