"""How hr, imaged apart from lr, was brought onto it: what is left of the displacement, section by section, in nm."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from emsr.report.blocks import Chapter, Paragraph, Table, minus, numbered
from emsr.report.evidence import VolumeEvidence

LONGEST = 48  # rows of the table on the page
MUCH = 0.5  # sr voxels that hr may lie off lr without costing noticeable PSNR
Rows = dict[int, Mapping[str, Any]]


def facts(hr: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """A row about hr, if it was registered to lr: residuals, limit, and how many sections agree."""
    if not (hr or {}).get("registration"):
        return []
    rows, limit = _rows(hr), hr["registration"]["limit_nm"]  # type: ignore[index]
    good = _good(rows)
    return [("truth lies on low resolution to", f"{_residuals(good)}; limit {limit:g} nm; {_count(good, rows)}")]


def doubts(volume: VolumeEvidence) -> list[tuple[str, str]]:
    """What a registered truth leaves open: sections that do not agree, and displacements that cost scores."""
    hr = volume.hr or {}
    if not hr.get("registration"):
        return []
    rows, points = _rows(hr), []
    if apart := [z for z, row in rows.items() if row["state"] == "unregistered"]:
        limit = hr["registration"]["limit_nm"]
        points.append(("warn", f"hr does not agree with lr to {limit:g} nm in {numbered(apart)}: in no score."))
    most = MUCH * float(volume.sr["voxel_size_nm"][1])
    scored = {row["z"] for row in volume.scores.get("per_section") or () if "sr" in row}
    if off := [z for z, row in _good(rows).items() if z in scored and row["residual_nm"] > most]:
        points.append(
            ("warn", f"hr lies more than {most:g} nm off lr in {numbered(off)}, which costs bicubic and sr some score.")
        )
    return points


def chapters(volume: VolumeEvidence) -> list[Chapter]:
    """The part about registration, if hr was registered to lr."""
    hr = volume.hr or {}
    if not hr.get("registration"):
        return []
    rows, how = _rows(hr), hr["registration"]
    good = _good(rows)
    (top, bottom), (left, right) = hr["covered"]
    about = (
        f"hr was imaged apart from lr and brought onto it section by section: {_count(good, rows)}, "
        f"{_residuals(good)}, limit {how['limit_nm']:g} nm. The residual is the robust root mean square displacement "
        f"of tiles that is left, hr being made coarser by kernel {how['kernel']}; bends of a section are part of it. "
        f"Scored is what hr shows of all sections that agree: y {top}–{bottom}, x {left}–{right}."
    )
    if how["clipped"] >= 0.001:
        about += f" With the contrast of lr {how['clipped']:.1%} of hr's voxels leave the grey levels and are cut."
    return [Chapter("Registration", [Paragraph(about), table(rows)])]


def table(rows: Rows) -> Table:
    """Sections with what was found of each; of many those that fail or have the largest residuals."""
    ranked = sorted(rows, key=lambda z: (rows[z]["state"] == "registered", -rows[z].get("residual_nm", 0.0), z))
    kept = sorted(ranked[:LONGEST])
    caption = "Where hr had to move to, turned and stretched about the middle of lr"
    if len(kept) < len(rows):
        caption += (
            f": the {LONGEST} of {len(rows)} sections that agree least; all are in hr_registered.registration.tsv"
        )
    columns = ("z", "state", "residual, nm", "y, nm", "x, nm", "degrees", "scale", "tiles within 1 lr pixel")
    most = max((rows[z].get("residual_nm", 0.0) for z in kept), default=0.0) or 1.0
    states = ["" if rows[z]["state"] == "registered" else "warn" for z in kept]
    bars = [rows[z].get("residual_nm", 0.0) / most for z in kept]
    return Table(caption, columns, [(z, *_cells(rows[z])) for z in kept], states, bars)


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    if "residual_nm" not in row:
        return (row["state"], *["–"] * 6)
    y, x = row["shift_nm"]
    written = (f"{row['residual_nm']:.2f}", f"{y:.1f}", f"{x:.1f}", f"{row['rotation_deg']:.3f}", f"{row['scale']:.4f}")
    return (row["state"], *map(minus, written), f"{row['agreeing']} of {row['tiles']}")


def _rows(hr: Mapping[str, Any] | None) -> Rows:
    return {int(z): row for z, row in (hr or {})["registration"]["sections"].items()}


def _good(rows: Rows) -> Rows:
    return {z: row for z, row in rows.items() if row["state"] == "registered"}


def _count(good: Rows, rows: Rows) -> str:
    return f"{len(good)} of {len(rows)} sections agree"


def _residuals(good: Rows) -> str:
    """ "residual 1.1 nm (median), 4.3 nm (largest, section 10)"."""
    left = {z: row["residual_nm"] for z, row in good.items()}
    worst = max(left, key=lambda z: left[z])
    return f"residual {median(left.values()):.2g} nm (median), {left[worst]:.2g} nm (largest, section {worst})"
