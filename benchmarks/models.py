"""Every super-resolver at equal arithmetic: FIB-SEM x4 and serial-section TEM x8, preset `small`, scored and shown.

python benchmarks/models.py [--budget TERA] [--cores N] [--only MODEL ...] [fib] [vnc]

The data are those of examples/fib_labelled.yaml and examples/vnc.yaml, at the same places. Every model is trained with
its own recipe, but for so many steps that their multiply-accumulates, forward and back, make up the budget (10^12):
they are counted in some steps of the real training, early and late ones. A model of several stages divides the budget
as the steps of its preset do. sr is then segmented by the examples' affinity network of hr, which is trained first.

All of it is one workflow for each of the data, results_models_fib and results_models_vnc: whatever was finished is
kept, trainings go on from their last state, and the script may be stopped and started at any time (after a SIGKILL of
snakemake, with `snakemake --unlock` in between). Figures, tables and a picture are made of them by
benchmarks/models_figures.py.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

import arithmetic
from emsr import plugins
from emsr.commands.check import read_configs
from emsr.durable import read_json, write_json
from emsr.models.stage import overridden
from emsr.settings import Settings

ROOT = Path(__file__).parents[1]
SNAKEMAKE = (sys.executable, "-m", "snakemake")
PRESET = "small"
LEAST = 20  # steps of a stage
OPTIONS = {"gpemsr": {"latent_stride": 8}}  # as in the examples
NEIGHBOURS = ("gpemsr", "edvr")  # models that see a section and its neighbours
IN_STEPS = ("warmup", "slow_from", "adversarial_from")  # of a recipe: shortened as its steps are
MEMBRANES = "membranes"  # the affinity network, in the examples and here


@dataclass(frozen=True)
class Sample:
    """Data of an example: where in z what is trained, validated and tested lies; `shown` of it is super-resolved."""

    example: str
    volume: str
    scale: int
    depth: int
    train: tuple[int, int]
    validation: tuple[int, int]
    test: tuple[int, int]
    shown: tuple[int, int]
    plane: tuple[int, int]
    section_step: int
    window: int
    overlap: int
    budget: float  # 10^12 multiply-accumulates of a training

    @property
    def results(self) -> str:
        return f"results_models_{self.volume}"

    def within(self, sections: tuple[int, int]) -> list[list[int]]:
        """Sections of the whole as they are counted in what is super-resolved."""
        return [[at - self.shown[0] for at in sections]]


SAMPLES = {
    "fib": Sample("fib_labelled", "fib", 4, 150, (0, 96), (98, 106), (108, 150), (96, 150), (250, 250), 4, 40, 16, 10),
    "vnc": Sample("vnc", "vnc", 8, 20, (0, 12), (13, 14), (16, 20), (13, 20), (1024, 512), 1, 72, 16, 5),
}


# -- configs ----------------------------------------------------------------------------------------------------------


def models(scale: int) -> list[str]:
    """The super-resolvers that have this scale and something to train."""
    found = []
    for name in plugins.names("models"):
        module, file = plugins.load("models", name), plugins.file_of("models", name)
        trained = PRESET in module.PRESETS and plugins.output(file) == "sr" and scale in module.SCALES
        if trained and any(stage.objective != "none" for stage in module.stages(PRESET, scale)):
            found.append(name)
    return found


def example(sample: Sample) -> dict[str, Any]:
    """The config of the example."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "examples" / f"{sample.example}.yaml").read_text())
    return found


def stated(sample: Sample, name: str) -> dict[str, dict[str, Any]]:
    """What the example changes of a recipe: smaller patches and other steps of gpemsr's stages; nothing of others."""
    shown = example(sample)["trainings"][sample.volume]
    if shown["model"]["name"] == name:
        return {stage: dict(changes) for stage, changes in shown["stages"].items()}
    return {stage: {} for stage in plugins.load("models", name).NEEDS}


def config(sample: Sample, steps: dict[str, dict[str, dict[str, int]]]) -> dict[str, Any]:
    """One volume and one training for each model of `steps`, which has what each stage's recipe is changed by."""
    base = example(sample)
    source = {key: base["volumes"][sample.volume][key] for key in ("hr", "labels", "degradation")}
    region = [[*sample.shown], *([0, side] for side in sample.plane)]
    first = next(iter(steps), None)
    volumes: dict[str, Any] = {"tissue": None, "whole": source}
    trainings: dict[str, Any] = dict.fromkeys(("tissue", MEMBRANES, f"{MEMBRANES}_of_bicubic"))
    for name, stages in steps.items():
        found = {"sr": {"image": "sr", "weights": MEMBRANES}}
        if name == first:
            found |= {image: {"image": image, "weights": MEMBRANES} for image in ("bicubic", "hr")}
        volumes[name] = {**source, "region": region, "weights": name, "test": sample.within(sample.test)}
        volumes[name]["segmentations"] = found
        trainings[name] = training(sample, name, stages)
    if steps:
        trainings[MEMBRANES] = membranes(sample, list(steps))
    segment = {**base["segment"], "overlap": 32}
    how = {**base["superresolve"], "window": sample.window, "overlap": sample.overlap}
    about = {"title": f"Every super-resolver at equal arithmetic: {sample.example} x{sample.scale}"}
    named = {"results": sample.results, "jobs": 1, "report": about, "superresolve": how, "segment": segment}
    return {**named, "volumes": volumes, "trainings": trainings}


