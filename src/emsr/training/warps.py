"""Synthetic displacements between sections, to train a flow network where no true flow exists."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Array = np.ndarray[Any, np.dtype[np.float32]]

SMALLEST = 0.5  # pixels, of the length drawn
STEEPEST = 0.4  # pixels a pixel, of the smooth deformation: below 1 nothing folds over
GRAIN = 0.03  # standard deviation of the noise that two sections do not share


def displacement(draw: np.random.Generator, size: int, largest: float, rotation: float) -> Array:
    """A smooth displacement (2, size, size), channels dx, dy in pixels, never longer than ``largest``.

    A shift, a smooth deformation and a rotation by at most ``rotation`` degrees about a random point. Lengths from half
    a pixel to ``largest`` are equally likely per octave, because real sections are mostly displaced a little.
    """
    length = float(np.exp(draw.uniform(np.log(min(SMALLEST, largest)), np.log(largest))))
    share = draw.uniform(0, 1)
    heading = draw.uniform(0, 2 * np.pi)
    shift = length * share * np.array([np.cos(heading), np.sin(heading)]).reshape(2, 1, 1)
    field = shift + _bumps(draw, size, length * (1 - share)) + _turn(draw, size, np.deg2rad(rotation))
    return (field * min(1.0, largest / max(float(np.hypot(*field).max()), 1e-6))).astype(np.float32)


def _bumps(draw: np.random.Generator, size: int, length: float) -> Array:
    """A smooth deformation at most ``length`` long and ``STEEPEST`` steep."""
    knots = draw.standard_normal((1, 2, *draw.integers(3, 7, size=2))).astype(np.float32)
    field = functional.interpolate(torch.from_numpy(knots), size=(size, size), mode="bicubic", align_corners=True)
    bumps: Array = field[0].numpy()
    steep = max(float(np.abs(np.diff(bumps, axis=axis)).max()) for axis in (1, 2))
    return bumps * min(length / float(np.hypot(*bumps).max()), STEEPEST / steep)


def _turn(draw: np.random.Generator, size: int, largest: float) -> np.ndarray[Any, Any]:
    """The displacement of a rotation by at most ``largest`` rad about a point in the square."""
    y, x = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    about = draw.uniform(0, size, 2)
    return draw.uniform(-largest, largest) * np.stack([-(y - about[0]), x - about[1]])


def inside(flow: Tensor) -> Tensor:
    """Where p + flow(p) lies in the image: ``flow`` (batch, 2, y, x), channels (dx, dy) -> 1 or 0 (batch, 1, y, x)."""
    height, width = flow.shape[-2:]
    y = torch.arange(height, dtype=flow.dtype, device=flow.device).view(1, -1, 1) + flow[:, 1]
    x = torch.arange(width, dtype=flow.dtype, device=flow.device).view(1, 1, -1) + flow[:, 0]
    within = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return within.unsqueeze(1).to(flow.dtype)


def recontrast(images: Array, draw: np.random.Generator, largest: float) -> Array:
    """Each of ``images`` (batch, 1, y, x) in [0, 1] with another contrast and brightness, changed by at most the
    share ``largest``, and with grain of its own, as two sections differ; clipped to [0, 1]."""
    each = (len(images), 1, 1, 1)
    gain, lift = 1 + draw.uniform(-largest, largest, each), draw.uniform(-largest, largest, each) / 2
    grain = draw.uniform(0, GRAIN, each) * draw.standard_normal(images.shape)
    return np.clip((images - 0.5) * gain + 0.5 + lift + grain, 0, 1).astype(np.float32)
