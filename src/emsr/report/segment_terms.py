"""What every table of segmentations stands on, in a few words that go with it."""

from __future__ import annotations

from emsr.report.blocks import numbered
from emsr.report.evidence import Card

SOURCES = {"config": "stated in the configuration", "validation": "least VOI on validation sections"}


def terms(scores: Card) -> str:
    """Sections, border tolerance, ignored labels, organelles, tolerance of membrane, where thresholds come from."""
    settings = scores["settings"]
    border, organelles = settings["border_nm"], settings["organelles"]
    words = [
        f"Counted: {numbered(settings['sections'])}",
        *single_sections(scores),
        f"labels not counted: {', '.join(map(str, settings['ignored']))}",
        f"border tolerance {border:g} nm {_where(scores)}" if border else "no border tolerance",
        f"objects of up to {organelles['max_voxels']} voxels within another (organelles) are part of it, "
        f"{organelles['absorbed']} were"
        if organelles["max_voxels"]
        else "organelles with ids of their own are objects",
        f"membrane within {settings['membrane_nm']:g} nm {_where(scores)} is right",
        f"thresholds of segments: {_sources(scores)}",
        f"of membrane: {_validation(scores)}",
    ]
    return "; ".join(words)


def single_sections(scores: Card) -> list[str]:
    """That labels are of single sections and how they were made, if so: one part of a sentence."""
    made = scores["settings"].get("single_sections")
    return [f"labels are of single sections, made from membranes of level {made['level']}"] if made else []


def _where(scores: Card) -> str:
    return "in the section" if scores["settings"]["in_plane"] else "in all directions"


def _sources(scores: Card) -> str:
    """Where thresholds come from, and of which segmentations if not all share one source."""
    found: dict[str, list[str]] = {}
    for name, row in scores["segmentation"].items():
        found.setdefault(SOURCES.get(row["threshold_source"], row["threshold_source"]), []).append(name)
    if len(found) == 1:
        return f"{next(iter(found))}{_sections(scores) if SOURCES['validation'] in found else ''}"
    return ", ".join(f"{source} ({', '.join(names)})" for source, names in found.items())


def _validation(scores: Card) -> str:
    return f"validation sections{_sections(scores)}" if scores["settings"]["validation"] else "the scored data itself"


def _sections(scores: Card) -> str:
    ranges = scores["settings"]["validation"] or ()
    return f" {', '.join(f'{first}–{last - 1}' for first, last in ranges)}" if ranges else ""
