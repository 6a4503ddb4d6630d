"""Rule of train.smk: one stage of a model is trained on sections of volumes and becomes weights with a card."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from emsr import durable

if TYPE_CHECKING:
    from torch import nn

    from emsr.models.stage import Stage
    from emsr.training.data import Series
    from emsr.training.loop import Result
    from emsr.training.objectives.context import Context

TRAIN_RESULT = 1
CACHE_BYTES = 256 * 2**20  # decoded chunks of each array
USES = ("train", "validation")

log = logging.getLogger(__name__)


def train(settings: dict[str, Any], out: Path) -> None:
    """Train one stage; its card is `out`, weights, curves and figures of time lie beside it with the same stem.

    `settings`: stage, overrides (of its recipe), model (name, preset, options), scale, sections, section_step, window
    (lr pixels), seed, threads, device ("auto", "cpu", "cuda"), data (list of volume, hr and lr (image cards), train and
    validation (ranges of sections)), cards (stage -> card of its weights), init_from, perceptual and spynet (each null,
    or path and sha256 of weights). A training that was killed continues bit for bit on a CPU, if nothing that it
    depends on has changed. The card is written last.
    """
    from emsr.steps import networks

    out = Path(out)
    job = Job.read(settings, out)
    log.info("stage %s of %s x%d: %s", job.stage.name, settings["model"]["name"], settings["scale"], asdict(job.stage))
    if _restored(job):
        return
    if job.stage.objective == "none":
        job.write(job.network(), {}, {}, {})
        return
    context = job.context()
    result, health = _trained(job, context)
    _write_beside(out, result)
    job.write(context.network, result.scores, health, networks.cost(context.network, job.card()))
    log.info("stage %s: %s", job.stage.name, {**result.scores, **health})
    durable.write_json(_record(out), {"identity": job.identity(), "card": durable.read_json(out)})
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
    durable.write_json(job.out, record["card"])
    log.info("stage %s was trained already: nothing that it depends on has changed", job.stage.name)
    return True


def _trained(job: Job, context: Context) -> tuple[Result, dict[str, float]]:
    """The training's result, and what its weights are worth on validation sections, in float32."""
    import importlib

    import torch

    from emsr.training.arithmetic import reproducible
    from emsr.training.loop import Run
    from emsr.training.loop import train as run

    objective = importlib.import_module(f"emsr.training.objectives.{context.stage.objective}").make(context)
    label = f"{job.out.parent.name} {context.stage.name}"
    settings = Run(job.out.with_suffix(".checkpoint"), job.identity(), label, context.device, job.settings["threads"])
    result = run(objective, context.stage, settings)
    context.network.load_state_dict(result.weights)
    with reproducible(settings.threads, context.device), torch.inference_mode():
        health = objective.health(context.network.eval())
    return result, health


def _write_beside(out: Path, result: Result) -> None:
    """Curves, and what the training took."""
    from emsr.durable import write_json

    write_json(out.with_suffix(".curve.json"), result.curve)
    write_json(out.with_suffix(".stats.json"), result.stats)


def _forget(job: Job) -> None:
    """The training has ended: what it would have resumed from is no longer needed."""
    from emsr.training import state

    state.forget(job.out.with_suffix(".checkpoint"), job.identity())


