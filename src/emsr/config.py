"""config.yaml as a whole: what follows from its parts together, and the one line for a mistake."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError, model_validator

from emsr import config_agreement, plugins
from emsr.mistakes import one_line
from emsr.scales import Scale
from emsr.schema import Keep, Lpips, Report, Score, Superresolve
from emsr.schema_parts import (
    Accelerators,
    Canary,
    Count,
    Intensity,
    Layout,
    Name,
    Part,
    Place,
    Range,
    Source,
    WeightsFile,
)
from emsr.schema_segment import Agglomeration, Fragments, Segment, Segmentation, SegmentScores
from emsr.schema_training import Data, Model, Training
from emsr.schema_volume import Degradation, Noise, Registration, Tissue, Volume

__all__ = ["Config", "Data", "Range", "Segment", "Source", "Superresolve", "Training", "Volume", "WeightsFile", "parse"]


class Config(Part):
    """config.yaml."""

    results: Place
    jobs: Count
    workers: Count
    canary: Canary | None = None
    report: Report
    ingest: Layout
    superresolve: Superresolve
    segment: Segment
    score: Score | None = None
    keep: Keep | None = None
    volumes: dict[Name, Volume]
    trainings: dict[Name, Training]

    @model_validator(mode="before")
    @classmethod
    def _without_removed(cls, values: Any) -> Any:
        """An overlay removes an entry of config.yaml by setting it to null."""
        if not isinstance(values, dict):
            return values
        kept = {
            key: {name: part for name, part in (values.get(key) or {}).items() if part is not None}
            for key in ("volumes", "trainings")
        }
        return {**values, **kept}

    @model_validator(mode="after")
    def _agrees(self) -> Config:
        config_agreement.check(self)
        return self

    def segmented_by(self, volume: str) -> list[str]:
        """The trainings whose networks segment a volume."""
        parts = (self.volumes[volume].segmentations or {}).values()
        return sorted({part.weights for part in parts if isinstance(part.weights, str)})

    def validation_of(self, training: str, volume: str) -> list[Range]:
        """The sections of a volume that choose the weights of a training."""
        return [part for data in self.trainings[training].data if data.volume == volume for part in data.validation]

    def scale(self, volume: str) -> Scale:
        """The scale that a volume is super-resolved at: its own, or that of its weights; ValueError without weights."""
        part = self.volumes[volume]
        if part.weights is None:
            raise ValueError(f"volume {volume} names no weights, so it is not super-resolved")
        if part.scale is not None:
            return part.scale
        return self.trainings[part.weights].scale if isinstance(part.weights, str) else part.weights.scale

    def same_tissue(self, one: str, other: str) -> bool:
        """Whether two volumes are images of the same place: one name, one source, or the same synthetic tissue."""
        a, b = self.volumes[one], self.volumes[other]
        if one == other or (a.tissue is not None and a.tissue == b.tissue):
            return True
        return a.hr is not None and b.hr is not None and a.hr.place == b.hr.place

    def scales(self, volume: str) -> dict[Scale, str]:
        """Every scale that a volume is used at, and what uses it so: its weights and the trainings that read it.

        Affinity networks see one grid and relate no two.
        """
        found: dict[Scale, str] = {}
        weights, own = self.volumes[volume].weights, self.volumes[volume].scale
        if isinstance(weights, WeightsFile):
            found[self.scale(volume)] = f"weights {weights.path}"
        elif own is not None:
            found[own] = f"volume {volume}"
        for name, training in self.trainings.items():
            used = name == weights and own is None
            if training.output == "sr" and (used or any(data.volume == volume for data in training.data)):
                found.setdefault(training.scale, f"training {name}")
        return found

    def windows(self, training: str) -> tuple[set[int], Segment | None]:
        """The windows that the network of a training must take, that of its card and one set for its volumes; and how
        it segments, if a volume is segmented with its weights.
        """
        used = any(volume.weights == training for volume in self.volumes.values())
        other = self.superresolve.window if used else None
        named = {name for volume in self.volumes for name in self.segmented_by(volume)}
        segmenting = {self.owner(name, self.trainings[name].last_stage) for name in named}
        windows = {self.trainings[training].window} | ({other} if other else set())
        return windows, self.segment if training in segmenting else None

    def owner(self, training: str, stage: str, seen: tuple[str, ...] = ()) -> str:
        """The training that trains ``stage`` of ``training``: itself, or the one that it names with ``use``."""
        used = self.trainings[training].stages[stage].get("use")
        if used is None:
            return training
        if used in seen or used == training:
            raise ValueError(f"trainings.{training}: stage {stage} uses itself through {', '.join((*seen, used))}")
        if used not in self.trainings:
            raise ValueError(
                f"trainings.{training}: stage {stage}: " + plugins.unknown("training", used, self.trainings)
            )
        if stage not in self.trainings[used].stages:
            raise ValueError(f"trainings.{training}: training {used} has no stage {stage}")
        return self.owner(used, stage, (*seen, training))

    def seen_by(self, training: str) -> Iterator[Data]:
        """Every range of sections that took part in making the weights of ``training``, those of used stages too."""
        for owner in {self.owner(training, stage) for stage in self.trainings[training].stages}:
            yield from self.trainings[owner].data


KINDS: dict[str, type[BaseModel]] = {  # what stands under a key
    **{
        "volumes": Volume,
        "trainings": Training,
        "canary": Canary,
        "superresolve": Superresolve,
        "accelerators": Accelerators,
        "segment": Segment,
        "fragments": Fragments,
        "agglomeration": Agglomeration,
        "scores": SegmentScores,
        "segmentations": Segmentation,
        "ingest": Layout,
        "report": Report,
        "score": Score,
        "keep": Keep,
        "lpips": Lpips,
        "model": Model,
    },
    **{
        "data": Data,
        "tissue": Tissue,
        "degradation": Degradation,
        "registration": Registration,
        "noise": Noise,
        "intensity": Intensity,
        "hr": Source,
        "lr": Source,
        "labels": Source,
        "mask": Source,
    },
}


def parse(values: dict[str, Any]) -> Config:
    """Validate ``values`` as read from YAML; raises ValueError with one line for the first mistake."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ValueError(one_line(error, Config, KINDS)) from None
