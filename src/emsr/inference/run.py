"""Shards of one job: which windows they need, threads over columns of windows, finished shards in the order they end.

Whole shards leave as soon as the last window that touches them is in; columns go row by row, so the sums in memory are
those of the shards that the current row of windows touches (4 bytes a voxel: for shards of 32 x 1024 x 1024, 134 MB
each), plus, for each worker and one more, a column of lr pixels, and, for each worker, the ring of sections // 2 * 2 +
1 states and one window.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from emsr.geometry import Triple
from emsr.inference.blend import Blend
from emsr.inference.flight import Flight, OutOfMemory
from emsr.inference.meter import Meter
from emsr.inference.reading import Read, ReadAhead
from emsr.inference.stream import Network, column_boxes, stream_column
from emsr.inference.volumetric import VolumeNetwork, volume_boxes, volume_column
from emsr.plan import Plan
from emsr.progress import Progress

AnyNetwork = Network | VolumeNetwork


@dataclass(frozen=True)
class Task:
    """One column of windows at `corner` (y, x, lr pixels), its windows starting at sections `starts`, for the shards
    it touches.
    """

    corner: tuple[int, int]
    starts: tuple[int, ...]
    shards: tuple[Triple, ...]


def tasks(plan: Plan, shards: Sequence[Triple], workers: int) -> tuple[Task, ...]:
    """The windows that these shards (all of one layer) need and no others, row by row.

    Where there are fewer columns than workers, the depth is cut so that none idles: sections at a cut are computed on
    both sides of it, voxels do not change.
    """
    boxes = {index: plan.grid.box(index) for index in shards}
    touched: dict[tuple[int, int], list[Triple]] = {}
    for index, box in boxes.items():
        for corner in plan.columns(box):
            touched.setdefault(corner, []).append(index)
    starts = plan.depths(min(box.start[0] for box in boxes.values()), max(box.stop[0] for box in boxes.values()))
    parts = min(len(starts), -(-workers // len(touched)))
    cuts = [len(starts) * part // parts for part in range(parts + 1)]
    ranges = [starts[first:last] for first, last in itertools.pairwise(cuts)]
    return tuple(Task(corner, part, tuple(touched[corner])) for corner in sorted(touched) for part in ranges)


def count_windows(plan: Plan, shards: Sequence[Triple], workers: int) -> int:
    """How many windows (columns times starts in z) computing these shards takes: the unit of progress and of cost."""
    return sum(len(task.starts) for layer in layers(shards) for task in tasks(plan, layer, workers))


def layers(shards: Sequence[Triple]) -> list[list[Triple]]:
    """Shards sorted into layers of one z number, ascending."""
    by_layer: dict[int, list[Triple]] = {}
    for index in sorted(shards):
        by_layer.setdefault(index[0], []).append(index)
    return list(by_layer.values())


def run(
    network: AnyNetwork,
    plan: Plan,
    shards: Sequence[Triple],
    read: Read,
    workers: int,
    progress: Progress,
    meter: Meter | None = None,
) -> Iterator[tuple[Triple, np.ndarray]]:
    """Compute shards; yields each one's number and its voxels as soon as it is whole: uint8 (z, y, x), or (channels,
    z, y, x) of a plan with several.

    `workers` threads go over columns of windows, while another reads what they will need and the caller writes what
    they made. Every call of the network has batch one and one intra-op thread, so voxels depend neither on `workers`
    nor on which shards are asked for. `progress` counts windows, `meter` seconds. Where memory runs out, half as many
    windows are in flight from then on; ValueError where it does not do for one. After an error, or where the caller
    wants no more, columns under way end with the call that they are in.
    """
    meter = meter or Meter()
    flight, over = Flight(workers), threading.Event()
    with (
        reproducible(),
        ThreadPoolExecutor(1) as reader,
        ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool,
        meter.running(lambda: flight.limit),
        _told(over),
    ):
        for layer in layers(shards):
            todo = tasks(plan, layer, workers)
            blend = Blend(plan, Counter(index for task in todo for index in task.shards))
            engine = Engine(network, plan, read, blend, flight, meter, over)

            def start(task: Task, engine: Engine = engine) -> Future[None]:
                return pool.submit(engine.compute, task, engine.ahead(task, reader))

            for task in _in_order(todo, start, workers + 1):
                progress.update(len(task.starts))
                for index in blend.done(task.shards):
                    yield index, blend.take(index)


@dataclass(frozen=True)
class Engine:
    """How a task becomes sums of shards."""

    network: AnyNetwork
    plan: Plan
    read: Read
    blend: Blend
    flight: Flight
    meter: Meter
    over: threading.Event  # nobody wants the rest

    def ahead(self, task: Task, reader: ThreadPoolExecutor) -> ReadAhead:
        """The task's voxels, whose first are on their way."""
        boxes = volume_boxes if isinstance(self.network, VolumeNetwork) else column_boxes
        return ReadAhead(self.read, boxes(self.plan, task.corner, task.starts), reader, self.meter)

    def compute(self, task: Task, read: ReadAhead) -> None:
        """One task: a column of windows into the sums; from where it was, once there is room, if memory runs out."""
        left = task.starts
        try:
            while left and not self.over.is_set():
                with self.flight.seat() as limit:
                    left, shortage = self._until_shortage(task, left, read)
                if not shortage:
                    continue
                self.network.release()
                if not self.flight.halve(limit):
                    raise ValueError(
                        f"one window of {self.plan.window} x {self.plan.window} pixels does not fit the memory "
                        f"({shortage}): take a smaller window, a reduced precision, or a device with more memory"
                    )
        finally:
            read.close()

    def _until_shortage(self, task: Task, starts: tuple[int, ...], read: Read) -> tuple[tuple[int, ...], str]:
        """What is left of `starts`, and why; nothing if all is done."""
        y, x = (self.plan.span(axis, start)[0] for axis, start in zip((1, 2), task.corner, strict=True))
        column = stream_column
        if isinstance(self.network, VolumeNetwork):
            column = volume_column  # type: ignore[assignment]
        left = starts
        try:
            for z, steps in column(self.network, self.plan, task.corner, starts, read):  # type: ignore[arg-type]
                if self.over.is_set():
                    break
                with self.meter.counting("blend"):
                    self.blend.add(z, (y, x), steps, task.shards)
                left = left[left.index(z) + 1 :]
        except OutOfMemory as shortage:
            return left, str(shortage)
        return (), ""


def _in_order(todo: Sequence[Task], start: Callable[[Task], Future[None]], ahead: int) -> Iterator[Task]:
    """Start tasks and give them back, in order, as they are done; never more than `ahead` are started and not done."""
    running: deque[tuple[Task, Future[None]]] = deque()
    try:
        for task in todo:
            running.append((task, start(task)))
            if len(running) == ahead:
                yield _wait(*running.popleft())
        while running:
            yield _wait(*running.popleft())
    finally:
        for _, future in running:
            future.cancel()


def _wait(task: Task, future: Future[None]) -> Task:
    future.result()
    return task


@contextmanager
def _told(over: threading.Event) -> Iterator[None]:
    """The event is set at the end, however it comes."""
    try:
        yield
    finally:
        over.set()


@contextmanager
def reproducible() -> Iterator[None]:
    """torch without what changes float bits from call to call: own threads, TF32, cuDNN's choice by timing."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_num_threads(before)
