"""Planes across the sections, with the borders of shards and jobs marked beside the image and never on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from emsr.report.canvas import GAP, HEAD, Canvas, scale_bar, show, title, whole_factor
from emsr.report.evidence import CrossView
from emsr.report.pictures import NAMES
from emsr.report.style import ABSENT, JOB, MUTED, SHARD, WARN

SIDE = 60  # pixels left of a plane, for marks and section numbers
WIDTH = 1000  # pixels, about the width of a plane
FOOT = 26  # pixels below a plane, for marks


def plane_factors(view: CrossView) -> tuple[int, int]:
    """Whole pixels (down, across) per voxel that keep the anatomy's proportions as well as whole pixels can."""
    columns = next(iter(view.images.values())).shape[1]
    across = whole_factor(columns, WIDTH)
    down = max(1, round(across * view.voxel_nm[0] / view.voxel_nm[1]))
    return down, across


def cross_picture(views: Sequence[CrossView]) -> Figure:
    """Columns: one per view (xz, yz); rows: its images. Draw inside ``styled()``; all views have the same names."""
    factors = [plane_factors(view) for view in views]
    shapes = [next(iter(view.images.values())).shape for view in views]
    sizes = [(rows * f[0], columns * f[1]) for (rows, columns), f in zip(shapes, factors, strict=True)]
    names = list(views[0].images)
    row_height = max(height for height, _ in sizes) + HEAD + FOOT
    canvas = Canvas.of(sum(width + 2 * SIDE for _, width in sizes), row_height * len(names) + GAP)
    left = SIDE
    for view, factor, (height, width) in zip(views, factors, sizes, strict=True):
        for row, name in enumerate(names):
            axes = canvas.panel(left, row * row_height + HEAD, width, height)
            _plane(axes, view, name, factor)
            if row == len(names) - 1:
                scale_bar(axes, view.images[name].shape[1], view.voxel_nm[1])
        left += width + 2 * SIDE
    return canvas.figure


def _plane(axes: Axes, view: CrossView, name: str, factors: tuple[int, int]) -> None:
    """One image, sections without data in a colour of their own, its marks around it."""
    image = np.repeat(view.images[name][..., None], 3, axis=2)
    for z in view.absent | (view.untold if name == "hr" else frozenset()):
        if 0 <= z - view.start[0] < len(image):
            image[z - view.start[0]] = np.round(255 * np.array(to_rgb(ABSENT)))
    show(axes, image, factors)
    title(axes, NAMES[name], f"{view.axis}z plane at {'y' if view.axis == 'x' else 'x'} = {view.fixed}")
    _marks(axes, view, image.shape[:2])


def _marks(axes: Axes, view: CrossView, shape: tuple[int, ...]) -> None:
    """Triangles outside at every border, dots beside damaged sections, numbers of the first and the last section."""
    for direction in (0, 1):
        jobs = view.job_borders[direction]
        shards = [border for border in view.shard_borders[direction] if border not in jobs]
        for borders, colour, size in ((shards, SHARD, 3.4), (jobs, JOB, 5.0)):
            for border in borders:
                part = (border - view.start[direction]) / shape[direction]
                if 0 < part < 1:
                    _triangles(axes, part, direction, colour, size)
    for z in sorted(view.damaged):
        row = z - view.start[0]
        if 0 <= row < shape[0]:
            axes.plot([0], [1 - (row + 0.5) / shape[0]], "o", ms=2.6, color=WARN, **_outside(axes, -4, 0))
    for row in (0, shape[0] - 1):
        axes.text(
            0,
            1 - (row + 0.5) / shape[0],
            str(view.start[0] + row),
            ha="right",
            va="center",
            fontsize=5.6,
            color=MUTED,
            **_outside(axes, -7, 0),
        )


def _outside(axes: Axes, right: float, up: float) -> dict[str, Any]:
    """Coordinates in fractions of the panel, moved by points, free to lie outside of it."""
    figure = axes.figure
    moved = axes.transAxes + ScaledTranslation(right / 72, up / 72, figure.dpi_scale_trans)
    return {"transform": moved, "clip_on": False}


def _triangles(axes: Axes, part: float, direction: int, colour: str, size: float) -> None:
    """Marks that point at a border from outside: on the left and right for one along z, else from below."""
    ends = [(0.0, 1 - part, ">", -size / 2 - 1, 0.0), (1.0, 1 - part, "<", size / 2 + 1, 0.0)]
    if direction == 1:
        ends = [(part, 0.0, "^", 0.0, -size / 2 - 1)]
    for x, y, marker, right, up in ends:
        axes.plot([x], [y], marker, ms=size, color=colour, markeredgewidth=0, **_outside(axes, right, up))
