"""Where the time of a run goes."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Meter:
    """Seconds of a run by what they were spent on, all threads together; safe to use from several threads.

    Workers count "read", while they wait for voxels, and "blend", while they add windows to shards; the consumer adds
    "network" and "write". `in_flight` is how many windows were computed at once at the end, `wall` the run's seconds.
    """

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    in_flight: int = 0
    wall: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def running(self, in_flight: Callable[[], int]) -> Iterator[None]:
        """The run is this block; `in_flight` is asked at its end."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.wall += time.perf_counter() - start
            self.in_flight = in_flight()

    @contextmanager
    def counting(self, what: str) -> Iterator[None]:
        """Adds what the block takes."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(what, time.perf_counter() - start)

    def add(self, what: str, seconds: float) -> None:
        """Adds seconds that were measured elsewhere."""
        with self._lock:
            self.seconds[what] += seconds