def training(sample: Sample, name: str, stages: dict[str, dict[str, int]]) -> dict[str, Any]:
    sections = 3 if name in NEIGHBOURS else 1
    return {
        "scale": sample.scale,
        "model": {"name": name, "preset": PRESET, "options": OPTIONS.get(name, {})},
        **{"sections": sections, "section_step": sample.section_step if sections > 1 else 1},
        **{"window": sample.window, "seed": 0, "threads": 1, "device": "auto"},
        "data": [{"volume": "whole", "train": [[*sample.train]], "validation": [[*sample.validation]]}],
        "stages": stages,
    }


def membranes(sample: Sample, names: list[str]) -> dict[str, Any]:
    """The example's affinity network as it is; validation sections of each volume choose thresholds there."""
    base = example(sample)["trainings"][MEMBRANES]
    data = [{"volume": "whole", "image": "hr", "train": [[*sample.train]], "validation": [[*sample.validation]]}]
    data += [
        {"volume": name, "image": "hr", "train": [], "validation": sample.within(sample.validation)} for name in names
    ]
    weights = f"{example(sample)['results']}/trainings/{MEMBRANES}/affinity.safetensors"
    return {**base, "data": data, "stages": {"affinity": {"steps": 0}}, "init_from": {"affinity": weights}}


def workflow(config_file: Path, cores: str, *targets: str) -> int:
    """Run what is missing; the exit status."""
    words = ["--cores", cores, "--keep-going", "--rerun-incomplete", "--configfile", str(config_file), "--", *targets]
    return subprocess.run([*SNAKEMAKE, *words], check=False).returncode


# -- arithmetic -------------------------------------------------------------------------------------------------------


def shortened(sample: Sample, name: str, macs: dict[str, float], budget: float) -> dict[str, dict[str, int]]:
    """What recipes are changed by, so that all stages together take `budget` multiply-accumulates."""
    changes = stated(sample, name)
    preset = plugins.load("models", name).stages(PRESET, sample.scale)
    recipe = {stage.name: overridden(stage, changes[stage.name]) for stage in preset}
    share = budget / sum(recipe[stage].steps * each for stage, each in macs.items())
    found = {}
    for stage in macs:
        steps = max(LEAST, round(recipe[stage].steps * share))
        rate = steps / recipe[stage].steps
        changed = {key: int(value * rate) for key in IN_STEPS if (value := getattr(recipe[stage], key)) and rate < 1}
        found[stage] = {**changes[stage], "steps": steps, "validate_every": -(-steps // 4), "checkpoint_every": 100}
        found[stage] |= changed
    return found


def recipe_sha256(sample: Sample, name: str) -> str:
    """Of what the arithmetic of a step depends on: the model's file, options, recipe, and what the example changes."""
    module = plugins.load("models", name)
    stages = [asdict(stage) for stage in module.stages(PRESET, sample.scale)]
    of: list[Any] = [asdict(module.PRESETS[PRESET]), stages, stated(sample, name), training(sample, name, {})]
    of.append(plugins.file_of("models", name).read_text())
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()


def all_steps(sample: Sample, names: list[str], budget: float, cores: str) -> dict[str, dict[str, dict[str, int]]]:
    """For each model what its recipe is changed by; what was counted of the same recipe is kept in results."""
    kept = Path(sample.results) / "arithmetic.json"
    macs: dict[str, Any] = read_json(kept) if kept.is_file() else {}
    counted, of = macs.setdefault("of", {}), {name: recipe_sha256(sample, name) for name in names}
    if missing := [name for name in names if name not in macs or counted.get(name) != of[name]]:
        recipes = {name: stated(sample, name) for name in missing}
        file = written(sample, config(sample, recipes))
        if workflow(file, cores, *(f"{sample.results}/whole/{image}.json" for image in (f"lr_x{sample.scale}", "hr"))):
            raise SystemExit("the images that trainings read could not be made")
        settings = Settings(read_configs([Path("config.yaml"), file]))
        for name in missing:
            macs[name], counted[name] = arithmetic.of_stages(settings, name), of[name]
            told = ", ".join(f"{stage} {each / 1e9:.1f}" for stage, each in macs[name].items())
            print(f"{name} x{sample.scale}: 10^9 multiply-accumulates a step: {told}", flush=True)
            write_json(kept, macs)
    return {name: shortened(sample, name, macs[name], budget) for name in names}


def written(sample: Sample, values: dict[str, Any]) -> Path:
    """The config as a file in results."""
    file = Path(sample.results, "config.yaml")
    file.parent.mkdir(exist_ok=True)
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    return file


def run(sample: Sample, only: list[str], budget: float, cores: str) -> int:
    """Train, super-resolve, segment and score; the exit status."""
    base = example(sample)
    affinities = f"{base['results']}/trainings/{MEMBRANES}/affinity.json"
    if status := workflow(Path(f"examples/{sample.example}.yaml"), cores, affinities):
        return status
    steps = all_steps(sample, only or models(sample.scale), budget, cores)
    file = written(sample, config(sample, steps))
    return workflow(file, cores, *(f"{sample.results}/{name}/scores.json" for name in steps))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("samples", nargs="*", metavar="DATA", help=f"of {', '.join(SAMPLES)}; all if none is named")
    parser.add_argument("--budget", type=float, help="10^12 multiply-accumulates of a training, where not those stated")
    parser.add_argument("--cores", default="all")
    parser.add_argument("--only", nargs="*", default=[], metavar="MODEL")
    args = parser.parse_args()
    if unknown := [name for name in args.samples if name not in SAMPLES]:
        parser.error(f"data {unknown[0]!r} are not one of {', '.join(SAMPLES)}")
    torch.set_num_threads(1)
    named = [SAMPLES[name] for name in args.samples or SAMPLES]
    return max(run(each, args.only, (args.budget or each.budget) * 1e12, args.cores) for each in named)


if __name__ == "__main__":
    sys.exit(main())
