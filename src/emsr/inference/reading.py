"""Voxels that are read before they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future

import numpy as np

from emsr.geometry import Box
from emsr.inference.meter import Meter

Read = Callable[[Box], np.ndarray]
"""Gives the voxels of a box of the lr volume, uint8 (z, y, x); called from several threads."""


class ReadAhead:
    """A `Read` that has the next `ahead` of the stated boxes read by another thread; any other box is read when asked.

    Holds the voxels of that many boxes. Used by one thread at a time.
    """

    def __init__(self, read: Read, boxes: Iterable[Box], pool: Executor, meter: Meter, ahead: int = 2) -> None:
        self._read, self._boxes, self._pool, self._meter = read, iter(boxes), pool, meter
        self._coming: dict[Box, Future[np.ndarray]] = {}
        self._ahead = ahead
        self._start()

    def __call__(self, box: Box) -> np.ndarray:
        """The voxels of `box`."""
        with self._meter.counting("read"):
            coming = self._coming.pop(box, None)
            voxels = coming.result() if coming else self._read(box)
        self._start()
        return voxels

    def close(self) -> None:
        """Nothing more is wanted."""
        self._boxes = iter(())
        for coming in self._coming.values():
            coming.cancel()
        self._coming.clear()

    def _start(self) -> None:
        while len(self._coming) < self._ahead and (box := next(self._boxes, None)) is not None:
            self._coming[box] = self._pool.submit(self._read, box)
