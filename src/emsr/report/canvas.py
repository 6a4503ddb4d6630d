"""Drawing voxels to the pixel: panels are laid out in whole pixels and every voxel fills whole pixels.

So nothing in a picture was smoothed or resampled, and what looks like a seam is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from emsr.report.style import INK, MUTED

DPI = 200
PANEL = 512  # pixels, about the side of a panel
GAP = 16  # pixels between panels
HEAD = 40  # pixels above a panel, for its title


@dataclass(frozen=True)
class Canvas:
    """A figure of ``width`` x ``height`` pixels on which panels are placed by their upper left pixel."""

    figure: Figure
    width: int
    height: int

    @classmethod
    def of(cls, width: int, height: int) -> Canvas:
        return cls(Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white"), width, height)

    def panel(self, left: int, top: int, width: int, height: int) -> Axes:
        """Empty axes without ticks or frame that cover exactly these pixels."""
        bottom = self.height - top - height
        axes = self.figure.add_axes((left / self.width, bottom / self.height, width / self.width, height / self.height))
        axes.set_axis_off()
        return axes


def whole_factor(voxels: int, pixels: int = PANEL) -> int:
    """The whole number of pixels per voxel that brings ``voxels`` near to ``pixels``; at least one."""
    return max(1, round(pixels / voxels))


def show(axes: Axes, image: np.ndarray, factors: tuple[int, int], **colours: Any) -> None:
    """Draw ``image`` with every element as ``factors`` (down, across) pixels.

    (rows, columns) uint8 are grey levels and (rows, columns, 3) colours, drawn as they are; with ``colours`` (cmap,
    vmin, vmax) any numbers (rows, columns).
    """
    large = np.repeat(np.repeat(image, factors[0], axis=0), factors[1], axis=1)
    if image.ndim == 2 and not colours:
        large = np.repeat(large[..., None], 3, axis=2)  # a colour map would round some grey levels down by one
    rows, columns = image.shape[:2]
    axes.imshow(large, extent=(0, columns, rows, 0), aspect="auto", interpolation="none", **colours)


def title(axes: Axes, text: str, note: str = "") -> None:
    """Name above a panel on the left, figures in grey on the right."""
    for x, side, words, colour, size in ((0, "left", text, INK, 7.0), (1, "right", note, MUTED, 6.4)):
        axes.annotate(
            words,
            (x, 1),
            xycoords="axes fraction",
            xytext=(0, 3),
            textcoords="offset points",
            ha=side,
            va="bottom",
            color=colour,
            fontsize=size,
        )


def scale_bar(axes: Axes, columns: int, voxel_nm: float) -> None:
    """A white bar of a round length, at most a quarter of a panel ``columns`` voxels wide."""
    lengths = [number * 10**power for power in range(1, 7) for number in (1, 2, 5)]
    length = max((nm for nm in lengths if nm <= columns * voxel_nm / 4), default=lengths[0])
    part = length / (columns * voxel_nm)
    bar = Rectangle((0.96 - part, 0.035), part, 0.014, transform=axes.transAxes, fc="white", ec="black", lw=0.3)
    axes.add_patch(bar)
    words = f"{length / 1000:g} µm" if length >= 1000 else f"{length} nm"
    _on_image(axes, (0.96, 0.068), words, "right")


def colour_bar(axes: Axes, limits: tuple[float, float], cmap: str) -> None:
    """A thin bar inside the lower edge of a panel, with its ends in grey levels."""
    low, high = limits
    inset = axes.inset_axes((0.04, 0.035, 0.42, 0.022))
    inset.imshow(np.linspace(low, high, 256)[None], aspect="auto", cmap=cmap, vmin=low, vmax=high)
    inset.set_axis_off()
    _on_image(axes, (0.04, 0.078), f"{low:+.0f} to {high:+.0f} grey levels" if low else f"0 to {high:.0f} grey levels")


def _on_image(axes: Axes, place: tuple[float, float], words: str, side: str = "left") -> None:
    """Small white words on a dark ground at ``place`` in fractions of the panel."""
    text = axes.text(*place, words, transform=axes.transAxes, ha=side, va="bottom", fontsize=5.8, color="white")
    text.set_bbox({"facecolor": "black", "alpha": 0.5, "edgecolor": "none", "pad": 1.2})
