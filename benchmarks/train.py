"""Steps a second of each stage of training, and whether patches keep up, measured on made-up voxels.

python benchmarks/train.py [--preset small] [--scale 8] [--batch 1] [--rounds 5] [--steps 1] [--device cpu]
    [--precision float32] [--stages indexer fusion] [--reading 128 512] [--cache-mb 32] [--batches 60] [--json]

emsr against the straightforward recipe, which computes everything anew in every step: the indexer's targets by the
frozen encoder; for fusion the references of every section, the flow of every pair twice from images, features of one
copy of sr for each section, and VGG19 to its end wherever it is looked into. Between the two: emsr without what it
keeps of patches that recur. What is kept is filled before the clock starts, as it is for most of a training. All sides
take their steps in turn, round by round; told are medians of rounds and extremes. Losses of one batch are compared
first. Flow and codebook, here without its discriminator, have nothing frozen to save, so they have one side.

Then batches of every stage from sharded OME-Zarr of so many MiB of hr (`--reading`), each size in a process of its own:
seconds for a batch, peak memory of the process, and the share of a training of stage codebook in which it waited for
patches. `--stages` and `--reading` without values leave their part out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from emsr.layers.features import Vgg19
from emsr.models import gpemsr
from emsr.models.stage import Stage
from emsr.stores.zarr import Layout, create, open_array, write_box
from emsr.training import losses
from emsr.training.arithmetic import reproducible
from emsr.training.data import Patches, Request, Series, read_ahead
from emsr.training.loop import Run, Trainer
from emsr.training.objectives import codebook, flow, fusion, indexer
from emsr.training.objectives.context import Context, channels_last, frozen, unit

SECTIONS, DEPTH, ENDLESS = 5, 2, 10**7
MODULES: dict[str, Any] = {"flow": flow, "codebook": codebook, "indexer": indexer, "fusion": fusion}
Seconds = dict[str, list[float]]


BEYOND = {64: ((128, 2), (256, 4), (512, 4), (512, 4)), 256: ((512, 4), (512, 4))}  # of relu1_2 and of relu3_4


class Deep(nn.Module):
    """VGG19 as others run it: to its last layer, whatever is asked of it. Weights are random, which costs as much."""

    def __init__(self, look: Vgg19) -> None:
        super().__init__()
        seen: Any = look.layers[-2]
        inputs, layers = seen.out_channels, []
        for width, convolutions in BEYOND[inputs]:
            layers.append(nn.MaxPool2d(2))
            for _ in range(convolutions):
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
                inputs = width
        self.look, self.rest = look, nn.Sequential(*layers).requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        features: Tensor = self.look(image)
        self.rest(features)
        return features


class Straightforward(fusion.Fusion):
    """Nothing kept, every section's reference anew, and as many copies of sr as there are sections."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        network = self.network
        network.flow_between = lambda one, other: [network.displacement(one[0], other[0]) for _ in range(2)][-1]
        if isinstance(network.reference.look, Vgg19):
            network.reference.look = Deep(network.reference.look).to(context.device)

    @torch.no_grad()
    def references(self, batch: Any) -> Any:
        return self.network.references(unit(batch.lr, self.context.device).flatten(0, 1))

    def contextual(self, sr: Tensor, wanted: Tensor, centre: Tensor | None) -> Tensor:
        look: Any = self.context.perceptual
        return losses.contextual_loss(look(sr.repeat_interleave(len(wanted) // len(sr), dim=0)).float(), wanted)


def recipe(name: str, options: argparse.Namespace) -> Stage:
    """The preset's stage with this benchmark's batch and precision, and without an end."""
    found = next(stage for stage in gpemsr.stages(options.preset, options.scale) if stage.name == name)
    weight = found.contextual_weight or 0.01
    changed = replace(found, batch=options.batch, precision=options.precision, steps=ENDLESS, contextual_weight=weight)
    return replace(changed, validate_every=0, checkpoint_every=0, kmeans_vectors=0, unquantised=0.0)


def voxels(stage: Stage, scale: int) -> tuple[Series, ...]:
    """Smooth noise so small that its patches recur: a section is one patch."""
    patch = stage.patch if stage.objective != "codebook" else -(-stage.patch // scale)
    lr = np.random.default_rng(0).integers(60, 200, (DEPTH, patch, patch), dtype=np.uint8)
    hr = lr.repeat(scale, 1).repeat(scale, 2)
    table = tuple(tuple(min(max(z + k, 0), DEPTH - 1) for k in range(-2, 3)) for z in range(DEPTH))
    return (Series("noise", lr, hr, table),)


def context(name: str, options: argparse.Namespace, stage: Stage, straightforward: bool = False) -> Context:
    """A stage on made-up voxels, with random weights in what earlier stages would have trained."""
    shape = gpemsr.PRESETS[options.preset]
    torch.manual_seed(0)
    parts = {"codebook": channels_last(gpemsr.network("codebook", 1, 1, shape), options.device)}
    network = gpemsr.network(name, options.scale, SECTIONS, shape)
    frozen(parts["codebook"])
    looked: Any = None
    if shape.mask_features == "vgg":
        looked = Vgg19("relu3_4", normalise=True).to(options.device)
        looked = frozen(Deep(looked).to(options.device) if straightforward else looked)
    else:
        encoder: Any = parts["codebook"].encoder
        looked = lambda image: encoder.features(image, stride=4)  # noqa: E731
    series = voxels(stage, options.scale)
    return Context(
        stage,
        channels_last(network, options.device),
        options.scale,
        series,
        series,
        0,
        device=options.device,
        parts=parts,
        perceptual=looked,
        flow_scale=shape.flow_scale,
    )


def sides(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """What is measured of a stage, by name."""
    stage = recipe(name, options)
    if name in ("flow", "codebook"):
        stage = replace(stage, adversarial_weight=0.0)
        return {"emsr": MODULES[name].make(context(name, options, stage))}
    free, kept = replace(stage, cache=False), replace(stage, cache=True)
    straight = Straightforward if name == "fusion" else indexer.Indexer
    return {
        "straightforward": straight(context(name, options, free, straightforward=True)),
        "emsr, nothing kept": MODULES[name].make(context(name, options, free)),
        "emsr": MODULES[name].make(context(name, options, kept)),
    }


def difference(found: dict[str, Any]) -> float:
    """The largest relative difference of the losses of one batch from those of the first side."""
    batch = next(iter(found.values())).batch(0)
    values = []
    for objective in found.values():
        objective.network.train()
        values.append(float(objective.turns()[0].losses(objective.parts(batch, 0, 1)[0], 0)["loss"].detach()))
    return max(abs(value / values[0] - 1) for value in values)


def fill(objective: Any) -> None:
    """Let a side see every patch that it keeps something of."""
    if getattr(objective, "kept", None) is not None and objective.request.lattice:
        for step in range(8 * 8 * DEPTH // objective.stage.batch):  # each of 8 * DEPTH about eight times
            batch = objective.batch(step)
            objective.targets(batch) if hasattr(objective, "targets") else objective.references(batch)


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of steps of every side, taken in turn."""
    with reproducible(options.threads, options.device):
        found = sides(name, options)
        gap = difference(found) if len(found) > 1 else 0.0
        trainers = {}
        for side, objective in found.items():
            objective.network.train()
            fill(objective)
            run = Run(Path("unused"), "", side, options.device, options.threads)
            trainers[side] = Trainer(objective, objective.stage, run)
        seconds: Seconds = {side: [] for side in found}
        for turn in range(options.rounds + 1):
            for side in list(found)[turn % len(found) :] + list(found)[: turn % len(found)]:
                steps = range(turn * options.steps, (turn + 1) * options.steps)
                seconds[side].append(statistics.fmean(timed(trainers[side], step, options.device) for step in steps))
    rounds = {side: each[1:] for side, each in seconds.items()}  # the first makes caches and buffers
    first = next(iter(rounds.values()))
    return {"difference_of_losses": gap, "sides": {side: figures(first, each) for side, each in rounds.items()}}


def timed(trainer: Trainer, step: int, device: str) -> float:
    """Seconds of one step."""
    wait: Callable[[], None] = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    batch = trainer.objective.batch(step)
    wait()
    began = time.perf_counter()
    trainer.advance(step, batch)
    wait()
    return time.perf_counter() - began


def figures(first: list[float], seconds: list[float]) -> dict[str, Any]:
    """Steps a second in each round, and how many times those of the first side, with their medians."""
    rates, ratios = [1 / each for each in seconds], [slow / fast for slow, fast in zip(first, seconds, strict=True)]
    medians = {"steps_per_second": statistics.median(rates), "ratio": statistics.median(ratios)}
    return {**medians, "rates": rates, "ratios": ratios}


def sharded(folder: Path, shape: tuple[int, int, int], cache: int) -> Any:
    """Noise of a shape that is whole shards, opened as trainings open it."""
    rng, shard = np.random.default_rng(0), (32, min(512, shape[1]), min(512, shape[2]))
    create(folder, Layout(shape, "uint8", shard, (8, min(128, shard[1]), min(128, shard[2])), (40.0, 4.0, 4.0)))
    array = open_array(folder, write=True)
    for corner in np.ndindex(*(side // part for side, part in zip(shape, shard, strict=True))):
        start = tuple(int(at * part) for at, part in zip(corner, shard, strict=True))
        write_box(array, start, rng.integers(0, 256, shard, dtype=np.uint8))  # type: ignore[arg-type]
    return open_array(folder, cache_bytes=cache)


def peak_memory() -> float:
    """MiB that this process held at most; unlike getrusage's, without those of the process that started it."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def read(options: argparse.Namespace, size: int) -> dict[str, Any]:
    """Figures of reading from volumes of ``size`` MiB of hr."""
    depth, cache = size, options.cache_mb * 2**20  # sections of 1024 x 1024
    with TemporaryDirectory(prefix="emsr-") as folder:
        hr = sharded(Path(folder) / "hr.zarr", (depth, 1024, 1024), cache)
        side = 1024 // options.scale
        lr = sharded(Path(folder) / "lr.zarr", (depth, side, side), cache)
        table = tuple(tuple(min(max(z + k, 0), depth - 1) for k in range(-2, 3)) for z in range(depth))
        series, found = Series("noise", lr, hr, table), {}
        before = peak_memory()
        for stage in gpemsr.stages(options.preset, options.scale):
            request, table = requested(stage, options.scale), series.table
            seen = replace(series, table=tuple((row[2],) for row in table) if stage.name == "flow" else table)
            patches, times = Patches([seen], request, 0, stage.name), []
            ahead = read_ahead(patches.batch, range(options.batches))
            for _ in range(options.batches):
                began = time.perf_counter()
                next(ahead)
                times.append(time.perf_counter() - began)
            found[stage.name] = {"seconds_per_batch": statistics.median(times), "batch": stage.batch}
        waited = waiting(options, series)
        peak = peak_memory()
    sizes = {"hr_mib": size, "cache_mib": options.cache_mb, "peak_mib": peak, "before_mib": before}
    return {**sizes, **waited, "read": found}


def requested(stage: Stage, scale: int) -> Request:
    """What the stage's objective asks for of a patch."""
    if stage.name in ("flow", "codebook"):
        return Request(stage.patch, 1, stage.batch, lr=stage.name == "flow", hr=stage.name == "codebook")
    return Request(stage.patch, scale, stage.batch)


def waiting(options: argparse.Namespace, series: Series) -> dict[str, float]:
    """The share of its time that a training of stage codebook waits for patches."""
    stage = replace(recipe("codebook", options), adversarial_weight=0.0)
    made = replace(context("codebook", options, stage), training=(series,))
    with reproducible(options.threads, options.device):
        objective = codebook.make(made)
        trainer = Trainer(objective, stage, Run(Path("unused"), "", "reading", options.device))
        began, waited = time.perf_counter(), 0.0
        ahead = read_ahead(objective.batch, range(options.rounds * options.steps))
        for _ in range(options.rounds * options.steps):
            asked = time.perf_counter()
            step, batch = next(ahead)
            waited += time.perf_counter() - asked
            trainer.advance(step, batch)
    return {"waiting_share": waited / (time.perf_counter() - began)}


def spread(values: list[float]) -> str:
    """The extremes."""
    return f"[{min(values):.2f}-{max(values):.2f}]"


def page(options: argparse.Namespace, found: dict[str, Any]) -> list[str]:
    """The figures as lines of a page."""
    lines = [
        f"gpemsr `{options.preset}` at x{options.scale}, batches of {options.batch}, {options.precision}. The "
        "straightforward recipe computes everything anew in every step, as the published code does: targets, "
        "references, flow twice from images, features of a copy of sr for each section. Kept: what frozen stages "
        "say of patches that recur, as with `cache: true`, which preset `small` has and `published`, whose patches are "
        "drawn anew, has not. Flow and codebook have nothing frozen.",
        "",
        "| stage | side | steps/s | times the straightforward recipe | rounds |",
        "|---|---|---|---|---|",
    ]
    for name, each in found["stages"].items():
        for side, row in each["sides"].items():
            first = side == next(iter(each["sides"]))
            times = ("–", "–") if first else (f"**{row['ratio']:.2f}**", spread(row["ratios"]))
            lines.append(f"| {name} | {side} | {row['steps_per_second']:.3g} | {times[0]} | {times[1]} |")
    gaps = [each["difference_of_losses"] for each in found["stages"].values()]
    lines += ["", f"The losses of one batch differ by {max(gaps, default=0):.0e} between the sides, relative."]
    if found["reading"]:
        lines += [
            "",
            f"Batches from sharded OME-Zarr, noise, with caches of {options.cache_mb} MiB for lr and for hr:",
            "",
            "| hr, MiB | peak memory, MiB (before) | codebook waits | "
            + " | ".join(found["reading"][0]["read"])
            + " |",
            "|---" * (3 + len(found["reading"][0]["read"])) + "|",
        ]
    for row in found["reading"]:
        waits, times = f"{100 * row['waiting_share']:.2f} %", row["read"].values()
        batches = " | ".join(f"{1000 * each['seconds_per_batch']:.1f} ms for {each['batch']}" for each in times)
        lines.append(f"| {row['hr_mib']} | {row['peak_mib']:.0f} ({row['before_mib']:.0f}) | {waits} | {batches} |")
    return lines


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="small", choices=list(gpemsr.PRESETS))
    parser.add_argument("--scale", type=int, default=8, choices=gpemsr.SCALES)
    parser.add_argument("--stages", nargs="*", default=list(MODULES), metavar="STAGE")
    parser.add_argument("--reading", type=int, nargs="*", default=[128, 512], metavar="MIB")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16", "float16"])
    for name, value in {"batch": 1, "rounds": 5, "steps": 1, "threads": 1, "cache-mb": 32, "batches": 60}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(read(options, options.reading[0])))
        return
    words = [sys.executable, __file__, "--one", f"--preset={options.preset}", f"--precision={options.precision}"]
    words += [
        f"--{name}={getattr(options, name)}" for name in ("scale", "batch", "rounds", "steps", "threads", "device")
    ]
    words += [f"--cache-mb={options.cache_mb}", f"--batches={options.batches}", "--reading"]
    found: dict[str, Any] = {"stages": {name: measure(name, options) for name in options.stages}, "reading": []}
    for size in options.reading:
        run = subprocess.run([*words, str(size)], stdout=subprocess.PIPE, check=True)
        found["reading"].append(json.loads(run.stdout))
    found["page"] = page(options, found)
    print(json.dumps(found, indent=1) if options.json else "\n".join(found["page"]))


if __name__ == "__main__":
    main()
