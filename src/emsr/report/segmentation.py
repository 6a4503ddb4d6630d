"""The chapter about a volume's segmentations: how they score, what that is stated on, and where they go wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emsr.report import segment_places, worth
from emsr.report.blocks import Block, Cell, Chapter, Paragraph, Points, Table, minus, numbered
from emsr.report.evidence import Card, SegmentedEvidence, SegmentEvidence
from emsr.report.segment_pictures import membrane_pictures, mistake_pictures
from emsr.report.segment_terms import SOURCES, single_sections, terms
from emsr.report.style import pixels, styled
from emsr.report.tables import voxels

IMAGES = ("bicubic", "sr", "hr")
MEANS = ("voi_split", "voi_merge", "voi", "arand", "precision", "recall")
MEAN_COLUMNS = ("VOI split", "VOI merge", "VOI", "adapted Rand error", "precision", "recall")
MEMBRANE = ("f1", "threshold", "precision", "recall", "best_f1", "best_threshold", "average_precision", "auc")
MEMBRANE_COLUMNS = (
    *("F1", "at threshold", "precision", "recall", "best F1", "at threshold"),
    *("average precision", "area under ROC"),
)
Drawn = Mapping[str, Sequence[np.ndarray]]


def draw(segments: SegmentEvidence | None) -> dict[str, list[np.ndarray]]:
    """The pictures, (rows, columns, 3) each, by kind: "splits", "merges", "invented", "lost"; empty without any."""
    if segments is None:
        return {}
    with styled():
        found = {
            "splits": mistake_pictures(segments.splits),
            "merges": mistake_pictures(segments.merges),
            "invented": membrane_pictures(segments.invented, "invented"),
            "lost": membrane_pictures(segments.lost, "lost"),
        }
        return {kind: [pixels(figure) for figure in figures] for kind, figures in found.items()}


def chapter(name: str, segments: SegmentEvidence, drawn: Drawn) -> Chapter:
    """Everything about the segmentations of volume ``name``; ``drawn`` as ``draw`` gives it."""
    scores = segments.scores
    return Chapter(
        f"Segmentation of {name}",
        [object_table(scores), section_table(scores), membrane_table(scores), _worth(segments)],
        [
            Chapter("How it was measured", [Points([*stated(scores), *_networks(segments)])]),
            *segment_places.chapters(segments, drawn),
        ],
        fresh=True,
    )


def headline(volume: SegmentedEvidence) -> Table:
    """The main figures of a volume that is only segmented."""
    scores = volume.segments.scores
    rows = [
        (name, *(figure(scores["segmentation"][name][key]) for key in ("voi", "arand")), figure(row["best_f1"]))
        for name in rivals(scores)
        for row in [scores["membrane"][name]]
    ]
    columns = ("segmentation", "VOI, bits ↓", "adapted Rand error ↓", "best membrane F1 ↑")
    return Table(f"Against labels: ↓ lower is better, ↑ higher. {terms(scores)}", columns, rows)


def _worth(segments: SegmentEvidence) -> Block:
    if segments.scores["worth"] is None:
        return Paragraph(f"No share of a gap was measured: {segments.scores['worth_reason']}.", "note")
    return worth.table(segments)


# -- tables of scores -------------------------------------------------------------------------------------------------


def rivals(scores: Card) -> list[str]:
    """Names of the segmentations: those of bicubic, then of sr, then of hr."""
    of = scores["segmentation"]
    return sorted(of, key=lambda name: (IMAGES.index(of[name]["image"]), name not in IMAGES, name))


def figure(value: Any) -> Cell:
    """Counts as they are, other figures with four decimals, "–" for none."""
    if value is None:
        return "–"
    return minus(f"{value:.4f}") if isinstance(value, float) else str(value)


def object_table(scores: Card) -> Table:
    """Splits and merges of every segmentation, of the volume as a whole."""
    columns = ("segmentation", "of image", "threshold", "chosen by", *MEAN_COLUMNS, "objects", "segments")
    rows = [
        (
            *(name, row["image"], f"{row['threshold']:g}", row["threshold_source"]),
            *(figure(row[key]) for key in (*MEANS, "objects", "segments")),
        )
        for name in rivals(scores)
        for row in [scores["segmentation"][name]]
    ]
    flat = ", each in one section" if single_sections(scores) else ""
    words = f"Objects of the whole volume{flat}. VOI in bits, lower is better; adapted Rand error likewise"
    return Table(f"{words}. {terms(scores)}", columns, rows)


def section_table(scores: Card) -> Table:
    """The same figures of single sections, as means."""
    rows = [
        (name, *(figure(scores["sections"][name][key]) for key in (*MEANS, "sections", "unlabelled")))
        for name in rivals(scores)
    ]
    columns = ("segmentation", *MEAN_COLUMNS, "sections", "unlabelled")
    words = "Objects of single sections (2D), means over sections: pieces that are connected in the section"
    return Table(f"{words}. {terms(scores)}", columns, rows)


def membrane_table(scores: Card) -> Table:
    """Membrane of every segmentation's affinities against borders of labels."""
    columns = ("segmentation", *MEMBRANE_COLUMNS, "threshold chosen by")
    words = {"best": "the scored data", "validation": "validation"}
    rows = [
        (name, *(figure(row[key]) for key in MEMBRANE), words.get(row["threshold_source"], row["threshold_source"]))
        for name in rivals(scores)
        for row in [scores["membrane"][name]]
    ]
    return Table(f"Membrane against borders of labels: higher is better. {terms(scores)}", columns, rows)


