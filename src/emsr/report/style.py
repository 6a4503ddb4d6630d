"""Colours and type of every figure, and figures as bytes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from io import BytesIO
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from PIL import Image

INK = "#1d2733"
MUTED = "#66727f"
LINE = "#d5dbe1"
BICUBIC = "#8a96a3"
SR = "#0b6e99"
ZOOM = "#f2b705"
GOOD = "#2f7d4f"
WARN = "#c2571a"
JOB = "#d9480f"
SHARD = "#0b6e99"
ABSENT = "#f3dcc6"
SERIES = (SR, WARN, "#6a4c93", GOOD, "#b5892e", MUTED)

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e9edf1",
    "grid.linewidth": 0.8,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.5,
    "svg.fonttype": "path",
    "svg.hashsalt": "emsr",
}


def styled() -> AbstractContextManager[None]:
    """Matplotlib settings of the report: ``with styled():`` around drawing and saving."""
    return matplotlib.rc_context(_STYLE)


def pixels(figure: Figure) -> np.ndarray:
    """``figure`` drawn at its own resolution: (rows, columns, 3) uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def png(picture: np.ndarray) -> bytes:
    """A picture (rows, columns, 3) as PNG."""
    stream = BytesIO()
    Image.fromarray(picture).save(stream, "png")
    return stream.getvalue()


def webp(picture: np.ndarray) -> bytes:
    """A picture (rows, columns, 3) as lossless WebP: the same pixels in half of PNG's bytes."""
    stream = BytesIO()
    Image.fromarray(picture).save(stream, "webp", lossless=True, quality=50, method=2)
    return stream.getvalue()


def svg(figure: Figure) -> bytes:
    """``figure`` as SVG with text as outlines; equal bytes for equal figures."""
    stream = BytesIO()
    canvas = FigureCanvasSVG(figure)
    canvas.print_svg(stream, metadata={"Date": None, "Creator": None})  # savefig would draw twice, for the same bytes
    return stream.getvalue()


def words_picture(words: str) -> np.ndarray:
    """A small picture that says ``words``, where a file is promised and there is nothing to show."""
    figure = Figure(figsize=(4, 0.6), dpi=100)
    figure.text(0.5, 0.5, words, ha="center", va="center", color=MUTED)
    return pixels(figure)
