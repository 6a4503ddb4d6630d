"""Windows through a network of volumes, which makes several sections at a time: affinities, or the sr of clips."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from emsr.geometry import Box, runs, triple
from emsr.inference.blend import STEPS
from emsr.inference.clips import shown
from emsr.inference.flight import told_apart
from emsr.inference.precision import autocast
from emsr.inference.reading import Read
from emsr.plan import Plan


class VolumeNetwork:
    """A network (batch, 1, z, y, x) in [0, 1] -> (batch, channels, z', y', x') in [0, 1] as inference calls it.

    Of a module that sees clips its method `clip` is called. Batch 1, uint8 in, 1/128 grey levels out; `seconds` counts
    the time inside, all threads together.
    """

    def __init__(self, module: nn.Module, device: str, precision: str) -> None:
        """`precision` is "float32", "bfloat16" or "float16" (autocast)."""
        autocast(torch.device(device).type, precision)
        self._module = module.eval().to(device)
        self._call = getattr(self._module, "clip", self._module)
        self._device = torch.device(device)
        self._precision = precision
        self._lock = threading.Lock()
        self.seconds = 0.0

    def release(self) -> None:
        """Give memory that the device keeps for later back to it."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def window(self, voxels: np.ndarray) -> np.ndarray:
        """int16 (channels, z', y', x') in [0, 255 * 128] of uint8 `voxels` (z, y, x), rounded half to even."""
        start = time.perf_counter()
        with told_apart(), torch.inference_mode(), autocast(self._device.type, self._precision):
            image = torch.from_numpy(np.ascontiguousarray(voxels)).to(self._device).float().div_(255)[None, None]
            made = self._call(image)[0].float()
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
    (channels, depth, s*window, s*window), 0 where a section has no data.
    """
    for z in starts:
        steps = network.window(window_voxels(plan, (z, *corner), read))
        side = plan.scale * plan.window
        expected = (plan.channels, plan.depth, side, side)
        if steps.shape != expected:
            raise ValueError(f"the network gave {steps.shape} for a window of {expected}: its card states another halo")
        absent = [place for place, named in enumerate(plan.table[z : z + plan.depth]) if named is None]
        steps[:, absent] = 0
        yield z, steps


def volume_boxes(plan: Plan, corner: tuple[int, int], starts: Sequence[int]) -> Iterator[Box]:
    """The boxes that `volume_column` reads, in order."""
    for z in starts:
        yield from _boxes(*_positions(plan, (z, *corner)), plan)


def window_voxels(plan: Plan, start: tuple[int, int, int], read: Read) -> np.ndarray:
    """uint8 (z, y, x) of the window at `start` with its halo; beyond the volume's ends it is mirrored.

    Sections stand for others as the plan's table says (a damaged one for none); those without data are 0.
    """
    positions = _positions(plan, start)
    boxes = _boxes(*positions, plan)
    found = {box.start[0] + n: section for box in boxes for n, section in enumerate(read(box))}
    columns = np.ix_(*(along - int(along.min()) for along in positions[1:]))
    sections = [shown(plan, z) for z in positions[0]]
    voxels = np.zeros((len(sections), len(positions[1]), len(positions[2])), np.uint8)
    for place, named in enumerate(sections):
        if named is not None:
            voxels[place] = found[named][columns]
    return voxels


def _positions(plan: Plan, start: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the window at `start` with its halo shows along z, y and x: positions in the volume."""
    sides = (plan.depth, plan.window, plan.window)
    axes = zip(start, sides, plan.halo, plan.lr_shape, strict=True)
    z, y, x = (mirrored(first - margin, first + side + margin, length) for first, side, margin, length in axes)
    return z, y, x


def _boxes(z: np.ndarray, y: np.ndarray, x: np.ndarray, plan: Plan) -> list[Box]:
    """The part of each section that shows there; neighbouring sections at once."""
    wanted = sorted({named for named in (shown(plan, section) for section in z) if named is not None})
    (top, left), (bottom, right) = ((int(end(y)), int(end(x))) for end in (np.min, np.max))
    return [Box(triple([first, top, left]), triple([last, bottom + 1, right + 1])) for first, last in runs(wanted)]


def mirrored(first: int, last: int, length: int) -> np.ndarray:
    """Positions [first, last) on an axis of `length` voxels that is mirrored at the centres of its end voxels."""
    period = max(2 * (length - 1), 1)
    wrapped = np.arange(first, last) % period
    return np.where(wrapped >= length, period - wrapped, wrapped)