def score_list(scores: Card) -> Table:
    """All figures of every segmentation, numbers as they are: of the volume, of sections (2D), of membrane."""
    own = ("image", "threshold", "threshold_source", *MEANS, "objects", "segments", "voxels", "ignored_voxels")
    of_sections, of_membrane = (*MEANS, "sections", "unlabelled"), (*MEMBRANE, "threshold_source")
    rows = [
        (
            name,
            *(scores["segmentation"][name][key] for key in own),
            *(scores["sections"][name][key] for key in of_sections),
            *(scores["membrane"][name][key] for key in of_membrane),
            terms(scores),
        )
        for name in rivals(scores)
    ]
    second = (*(f"2D {key}" for key in of_sections), *(f"membrane {key}" for key in of_membrane))
    return Table("", ("segmentation", *own, *second, "terms"), rows)


# -- what the figures are ---------------------------------------------------------------------------------------------


def stated(scores: Card) -> list[tuple[str, str]]:
    """What was scored, and how: as points."""
    settings = scores["settings"]
    words = [
        f"Scored: {numbered(settings['sections'])}, {voxels(settings['region_yx'])} voxels each, in "
        f"{settings['sub_volumes']} sub-volumes of about {settings['windows']} voxels a side.",
        *_single_sections(scores),
        *_left_out(settings),
        _border(settings),
        *_ignored(scores),
        _organelles(settings["organelles"]),
        *_thresholds(scores),
        "VOI split is H(segmentation | truth), VOI merge H(truth | segmentation). Precision falls with merges, recall "
        "with splits.",
        _membrane_words(settings),
    ]
    reasons = dict.fromkeys(row["reason"] for row in scores["membrane"].values() if row["reason"])
    return [*(("info", one) for one in words), *(("unmeasured", f"Membrane: {reason}.") for reason in reasons)]


def _single_sections(scores: Card) -> list[str]:
    """What labels of single sections cannot say, if they are such."""
    settings = scores["settings"]
    return [
        f"{made[:1].upper()}{made[1:]}; pieces of fewer than {settings['single_sections']['least_pixels']} pixels are "
        "no objects. They know nothing of the next section: an object ends with its section, and a segment that goes "
        "on into the next one merges two. While none does, VOI of the volume is that of its sections by their voxels."
        for made in single_sections(scores)
    ]


