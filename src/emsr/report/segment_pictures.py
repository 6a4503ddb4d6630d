"""Pictures of places where a segmentation goes wrong: borders of truth and segments, invented and lost membrane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from scipy.ndimage import binary_dilation
from skimage.segmentation import find_boundaries

from emsr.report.canvas import GAP, HEAD, Canvas, scale_bar, show, title, whole_factor
from emsr.report.evidence import MembraneView, MistakeView
from emsr.report.style import JOB, SR, ZOOM

PANEL = 480  # pixels, about the side of a panel
ACROSS = 4  # panels beside each other
TRUTH, SEGMENTS, PIECE = "#29c5ff", "#ff6a13", ZOOM
INVENTED, LOST, BOTH = JOB, SR, "#5b6875"
TINT = 0.35  # of the piece's colour
PALE = 0.4  # of the grey levels under membranes
RING = 0.06  # of a panel: the ring around a mistake
Mistake = Literal["split", "merge"]


@dataclass(frozen=True, eq=False)
class _Panel:
    """Grey levels (y, x) or colours (y, x, 3), ``factor`` pixels each; ``columns`` voxels wide where a bar is drawn.

    ``ring`` is the place (y, x) that a ring is drawn around.
    """

    image: np.ndarray
    factor: int
    words: str
    note: str = ""
    bar: tuple[int, float] | None = None
    ring: tuple[float, float] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Pixels, (down, across)."""
        return self.image.shape[0] * self.factor, self.image.shape[1] * self.factor


def mistake_pictures(views: Sequence[MistakeView]) -> list[Figure]:
    """A figure of four splits or merges each: the section above, the borders of truth and segments on it below.

    Draw inside ``styled()``.
    """
    columns = [_mistake(number, view) for number, view in enumerate(views, 1)]
    return [_sheet(columns[i : i + ACROSS]) for i in range(0, len(columns), ACROSS)]


def membrane_pictures(views: Sequence[MembraneView], kind: Literal["invented", "lost"]) -> list[Figure]:
    """A figure of four windows each: sr, hr, and the membranes of both below each other. Draw inside ``styled()``."""
    columns = [_window(number, view, kind) for number, view in enumerate(views, 1)]
    return [_sheet(columns[i : i + ACROSS]) for i in range(0, len(columns), ACROSS)]


def _sheet(columns: Sequence[Sequence[_Panel]]) -> Figure:
    """Columns of panels; as wide as ``ACROSS`` of them, so that all figures of a kind have one scale."""
    heights = [max(column[row].size[0] for column in columns) for row in range(len(columns[0]))]
    width = max(PANEL, *(panel.size[1] for column in columns for panel in column))
    canvas = Canvas.of(ACROSS * (width + GAP) - GAP, sum(heights) + len(heights) * (HEAD + GAP) - GAP)
    for across, column in enumerate(columns):
        top = HEAD
        for height, panel in zip(heights, column, strict=True):
            _draw(canvas, panel, across * (width + GAP), top)
            top += height + GAP + HEAD
    return canvas.figure


def _draw(canvas: Canvas, panel: _Panel, left: int, top: int) -> None:
    down, across = panel.size
    axes = canvas.panel(left, top, across, down)
    show(axes, panel.image, (panel.factor, panel.factor))
    title(axes, panel.words, panel.note)
    if panel.bar:
        scale_bar(axes, *panel.bar)
    if panel.ring:
        y, x = panel.ring
        axes.add_patch(Circle((x + 0.5, y + 0.5), RING * max(panel.image.shape), fc="none", ec=PIECE, lw=0.9))


# -- splits and merges ------------------------------------------------------------------------------------------------


def _mistake(number: int, view: MistakeView) -> list[_Panel]:
    """The section, and the same with borders drawn on it."""
    row, (y0, x0) = view.row, view.start
    z, y, x = row["nearest"]
    factor = whole_factor(max(view.image.shape), PANEL)
    where, whole = f"{number}   z {z}, y {y}, x {x}", {"split": "object", "merge": "segment"}[row["kind"]]
    bar = view.image.shape[1], view.voxel_nm[1]
    part = f"{row['voxels'] / row['whole']:.1%} of the {whole}"
    return [
        _Panel(view.image, factor, where, f"{row['bits']:.4f} bits", bar, (y - y0, x - x0)),
        _Panel(outlined(view, factor), 1, part, f"{row['voxels']} voxel{'s' * (row['voxels'] != 1)}"),
    ]


def outlined(view: MistakeView, factor: int) -> np.ndarray:
    """The section in colours, ``factor`` pixels a voxel: the piece tinted, borders of the truth and of the segments.

    Lines lie on the edges between voxels; that of the segments is the thinner one and on top, so both are seen where
    they are the same.
    """
    piece = (view.truth == view.row["truth"]) & (view.segments == view.row["segment"])
    colours = np.repeat(view.image[..., None], 3, axis=2).astype(float)
    colours[piece] = (1 - TINT) * colours[piece] + TINT * _rgb(PIECE)
    found = enlarged(np.rint(colours).astype(np.uint8), factor)
    found[binary_dilation(edges(view.truth, factor), iterations=2)] = _rgb(TRUTH)
    found[edges(view.segments, factor)] = _rgb(SEGMENTS)
    return found


def edges(ids: np.ndarray, factor: int) -> np.ndarray:
    """Pixels (bool) on both sides of an edge between voxels of different ids (y, x), ``factor`` pixels a voxel."""
    dense = np.unique(ids, return_inverse=True)[1].reshape(ids.shape)  # scikit-image takes signed ids only
    found: np.ndarray = find_boundaries(enlarged(dense, factor), connectivity=1, mode="thick")
    return found


def enlarged(image: np.ndarray, factor: int) -> np.ndarray:
    """Every element of (y, x, ...) as ``factor`` x ``factor`` equal ones."""
    return np.repeat(np.repeat(image, factor, axis=0), factor, axis=1)


def _rgb(colour: str) -> np.ndarray:
    return np.round(255 * np.array(to_rgb(colour)))


# -- invented and lost membrane ---------------------------------------------------------------------------------------


def _window(number: int, view: MembraneView, kind: str) -> list[_Panel]:
    """sr, hr, and the membranes of both on a pale hr."""
    row, shape = view.row, view.images["sr"].shape
    (y0, x0), factor = view.start, whole_factor(max(shape), PANEL)
    where = f"{number}   z {row['start'][0]}, y {y0}–{y0 + shape[0]}, x {x0}–{x0 + shape[1]}"
    words = f"{row[kind]} voxel{'s' * (row[kind] != 1)} {kind}"
    return [
        _Panel(view.images["sr"], factor, where, "sr", (shape[1], view.voxel_nm[1])),
        _Panel(view.images["hr"], factor, "", "hr"),
        _Panel(overlaid(view), factor, words, f"{row['share']:.2%} of the window"),
    ]


def overlaid(view: MembraneView) -> np.ndarray:
    """Membranes of sr and hr on a pale hr, (y, x, 3) uint8: in both, invented, lost."""
    pale = np.rint(255 - PALE * (255 - view.images["hr"].astype(float))).astype(np.uint8)
    found = np.repeat(pale[..., None], 3, axis=2)
    for mask, colour in ((view.both, BOTH), (view.invented, INVENTED), (view.lost, LOST)):
        found[mask] = _rgb(colour)
    return found
