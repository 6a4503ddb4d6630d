"""What a chapter of the report is made of: paragraphs, figures, tables, code, headline cards; and numbers as words."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

Cell = str | int | float | None


@dataclass(frozen=True)
class Paragraph:
    """Plain text; ``tone`` is "", "note" or "warn"."""

    text: str
    tone: str = ""
    kind: ClassVar[str] = "paragraph"


@dataclass(frozen=True)
class Points:
    """A list of statements; each is (state, text) with state "pass", "warn", "unmeasured" or "info"."""

    items: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "points"


@dataclass(frozen=True)
class Image:
    """A figure; ``mime`` is "image/png", "image/webp" or "image/svg+xml"."""

    data: bytes
    mime: str
    caption: str
    kind: ClassVar[str] = "image"

    @property
    def source(self) -> str:
        """The picture itself as a data address, so that the page needs no other file."""
        return f"data:{self.mime};base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True)
class Table:
    """Rows under ``columns``. ``states`` marks rows ("pass", "warn", "unmeasured", "info", ""); numbers align right.

    ``bars`` gives each row a bar of that share (0 to 1) in its last column.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    states: Sequence[str] = ()
    bars: Sequence[float] = ()
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Code:
    """Text as it is written in a file."""

    caption: str
    text: str
    kind: ClassVar[str] = "code"


@dataclass(frozen=True)
class Headline:
    """The large figures of one volume: (label, before, after, gain) each, and a verdict with its state."""

    name: str
    subtitle: str
    figures: Sequence[tuple[str, str, str, str]]
    verdict: str
    state: str
    kind: ClassVar[str] = "headline"


Block = Paragraph | Points | Image | Table | Code | Headline


@dataclass(frozen=True)
class Chapter:
    """A part of the page with its heading, blocks, and parts of its own; a ``fresh`` one is printed on a new page."""

    title: str
    blocks: Sequence[Block] = ()
    parts: Sequence[Chapter] = field(default_factory=tuple)
    fresh: bool = False


def minus(text: str) -> str:
    """``text`` with a true minus sign before every negative number."""
    return re.sub(r"-(?=\d)", "−", text)


def decibels(value: float | None, signed: bool = False) -> str:
    """dB with two decimals; "–" where there is none."""
    return "–" if value is None else minus(f"{value:+.2f}" if signed else f"{value:.2f}")


def share(value: float | None, signed: bool = False) -> str:
    """A figure between 0 and 1 with four decimals, as SSIM."""
    return "–" if value is None else minus(f"{value:+.4f}" if signed else f"{value:.4f}")


def nanometres(value: float | None, signed: bool = False) -> str:
    """nm with one decimal; "–" where there is none."""
    return "–" if value is None else minus(f"{value:+.1f}" if signed else f"{value:.1f}")


def duration(seconds: float | None) -> str:
    """Seconds as people say them: "8 s", "2 min 5 s", "3 h 7 min"."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def megabytes(value: float | None) -> str:
    """MB or, from 1000 on, GB."""
    if value is None:
        return "–"
    return f"{value:.0f} MB" if value < 1000 else f"{value / 1000:.1f} GB"


def numbered(sections: Sequence[int]) -> str:
    """Sections by number with the word before them: "section 3", "sections 3, 7–9"."""
    return f"section{'s' * (len(set(sections)) > 1)} {spans(sections)}"


def spans(sections: Sequence[int]) -> str:
    """Section numbers as ranges: 3, 7–9."""
    ordered, words = sorted(set(sections)), []
    while ordered:
        last = 0
        while last + 1 < len(ordered) and ordered[last + 1] == ordered[last] + 1:
            last += 1
        words.append(f"{ordered[0]}–{ordered[last]}" if last else f"{ordered[0]}")
        ordered = ordered[last + 1 :]
    return ", ".join(words)


def tsv(table: Table) -> str:
    """``table`` as tab-separated text with a header line; tabs and line breaks inside cells become spaces."""
    lines = [table.columns, *table.rows]
    return "".join(
        "\t".join("" if cell is None else " ".join(str(cell).split()) for cell in row) + "\n" for row in lines
    )
