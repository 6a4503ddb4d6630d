"""Tables of one volume: its scores, its seams, its damaged sections; and what the figures in them are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from emsr.report import caveats
from emsr.report.blocks import Paragraph, Table, decibels, numbered, share
from emsr.report.charts import figure_of
from emsr.report.evidence import VolumeEvidence

SCORE_COLUMNS = ("image", "PSNR, dB", "SSIM", "pooled PSNR, dB", "consistency with lr, dB")
MEASURES = (("psnr", "PSNR", decibels), ("ssim", "SSIM", share), ("consistency", "consistency", decibels))
LONGEST = 48  # rows of a table of sections on the page


def voxels(shape: Sequence[int]) -> str:
    """A shape in words: 64 × 520 × 520."""
    return " × ".join(map(str, shape))


def score_table(volume: VolumeEvidence) -> Table:
    """Scores of the volume: one row per image."""
    image, found = volume.scores.get("image") or {}, volume.scores.get("consistency") or {}
    rows = []
    for name, words in (("bicubic", "bicubic"), ("sr", "super-resolved")):
        one, consistency = image.get(name) or {}, (found.get(name) or {}).get("psnr")
        scores = (decibels(one.get("psnr")), share(one.get("ssim")), decibels(one.get("psnr_pooled")))
        rows.append((words, *scores, decibels(consistency)))
    return Table("Means over the measured sections", SCORE_COLUMNS, rows)


def section_table(volume: VolumeEvidence) -> Table:
    """Figures of every section; sections where bicubic is better are marked."""
    columns = ["z"]
    for _, label, _ in MEASURES:
        columns += [f"bicubic {label}", f"sr {label}", "gain"]
    measured = volume.scores.get("per_section") or ()
    rows = [(row["z"], *(cell for measure in MEASURES for cell in _cells(row, measure))) for row in measured]
    states = ["warn" if any(str(cell).startswith("−") for cell in row[3:7:3]) else "" for row in rows]
    return Table("Section by section", columns, rows, states)


def _cells(row: Mapping[str, Any], measure: tuple[str, str, Callable[..., str]]) -> tuple[str, str, str]:
    """bicubic, sr and gain of one section."""
    name, _, written = measure
    before, after = (figure_of(row, image, name) for image in ("bicubic", "sr"))
    gain = None if before is None or after is None else after - before
    return written(before), written(after), written(gain, True)


def shown(table: Table) -> Table:
    """What of ``table`` the page shows: columns and rows that say something, marked rows and ``LONGEST`` in all."""
    said = [i for i in range(len(table.columns)) if any(row[i] not in ("–", None) for row in table.rows)]
    ranked = sorted(range(len(table.rows)), key=lambda i: (not table.states[i], i))[:LONGEST]
    caption = table.caption
    if len(ranked) < len(table.rows):
        caption += f": {LONGEST} of {len(table.rows)}, marked ones first to be kept; all are in scores.tsv"
    rows = [[table.rows[i][column] for column in said] for i in sorted(ranked)]
    return Table(caption, [table.columns[i] for i in said], rows, [table.states[i] for i in sorted(ranked)])


def seam_table(volume: VolumeEvidence) -> Table | Paragraph:
    """Seam scores of every kind of border, along y and x."""
    rows, states = [], []
    for kind, scores in volume.seams.items():
        values = [scores.get(axis) for axis in ("y", "x")]
        rows.append((f"{kind}s", *("no border" if value is None else f"{value:.3f}" for value in values)))
        known = [value for value in values if value is not None]
        states.append("info" if not known else "warn" if max(known) > caveats.SEAM else "pass")
    if not rows:
        return Paragraph("No seam scores were recorded.", "note")
    words = "Steepness across borders over that beside them, whole volume: 1 is a border without a trace"
    return Table(words, ("borders of", "along y", "along x"), rows, states)


def damage_table(volume: VolumeEvidence) -> Table | Paragraph:
    """Damaged and missing sections with the reason."""
    found = [(z, "damaged", why) for z, why in volume.damaged.items()]
    found += [(z, "missing", why) for z, why in volume.missing.items()]
    if not found:
        return Paragraph(f"None of the {volume.length} sections was found damaged or missing.")
    words = f"In no score: {numbered([z for z, *_ in found])}. As neighbours, the nearest good sections stand for them"
    return Table(words, ("z", "state", "reason"), sorted(found))


def stated(volume: VolumeEvidence) -> list[tuple[str, str]]:
    """What the scores are, as points."""
    settings = volume.scores.get("settings")
    if not settings:
        return []
    kernel = settings["consistency"]["kernel"] + ("" if settings["consistency"]["known"] else " (assumed)")
    consistency = f"Consistency is the PSNR against lr of the image made coarser again, kernel {kernel}."
    if not volume.scores.get("image"):
        return [("info", f"Measured: {numbered(settings['sections'])}. {consistency}")]
    window = settings["metrics"]["ssim"]["window"]
    size = f"{voxels(settings['region_yx'])} voxels each, as uint8, no border left out"
    left_out = [int(z) for z in settings["left_out"]]
    return [
        ("info", f"Scored: {numbered(settings['sections'])}, {size}."),
        *([("info", f"In no score: {numbered(left_out)}, damaged or missing.")] if left_out else []),
        ("info", f"Equal to scikit-image's: data range 255, SSIM with a uniform window of {window} × {window} pixels."),
        (
            "info",
            "PSNR is the mean of the sections' decibels, pooled PSNR that of the mean squared error of all pixels.",
        ),
        ("info", consistency),
    ]