@dataclass(frozen=True)
class Job:
    """A stage to be trained: its settings as they came, the model's file, its options and its recipe."""

    settings: dict[str, Any]
    out: Path
    model: ModuleType
    options: Any
    stage: Stage

    @classmethod
    def read(cls, settings: dict[str, Any], out: Path) -> Job:
        """Check the settings against the model; ValueError, in one line, for what it does not have."""
        from emsr import plugins
        from emsr.models.stage import overridden

        named = settings["model"]
        model = plugins.load("models", named["name"])
        options = _without_vgg(overridden(model.PRESETS[named["preset"]], named["options"]), settings)
        recipe = {stage.name: stage for stage in model.stages(named["preset"], settings["scale"])}
        if settings["stage"] not in recipe:
            raise ValueError(plugins.unknown("stage", settings["stage"], recipe))
        stage = overridden(recipe[settings["stage"]], settings["overrides"], f"stage {settings['stage']}: key")
        if settings["stage"] == "flow" and settings["spynet"]:
            stage = replace(stage, steps=0)
        return cls(settings, out, model, options, stage)

    def card(self) -> dict[str, Any]:
        """What the card says before anything is trained."""
        settings = self.settings
        named = {key: settings[key] for key in ("stage", "scale", "sections", "section_step", "window")}
        return {
            **named,
            "model": settings["model"]["name"],
            "preset": settings["model"]["preset"],
            "options": asdict(self.options),
            "patch": self.stage.patch,
            "intensity": {"dtype": "uint8", "range": [0, 255]},
        }

    def network(self) -> nn.Module:
        """The stage's network before training."""
        from emsr.steps import networks

        return networks.begin(self.settings, self.card(), self.options, self.stage)

    def context(self) -> Context:
        """Everything that the objective is made from."""
        from emsr.degradation import upsample
        from emsr.metrics.image import psnr, ssim
        from emsr.steps import networks
        from emsr.training.objectives.context import Context, channels_last

        device = self.device()
        compares = self.stage.contextual_weight > 0 and self.options.reference
        found = networks.beside(self.settings, self.options, self.stage)
        parts = {name: channels_last(part, device) for name, part in found.items()}
        return Context(
            stage=self.stage,
            network=channels_last(self.network(), device),
            scale=self.settings["scale"],
            training=tuple(self._series(data, "train") for data in self.settings["data"]),
            validation=tuple(self._series(data, "validation") for data in self.settings["data"]),
            seed=self.settings["seed"],
            device=device,
            parts=parts,
            measures={"psnr": psnr, "ssim": ssim},
            enlarge=upsample,
            perceptual=networks.perceptual(self.settings, parts["codebook"].encoder) if compares else None,
            flow_scale=getattr(self.options, "flow_scale", 1),
        )

    def device(self) -> str:
        """The device that the settings choose on this machine."""
        from emsr.inference.run import choose_device

        return str(choose_device(self.settings["device"]))

    def _series(self, data: dict[str, Any], use: str) -> Series:
        """The sections of one volume for one use, with neighbours that never leave their range."""
        from emsr.plan import neighbour_table
        from emsr.stores.card import array_path, read_card
        from emsr.stores.zarr import open_array
        from emsr.training.data import Series

        cards = {image: (Path(data[image]), read_card(Path(data[image]))) for image in ("lr", "hr")}
        _check_shapes(data, cards["lr"][1], cards["hr"][1], self.settings["scale"])
        bad = {what: {int(z) for _, card in cards.values() for z in card[what]} for what in ("damaged", "missing")}
        table: list[tuple[int, ...]] = []
        for start, stop in data[use]:
            here = {what: [z - start for z in found if start <= z < stop] for what, found in bad.items()}
            step = self.settings["section_step"]
            rows = neighbour_table(stop - start, self.settings["sections"], step, here["damaged"], here["missing"])
            good = [row for z, row in enumerate(rows) if row is not None and z not in here["damaged"]]
            table += [tuple(z + start for z in row) for row in good]
        opened = {image: open_array(array_path(*found), cache_bytes=CACHE_BYTES) for image, found in cards.items()}
        return Series(data["volume"], opened["lr"], opened["hr"], tuple(table))

    def identity(self) -> str:
        """A hash of all that the weights depend on: settings, voxels, bad sections, earlier stages, kind of device."""
        from emsr.plan import settings_sha256

        paths = [data[image] for data in self.settings["data"] for image in ("lr", "hr")]
        cards = {path: durable.read_json(Path(path)) for path in [*paths, *self.settings["cards"].values()]}
        read = {
            path: [card["sha256"], card.get("damaged"), card.get("missing"), card.get("made_with")]
            for path, card in cards.items()
        }
        return settings_sha256({"settings": self.settings, "read": read, "device": self.device()})

    def made_with(self) -> dict[str, str]:
        """The sha256 of the weights of each earlier stage that this one was made with."""
        return {stage: durable.read_json(Path(path))["sha256"] for stage, path in self.settings["cards"].items()}

    def write(self, network: nn.Module, scores: dict[str, Any], health: dict[str, Any], cost: dict[str, Any]) -> None:
        """Weights, then the card."""
        from emsr.models import checkpoint
        from emsr.plan import settings_sha256
        from emsr.stores.card import read_card

        data = self.settings["data"]
        made = {str(read_card(Path(part["lr"]))["degradation"]) for part in data}
        training = {
            "volumes": [part["volume"] for part in data],
            "ranges": [{use: part[use] for use in USES} for part in data],
            "seed": self.settings["seed"],
            "settings_sha256": settings_sha256(self.settings),
            "recipe": asdict(self.stage),
        }
        degradation = read_card(Path(data[0]["lr"]))["degradation"] if len(made) == 1 else None
        found = {"degradation": degradation, "training": training, "scores": scores, "health": health, "cost": cost}
        found["made_with"] = self.made_with()
        checkpoint.save(self.out.with_suffix(".safetensors"), network.state_dict(), {**self.card(), **found})


def _without_vgg(options: Any, settings: dict[str, Any]) -> Any:
    """Without VGG19 weights, named or brought by those that fine-tuning starts from, the mask looks by the encoder."""
    brought = settings["perceptual"] or settings["init_from"]
    if getattr(options, "mask_features", None) != "vgg" or brought:
        return options
    log.info("no perceptual weights are named: the similarity mask compares features of the codebook's encoder")
    return replace(options, mask_features="encoder")


def _check_shapes(data: dict[str, Any], lr: dict[str, Any], hr: dict[str, Any], scale: int) -> None:
    """Pairs fit each other, ranges fit the volume."""
    (z, *plane), (hr_z, *hr_plane) = lr["shape"], hr["shape"]
    wanted = [scale * side for side in plane]
    if z != hr_z or any(fine < want or fine >= want + scale for fine, want in zip(hr_plane, wanted, strict=True)):
        raise ValueError(
            f"hr {hr['shape']} of volume {data['volume']} is not lr {lr['shape']} times scale {scale} in y and x: "
            "state images of the same region"
        )
    for use in USES:
        for start, stop in data[use]:
            if stop > z:
                raise ValueError(f"{use} range [{start}, {stop}] is outside volume {data['volume']} of {z} sections")
