"""Windows through a network of volumes, which makes several channels of several sections at a time (affinities)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from emsr.geometry import Box, triple
from emsr.inference.blend import STEPS
from emsr.inference.stream import Read
from emsr.plan import Plan


class VolumeNetwork:
    """A network (batch, 1, z, y, x) in [0, 1] -> (batch, channels, z', y', x') in [0, 1] as inference calls it.

    Batch 1, uint8 in, 1/128 grey levels out; `seconds` counts the time inside, all threads together.
    """

    def __init__(self, module: nn.Module, device: str, precision: str) -> None:
        """`precision` is "float32" or "bfloat16" (autocast)."""
        if precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision {precision!r} is unknown: use float32 or bfloat16")
        self._module = module.eval().to(device)
        self._device = torch.device(device)
        self._half = precision == "bfloat16"
        self._lock = threading.Lock()
        self.seconds = 0.0

    def window(self, voxels: np.ndarray) -> np.ndarray:
        """int16 (channels, z', y', x') in [0, 255 * 128] of uint8 `voxels` (z, y, x), rounded half to even."""
        start = time.perf_counter()
        with torch.inference_mode(), torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
            image = torch.from_numpy(np.ascontiguousarray(voxels)).to(self._device).float().div_(255)[None, None]
            made = self._module(image)[0].float()
            if not bool(torch.isfinite(made).all()):
                raise ValueError("the network gave NaN or infinity: its weights are not usable at this precision")
            steps: np.ndarray = made.clamp(0, 1).mul_(STEPS).round_().to(torch.int16).cpu().numpy()
        with self._lock:
            self.seconds += time.perf_counter() - start
        return steps


def volume_column(
    network: VolumeNetwork, plan: Plan, corner: tuple[int, int], starts: Sequence[int], read: Read
) -> Iterator[tuple[int, np.ndarray]]:
    """The windows of the column at `corner` (y, x) that start at sections `starts`: yields the start and int16
    (channels, depth, window, window).
    """
    for z in starts:
        steps = network.window(window_voxels(plan, (z, *corner), read))
        expected = (plan.channels, plan.depth, plan.window, plan.window)
        if steps.shape != expected:
            raise ValueError(f"the network gave {steps.shape} for a window of {expected}: its card states another halo")
        yield z, steps


def window_voxels(plan: Plan, start: tuple[int, int, int], read: Read) -> np.ndarray:
    """uint8 (z, y, x) of the window at `start` with its halo; beyond the volume's ends it is mirrored.

    Sections stand for others as the plan's table says (a damaged one for none); those without data are 0.
    """
    sides = (plan.depth, plan.window, plan.window)
    low = [first - margin for first, margin in zip(start, plan.halo, strict=True)]
    high = [first + side + margin for first, side, margin in zip(start, sides, plan.halo, strict=True)]
    axes = zip(low, high, plan.lr_shape, strict=True)
    positions = [mirrored(first, last, length) for first, last, length in axes]
    sections = [plan.table[z] for z in positions[0]]
    inside = [(int(along.min()), int(along.max()) + 1) for along in positions[1:]]
    columns = np.ix_(*(along - first for along, (first, _) in zip(positions[1:], inside, strict=True)))
    voxels = np.zeros((len(sections), high[1] - low[1], high[2] - low[2]), np.uint8)
    for number, section in _read(sections, inside, read).items():
        for place, named in enumerate(sections):
            if named is not None and named[0] == number:
                voxels[place] = section[columns]
    return voxels


def _read(
    sections: Sequence[tuple[int, ...] | None], inside: list[tuple[int, int]], read: Read
) -> dict[int, np.ndarray]:
    """The part of each section that a window needs; neighbouring sections are read at once."""
    wanted = sorted({named[0] for named in sections if named is not None})
    found: dict[int, np.ndarray] = {}
    (top, bottom), (left, right) = inside
    while wanted:
        count = next((n for n in range(1, len(wanted)) if wanted[n] != wanted[0] + n), len(wanted))
        block = read(Box(triple([wanted[0], top, left]), triple([wanted[0] + count, bottom, right])))
        found |= {wanted[0] + n: section for n, section in enumerate(block)}
        wanted = wanted[count:]
    return found


def mirrored(first: int, last: int, length: int) -> np.ndarray:
    """Positions [first, last) on an axis of `length` voxels that is mirrored at the centres of its end voxels."""
    period = max(2 * (length - 1), 1)
    wrapped = np.arange(first, last) % period
    return np.where(wrapped >= length, period - wrapped, wrapped)
