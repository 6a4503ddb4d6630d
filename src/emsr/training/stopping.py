"""When a training has to stop before its end: it was told to (SIGTERM), or the wall time of its job is near."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

log = logging.getLogger(__name__)

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


def told() -> bool:
    """Whether there was a SIGTERM."""
    return _told.is_set()


def _note(number: int, frame: FrameType | None) -> None:
    _told.set()


@dataclass(frozen=True)
class Limit:
    """``end``: when the job's wall time is over, seconds since 1970, or never; ``margin``: seconds to be left then."""

    end: float | None = None
    margin: float = 300.0

    def reason(self, longest: float) -> str | None:
        """Why to stop now, if steps took ``longest`` seconds at most; None to go on."""
        if told():
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


def requeue(environment: Mapping[str, str] = os.environ, patience: float = 120.0) -> None:
    """Put this job of SLURM back into its queue and wait, ``patience`` seconds at most, for SLURM to end it.

    It starts again under its own number with its whole wall time, so that whoever waits for it sees no failure. Returns
    where there is no such job or SLURM refuses, which is logged.
    """
    job = environment.get("SLURM_JOB_ID")
    if job is None:
        return
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60)
        refusal = done.stderr.strip() if done.returncode else None
    except (OSError, subprocess.TimeoutExpired) as error:
        refusal = str(error)
    if refusal is not None:
        log.warning("job %s cannot go back into the queue by itself: %s", job, " ".join(refusal.split()))
        return
    log.info("job %s goes back into the queue", job)
    time.sleep(patience)
