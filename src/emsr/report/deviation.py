"""How far samples of a volume's sr lie apart, where it has samples: pictures, figures, and what they do not say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from emsr.report.blocks import Block, Chapter, Image, Paragraph, Table
from emsr.report.canvas import GAP, HEAD, Canvas, colour_bar, scale_bar, show, title, whole_factor
from emsr.report.evidence import SectionView
from emsr.report.style import pixels, webp

LONGEST = 48  # rows of the table on the page
ENDS = (1, 2, 5)  # grey levels at which colour scales may end; above them multiples of the last
COLOURS = "magma"
COLUMNS = ("z", "mean", "99th percentile", "error of sr (RMSE)")


@dataclass(frozen=True, eq=False)
class DeviationView:
    """A section as it is shown side by side, and the deviation (y, x) of the same voxels, float32 in grey levels."""

    section: SectionView
    deviation: np.ndarray


@dataclass(frozen=True)
class Spread:
    """Standard deviations over voxels, in grey levels; ``ended`` is the share of voxels at the largest one there is.

    ``error`` is the root mean square difference of sr from hr there, None where it was not measured or is of no voxel.
    """

    mean: float
    p99: float
    ended: float
    error: float | None = None


@dataclass(frozen=True, eq=False)
class DeviationEvidence:
    """The deviation of a volume: its card, what it is over ``sections`` and over all of them, and crops.

    ``measured`` says how many sections could have been measured.
    """

    card: Mapping[str, Any]
    sections: Mapping[int, Spread]
    whole: Spread | None
    measured: int
    views: Sequence[DeviationView] = ()


def draw(found: DeviationEvidence | None) -> list[np.ndarray]:
    """A picture (rows, columns, 3) of each view. Draw inside ``styled()``."""
    views = found.views if found else ()
    limits = [_end([view.deviation for view in views]), _end([error for view in views for error in _errors(view)])]
    return [pixels(picture(view, limits)) for view in views]


def picture(view: DeviationView, ends: Sequence[float]) -> Figure:
    """sr, the deviation of its samples and, with a truth, its error; the colours of the latter two end at ``ends``."""
    voxels = view.section.images["sr"]
    factor = whole_factor(max(voxels.shape))
    height, width = (side * factor for side in voxels.shape)
    shown = [("standard deviation of the samples", view.deviation), *(("|sr − hr|", one) for one in _errors(view))]
    canvas = Canvas.of((len(shown) + 1) * (width + GAP) - GAP, HEAD + height)
    axes = canvas.panel(0, HEAD, width, height)
    show(axes, voxels, (factor, factor))
    title(axes, "super-resolved")
    scale_bar(axes, voxels.shape[1], view.section.voxel_nm[1])
    for column, ((words, values), end) in enumerate(zip(shown, ends, strict=False), 1):
        axes = canvas.panel(column * (width + GAP), HEAD, width, height)
        show(axes, values, (factor, factor), cmap=COLOURS, vmin=0, vmax=end)
        title(axes, words, f"mean {values.mean():.2f}")
        colour_bar(axes, (0, end), COLOURS)
    return canvas.figure


def _errors(view: DeviationView) -> list[np.ndarray]:
    """How far sr is from the truth, if that is shown."""
    images = view.section.images
    return [np.abs(images["sr"].astype(np.float32) - images["hr"])] if "hr" in images else []


def _end(values: Sequence[np.ndarray]) -> float:
    """Where a colour scale ends that holds 99.5 % of every crop."""
    most = max((float(np.percentile(one, 99.5)) for one in values), default=0.0)
    return next((end for end in ENDS if end >= most), ENDS[-1] * float(np.ceil(most / ENDS[-1])))


def chapters(found: DeviationEvidence | None, pictures: Sequence[np.ndarray]) -> list[Chapter]:
    """The part about samples, if a volume has some; ``pictures`` as ``draw`` drew them."""
    if found is None:
        return []
    blocks: list[Block] = [Paragraph(about(found)), Paragraph(CAUTION, "note")]
    for view, drawn in zip(found.views, pictures, strict=True):
        caption = f"Section {view.section.z}: what the network made of latents zero, and how far its samples lie apart."
        blocks.append(Image(webp(drawn), "image/webp", caption))
    if found.whole is None:
        return [Chapter("Samples", [*blocks, Paragraph("No section could be measured: none is good.", "warn")])]
    if found.whole.ended:
        words = f"{found.whole.ended:.2%} of the voxels are at the largest deviation that the array holds, or above it."
        blocks.append(Paragraph(words, "warn"))
    return [Chapter("Samples", [*blocks, shown(found)])]


CAUTION = (
    "Small is not the same as sure. A network that was trained on one true image for each lr learns to look little at "
    "what is drawn, so samples may agree where all of them are wrong: the error of sr against hr, where there is hr, "
    "says how far."
)


def about(found: DeviationEvidence) -> str:
    """How samples were drawn."""
    how = found.card["samples"]
    return (
        f"{how['count']} images that fit the same low resolution were drawn from the network (temperature "
        f"{how['temperature']:g}, seed {how['seed']}). Shown is their standard deviation, in grey levels, voxel by "
        "voxel: where it is large the network does not know."
    )


def table(found: DeviationEvidence) -> Table:
    """Every section that was measured, and all of them together; in grey levels."""
    rows = [(str(z), *_cells(spread)) for z, spread in found.sections.items()]
    whole = [("all", *_cells(found.whole))] if found.whole else []
    return Table("Standard deviation of the samples, grey levels", COLUMNS, [*whole, *rows])


def shown(found: DeviationEvidence) -> Table:
    """``table`` as the page has it: of many sections those whose samples lie farthest apart."""
    kept = sorted(sorted(found.sections, key=lambda z: (-found.sections[z].mean, z))[:LONGEST])
    full = table(found)
    caption = f"{full.caption}: {len(found.sections)} of {found.measured} sections that scores measure"
    if len(kept) < len(found.sections):
        caption += f", of them the {LONGEST} where it is largest; all are in deviation.tsv"
    rows = [row for row in full.rows if row[0] == "all" or int(str(row[0])) in kept]
    return Table(caption, full.columns, rows)


def _cells(spread: Spread) -> tuple[str, str, str]:
    return f"{spread.mean:.3f}", f"{spread.p99:.2f}", "–" if spread.error is None else f"{spread.error:.2f}"
