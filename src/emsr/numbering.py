"""Which files of a folder are the sections of a volume: names that agree but for one number, or that fit a pattern."""

from __future__ import annotations

import os
import re
from pathlib import Path

NUMBER = "{z}"
KINDS = {".tif": "TIFF", ".tiff": "TIFF", ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def check_pattern(pattern: str) -> None:
    """ValueError for what does not say where the number of a section stands in a file's name."""
    if pattern.count(NUMBER) != 1 or "/" in pattern:
        raise ValueError(
            f"pattern {pattern!r} does not state the place of the number: write a file name with one {NUMBER}, "
            f"for example section_{NUMBER}.png; * stands for anything else that differs"
        )


def image_names(folder: Path) -> list[str]:
    """Names of the images in a folder, hidden ones left out, sorted."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".")]
    return sorted(name for name in names if kind(name))


def kind(name: str) -> str:
    """TIFF, PNG or JPEG by the ending of a file's name; empty for others."""
    return KINDS.get(os.path.splitext(name)[1].lower(), "")


def numbered(folder: Path, pattern: str | None) -> dict[int, str]:
    """Number and file name of each section, in order of the numbers; ValueError, in one line, where they are unclear.

    With a pattern, other files of the folder do not count; without one, every image in it is a section.
    """
    names = image_names(folder)
    found = _matched(folder, names, pattern) if pattern else _differing(folder, names)
    sections: dict[int, str] = {}
    for number, name in sorted(found):
        if number in sections:
            raise ValueError(f"{folder}: {sections[number]} and {name} are both number {number}: remove one")
        sections[number] = name
    if len({kind(name) for name in sections.values()}) > 1:
        some = sorted({os.path.splitext(name)[1] for name in sections.values()})
        raise ValueError(f"{folder} mixes formats ({', '.join(some)}): state a pattern, for example {NUMBER}{some[0]}")
    return sections


def first(folder: Path, pattern: str | None) -> str:
    """The name of the first section of a folder; empty where there are none."""
    try:
        return next(iter(numbered(folder, pattern).values()))
    except (ValueError, OSError):
        return ""


def _matched(folder: Path, names: list[str], pattern: str) -> list[tuple[int, str]]:
    """Numbers by a pattern; ambiguous is a name whose number depends on how much a * takes."""
    check_pattern(pattern)
    expressions = [_expression(pattern, anything) for anything in (".*", ".*?")]
    found = []
    for name in names:
        numbers = {int(match[1]) for expression in expressions if (match := expression.fullmatch(name))}
        if len(numbers) > 1:
            some = " or ".join(map(str, sorted(numbers)))
            raise ValueError(f"{folder}: the number of {name} is {some} by pattern {pattern!r}: use fewer *")
        found += [(number, name) for number in numbers]
    if not found:
        there = f"for example {names[0]}" if names else "no TIFF, PNG or JPEG at all"
        raise ValueError(f"{folder} holds no image called {pattern!r} ({there}): correct the pattern")
    return found


def _expression(pattern: str, anything: str) -> re.Pattern[str]:
    """A pattern as a regular expression; a number beside a * is whole."""
    before, after = (anything.join(map(re.escape, part.split("*"))) for part in pattern.split(NUMBER))
    start = "(?<![0-9])" if before.endswith(anything) else ""
    end = "(?![0-9])" if after.startswith(anything) else ""
    return re.compile(f"{before}{start}([0-9]+){end}{after}")


def _differing(folder: Path, names: list[str]) -> list[tuple[int, str]]:
    """Numbers of names that agree but for one number."""
    if not names:
        raise ValueError(f"{folder} holds no TIFF, PNG or JPEG: name a folder of sections")
    hint = f"state a pattern, for example section_{NUMBER}{os.path.splitext(names[0])[1]}"
    split = [re.split(r"([0-9]+)", os.path.splitext(name)[0]) for name in names]
    for name, parts in zip(names, split, strict=True):
        if parts[::2] != split[0][::2]:
            raise ValueError(f"{folder}: names {names[0]} and {name} differ in more than a number: {hint}")
    rows = [[int(digits) for digits in parts[1::2]] for parts in split]
    if not rows[0]:
        raise ValueError(f"{folder}: there is no number in the name {names[0]}: rename the sections, or {hint}")
    columns = [column for column in range(len(rows[0])) if len({row[column] for row in rows}) > 1]
    if not columns and len(rows[0]) == 1:
        columns = [0]
    if len(columns) != 1:
        raise ValueError(f"{folder}: which number of {names[0]} counts the sections is unclear: {hint}")
    return [(row[columns[0]], name) for row, name in zip(rows, names, strict=True)]
