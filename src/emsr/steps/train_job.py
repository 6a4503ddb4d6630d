"""A stage of a training as its settings describe it: model, recipe, networks, sections, identity, card."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from emsr import durable

if TYPE_CHECKING:
    from torch import nn

    from emsr.models.stage import Stage
    from emsr.training.group import Group
    from emsr.training.objectives.context import Context

log = logging.getLogger(__name__)


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
        from emsr.models.stage import overridden, recipe_scale

        named = settings["model"]
        model = plugins.load("models", named["name"])
        options = overridden(model.PRESETS[named["preset"]], named["options"])
        # a stage that reads one image has scale 1, and the same recipe at every scale
        stages = model.stages(named["preset"], recipe_scale(settings["scale"], model.SCALES))
        recipe = {stage.name: stage for stage in stages}
        if settings["stage"] not in recipe:
            raise ValueError(plugins.unknown("stage", settings["stage"], recipe))
        stage = overridden(recipe[settings["stage"]], settings["overrides"], f"stage {settings['stage']}: key")
        if settings["stage"] == "flow" and settings["spynet"]:
            stage = replace(stage, steps=0)
        if stage.objective == "fusion":
            options = _with_mask(options, settings)
        return cls(settings, out, model, options, stage)

    def card(self) -> dict[str, Any]:
        """What the card says before anything is trained."""
        from emsr import plugins

        settings = self.settings
        caution = plugins.caution(plugins.file_of("models", settings["model"]["name"]))
        named = {key: settings[key] for key in ("stage", "scale", "sections", "section_step", "window")}
        return {
            **named,
            "model": settings["model"]["name"],
            "preset": settings["model"]["preset"],
            "options": asdict(self.options),
            "patch": self.stage.patch,
            **({"depth": self.stage.depth} if self.stage.depth else {}),
            **({"protocol": "rescaling"} if self.rescales else {}),
            **({"caution": caution} if caution else {}),
            **({"depth_overlap": self.stage.depth_overlap} if self.clips else {}),
            "intensity": {"dtype": "uint8", "range": [0, 255]},
        }

    @property
    def rescales(self) -> bool:
        """Whether the stage learns to enlarge its own lr and no other."""
        return self.stage.objective == "dual" and self.stage.protocol == "rescaling"

    @property
    def labelled(self) -> bool:
        """Whether the stage learns from labels."""
        return self.stage.objective == "affinity"

    @property
    def clips(self) -> bool:
        """Whether the stage learns from clips."""
        return self.stage.objective == "image" and self.stage.depth > 0

    @property
    def sampled(self) -> dict[str, Any]:
        """The settings that say which sections a sample has: of clips as many as they are deep, without gaps."""
        return {**self.settings, "sections": self.stage.depth, "section_step": 1} if self.clips else self.settings

    def series(self, use: str) -> tuple[Any, ...]:
        """The sections of every volume for one use."""
        from emsr.steps import labelled, series

        data = self.settings["data"]
        if self.labelled:
            return tuple(labelled.series(part, use) for part in data)
        return tuple(series.series(self.sampled, part, use) for part in data)

    def network(self) -> nn.Module:
        """The stage's network before training."""
        from emsr.steps import networks

        return networks.begin(self.settings, self.card(), self.options, self.stage)

    def context(self, group: Group) -> Context:
        """Everything that the objective is made from, for one process of ``group``."""
        from emsr.degradation import upsample
        from emsr.layers.accelerators import accelerate
        from emsr.metrics.image import psnr, ssim
        from emsr.steps import networks
        from emsr.steps.degraded import patch
        from emsr.training.group import normalised_together
        from emsr.training.objectives.context import Context, channels_last

        device = self.device()
        compares = self.stage.contextual_weight > 0 and self.options.reference
        found = networks.beside(self.settings, self.options, self.stage)
        network = self.network()
        accelerate(network, self.settings.get("accelerators") or {})
        parts = {name: channels_last(part, device) for name, part in found.items()}
        looks = networks.perceptual(self.settings, parts["codebook"].encoder, device) if compares else None
        looks = networks.compared(self.settings, device) if self.stage.perceptual_weight else looks
        return Context(
            stage=self.stage,
            network=channels_last(normalised_together(network, group, device), device),
            scale=self.settings["scale"],
            training=self.series("train"),
            validation=self.series("validation"),
            seed=self.settings["seed"],
            device=device,
            parts=parts,
            measures={"psnr": psnr, "ssim": ssim},
            enlarge=upsample,
            degrade=patch,
            perceptual=looks,
            flow_scale=getattr(self.options, "flow_scale", 1),
            group=group,
        )

    def device(self) -> str:
        """The device that the settings choose on this machine."""
        from emsr.inference.devices import choose_device

        return str(choose_device(self.settings["device"]))

    def identity(self) -> str:
        """A hash of all that the weights depend on: settings, sections seen, earlier stages, kind of device."""
        from emsr.plan import settings_sha256
        from emsr.steps import labelled, series

        cards = {path: durable.read_json(Path(path)) for path in self.settings["cards"].values()}
        earlier = {path: [card["sha256"], card.get("made_with")] for path, card in cards.items()}
        seen = labelled.identity(self.settings) if self.labelled else series.identity(self.sampled)
        return settings_sha256({"settings": self.settings, "seen": seen, "cards": earlier, "device": self.device()})

    def made_with(self) -> dict[str, str]:
        """The sha256 of the weights of each earlier stage that this one was made with."""
        return {stage: durable.read_json(Path(path))["sha256"] for stage, path in self.settings["cards"].items()}

    def write(self, network: nn.Module, scores: dict[str, Any], health: dict[str, Any], cost: dict[str, Any]) -> None:
        """Weights, then the card."""
        from emsr.models import checkpoint
        from emsr.plan import settings_sha256
        from emsr.steps import labelled, series

        data = self.settings["data"]
        training: dict[str, Any] = {
            "volumes": [part["volume"] for part in data],
            "ranges": [{use: part[use] for use in series.USES} for part in data],
            "seed": self.settings["seed"],
            "settings_sha256": settings_sha256(self.settings),
            "recipe": asdict(self.stage),
        }
        if chosen := self.settings.get("accelerators"):
            training["accelerators"] = chosen
        made = None if self.labelled else series.degradation(self.settings)
        if self.labelled and (flat := labelled.single_sections(self.settings)):
            training["single_sections"] = flat
        found = {"degradation": made, "training": training, "made_with": self.made_with()}
        found |= {"scores": scores, "health": health, "cost": cost}
        card = {**self.card(), **found}
        card |= {"looks": {}} if self.stage.objective == "none" else self.seen(card["intensity"])
        checkpoint.save(self.out.with_suffix(".safetensors"), network.state_dict(), card)

    def seen(self, intensity: dict[str, Any]) -> dict[str, Any]:
        """What the card says of the lr of each volume: how its grey levels were mapped, what it looks like, and how it
        was made, where that is not the same for all."""
        from emsr.steps import sampled
        from emsr.stores.card import read_card

        lr = {part["volume"]: Path(part["lr"]) for part in self.settings["data"] if part.get("lr")}
        if not lr:
            return {}
        ranges = {
            volume: [one for part in self.settings["data"] if part["volume"] == volume for one in part["train"]]
            for volume in lr
        }
        cards = {volume: read_card(path) for volume, path in lr.items()}
        mapping = {volume: card.get("intensity") for volume, card in cards.items()}
        looks = {volume: sampled.looks(path, ranges[volume]) for volume, path in lr.items()}
        made = {volume: card["degradation"] for volume, card in cards.items()}
        mixed = {} if all(one == next(iter(made.values())) for one in made.values()) else {"degradations": made}
        return {"intensity": {**intensity, "mapping": mapping}, "looks": looks, **mixed}


def _with_mask(options: Any, settings: dict[str, Any]) -> Any:
    """`options` with the mask that weights are there for: that of the network which fine-tuning starts from, else VGG19
    if its weights are named, else the codebook's encoder."""
    from emsr.models.checkpoint import load_card

    if getattr(options, "mask_features", None) != "vgg":
        return options
    if settings["init_from"]:
        why = settings["init_from"]["path"]
        features = load_card(Path(why))["options"].get("mask_features", "vgg")
    else:
        why, features = "no perceptual weights are named", "vgg" if settings["perceptual"] else "encoder"
    if features != "vgg":
        log.info("%s: the similarity mask compares features of the codebook's encoder", why)
    return replace(options, mask_features=features)
