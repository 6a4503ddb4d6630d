"""How much sr is one of many: the standard deviation of samples, latents drawn anew for each, by the engine of sr.

Normal numbers are functions of seed, sample and the absolute place of a latent in the volume, so that windows that
overlap agree on them and neither chunks nor jobs nor workers change a voxel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from emsr.models.dual import Dual

PER_GREY = 4
"""Steps of a deviation volume in one grey level: it ends at 63.75 grey levels."""
Words = np.ndarray[Any, np.dtype[np.uint64]]
Place = tuple[int, int, int]


class Deviation(nn.Module):
    """A ``Dual`` network as inference calls it, whose image is the standard deviation of ``samples`` of its own."""

    placed = True  # ``centre`` is told where in the volume the window lies

    def __init__(self, network: Dual, samples: int, temperature: float, seed: int) -> None:
        """``temperature`` is the standard deviation of the latents; training draws 0 to 1.

        Raises ValueError for fewer than two samples, no temperature, or a seed below 0.
        """
        super().__init__()
        if not _is(Integral, samples) or samples < 2:
            raise ValueError(f"samples {samples!a} have no standard deviation: use 2 or more")
        if not _is(Real, temperature) or not 0 < temperature < float("inf"):
            raise ValueError(f"temperature {temperature!a} draws no samples: use a number above 0; 1 as in training")
        if not _is(Integral, seed) or not 0 <= seed < 2**32:
            raise ValueError(f"seed {seed!a} of the samples is no whole number from 0 to 2^32 - 1")
        self.network, self.samples, self.temperature, self.seed = network, samples, temperature, seed

    def section(self, lr: Tensor) -> tuple[Tensor, ...]:
        """As the network's."""
        return self.network.section(lr)

    def centre(self, states: Sequence[tuple[Tensor, ...]], place: Place) -> Tensor:
        """(1, 1, scale*y, scale*x): ``PER_GREY`` times the standard deviation, in [0, 1], of the samples of a window.

        ``place`` is that of its first voxel in lr: z, y, x.
        """
        lr = states[len(states) // 2][0]
        shapes = self.network.latent_shapes(*lr.shape[-2:])
        made = torch.stack([self.network.up(lr, self._latents(lr, shapes, place, k)) for k in range(self.samples)])
        return made.float().std(0) * PER_GREY

    def _latents(self, lr: Tensor, shapes: Sequence[Place], place: Place, sample: int) -> list[Tensor]:
        z, y, x = place
        drawn = []
        for level, shape in enumerate(shapes):
            finer = shape[1] // lr.shape[-2]
            numbers = normal((self.seed, sample, level, z), shape, (finer * y, finer * x))
            drawn.append(torch.from_numpy(numbers * np.float32(self.temperature))[None].to(lr.device))
        return drawn


def _is(kind: type, value: Any) -> bool:
    """Whether a value, typed or from a file, is a number of a kind."""
    return isinstance(value, kind)


def sampled(network: nn.Module, asked: Mapping[str, Any], path: Path) -> Deviation:
    """The ``network`` of weights ``path``, to be sampled: ``asked`` holds count, temperature and seed.

    Raises ValueError, in one line, for a model that draws no samples, or samples that there cannot be.
    """
    if not isinstance(network, Dual):
        raise ValueError(f"{path} holds weights of a model that gives one image and no samples: use snadn or irn")
    if lacking := {"count", "temperature", "seed"} ^ asked.keys():
        raise ValueError(f"samples are {dict(asked)}, {', '.join(sorted(lacking))} lacking or unknown: correct it")
    return Deviation(network, asked["count"], asked["temperature"], asked["seed"])


def normal(key: Sequence[int], shape: Place, corner: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Independent numbers of mean 0 and variance 1 for the latents ``shape`` (channels, y, x) from ``corner`` on.

    Each depends on ``key`` and its own absolute place alone (splitmix64 of both, then Box and Muller 1958).
    """
    word = np.zeros((1, 1, 1), np.uint64)
    for number in key:
        word = _mixed(word + np.uint64(number))
    axes = (0, *corner)
    for axis in range(3):
        places = np.arange(axes[axis], axes[axis] + shape[axis], dtype=np.uint64)
        word = _mixed(word + np.expand_dims(places, [other for other in range(3) if other != axis]))
    radius = np.sqrt(-2 * np.log(((word >> np.uint64(32)) + np.uint64(1)) * 2.0**-32))
    angle = (word & np.uint64(2**32 - 1)) * (2 * np.pi * 2.0**-32)
    numbers: np.ndarray[Any, np.dtype[np.float32]] = (radius * np.cos(angle)).astype(np.float32)
    return numbers


def _mixed(word: Words) -> Words:
    """splitmix64 (Steele, Lea and Flood 2014): the next word of the sequence after ``word``, modulo 2^64."""
    word = word + np.uint64(0x9E3779B97F4A7C15)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))
