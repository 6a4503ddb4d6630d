"""The one training loop: every stage of every model goes through it, whatever it learns.

What a stage learns is an ``Objective``. The loop owns optimisers, learning rate, averaged weights, validation, the
choice of the best weights and the resumable state. It continues bit for bit on a CPU, because patches and every other
random number depend on seed and step alone and everything else is in the state.
"""

from __future__ import annotations

import copy
import logging
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from emsr.models.stage import Stage
from emsr.progress import progress
from emsr.training import schedule, state
from emsr.training.arithmetic import autocast, reproducible
from emsr.training.data import Batch, read_ahead

log = logging.getLogger(__name__)

CURVE_POINTS = 200
Losses = Mapping[str, Tensor]


@dataclass(frozen=True)
class Turn:
    """One optimiser's part of a step: ``losses(batch, step)`` gives named losses whose entry "loss" is descended.

    Before ``first_step`` the turn is skipped, and its learning rate starts there.
    """

    network: nn.Module
    losses: Callable[[Batch, int], Losses]
    first_step: int = 0


class Objective(Protocol):
    """What a stage learns. ``network`` is what is trained, averaged and kept."""

    network: nn.Module

    def state(self) -> nn.Module:
        """Everything the training continues from: the network, and a discriminator or counters if there are any."""

    def turns(self) -> Sequence[Turn]:
        """The optimisers' parts of a step, in order."""

    def batch(self, step: int) -> Batch:
        """The patches of a step; called from another thread."""

    def after(self, step: int) -> None:
        """What happens to the state after a step's descent."""

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Named figures on the validation sections; "score" chooses the best weights, higher is better."""


@dataclass(frozen=True)
class Run:
    """How a training runs: where its state lies and whose it is, on what device, on how many threads."""

    folder: Path
    identity: str
    label: str
    device: str = "cpu"
    threads: int = 1


@dataclass
class Result:
    """The best weights with their validation figures, the curves, and what all attempts took up to their last state."""

    weights: dict[str, Tensor]
    scores: dict[str, float]
    curve: dict[str, list[dict[str, float]]]
    stats: dict[str, float] = field(default_factory=dict)


def train(objective: Objective, stage: Stage, run: Run) -> Result:
    """Train ``objective`` by recipe ``stage``, continuing from the state in ``run.folder`` if it is this training's."""
    with reproducible(run.threads, run.device):
        trainer = Trainer(objective, stage, run)
        first = trainer.resume()
        with progress(stage.steps, run.label, "steps") as bar:
            bar.update(first)
            for step, batch in read_ahead(objective.batch, range(first, stage.steps)):
                loss = trainer.advance(step, batch)
                bar.note(f"loss {loss:.4g}{trainer.best_text}")
                bar.update()
        result = trainer.result()
    spent = trainer.spent()
    result.stats = {**spent, "steps": stage.steps, "steps_per_second": stage.steps / spent["seconds"]}
    return result


class Trainer:
    """The moving parts of a training: optimisers, averaged network, best weights, curves."""

    def __init__(self, objective: Objective, stage: Stage, run: Run) -> None:
        self.began, self.cpu = time.monotonic(), time.process_time()
        self.before: dict[str, float] = {"attempts": 0, "seconds": 0.0, "cpu_seconds": 0.0, "peak_memory_bytes": 0}
        self.objective, self.stage, self.run = objective, stage, run
        self.turns = tuple(objective.turns())
        self.optimisers = [
            torch.optim.Adam(trained(turn.network), lr=stage.learning_rate, betas=stage.betas) for turn in self.turns
        ]
        self.average = copy.deepcopy(objective.network) if stage.weight_ema else None
        self.best: dict[str, Any] | None = None
        self.curve: dict[str, list[dict[str, float]]] = {"training": [], "validation": []}
        self.recent: list[dict[str, float]] = []

    @property
    def best_text(self) -> str:
        return f", best {self.best['scores']['score']:.4g}" if self.best else ""

    def advance(self, step: int, batch: Batch) -> float:
        """One step, with what is due after it: averaging, curve, validation, state on disk. Returns the first loss."""
        named: dict[str, float] = {}
        for turn, optimiser in zip(self.turns, self.optimisers, strict=True):
            if step >= turn.first_step:
                named |= self._descend(turn, optimiser, batch, step)
        self.objective.after(step)
        self._follow(step)
        self.recent.append(named)
        done = step + 1
        if done % max(1, self.stage.steps // CURVE_POINTS) == 0 or done == self.stage.steps:
            self._note(done)
        if due(done, self.stage.validate_every) or done == self.stage.steps:
            self._validate(done)
        if due(done, self.stage.checkpoint_every) and done != self.stage.steps:
            state.save(self.run.folder, self._state(done), self.run.identity)
        return named["loss"]

    def _descend(self, turn: Turn, optimiser: torch.optim.Adam, batch: Batch, step: int) -> dict[str, float]:
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate(self.stage, step - turn.first_step)
        turn.network.train()
        with autocast(self.stage.precision, self.run.device):
            losses = turn.losses(batch, step)
        optimiser.zero_grad(set_to_none=True)
        losses["loss"].backward()
        if self.stage.clip:
            nn.utils.clip_grad_norm_(trained(turn.network), self.stage.clip)
        optimiser.step()
        values = {name: float(value.detach()) for name, value in losses.items()}
        if not all(abs(value) < float("inf") for value in values.values()):
            raise ValueError(f"loss of {self.run.label} became {values} at step {step}: lower the learning rate")
        return values

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
        network = self.average or self.objective.network
        network.eval()
        with torch.inference_mode(), autocast(self.stage.precision, self.run.device):
            scores = self.objective.validate(network)
        self.curve["validation"].append({"step": done, **scores})
        log.info("%s: step %d: %s", self.run.label, done, scores)
        if self.best is None or scores["score"] > self.best["scores"]["score"]:
            weights = {name: value.clone() for name, value in network.state_dict().items()}
            self.best = {"step": done, "scores": scores, "weights": weights}

    def spent(self) -> dict[str, float]:
        """What the training took so far, this attempt and those before it that it continues."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {
            "attempts": self.before["attempts"] + 1,
            "seconds": self.before["seconds"] + time.monotonic() - self.began,
            "cpu_seconds": self.before.get("cpu_seconds", 0.0) + time.process_time() - self.cpu,
            "peak_memory_bytes": max(self.before["peak_memory_bytes"], peak),
        }

    def _state(self, done: int) -> state.State:
        return {
            "step": done,
            "objective": self.objective.state().state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
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
        self.objective.state().load_state_dict(saved["objective"])
        if self.average is not None:
            self.average.load_state_dict(saved["average"])
        for optimiser, kept in zip(self.optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        self.best, self.curve, self.recent = saved["best"], saved["curve"], saved["recent"]
        self.before = saved["spent"]
        log.info("%s: resumed at step %d", self.run.label, saved["step"])
        return int(saved["step"])

    def result(self) -> Result:
        """The best weights; a training of no steps ends with the weights it began with."""
        if self.best is None:
            self._validate(0)
        assert self.best is not None
        scores = {**self.best["scores"], "step": self.best["step"]}
        return Result(self.best["weights"], scores, self.curve)


def due(done: int, every: int) -> bool:
    """Whether something done every so many steps is due; never if that is 0."""
    return every > 0 and done % every == 0


def trained(network: nn.Module) -> list[nn.Parameter]:
    """The parameters that are not frozen."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def tensors(network: nn.Module) -> list[Tensor]:
    """What changes while training: trained parameters and buffers, in a fixed order."""
    return [*trained(network), *network.buffers()]
