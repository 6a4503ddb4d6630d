"""config.yaml as a whole: what its parts say of each other, and the one line for a mistake."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, product
from typing import Any

from pydantic import BaseModel, ValidationError, model_validator

from emsr import plugins
from emsr.mistakes import one_line
from emsr.scales import Scale, stated
from emsr.schema import (
    Data,
    Degradation,
    Keep,
    Lpips,
    Model,
    Noise,
    Registration,
    Report,
    Score,
    Superresolve,
    Tissue,
    Training,
    Volume,
)
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
from emsr.schema_segment import Agglomeration, Fragments, Segment, Segmentation, SegmentScores, check_single_sections

RESERVED = ("trainings", "logs", "benchmarks", "report")  # folders of the results beside those of volumes
GAP = 2  # sections that must lie between test and all that was seen
VALIDATION_GAP = 1  # the same between training and validation, which only chooses: networks never read beyond a range
Named = tuple[str, list[tuple[str, Range]]]  # what ranges are for, and each with its volume
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
    def _references(self) -> Config:
        for what, named in (("volumes", self.volumes), ("trainings", self.trainings)):
            if len({name.lower() for name in named}) < len(named):
                raise ValueError(f"two {what} differ only in case; some file systems cannot tell them apart")
        for name, training in self.trainings.items():
            self._check_data(name, training)
            self._check_used(name, training)
            self._check_splits(name)
        for name, volume in self.volumes.items():
            if name in RESERVED:
                raise ValueError(f"volume name {name!r} is a folder that emsr writes itself; choose another")
            if isinstance(volume.weights, str):
                if volume.weights not in self.trainings:
                    raise ValueError(f"volumes.{name}: " + plugins.unknown("training", volume.weights, self.trainings))
                training = self.trainings[volume.weights]
                if training.output != "sr":
                    raise ValueError(f"volumes.{name}: training {volume.weights} predicts affinities and not sr")
                if any(stage.get("protocol") == "rescaling" for stage in training.stages.values()):
                    raise ValueError(
                        f"volumes.{name}: training {volume.weights} learns to enlarge its own lr (protocol rescaling), "
                        "which super-resolves nothing; name another, or leave protocol out"
                    )
                if volume.samples and not plugins.has(plugins.file_of("models", training.model.name), "LATENTS"):
                    raise ValueError(
                        f"volumes.{name}.samples: model {training.model.name} gives one image and no samples; take "
                        "snadn or irn, or leave samples out"
                    )
                self._check_overlap(name, training.window)
                self._check_scale(name, volume.weights)
            if volume.weights is not None:
                self._check_shard(name, self.scale(name))
            self._check_noise(f"volumes.{name}.degradation.noise", volume)
            if volume.registration and not self.scales(name):
                raise ValueError(
                    f"volumes.{name}: hr is registered at the scale of weights or of a training of super-resolution "
                    "that reads the volume, and there is none; name one, or leave registration out"
                )
            if volume.registration and not all(isinstance(scale, int) for scale in self.scales(name)):
                raise ValueError(
                    f"volumes.{name}: hr is registered on the grid of lr times a whole scale; use one, or leave "
                    "registration out"
                )
            if volume.registration and len(scales := self.scales(name)) > 1:
                users = ", ".join(f"{scale} by {user}" for scale, user in scales.items())
                raise ValueError(f"volumes.{name}: hr is registered at one scale, but used at {users}; drop one")
            if volume.segmentations and volume.labels and volume.labels.membranes:
                check_single_sections(f"volumes.{name}.segmentations", self.segment.scores)
            for segmentation, part in (volume.segmentations or {}).items():
                self._check_segmentation(f"volumes.{name}.segmentations.{segmentation}", name, part)
            self._check_one_validation(name)
        return self

    def _check_noise(self, where: str, volume: Volume) -> None:
        """Noise is estimated from a volume that was imaged coarsely."""
        other = volume.degradation and volume.degradation.noise and volume.degradation.noise.estimate
        if not other:
            return
        if other not in self.volumes:
            raise ValueError(f"{where}.estimate: " + plugins.unknown("volume", other, self.volumes))
        if not self.volumes[other].lr:
            raise ValueError(
                f"{where}.estimate: volume {other} has no lr of its own; name one that was imaged coarsely"
            )

    def _check_segmentation(self, where: str, volume: str, part: Segmentation) -> None:
        """Weights that predict affinities, and a threshold: stated, or chosen on validation sections of this volume."""
        if not isinstance(part.weights, str):
            if part.threshold is None:
                raise ValueError(f"{where}: weights from a file have no validation sections; state threshold")
            return
        if part.weights not in self.trainings:
            raise ValueError(f"{where}: " + plugins.unknown("training", part.weights, self.trainings))
        training = self.trainings[part.weights]
        if training.output != "affinity":
            raise ValueError(f"{where}: training {part.weights} predicts no affinities; name one that does")
        if part.threshold is None and not self.validation_of(part.weights, volume):
            raise ValueError(f"{where}: {part.weights} has no validation sections in {volume}; state threshold")
        if part.threshold is not None and part.threshold > self.segment.agglomeration.until:
            raise ValueError(f"{where}: threshold {part.threshold} lies above segment.agglomeration.until; raise that")
        if part.image == "sr":
            self._check_unseen(volume, part.weights)

    def _check_unseen(self, volume: str, training: str) -> None:
        """What chooses thresholds for segments of sr was not trained on to make sr: it would show too good an sr."""
        weights = self.volumes[volume].weights
        if isinstance(weights, str):
            train = [(data.volume, part) for data in self.seen_by(weights) for part in data.train]
            validation = [(volume, part) for part in self.validation_of(training, volume)]
            where = f"trainings.{training}, which segments its sr: validation"
            self._check_apart((f"trainings.{weights}: train", train), (where, validation), VALIDATION_GAP)

    def _check_one_validation(self, volume: str) -> None:
        """Networks of one volume that is scored agree on its validation sections, which choose thresholds for all."""
        stated = [(name, part) for name in self.segmented_by(volume) if (part := self.validation_of(name, volume))]
        for (one, some), (other, others) in pairwise(stated if self.volumes[volume].test else ()):
            if set(some) != set(others):
                raise ValueError(
                    f"volumes.{volume}: validation {list(map(list, some))} of training {one} is not "
                    f"{list(map(list, others))} of {other}, but both choose thresholds for its segmentations; "
                    "state the same in both"
                )

    def segmented_by(self, volume: str) -> list[str]:
        """The trainings whose networks segment a volume."""
        parts = (self.volumes[volume].segmentations or {}).values()
        return sorted({part.weights for part in parts if isinstance(part.weights, str)})

    def validation_of(self, training: str, volume: str) -> list[Range]:
        """The sections of a volume that choose the weights of a training."""
        return [part for data in self.trainings[training].data if data.volume == volume for part in data.validation]

    def _check_overlap(self, volume: str, window: int) -> None:
        window = self.superresolve.window or window
        if self.superresolve.overlap >= window:
            raise ValueError(
                f"superresolve.overlap {self.superresolve.overlap} is not less than window {window} of volume {volume}"
            )

    def scale(self, volume: str) -> Scale:
        """The scale that a volume is super-resolved at: its own, or that of its weights; ValueError without weights."""
        part = self.volumes[volume]
        if part.weights is None:
            raise ValueError(f"volume {volume} names no weights, so it is not super-resolved")
        if part.scale is not None:
            return part.scale
        return self.trainings[part.weights].scale if isinstance(part.weights, str) else part.weights.scale

    def _check_scale(self, volume: str, training: str) -> None:
        """A volume's own scale is one that the network of its training has."""
        scale, trained = self.volumes[volume].scale, self.trainings[training]
        if scale is None or scale == trained.scale:
            return
        try:
            plugins.check_scale(trained.model.name, scale)
        except ValueError as error:
            raise ValueError(f"volumes.{volume}: {error}") from None
        if not plugins.has(plugins.file_of("models", trained.model.name), "SCALE_RANGE"):
            raise ValueError(
                f"volumes.{volume}: scale {stated(scale)} is not that of training {training}, {stated(trained.scale)}, "
                f"and model {trained.model.name} has one for each training; leave scale out, or name other weights"
            )

    def _check_shard(self, volume: str, scale: Scale) -> None:
        if isinstance(scale, int) and any(side % scale for side in self.superresolve.shard[1:]):
            raise ValueError(
                f"superresolve.shard {list(self.superresolve.shard)} is not a multiple of scale {scale} in y and x, "
                f"which volume {volume} needs"
            )

    def _check_splits(self, training: str) -> None:
        """Training, validation and test sections of one tissue lie apart, also those of stages taken from others."""
        seen = list(self.seen_by(training))
        train = [(data.volume, part) for data in seen for part in data.train]
        validation = [(data.volume, part) for data in seen for part in data.validation]
        tested = [name for name, volume in self.volumes.items() if training in _weights_of(volume)]
        test = [(name, part) for name in tested for part in self.volumes[name].test or ()]
        first, second, last = (f"trainings.{training}: train", train), ("validation", validation), ("test", test)
        self._check_apart(first, second, VALIDATION_GAP)
        self._check_apart(first, last, GAP)
        self._check_apart(second, last, GAP)

    def _check_apart(self, some: Named, others: Named, gap: int) -> None:
        """At least ``gap`` sections lie between ranges of one kind and of another in one tissue."""
        (what, ranges), (other, against) = some, others
        for (volume, part), (place, rest) in product(ranges, against):
            one, two = self._at(volume, part), self._at(place, rest)
            if self.same_tissue(volume, place) and one[0] < two[1] + gap and two[0] < one[1] + gap:
                raise ValueError(
                    f"{what} {list(part)} of {volume} and {other} {list(rest)} of {place} overlap or have "
                    f"less than {gap} {'section' if gap == 1 else 'sections'} between them"
                )

    def _at(self, volume: str, part: Range) -> Range:
        """A range of sections counted from the start of the source."""
        region = self.volumes[volume].region
        first = region[0][0] if region else 0
        return part[0] + first, part[1] + first

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

    def _check_data(self, name: str, training: Training) -> None:
        for data in training.data:
            if data.volume not in self.volumes:
                raise ValueError(f"trainings.{name}: " + plugins.unknown("volume", data.volume, self.volumes))
            self._check_can_train(name, training, data)
            for start, stop in (*data.train, *data.validation):
                if start >= stop:
                    raise ValueError(
                        f"trainings.{name}: range [{start}, {stop}] of {data.volume} is empty; write [first, last + 1]"
                    )

    def _check_can_train(self, name: str, training: Training, data: Data) -> None:
        volume = self.volumes[data.volume]
        if not volume.has_hr and (training.output == "sr" or data.image in (None, "hr")):
            raise ValueError(f"trainings.{name}: volume {data.volume} has no hr to train on")
        if training.output == "affinity" and not volume.has_labels:
            raise ValueError(f"trainings.{name}: volume {data.volume} has no labels to learn affinities from")

    def _check_used(self, name: str, training: Training) -> None:
        """A stage that is taken from another training stands on the same earlier stages there as here."""
        for stage, earlier in ((late, early) for late, needed in training.needs.items() for early in needed):
            owner = self.owner(name, stage)
            if owner != name and self.owner(name, earlier) != self.owner(owner, earlier):
                there, here = self.owner(owner, earlier), self.owner(name, earlier)
                raise ValueError(
                    f"trainings.{name}: {stage} is that of {owner}, made with the {earlier} of {there}, not of {here}; "
                    f"use {there} for {earlier} too"
                )

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


def _weights_of(volume: Volume) -> list[object]:
    """Names and files of all weights that a volume's images are made or segmented with."""
    return [volume.weights, *(part.weights for part in (volume.segmentations or {}).values())]


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
