"""Sections through one column of windows: what depends on one section is computed once and kept while z advances."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from emsr import scales
from emsr.geometry import Box, Triple, runs
from emsr.inference.blend import STEPS
from emsr.inference.flight import told_apart
from emsr.inference.precision import autocast
from emsr.inference.reading import Read
from emsr.plan import Plan

State = tuple[Tensor, ...]
At = tuple[np.ndarray, np.ndarray]
"""float64 coordinates along y and along x."""


class Network:
    """A network as inference calls it: one section or one centre at a time (batch 1), uint8 in, 1/128 grey levels out.

    A module with `section(lr) -> state` and `centre(states) -> sr` streams; for any other, the state is the section
    itself and `centre` is the whole `forward`. `seconds` counts the time inside the network, all threads together.
    """

    def __init__(self, module: nn.Module, device: str, precision: str) -> None:
        """`precision` is "float32", "bfloat16" or "float16" (autocast)."""
        autocast(torch.device(device).type, precision)
        # channels last is a fifth faster on a CPU; whatever the format, it must be one, because it changes float bits
        self._module: Any = cast(Any, module.eval()).to(device, memory_format=torch.channels_last)
        self._device = torch.device(device)
        self._precision = precision
        self._streams = hasattr(module, "section") and hasattr(module, "centre")
        self._placed = getattr(module, "placed", False)
        self._lock = threading.Lock()
        self.seconds = 0.0

    def release(self) -> None:
        """Give memory that the device keeps for later back to it."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def section(self, lr: np.ndarray) -> State:
        """What depends on one section alone; `lr` is uint8 (y, x), seen by the network as [0, 1]."""
        with self._running():
            image = torch.from_numpy(np.ascontiguousarray(lr)).to(self._device).float().div_(255)[None, None]
            image = image.contiguous(memory_format=torch.channels_last)
            return tuple(self._module.section(image)) if self._streams else (image,)

    def centre(self, states: Sequence[State], place: Triple = (0, 0, 0), at: At | None = None) -> np.ndarray:
        """The middle section super-resolved: int16 (s*y, s*x) in [0, 255 * 128], clamped and rounded half to even.

        `place` is that of the window's first voxel (z, y, x) in lr, which a module is told that is `placed`. With `at`,
        (y, x) in lr pixels from the window's corner, at those positions and no others.
        """
        with self._running():
            if at is not None:
                y, x = (torch.from_numpy(line).to(self._device) for line in at)
                image = self._module.centre(list(states), at=(y, x))
            elif self._placed:
                image = self._module.centre(list(states), place)
            elif self._streams:
                image = self._module.centre(list(states))
            else:
                image = self._module(torch.stack([state[0] for state in states], dim=1))
            image = image[0, 0].float()
            if not bool(torch.isfinite(image).all()):
                raise ValueError("the network gave NaN or infinity: its weights are not usable at this precision")
            return image.clamp_(0, 1).mul_(STEPS).round_().to(torch.int16).cpu().numpy()

    @contextmanager
    def _running(self) -> Iterator[None]:
        start = time.perf_counter()
        with told_apart(), torch.inference_mode(), autocast(self._device.type, self._precision):
            yield
        with self._lock:
            self.seconds += time.perf_counter() - start


def entering(plan: Plan, centres: Sequence[int]) -> dict[int, int]:
    """The sections that enter the ring for these centres (ascending z), each with the last centre that names it."""
    return {section: z for z in centres for section in plan.table[z] or ()}


def stream_column(
    network: Network, plan: Plan, corner: tuple[int, int], centres: Sequence[int], read: Read
) -> Iterator[tuple[int, np.ndarray]]:
    """Super-resolve the centres (ascending z) of the window at `corner` (y, x, lr pixels); sections without data are
    skipped.

    Yields z and int16 (s*window, s*window), at a real scale the voxels of the window's spans. Sections enter the ring
    one at a time, when the first centre names them, and stay until the last one has: near damage that may be further
    than sections // 2 away.
    """
    last_use = entering(plan, centres)
    at = positions(plan, corner)
    data = _read_sections(plan, column_boxes(plan, corner, centres), read)
    ring: dict[int, State] = {}
    for z in centres:
        sections = plan.table[z]
        if sections is None:
            continue
        for section in sections:
            if section not in ring:
                ring[section] = network.section(data.pop(section))
        yield z, network.centre([ring[section] for section in sections], (z, *corner), at)
        ring = {section: state for section, state in ring.items() if last_use[section] > z}


def positions(plan: Plan, corner: tuple[int, int]) -> At | None:
    """The centres of a window's sr voxels in lr pixels from its corner; None at a whole scale, where it knows them."""
    if scales.whole(plan.scale):
        return None
    y, x = (_centres(plan, axis, start) for axis, start in zip((1, 2), corner, strict=True))
    return y, x


def _centres(plan: Plan, axis: int, start: int) -> np.ndarray:
    along = plan.axis(axis)
    voxel = np.arange(*plan.span(axis, start), dtype=np.int64)
    return ((2 * voxel + 1) * along.coarse - 2 * along.fine * start) / (2 * along.fine)


def column_boxes(plan: Plan, corner: tuple[int, int], centres: Sequence[int]) -> list[Box]:
    """The boxes that `stream_column` reads, in order: runs of neighbouring sections at once."""
    (y, x), (_, height, width) = corner, plan.lr_shape
    bottom, right = min(y + plan.window, height), min(x + plan.window, width)
    return [Box((first, y, x), (last, bottom, right)) for first, last in runs(sorted(entering(plan, centres)))]


def _read_sections(plan: Plan, boxes: Sequence[Box], read: Read) -> dict[int, np.ndarray]:
    """The window's uint8 pixels of every section, padded to a whole window."""
    pixels: dict[int, np.ndarray] = {}
    for box in boxes:
        pixels |= {box.start[0] + z: pad_to(section, plan.window) for z, section in enumerate(read(box))}
    return pixels


def pad_to(section: np.ndarray, window: int) -> np.ndarray:
    """Reflect a section (y, x) past its end until it fills a window; a single row or column is repeated."""
    for axis in (0, 1):
        short = window - section.shape[axis]
        if short > 0:
            widths = [(0, short if axis == other else 0) for other in (0, 1)]
            section = np.pad(section, widths, mode="reflect" if section.shape[axis] > 1 else "edge")
    return section
