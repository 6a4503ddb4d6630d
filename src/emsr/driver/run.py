"""`emsr run`: snakemake, with what makes it safe to start again, and again, whatever happened before."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsr.driver import canary, finish
from emsr.driver.children import Child, end_left, snakemakes
from emsr.driver.lock import Lock, held
from emsr.driver.slurm import Slurm, name_of

if TYPE_CHECKING:
    from emsr.driver.words import Asked
    from emsr.settings import Settings

CANCELLED_SECONDS = 15.0  # after a signal: for cancelled jobs to go; what stays is cancelled by the next run

log = logging.getLogger(__name__)


def run(*words: str, lost_after: float = 900.0, no_canary: bool = False) -> None:
    """Run snakemake with WORDS, its own arguments, such as `--profile slurm`; without any, on all cores.

    What `snakemake` alone leaves to you: a second run on the same results is refused, also from another machine, and
    what a killed one left is cleaned up: its lock, its processes, its jobs on Slurm, half-made files. Slurm is asked by
    squeue; a job that Slurm has not known for `--lost-after` seconds counts as failed, and when Slurm itself does not
    answer for so long the run ends. A training that made progress is resubmitted without end. The first jobs of every
    super-resolution must pass the gates of `canary` in the config before the others start (`--no-canary`: not).
    Ends with 0 only when all that was asked for has records that hold; with 130 or 143 after Ctrl-C or SIGTERM, its
    jobs cancelled. `-n` shows what would run and takes no lock.
    """
    from emsr.driver.words import Asked

    if not lost_after > 0:
        raise ValueError(f"--lost-after {lost_after:g} is no time: give seconds, such as 900")
    asked, origin = Asked.read(words[1:] if words[:1] == ("--",) else words), Path.cwd()
    if asked.dry:
        raise SystemExit(subprocess.call(_snakemake(asked.line([]))))
    os.chdir(asked.folder)
    settings = asked.settings()
    results, stop = Path(settings.root).resolve(), Stop()
    with stop.listening(), held(results / ".emsr", stop.lose) as (lock, dead):
        slurm = None
        if asked.slurm or (dead or {}).get("slurm"):
            slurm = Slurm(name_of(results), results / ".emsr" / f"slurm-{lock.run}", lost_after)
        Driver(asked, settings, origin, stop, lock, slurm).all(dead, not no_canary)


def _snakemake(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "snakemake", *words]


class Stop:
    """Why a run must end before its end, if it must; a signal, or a call."""

    def __init__(self) -> None:
        self.reason, self.signal, self.lost = "", 0, False

    def __call__(self, reason: str) -> None:
        self.reason = self.reason or reason

    def __bool__(self) -> bool:
        return bool(self.reason)

    def lose(self) -> None:
        """Another run has the lock: what stands in the folder, and on Slurm, may be its own."""
        self.lost = True
        self("nothing was heard of this run for a minute, so another one took its lock: this one is ended")

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within, signals do nothing but say so."""

        def noted(number: int, _: Any) -> None:
            self.signal = self.signal or number
            self(f"{signal.Signals(number).name} came")

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [signal.SIGINT, signal.SIGTERM]
        numbers += [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else []
        before = {number: signal.signal(number, noted) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def check(self) -> None:
        """End here, if it must: with exit code 128 + n after signal n, else with one line."""
        if not self:
            return
        if self.signal:
            log.error("%s: everything is ended and jobs are cancelled; run again to go on", self.reason)
            raise SystemExit(128 + self.signal)
        raise ValueError(self.reason)


@dataclass
class Driver:
    """One run that holds the lock."""

    asked: Asked
    settings: Settings
    origin: Path
    stop: Stop
    lock: Lock
    slurm: Slurm | None
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))

    @property
    def locks(self) -> bool:
        """Whether snakemake's own lock is there."""
        folder = self.asked.folder / ".snakemake" / "locks"
        return folder.is_dir() and any(folder.iterdir())

    def all(self, dead: Mapping[str, Any] | None, gated: bool) -> None:
        """Clean up, run, prove; whatever happens, nothing of this run is left behind."""
        whole = False
        self.clean_up(dead)
        try:
            if self.slurm and self.asked.slurm:
                self.lock.state(slurm=self.slurm.name)
                self.environment = self.slurm.environment()
            if gated:
                self.check_targets()
                canary.pass_gates(self.settings, self.asked, self.snakemake, self.stop.check)
            self.snakemake()
            finish.check(self.settings, self.asked.targets)
            whole = True
        finally:
            self.leave(whole)

    def clean_up(self, dead: Mapping[str, Any] | None) -> None:
        """End what runs that are dead left behind; ValueError where a snakemake is at work that is nobody's."""
        left = [*(dead or {}).get("left", ()), *([dead["child"]] if dead and dead.get("child") else [])]
        if left:
            self.lock.state(left=left[-4:])
        for child in left:
            end_left(child)
        if self.locks and (others := snakemakes(self.asked.folder)):
            raise ValueError(f"snakemake, process {others[0]}, works in {self.asked.folder}: wait for it, or end it")
        if self.slurm and (jobs := self.slurm.cancel()):
            log.warning("%d jobs that an earlier emsr run left on Slurm were cancelled", jobs)
        if self.locks and dead is None:
            raise ValueError(
                f"{self.asked.folder} is locked by a snakemake that emsr run did not start: if it works on no other "
                "machine either, unlock with snakemake --unlock and run again"
            )
        self.unlock()
        for files in (Path(self.settings.root) / ".emsr").glob("slurm-*"):
            shutil.rmtree(files, ignore_errors=True)
        self.lock.state(left=[])

    def check_targets(self) -> None:
        """ValueError, in one line, for a target that nothing makes: here, and not when the canary is done."""
        if self.asked.targets:
            words = _snakemake(self.asked.line(["--quiet", "all", "--dry-run"]))
            done = subprocess.run(words, cwd=self.origin, capture_output=True, text=True)
            if done.returncode:
                said = f"{done.stdout}\n{done.stderr}".rpartition("Building DAG of jobs...")[2]  # where, it varies
                raise ValueError(f"snakemake cannot make this: {' '.join(said.split()[:60])}")

    def snakemake(self, targets: Sequence[str] | None = None) -> None:
        """Make `targets`, or what was asked for; again as long as a training got on. ValueError where it cannot be."""
        while True:
            self.stop.check()
            before = self.trained()
            code = self.once(targets)
            self.unlock()
            self.stop.check()
            if code == 0:
                return
            if all(before.get(file) == state for file, state in self.trained().items()):
                raise ValueError(f"snakemake ended with exit code {code}: its messages above say why; run again after")
            log.warning("a training got on, but not to its end: going on with it")

    def once(self, targets: Sequence[str] | None) -> int:
        """The exit code of one call of snakemake."""
        extra = ["--rerun-incomplete"]
        if self.slurm and self.asked.slurm:
            self.slurm.begin()
            theirs = self.asked.option("slurm_jobname_prefix")
            extra += ["--slurm-jobname-prefix", f"{theirs}_{self.slurm.name}" if theirs else self.slurm.name]
            if self.asked.option("slurm_status_command") is None:
                extra += ["--slurm-status-command", "squeue"]
        local = self.asked.parsed.executor in (None, "local")
        words, first = _snakemake(self.asked.line(extra, targets)), signal.SIGTERM if local else signal.SIGINT
        child = Child(words, self.origin, self.environment, first)
        try:
            self.lock.state(child=child.stated)
            return child.wait(self.ended)
        finally:
            child.end()
            with suppress(FileNotFoundError):  # another run took the lock, which ends this one anyway
                self.lock.state(child=None)

    def ended(self) -> bool:
        """Whether there is a reason to end snakemake."""
        if self.slurm and self.asked.slurm and self.slurm.away():
            self.stop("Slurm does not answer: its jobs go on, and the next run cancels them")
        return bool(self.stop)

    def trained(self) -> dict[str, bytes]:
        """How far trainings are that have not ended."""
        files = Path(self.settings.root).glob("trainings/*/*.checkpoint/latest.json")
        found = {}
        for file in files:
            with suppress(FileNotFoundError):
                found[str(file)] = file.read_bytes()
        return found

    def unlock(self) -> None:
        """Take the lock away that a killed snakemake left; while emsr's own is held nobody else can have set it."""
        if self.locks and not self.stop.lost:
            done = subprocess.run(
                _snakemake(self.asked.line(["--unlock"])), cwd=self.origin, capture_output=True, text=True
            )
            if done.returncode:
                raise ValueError(f"snakemake --unlock fails: {' '.join(done.stderr.split()[-60:])}")

    def leave(self, whole: bool) -> None:
        """Nothing of this run works any more; the next one has nothing to clean up."""
        if not self.slurm:
            return
        try:
            if not whole and not self.stop.lost:
                self.slurm.cancel(CANCELLED_SECONDS)
        except ValueError as error:
            log.warning("jobs may be left on Slurm (%s); the next emsr run cancels them", error)
        finally:
            self.slurm.clear()
