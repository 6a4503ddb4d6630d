"""Rule of train.smk: one stage of a model is trained on sections of volumes and becomes weights with a card."""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsr import durable
from emsr.steps.train_job import Job

if TYPE_CHECKING:
    from emsr.training.group import Group
    from emsr.training.loop import Result
    from emsr.training.objectives.context import Context
    from emsr.training.stopping import Limit

TRAIN_RESULT = 1

log = logging.getLogger(__name__)


def train(
    settings: dict[str, Any],
    out: Path,
    *,
    processes: int = 1,
    runtime: float = 0.0,
    margin: float = 5.0,
    requeue: int = 0,
) -> None:
    """Train one stage; its card is `out`, weights, curves and figures of time lie beside it with the same stem.

    `settings`: stage, overrides (of its recipe), model (name, preset, options), scale, sections, section_step, window
    (lr pixels), seed, threads, device ("auto", "cpu", "cuda"), data (list of volume, hr and lr (image cards; null where
    the stage reads none; for affinities image and labels), train and validation (ranges of sections)), cards (stage ->
    card of its weights), init_from,
    perceptual and spynet (each null, or path and sha256 of weights), and accelerators (layer -> package) where they are
    asked for. A training that was killed continues bit for bit
    on a CPU, if nothing that it depends on has changed. The card is written last.

    `processes` share each batch, on a GPU each where there are GPUs; 0 is one. `runtime` is the wall time of the job in
    minutes, for schedulers that do not tell it; `margin` minutes before its end, and on SIGTERM, the training stops
    with its state saved (exit code 75), and goes on when it is started again, with any number of processes. With
    `requeue` 1 a job of SLURM that ran out of wall time first puts itself back into the queue.
    """
    from emsr.progress import OutOfTimeError
    from emsr.training import launch, stopping
    from emsr.training.group import ALONE, invited, parts

    if processes < 0:
        raise ValueError(f"processes {processes} train nothing: state 1 or more, or 0 for one")
    out, limit = Path(out), stopping.Limit(stopping.wall_time(time.time(), runtime), 60 * margin)
    job, group = Job.read(settings, out), invited()
    size = group.size if group else max(1, processes)
    log.info("stage %s of %s x%s: %s", job.stage.name, settings["model"]["name"], settings["scale"], asdict(job.stage))
    if _restored(job):
        return
    if job.stage.objective == "none":
        job.write(job.network(), {}, {}, {})
        return
    parts(job.stage, size)
    launch.enough(size, job.device())
    try:
        if group or size == 1:
            _train(group or ALONE, settings, out, limit)
        else:
            launch.launch(_train, size, settings, out, limit)
    except OutOfTimeError as stopped:
        if requeue and not (group and group.rank):
            log.info("%s", stopped)
            stopping.requeue()
        raise


def _train(group: Group, settings: dict[str, Any], out: Path, limit: Limit) -> None:
    """One process's part of a training, whose first process writes what comes of it."""
    import importlib

    import torch

    from emsr.inference.devices import claimed
    from emsr.steps import networks
    from emsr.training.arithmetic import reproducible
    from emsr.training.group import joined
    from emsr.training.loop import Run
    from emsr.training.loop import train as run
    from emsr.training.offsets import watched

    job = Job.read(settings, out)
    threads, label = settings["threads"], f"{out.parent.name} {job.stage.name}"
    with claimed(job.device()) as device:
        if device.startswith("cuda"):
            torch.cuda.set_device(device)
        with joined(group, device):
            context = job.context(group)
            if not group.rank:
                _warn_of_small_sections(context)
            objective = importlib.import_module(f"emsr.training.objectives.{context.stage.objective}").make(context)
            folder = out.with_suffix(".checkpoint")
            settled = Run(folder, job.identity(), label, context.device, threads, group, limit)
            result = run(objective, context.stage, settled)
        if group.rank:
            return
        context.network.load_state_dict(result.weights)
        with reproducible(threads, context.device), torch.inference_mode(), watched(context.network) as offsets:
            health = objective.health(context.network.eval())
        health = {**health, **offsets.figures()}
    _write_beside(out, result)
    job.write(context.network, result.scores, health, networks.cost(context.network, job.card()))
    log.info("stage %s: %s", job.stage.name, {**result.scores, **health})
    trained = {"identity": job.identity(), "card": durable.read_json(out)}
    durable.write_sealed(_record(out), {"schema": durable.SCHEMA, **trained})
    _forget(job)


def _record(out: Path) -> Path:
    """What a finished training leaves beside its card; never a rule's output, so no rerun deletes it."""
    return out.with_suffix(".record.json")


def _restored(job: Job) -> bool:
    """Write the card again, if a finished training of this very identity stands on disk, its weights whole.

    Snakemake deletes the card before it reruns the rule, whatever made it rerun; weeks of training are not for that.
    """
    if not _record(job.out).is_file():
        return False
    record, weights = durable.read_json(_record(job.out)), job.out.with_suffix(".safetensors")
    if record["identity"] != job.identity() or not weights.is_file():
        return False
    if hashlib.sha256(weights.read_bytes()).hexdigest() != record["card"]["sha256"]:
        return False
    durable.write_sealed(job.out, record["card"])
    log.info("stage %s was trained already: nothing that it depends on has changed", job.stage.name)
    return True


def _warn_of_small_sections(context: Context) -> None:
    """Patches larger than sections are mirrored, which a user should know of."""
    stage = context.stage
    for one in context.training if stage.objective != "affinity" else ():
        seen = one.hr if stage.objective == "codebook" else one.lr
        if seen is not None and min(sides := seen.shape[1:]) < stage.patch:
            wide = f"{sides[0]} x {sides[1]}"
            log.warning(
                "stage %s: patches of %d pixels are larger than the sections of %s, %s: mirrored beyond their edges",
                *(stage.name, stage.patch, one.name, wide),
            )


def _write_beside(out: Path, result: Result) -> None:
    """Curves, and what the training took."""
    durable.write_json(out.with_suffix(".curve.json"), result.curve)
    durable.write_json(out.with_suffix(".stats.json"), {"schema": durable.SCHEMA, **result.stats})


def _forget(job: Job) -> None:
    """The training has ended: what it would have resumed from is no longer needed."""
    from emsr.training import state

    state.forget(job.out.with_suffix(".checkpoint"), job.identity())
