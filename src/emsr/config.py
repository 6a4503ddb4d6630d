"""config.yaml as a whole: what its parts say of each other, and the one line for a mistake."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError, model_validator

from emsr import plugins
from emsr.mistakes import one_line
from emsr.schema import (
    Count,
    Data,
    Degradation,
    Layout,
    Model,
    Name,
    Part,
    Range,
    Report,
    Source,
    Superresolve,
    Tissue,
    Training,
    Volume,
    WeightsFile,
)

RESERVED = ("trainings", "logs", "benchmarks", "report")  # folders of the results beside those of volumes
GAP = 2  # sections that must lie between training, validation and test
__all__ = ["Config", "Data", "Range", "Source", "Training", "Volume", "WeightsFile", "parse"]


class Config(Part):
    """config.yaml."""

    results: str
    jobs: Count
    workers: Count
    report: Report
    ingest: Layout
    superresolve: Superresolve
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
    def _references(self) -> Config:
        if len({name.lower() for name in self.volumes}) < len(self.volumes):
            raise ValueError("two volumes differ only in case; some file systems cannot tell them apart")
        for name, training in self.trainings.items():
            self._check_data(name, training)
            self._check_used(name, training)
        for name, volume in self.volumes.items():
            if name in RESERVED:
                raise ValueError(f"volume name {name!r} is a folder that emsr writes itself; choose another")
            if isinstance(volume.weights, str):
                if volume.weights not in self.trainings:
                    raise ValueError(f"volumes.{name}: " + plugins.unknown("training", volume.weights, self.trainings))
                self._check_window(name, self.trainings[volume.weights].window)
                self._check_training_of(name, volume.weights)
        return self

    def _check_window(self, volume: str, window: int) -> None:
        if self.superresolve.overlap >= window:
            raise ValueError(
                f"superresolve.overlap {self.superresolve.overlap} is not less than window {window} of volume {volume}"
            )

    def _check_training_of(self, volume: str, training: str) -> None:
        """A volume whose lr is made needs to know that its own test sections were never seen."""
        test = self.volumes[volume].test or ()
        for data in self.seen_by(training):
            if not self.same_tissue(data.volume, volume):
                continue
            for what, ranges in (("train", data.train), ("validation", data.validation)):
                _check_apart(f"trainings.{training}: {what}", ranges, f"volumes.{volume}: test", test)

    def same_tissue(self, one: str, other: str) -> bool:
        """Whether two volumes are images of the same place: one name, one source, or the same synthetic tissue."""
        a, b = self.volumes[one], self.volumes[other]
        return one == other or (a.hr is not None and a.hr == b.hr) or (a.tissue is not None and a.tissue == b.tissue)

    def _check_data(self, name: str, training: Training) -> None:
        for data in training.data:
            if data.volume not in self.volumes:
                raise ValueError(f"trainings.{name}: " + plugins.unknown("volume", data.volume, self.volumes))
            if not self.volumes[data.volume].has_hr:
                raise ValueError(f"trainings.{name}: volume {data.volume} has no hr to train on")
            for start, stop in (*data.train, *data.validation):
                if start >= stop:
                    raise ValueError(
                        f"trainings.{name}: range [{start}, {stop}] of {data.volume} is empty; write [first, last + 1]"
                    )
            _check_apart(f"trainings.{name}: train", data.train, "validation", data.validation)

    def _check_used(self, name: str, training: Training) -> None:
        for stage in training.stages:
            self.owner(name, stage)

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


def _check_apart(what: str, ranges: tuple[Range, ...], other: str, others: tuple[Range, ...]) -> None:
    """At least ``GAP`` sections lie between the ranges of one use and those of another."""
    for (start, stop), (first, last) in ((a, b) for a in ranges for b in others):
        if start < last + GAP and first < stop + GAP:
            raise ValueError(
                f"{what} [{start}, {stop}] and {other} [{first}, {last}] overlap or lie less than {GAP} sections apart"
            )


KINDS: dict[str, type[BaseModel]] = {  # what stands under a key
    **{
        "volumes": Volume,
        "trainings": Training,
        "superresolve": Superresolve,
        "ingest": Layout,
        "report": Report,
        "model": Model,
    },
    **{"data": Data, "tissue": Tissue, "degradation": Degradation, "hr": Source, "lr": Source, "labels": Source},
}


def parse(values: dict[str, Any]) -> Config:
    """Validate ``values`` as read from YAML; raises ValueError with one line for the first mistake."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ValueError(one_line(error, Config, KINDS)) from None
