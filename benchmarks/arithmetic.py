"""Multiply-accumulates of a step of training, forward and back, counted in real steps of the stages of a config."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from emsr.inference import cost
from emsr.settings import Settings
from emsr.steps.train import train
from emsr.steps.train_job import Job
from emsr.training.arithmetic import reproducible
from emsr.training.group import ALONE
from emsr.training.loop import Run, Trainer

LOOKS = 6  # steps of a training that are counted, from its beginning to its end


def of_stages(settings: Settings, name: str) -> dict[str, float]:
    """Multiply-accumulates of a step of each stage, forward and back, mean over a training."""
    found = {}
    with TemporaryDirectory() as folder, reproducible(1, "cpu"):
        cards: dict[str, str] = {}
        for stage in settings.config.trainings[name].stages:
            values = yaml.safe_load(settings.train(name, stage))
            values["cards"] = {earlier: cards[earlier] for earlier in values["cards"]}
            out = Path(folder) / f"{stage}.json"
            unseen = {"validate_every": 0, "checkpoint_every": 0}
            job = Job.read(values | {"overrides": values["overrides"] | unseen}, out)
            found[stage] = of_step(job, Path(folder) / stage)
            if any(stage in needed for needed in settings.config.trainings[name].needs.values()):
                train(values | {"overrides": {"steps": 0}}, out)  # weights of no training
                cards[stage] = str(out)
    return found


def of_step(job: Job, folder: Path) -> float:
    """Multiply-accumulates of a step of a stage, mean over steps from its beginning to its end."""
    context = job.context(ALONE)
    objective = import_module(f"emsr.training.objectives.{context.stage.objective}").make(context)
    trainer = Trainer(objective, context.stage, Run(folder, "counted", job.stage.name))
    total = 0
    for look in range(LOOKS):
        step = int(job.stage.steps * (look + 0.5) / LOOKS)
        batch = objective.batch(step)
        with cost.counting() as counter:
            trainer.advance(step, batch)
        total += cost.totals(counter)[0]
    return total / LOOKS
