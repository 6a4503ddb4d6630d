"""The one training loop: every stage of every model goes through it, whatever it learns.

What a stage learns is an ``Objective``. The loop owns optimisers, learning rate, averaged weights, validation, the
choice of the best weights and the resumable state. It continues bit for bit on a CPU, because patches and every other
random number depend on seed and step alone and everything else is in the state. Of several processes each follows the
same gradient; the first validates, chooses and saves.
"""

from __future__ import annotations

import copy
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emsr import memory
from emsr.models.stage import Stage
from emsr.progress import OutOfTimeError, UnfinishedError, progress
from emsr.training import schedule, state
from emsr.training.arithmetic import autocast, reproducible
from emsr.training.data import read_ahead
from emsr.training.descent import Descent, tensors
from emsr.training.group import ALONE, Group, parts
from emsr.training.objective import Objective
from emsr.training.offsets import watched
from emsr.training.stopping import NEVER, Limit, listening, told

log = logging.getLogger(__name__)

CURVE_POINTS = 200


@dataclass(frozen=True)
class Run:
    """How a training runs: where its state lies and whose it is, on what device, on how many threads, among which
    processes, until when."""

    folder: Path
    identity: str
    label: str
    device: str = "cpu"
    threads: int = 1
    group: Group = ALONE
    limit: Limit = NEVER


@dataclass
class Result:
    """The best weights with their validation figures, the curves, and what all attempts took up to their last state."""

    weights: dict[str, Tensor]
    scores: dict[str, float]
    curve: dict[str, list[dict[str, float]]]
    stats: dict[str, float] = field(default_factory=dict)


def train(objective: Objective, stage: Stage, run: Run) -> Result:
    """Train ``objective`` by recipe ``stage``, continuing from the state in ``run.folder`` if it is this training's.

    Raises UnfinishedError, with the state saved, when it is told to stop, and OutOfTimeError when the wall time of its
    job is near, a step at least after it began.
    """
    with reproducible(run.threads, run.device), listening():
        trainer = Trainer(objective, stage, run)
        first = trainer.resume()
        with progress(stage.steps, run.label, "steps", shown=run.group.rank == 0) as bar:
            bar.update(first)
            ahead = iter(read_ahead(objective.batch, range(first, stage.steps)))
            for done in range(first + 1, stage.steps + 1):
                began = time.monotonic()
                step, batch = next(ahead)
                trainer.waited += time.monotonic() - began
                loss = trainer.advance(step, batch)
                trainer.longest = max(trainer.longest, time.monotonic() - began)
                bar.note(f"loss {loss:.4g}{trainer.best_text}")
                bar.update()
                trainer.stop_if_due(done)
        result = trainer.result()
    spent = trainer.spent()
    result.stats = {**spent, "steps": stage.steps, "steps_per_second": stage.steps / spent["seconds"]}
    return result