def _left_out(settings: Card) -> list[str]:
    """Which sections, and how many voxels of those that are scored, are in no score, and why."""
    whole, found = settings["left_out"], settings.get("parts_left_out") or {}
    why = "damaged, missing or not made" if "not made" in " ".join(whole.values()) else "damaged or missing"
    words = [f"In no score: {numbered([int(z) for z in whole])}, {why}."] if whole else []
    if not found.get("voxels"):
        return words
    share = found["voxels"] / (len(settings["sections"]) * math.prod(settings["region_yx"]))
    where = f"{found['voxels']:,} voxels ({share:.2%}) in {numbered([int(z) for z in found['sections']])}"
    if found["voxels"] == found["damaged_voxels"]:
        return [*words, f"In no score: {where}, damaged in part."]
    damaged = " or damaged in part" if found["damaged_voxels"] else ""
    return [*words, f"In no score: {where}, not made{damaged}. Affinities beside what was not made saw black there."]


def _where(settings: Card) -> str:
    return "in the own section" if settings["in_plane"] else "in all directions"


def _border(settings: Card) -> str:
    if not settings["border_nm"]:
        return "Border tolerance: none. Voxels up to the borders of labels are counted."
    return (
        f"Border tolerance: {settings['border_nm']:g} nm. Voxels so near to a border of labels, {_where(settings)}, "
        "are not counted in splits and merges."
    )


def _ignored(scores: Card) -> list[str]:
    """Which labels are not counted and how many voxels that are, and what else a reader must know of the truth."""
    ids = ", ".join(map(str, scores["settings"]["ignored"]))
    row = scores["segmentation"][rivals(scores)[0]]
    remarks = dict.fromkeys(remark for row in scores["segmentation"].values() for remark in row["remarks"])
    counted = f"{row['ignored_voxels']} voxels have one; {row['voxels']} are counted"
    return [
        f"Ignored labels: {ids}. Of the voxels that no border leaves out, {counted}.",
        *(f"Note: {remark}." for remark in remarks),
    ]


def _organelles(organelles: Card) -> str:
    if not organelles["max_voxels"]:
        return "Organelles with ids of their own are left as they are: each counts as an object."
    return (
        f"Organelles: objects of at most {organelles['max_voxels']} voxels that another one encloses are part of it; "
        f"{organelles['absorbed']} were. Pictures show the labels as they were before that."
    )


def _thresholds(scores: Card) -> list[str]:
    """Who chose the thresholds of segments, in one sentence each."""
    found: dict[str, list[str]] = {}
    for name in rivals(scores):
        found.setdefault(scores["segmentation"][name]["threshold_source"], []).append(name)
    return [f"Thresholds of {', '.join(names)}: {SOURCES.get(source, source)}." for source, names in found.items()]


def _membrane_words(settings: Card) -> str:
    axes = "y and x" if settings["in_plane"] else "z, y and x"
    validation = ", ".join(f"{first}–{last - 1}" for first, last in settings["validation"] or ())
    at = f"validation sections {validation} choose" if validation else "nothing but the scored data chose"
    return (
        f"Membrane is 1 − mean of the affinities along {axes}; at most {settings['membrane_nm']:g} nm from a border of "
        f"labels, {_where(settings)}, it is right; {at} its threshold."
    )


def _networks(segments: SegmentEvidence) -> list[tuple[str, str]]:
    """Which segmentations one network made, as points."""
    scores, found = segments.scores, dict[str, list[str]]()
    for name in rivals(scores):
        found.setdefault(scores["segmentation"][name]["weights_sha256"], []).append(name)
    points = []
    for sha256, names in found.items():
        network = segments.networks.get(names[0])
        of = f" ({network.words})" if network else ""
        points.append(("info", f"Network {sha256[:16]}{of} made the affinities of {', '.join(names)}."))
    return points
