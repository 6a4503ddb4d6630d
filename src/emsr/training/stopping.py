"""When a training has to stop before its end: it was told to (SIGTERM), or the wall time of its job is near."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

STEPS = 2.0  # as long as so many of the longest steps is the least that is left for the last step and its state
_told = threading.Event()


@contextmanager
def listening() -> Iterator[None]:
    """SIGTERM is noted for ``Limit.reason`` instead of ending the process; outside the main thread nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _note)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        _told.clear()


def _note(number: int, frame: FrameType | None) -> None:
    _told.set()


@dataclass(frozen=True)
class Limit:
    """``end``: when the job's wall time is over, seconds since 1970, or never; ``margin``: seconds to be left then."""

    end: float | None = None
    margin: float = 300.0

    def reason(self, longest: float) -> str | None:
        """Why to stop now, if steps took ``longest`` seconds at most; None to go on."""
        if _told.is_set():
            return "it was told to"
        if self.end is not None and time.time() + max(self.margin, STEPS * longest) >= self.end:
            return f"the wall time of its job ends in {max(0.0, self.end - time.time()) / 60:.1f} minutes"
        return None


NEVER = Limit()


def wall_time(began: float, minutes: float, environment: Mapping[str, str] = os.environ) -> float | None:
    """When this job's wall time is over, seconds since 1970: as SLURM says it, or ``minutes`` after ``began`` in a job
    of SLURM, PBS, LSF or Grid Engine that does not say; None outside a job, where nobody would end it."""
    if stated := environment.get("SLURM_JOB_END_TIME"):
        return float(stated)
    if minutes > 0 and any(name in environment for name in ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "SGE_TASK_ID")):
        return began + 60 * minutes
    return None
