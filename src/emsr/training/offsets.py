"""How far deformable convolutions sample: where their training has broken, that is where it shows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from emsr.layers.deform import DeformableConv

MOST = 50.0  # pixels, the limit of BasicSR, whose code of EDVR warns above it


class Offsets:
    """Means of absolute sampling offsets, in pixels of the features, over one call of one convolution each."""

    def __init__(self) -> None:
        self.means: list[Tensor] = []

    def note(self, layer: DeformableConv, arguments: tuple[Any, ...]) -> None:
        """Take the mean of a call."""
        with torch.autocast(arguments[1].device.type, enabled=False):
            self.means.append(layer.displacements(arguments[1])[0].abs().mean())

    def most(self) -> float | None:
        """The largest of the means; None where there is no such convolution."""
        return float(torch.stack(self.means).max()) if self.means else None

    def figures(self) -> dict[str, float]:
        """The same as a figure of validation or health."""
        most = self.most()
        return {} if most is None or not math.isfinite(most) else {"offset": most}

    def warning(self, learning_rate: float) -> str:
        """What is wrong and how it is mended; empty where nothing is."""
        most = self.most()
        if most is None or most <= MOST:
            return ""
        return (
            f"sampling offsets of a deformable convolution are {most:.0f} pixels on average, above {MOST:.0f}: the "
            f"training is broken; begin it anew with a lower learning_rate than {learning_rate:g}, as "
            f"{learning_rate / 4:g}"
        )


@contextmanager
def watched(network: nn.Module) -> Iterator[Offsets]:
    """Notes the offsets of every deformable convolution of ``network`` that is called in the block."""
    found = Offsets()
    layers = [layer for layer in network.modules() if isinstance(layer, DeformableConv)]
    handles = [layer.register_forward_pre_hook(found.note) for layer in layers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