class Trainer:
    """The moving parts of a training: optimisers, averaged network, best weights, curves."""

    def __init__(self, objective: Objective, stage: Stage, run: Run) -> None:
        self.began, self.cpu = time.monotonic(), time.process_time()
        self.waited = self.longest = 0.0  # seconds: for patches in all, for a step at most
        self.before: dict[str, float] = {}
        self.objective, self.stage, self.run = objective, stage, run
        count = parts(stage, run.group.size)
        self.own_parts = count // run.group.size
        self.descents = [Descent(turn, stage, run.device, run.group, count) for turn in objective.turns()]
        self.average = copy.deepcopy(objective.network) if stage.weight_ema else None
        self.best: dict[str, Any] | None = None
        self.warned = False
        self.curve: dict[str, list[dict[str, float]]] = {"training": [], "validation": []}
        self.recent: list[dict[str, float]] = []

    @property
    def best_text(self) -> str:
        return f", best {self.best['scores']['score']:.4g}" if self.best else ""

    def advance(self, step: int, batch: Any) -> float:
        """One step, with what is due after it: averaging, curve, validation, state on disk. Returns the first loss."""
        with autocast(self.stage.precision, self.run.device):
            batches = self.objective.parts(batch, step, self.own_parts)
        named: dict[str, float] = {}
        for descent in self.descents:
            if step >= descent.turn.first_step:
                named |= descent.descend(batches, step)
                self._check(named, step)
        self.objective.after(step)
        self._follow(step)
        self.recent.append(named)
        done = step + 1
        if done % max(1, self.stage.steps // CURVE_POINTS) == 0 or done == self.stage.steps:
            self._note(done)
        if due(done, self.stage.validate_every) or done == self.stage.steps:
            self._validate(done)
        if due(done, self.stage.checkpoint_every) or done == self.stage.steps:
            self._save(done)
        return named["loss"]

    def _check(self, values: dict[str, float], step: int) -> None:
        if not all(abs(value) < float("inf") for value in values.values()):
            raise ValueError(f"loss of {self.run.label} became {values} at step {step}: lower the learning rate")

    def stop_if_due(self, done: int) -> None:
        """Save the state and raise UnfinishedError, if one of the processes has a reason and steps are left."""
        reason = self.run.limit.reason(self.longest)
        if done < self.stage.steps and self.run.group.any(reason is not None):
            self._save(done)
            where = f"{self.run.label} stopped at step {done} of {self.stage.steps}"
            kind = UnfinishedError if self.run.group.any(told()) else OutOfTimeError
            raise kind(f"{where}, because {reason or 'another process had to'}: start it again to go on")

    def _save(self, done: int) -> None:
        if self.run.group.rank == 0:
            state.save(self.run.folder, self._state(done), self.run.identity)

    def _follow(self, step: int) -> None:
        """Move the averaged weights and the floating-point buffers towards the trained ones; copy other buffers."""
        if self.average is None:
            return
        keep = schedule.averaging(step, self.stage.weight_ema)
        with torch.no_grad():
            slow = [t for t in tensors(self.average) if t.is_floating_point()]
            fast = [t for t in tensors(self.objective.network) if t.is_floating_point()]
            torch._foreach_lerp_(slow, fast, 1 - keep)
            for old, new in zip(tensors(self.average), tensors(self.objective.network), strict=True):
                if not old.is_floating_point():
                    old.copy_(new)

    def _note(self, done: int) -> None:
        names = {name: None for entry in self.recent for name in entry}
        mean = {n: float(sum(e[n] for e in self.recent if n in e)) / sum(n in e for e in self.recent) for n in names}
        self.curve["training"].append({"step": done, **mean})
        self.recent = []

    def _validate(self, done: int) -> None:
        if self.run.group.rank:
            return
        network = self.average or self.objective.network
        network.eval()
        with torch.inference_mode(), autocast(self.stage.precision, self.run.device), watched(network) as offsets:
            scores = self.objective.validate(network)
        scores = {**scores, **offsets.figures()}
        if not self.warned and (warning := offsets.warning(self.stage.learning_rate)):
            self.warned = True
            log.warning("%s: step %d: %s", self.run.label, done, warning)
        self.curve["validation"].append({"step": done, **scores})
        log.info("%s: step %d: %s", self.run.label, done, scores)
        last = getattr(self.objective, "keeps_last", False)
        if last or self.best is None or scores["score"] > self.best["scores"]["score"]:
            weights = {name: value.clone() for name, value in network.state_dict().items()}
            self.best = {"step": done, "scores": scores, "weights": weights}

    def spent(self) -> dict[str, float]:
        """What the training took so far, this attempt and those before it that it continues."""
        now = {
            "attempts": 1,
            "seconds": time.monotonic() - self.began,
            "waiting_seconds": self.waited,
            "cpu_seconds": time.process_time() - self.cpu,
        }
        spent = {name: self.before.get(name, 0) + value for name, value in now.items()}
        return {**spent, "peak_memory_bytes": max(self.before.get("peak_memory_bytes", 0), memory.peak_bytes())}

    def _state(self, done: int) -> state.State:
        return {
            "step": done,
            "objective": self.objective.state().state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "optimisers": [descent.optimiser.state_dict() for descent in self.descents],
            "scalers": [descent.scaler.state_dict() for descent in self.descents],
            "best": self.best,
            "curve": self.curve,
            "recent": self.recent,
            "spent": self.spent(),
        }

    def resume(self) -> int:
        """Continue from the state on disk, if there is one of this training; returns the step to do next."""
        for other in state.others(self.run.folder, self.run.identity):
            kept = f"they go on from step {other['step']} of {self.run.folder / other['file']}"
            log.warning("%s: a training with other settings has not ended; %s", self.run.label, kept)
        saved = state.load(self.run.folder, self.run.identity)
        if saved is None:
            return 0
        saved.setdefault("scalers", [{} for _ in saved["optimisers"]])  # before there were any
        self.objective.state().load_state_dict(saved["objective"])
        if self.average is not None:
            self.average.load_state_dict(saved["average"])
        for descent, optimiser, scaler in zip(self.descents, saved["optimisers"], saved["scalers"], strict=True):
            descent.optimiser.load_state_dict(optimiser)
            descent.scaler.load_state_dict(scaler)
        self.best, self.curve, self.recent = saved["best"], saved["curve"], saved["recent"]
        self.before = saved["spent"]
        log.info("%s: resumed at step %d", self.run.label, saved["step"])
        return int(saved["step"])

    def result(self) -> Result:
        """The best weights, known to the first process; a training of no steps ends with those it began with."""
        if self.run.group.rank:
            return Result({}, {}, {})
        if self.best is None:
            self._validate(0)
        assert self.best is not None
        scores = {**self.best["scores"], "step": self.best["step"]}
        return Result(self.best["weights"], scores, self.curve)


def due(done: int, every: int) -> bool:
    """Whether something done every so many steps is due; never if that is 0."""
    return every > 0 and done % every == 0
