"""One section side by side: the field, a zoom, and what differs from the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.lib.stride_tricks import sliding_window_view

from emsr.report.canvas import GAP, HEAD, Canvas, colour_bar, scale_bar, show, title, whole_factor
from emsr.report.evidence import SectionView
from emsr.report.style import ZOOM

NAMES = {"lr": "low resolution", "bicubic": "bicubic", "sr": "super-resolved", "hr": "truth (hr)"}
ZOOM_SIDE = 128  # sr voxels, about


@dataclass(frozen=True)
class Layout:
    """Sizes in pixels: fields ``rows`` x ``columns`` voxels at ``factor`` pixels a voxel, zooms at ``zoom_factor``."""

    rows: int
    columns: int
    factor: int
    side: int
    zoom_factor: int

    @classmethod
    def of(cls, view: SectionView) -> Layout:
        rows, columns = view.images["sr"].shape
        factor = whole_factor(max(rows, columns))
        zoom_factor = max(3 * factor, columns * factor // ZOOM_SIDE)
        return cls(rows, columns, factor, min(columns * factor // zoom_factor, rows), zoom_factor)

    @property
    def height(self) -> int:
        return self.rows * self.factor

    @property
    def width(self) -> int:
        return self.columns * self.factor

    @property
    def zoom(self) -> int:
        return self.side * self.zoom_factor

    def left(self, column: int) -> int:
        return column * (self.width + GAP)

    @property
    def zoom_top(self) -> int:
        return HEAD + self.height + GAP

    @property
    def difference_top(self) -> int:
        return self.zoom_top + self.zoom + GAP + HEAD


def zoom_corner(image: np.ndarray, side: int) -> tuple[int, int]:
    """Corner (y, x) of the ``side`` x ``side`` area of ``image`` (y, x) that varies most, on a grid of side / 4.

    Asked of the bicubic image, so that the choice favours no network.
    """
    step = max(1, side // 4)
    areas = sliding_window_view(image.astype(np.float32), (side, side))[::step, ::step]  # rows, columns, side, side
    spread = np.array([[area.std() for area in row] for row in areas])
    row, column = np.unravel_index(int(spread.argmax()), spread.shape)
    return int(row) * step, int(column) * step


def nearer(view: SectionView) -> np.ndarray:
    """Grey levels by which sr is nearer to the truth than bicubic (negative: farther), mean over about lr pixels."""
    truth, sr, bicubic = (view.images[name].astype(np.float32) for name in ("hr", "sr", "bicubic"))
    gain = np.abs(bicubic - truth) - np.abs(sr - truth)
    down, across = view.step
    y, x = (length - length % by for length, by in zip(gain.shape, view.step, strict=True))
    return gain[:y, :x].reshape(y // down, down, x // across, across).mean(axis=(1, 3))


def section_picture(view: SectionView) -> Figure:
    """Columns: the images of ``view``; rows: the field with the zoom marked, the zoom, and differences from the truth.

    Where there is no hr, what the network changed stands as a last column instead. Draw inside ``styled()``.
    """
    layout, names, truth = Layout.of(view), list(view.images), "hr" in view.images
    columns = len(names) if truth else len(names) + 1
    bottom = layout.difference_top + layout.height if truth else layout.zoom_top + layout.zoom
    canvas = Canvas.of(layout.left(columns) - GAP, bottom)
    corner = zoom_corner(view.images["bicubic"], layout.side)
    for column, name in enumerate(names):
        _field(canvas, layout, view, column, corner)
        _zoom(canvas, layout, view.images[name], column, corner)
    scale_bar(canvas.figure.axes[-2], layout.columns, view.voxel_nm[1])
    scale_bar(canvas.figure.axes[-1], layout.side, view.voxel_nm[1])
    if truth:
        _errors(canvas, layout, view)
    else:
        _change(canvas, layout, view, corner)
    return canvas.figure


def _field(canvas: Canvas, layout: Layout, view: SectionView, column: int, corner: tuple[int, int]) -> None:
    name = list(view.images)[column]
    axes = canvas.panel(layout.left(column), HEAD, layout.width, layout.height)
    show(axes, view.images[name], (layout.factor, layout.factor))
    axes.add_patch(Rectangle((corner[1], corner[0]), layout.side, layout.side, fc="none", ec=ZOOM, lw=0.9))
    title(axes, NAMES[name], _note(view, name))


def _note(view: SectionView, name: str) -> str:
    """Pixel size of lr and the scores of what was scored."""
    if name in ("lr", "hr"):
        return f"{view.voxel_nm[1] * (view.ratio if name == 'lr' else 1):.4g} nm"
    score = view.scores.get(name) or {}
    return f"{score['psnr']:.2f} dB, {score['ssim']:.3f}" if score.get("psnr") is not None else ""


def _zoom(
    canvas: Canvas, layout: Layout, image: np.ndarray, column: int, corner: tuple[int, int], **how: object
) -> Axes:
    axes = canvas.panel(layout.left(column), layout.zoom_top, layout.zoom, layout.zoom)
    part = image[corner[0] : corner[0] + layout.side, corner[1] : corner[1] + layout.side]
    show(axes, part, (layout.zoom_factor, layout.zoom_factor), **how)
    axes.add_patch(Rectangle((0, 0), 1, 1, transform=axes.transAxes, fc="none", ec=ZOOM, lw=2))
    return axes


def _ceiling(values: np.ndarray) -> float:
    """Upper end of a colour scale: the 99.5th percentile, rounded up to five grey levels."""
    return float(max(5, 5 * np.ceil(np.percentile(values, 99.5) / 5)))


def _errors(canvas: Canvas, layout: Layout, view: SectionView) -> None:
    """The row of differences: both errors and the network's change on one colour scale, and which is nearer."""
    image = {name: values.astype(np.float32) for name, values in view.images.items()}
    before = np.abs(image["bicubic"] - image["hr"])
    scale = (0.0, _ceiling(before))
    gain = nearer(view)
    bound = _ceiling(np.abs(gain))
    panels = [
        ("|sr − bicubic|", np.abs(image["sr"] - image["bicubic"]), scale, "magma"),
        ("|bicubic − hr|", before, scale, "magma"),
        ("|sr − hr|", np.abs(image["sr"] - image["hr"]), scale, "magma"),
        ("sr nearer to hr: blue, farther: red", gain, (-bound, bound), "RdBu"),
    ]
    for column, (words, values, limits, colours) in enumerate(panels):
        axes = canvas.panel(layout.left(column), layout.difference_top, layout.width, layout.height)
        factor = layout.height // values.shape[0]
        show(axes, values, (factor, factor), cmap=colours, vmin=limits[0], vmax=limits[1])
        title(axes, words)
        colour_bar(axes, limits, colours)


def _change(canvas: Canvas, layout: Layout, view: SectionView, corner: tuple[int, int]) -> None:
    """The last column of a volume without truth: where the network departs from bicubic."""
    change = np.abs(view.images["sr"].astype(np.float32) - view.images["bicubic"])
    limits = (0.0, _ceiling(change))
    column = len(view.images)
    axes = canvas.panel(layout.left(column), HEAD, layout.width, layout.height)
    show(axes, change, (layout.factor, layout.factor), cmap="magma", vmin=limits[0], vmax=limits[1])
    title(axes, "|sr − bicubic|")
    colour_bar(axes, limits, "magma")
    _zoom(canvas, layout, change, column, corner, cmap="magma", vmin=limits[0], vmax=limits[1])
