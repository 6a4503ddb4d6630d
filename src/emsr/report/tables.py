"""Tables of one volume: its scores, its seams, its damaged sections; and what the figures in them are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emsr.report import caveats
from emsr.report.blocks import Paragraph, Table, decibels, nanometres, numbered, share
from emsr.report.charts import figure_of
from emsr.report.evidence import VolumeEvidence

Written = Callable[..., str]


@dataclass(frozen=True)
class Measure:
    """A figure of ``scores.json``: its key, label and unit, how it is written, and whether less of it is better."""

    key: str
    label: str
    written: Written
    unit: str = ""
    falls: bool = False

    @property
    def title(self) -> str:
        """Label and unit: "PSNR, dB"."""
        return f"{self.label}, {self.unit}" if self.unit else self.label

    def gain(self, before: float | None, after: float | None) -> str:
        """What ``after`` is better by, so that a minus always stands for the worse."""
        if before is None or after is None:
            return self.written(None)
        return self.written(before - after if self.falls else after - before, True)


PSNR, SSIM = Measure("psnr", "PSNR", decibels, "dB"), Measure("ssim", "SSIM", share)
CONSISTENCY = Measure("consistency", "consistency", decibels, "dB")
FRC = Measure("frc_nm", "FRC 1/7", nanometres, "nm", falls=True)
FURTHER = (
    Measure("ms_ssim", "MS-SSIM", share),
    Measure("lpips", "LPIPS", share, falls=True),
    FRC,
    Measure("frc_half_bit_nm", "FRC half-bit", nanometres, "nm", falls=True),
)
MEASURES = (PSNR, SSIM, CONSISTENCY)  # of the page's table of sections
POOLED = Measure("psnr_pooled", "pooled PSNR", decibels, "dB")
MEANS = (PSNR, SSIM, *FURTHER, POOLED)
SCORE_COLUMNS = ("image", *(measure.title for measure in MEANS), "consistency with lr, dB")
LONGEST = 48  # rows of a table of sections on the page


def voxels(shape: Sequence[int]) -> str:
    """A shape in words: 64 × 520 × 520."""
    return " × ".join(map(str, shape))


def score_table(volume: VolumeEvidence) -> Table:
    """Scores of the volume: one row per image."""
    found = volume.scores.get("consistency") or {}
    rows = []
    for name, words in (("bicubic", "bicubic"), ("sr", "super-resolved")):
        consistency = (found.get(name) or {}).get("psnr")
        rows.append((words, *(mean(volume, name, part) for part in MEANS), decibels(consistency)))
    return Table("Means over the measured sections", SCORE_COLUMNS, rows)


def mean(volume: VolumeEvidence, name: str, measure: Measure) -> str:
    """A figure of bicubic or sr over all sections; "≤ 8.0" for a resolution that the voxels limit."""
    image = (volume.scores.get("image") or {}).get(name) or {}
    if measure.key in (image.get("frc_at_limit") or ()):
        return f"≤ {measure.written(volume.scores['settings']['frc']['limit_nm'])}"
    return measure.written(image.get(measure.key))


def section_table(volume: VolumeEvidence, measures: Sequence[Measure] = (*MEASURES, *FURTHER)) -> Table:
    """Figures of every section; sections where bicubic is better in PSNR or SSIM, the first two, are marked."""
    columns = ["z"]
    for measure in measures:
        columns += [f"bicubic {measure.label}", f"sr {measure.label}", "gain"]
    measured = volume.scores.get("per_section") or ()
    rows = [(row["z"], *(cell for measure in measures for cell in _cells(row, measure))) for row in measured]
    states = ["warn" if any(str(cell).startswith("−") for cell in row[3:7:3]) else "" for row in rows]
    return Table("Section by section", columns, rows, states)


def _cells(row: Mapping[str, Any], measure: Measure) -> tuple[str, str, str]:
    """bicubic, sr and gain of one section."""
    before, after = (figure_of(row, image, measure.key) for image in ("bicubic", "sr"))
    return measure.written(before), measure.written(after), measure.gain(before, after)


def said(table: Table) -> Table:
    """``table`` without columns that say nothing."""
    kept = [i for i in range(len(table.columns)) if any(row[i] not in ("–", None) for row in table.rows)]
    rows = [[row[i] for i in kept] for row in table.rows]
    return Table(table.caption, [table.columns[i] for i in kept], rows, table.states)


def shown(table: Table) -> Table:
    """What of ``table`` the page shows: columns and rows that say something, marked rows and ``LONGEST`` in all."""
    ranked = sorted(range(len(table.rows)), key=lambda i: (not table.states[i], i))[:LONGEST]
    caption = table.caption
    if len(ranked) < len(table.rows):
        caption += f": {LONGEST} of {len(table.rows)}, marked ones first to be kept; all are in scores.tsv"
    rows = [table.rows[i] for i in sorted(ranked)]
    return said(Table(caption, table.columns, rows, [table.states[i] for i in sorted(ranked)]))


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
    words = f"In no score: {numbered([z for z, *_ in found])}"
    if set(volume.lr.get("damaged") or ()) | set(volume.lr.get("missing") or ()):
        words += ". As neighbours, the nearest good sections stand for those of lr"
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
    size = f"{voxels(settings['region_yx'])} voxels each"
    size += ", of which what was made counts" if volume.sr.get("skipped") else ""
    left_out = [int(z) for z in settings["left_out"]]
    return [
        ("info", f"Scored: {numbered(settings['sections'])}, {size}, as uint8, no border left out."),
        *([("info", f"In no score: {numbered(left_out)}, {_why(volume)}.")] if left_out else []),
        *(("info", words) for words in _damaged_parts(settings)),
        ("info", f"Equal to scikit-image's: data range 255, SSIM with a uniform window of {window} × {window} pixels."),
        (
            "info",
            "PSNR is the mean of the sections' decibels, pooled PSNR that of the mean squared error of all pixels.",
        ),
        *(("info", words) for words in _further(volume.scores["image"], settings)),
        ("info", consistency),
    ]


def _why(volume: VolumeEvidence) -> str:
    """What leaves sections of a volume out of scores."""
    return "damaged, missing or not made" if volume.sr.get("skipped") else "damaged or missing"


def _damaged_parts(settings: Mapping[str, Any]) -> list[str]:
    """How much of the scored sections is damaged in part and in no figure."""
    found = settings.get("damaged_parts") or {}
    if not found.get("voxels"):
        return []
    named = [int(z) for z in found["sections"]]
    part = found["voxels"] / (len(settings["sections"]) * math.prod(settings["region_yx"]))
    return [
        f"In no figure: {found['voxels']:,} voxels ({part:.2%} of the scored sections) in damaged parts of hr or lr, "
        f"in {numbered(named)}; nor windows of SSIM and MS-SSIM that touch them, nor FRC and LPIPS of middles that do."
    ]


def _further(image: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """What the figures of ``FURTHER`` are, and why one of them is missing."""
    found, frc, lpips = [], settings.get("frc"), settings.get("lpips")
    if settings.get("ms_ssim"):
        found.append(f"MS-SSIM is of {settings['ms_ssim']['scales_used']} scales, each half as fine as the one before.")
    if frc and frc["limit_nm"]:
        found.append(
            "FRC is the finest period, in nm, down to which an image agrees with hr: where Fourier ring correlation "
            f"falls under 1/7 or the half-bit curve, in the middle {voxels(frc['middle_yx'])} voxels of sections. Less "
            f"is better; ≤ {frc['limit_nm']:.1f} says that it does not fall down to two voxels. It is no resolution of "
            "two exposures, and blind to contrast: an image that is only blurred agrees too."
        )
    if lpips and lpips["network"]:
        found.append(
            f"LPIPS is a distance of the features of {lpips['network']}, in the middle {voxels(lpips['middle_yx'])} "
            "voxels: 0 for equal images, less is better."
        )
    reasons: dict[str, list[str]] = {}
    for measure in FURTHER:
        for name in ("bicubic", "sr"):
            one = image.get(name) or {}
            why = (one.get("reasons") or {}).get(measure.key)
            if why and measure.key not in one["frc_at_limit"]:
                reasons.setdefault(f"{measure.label}: {why}", []).append(name)
    return found + [f"No {why} ({' and '.join(names)})." for why, names in reasons.items()]
