"""Types and limits of config.yaml: the only schema.

Values live in YAML; here are no defaults. A key that may be left out is one that may be null.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from emsr import plugins
from emsr.mistakes import one_line

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]{0,99}$")]
Count = Annotated[int, Field(ge=1, strict=True)]
Natural = Annotated[int, Field(ge=0, strict=True)]
Nanometres = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Shape = tuple[Count, Count, Count]
VoxelSize = tuple[Nanometres, Nanometres, Nanometres]
Range = tuple[Natural, Natural]
RESERVED = ("trainings", "logs", "benchmarks", "report")  # folders of the results beside those of volumes
GAP = 2  # sections that must lie between training, validation and test


class Part(BaseModel):
    """A part of the config: unknown keys are errors, nothing changes after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Part):
    """An array on the user's disk."""

    path: str
    dataset: str | None = None
    voxel_size_nm: VoxelSize | None = None

    @model_validator(mode="after")
    def _exists(self) -> Source:
        if not Path(self.path).exists():
            raise ValueError(
                f"path {self.path} does not exist; paths are relative to the folder snakemake is started in"
            )
        return self


class Tissue(Part):
    """Synthetic tissue that emsr grows itself."""

    shape: Shape
    voxel_size_nm: VoxelSize
    seed: Natural


class Degradation(Part):
    """The imaging model that makes lr from hr."""

    kernel: Literal["bicubic", "area"]


class Superresolve(Part):
    """How a volume is super-resolved; every value changes the voxels or their layout on disk."""

    overlap: Natural
    shard: Shape
    chunk: Shape
    precision: Literal["float32", "bfloat16"]
    device: Literal["auto", "cpu", "cuda"]

    @model_validator(mode="after")
    def _aligned(self) -> Superresolve:
        if any(s % c for s, c in zip(self.shard, self.chunk, strict=True)):
            raise ValueError(f"shard {list(self.shard)} is not a multiple of chunk {list(self.chunk)} on every axis")
        return self


class WeightsFile(Part):
    """Weights on the user's disk, with their card beside them."""

    path: str

    @model_validator(mode="after")
    def _with_card(self) -> WeightsFile:
        for file in (Path(self.path), Path(self.path).with_suffix(".json")):
            if not file.is_file():
                raise ValueError(
                    f"{file} does not exist; weights are FILE.safetensors with their card FILE.json beside it"
                )
        return self


class Volume(Part):
    """A volume: what is known of it and, if it is to be super-resolved, by which weights."""

    tissue: Tissue | None = None
    hr: Source | None = None
    lr: Source | None = None
    labels: Source | None = None
    region: tuple[Range, Range, Range] | None = None
    degradation: Degradation | None = None
    weights: Name | WeightsFile | None = None
    test: tuple[Range, ...] | None = None

    @model_validator(mode="after")
    def _complete(self) -> Volume:
        if self.tissue and (self.hr or self.lr or self.labels):
            raise ValueError("tissue brings its own hr and labels; name either tissue or sources")
        if not (self.tissue or self.hr or self.lr):
            raise ValueError("a volume needs hr, lr or tissue")
        if self.has_hr and not self.lr and not self.degradation:
            raise ValueError("lr is made from hr, so degradation must say how, for example {kernel: bicubic}")
        if self.test and not self.has_hr:
            raise ValueError("test sections are scored against hr, which this volume does not have; leave test out")
        return self

    @property
    def has_hr(self) -> bool:
        return self.hr is not None or self.tissue is not None


class Data(Part):
    """Sections of one volume that a training uses."""

    volume: Name
    train: tuple[Range, ...]
    validation: tuple[Range, ...]


class Model(Part):
    """A network: its file, a preset of options, and options that differ from the preset."""

    name: str
    preset: str
    options: dict[str, Any]

    @model_validator(mode="after")
    def _known(self) -> Model:
        file = plugins.file_of("models", self.name)
        if self.preset not in (presets := plugins.keys(file, "PRESETS")):
            raise ValueError(plugins.unknown("preset", self.preset, presets))
        _check_fields("option", self.options, plugins.fields(file, "Options"))
        return self


class Training(Part):
    """A network trained stage by stage on sections of volumes."""

    scale: Count
    model: Model
    sections: Count
    section_step: Count
    window: Count
    seed: Natural
    threads: Count
    device: Literal["auto", "cpu", "cuda"]
    data: tuple[Data, ...]
    stages: dict[Name, dict[str, Any]]
    init_from: dict[Name, str] = {}
    perceptual: str | None = None
    spynet: str | None = None

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        """Stages of the model and the earlier stages that each takes weights from."""
        stated = plugins.literal(plugins.file_of("models", self.model.name), "NEEDS")
        if not isinstance(stated, dict):
            raise ValueError(f"NEEDS of model {self.model.name} is no dictionary")
        return {str(stage): tuple(earlier) for stage, earlier in stated.items()}

    @property
    def last_stage(self) -> str:
        """The stage whose weights are the whole network."""
        return list(self.needs)[-1]

    @model_validator(mode="after")
    def _fits_the_model(self) -> Training:
        file = plugins.file_of("models", self.model.name)
        scales = plugins.literal(file, "SCALES")
        if isinstance(scales, tuple) and self.scale not in scales:
            raise ValueError(
                f"scale {self.scale} is not one that model {self.model.name} has: {', '.join(map(str, scales))}"
            )
        if self.window % 4:
            raise ValueError(f"window {self.window} is not a multiple of 4, which the pyramid of the network needs")
        if self.sections % 2 == 0:
            raise ValueError(f"sections {self.sections} must be odd: a centre and as many neighbours on both sides")
        self._check_stages()
        for path in [*self.init_from.values(), self.perceptual, self.spynet]:
            if path is not None and not Path(path).is_file():
                raise ValueError(f"weights {path} do not exist")
        return self

    def _check_stages(self) -> None:
        known = plugins.fields(plugins.PACKAGE / "models" / "stage.py", "Stage")
        if set(self.stages) != set(self.needs):
            wrong = next((name for name in self.stages if name not in self.needs), None)
            if wrong:
                raise ValueError(plugins.unknown("stage", wrong, self.needs))
            missing = [name for name in self.needs if name not in self.stages]
            raise ValueError(f"stages must be {', '.join(self.needs)}; {', '.join(missing)} missing")
        for stage, values in self.stages.items():
            if "use" in values:
                if len(values) > 1 or not isinstance(values["use"], str):
                    raise ValueError(f"stage {stage}: use names another training and stands alone")
            else:
                _check_fields(f"stage {stage}: key", values, known)
        for stage in self.init_from:
            if stage not in self.stages:
                raise ValueError(plugins.unknown("init_from stage", stage, self.stages))


class Report(Part):
    """What the report says about itself."""

    title: str


class Config(Part):
    """config.yaml."""

    results: str
    jobs: Count
    workers: Count
    report: Report
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


def _check_fields(what: str, values: dict[str, Any], known: dict[str, str]) -> None:
    """Every key of ``values`` is known and its value of the annotated type."""
    for key, value in values.items():
        if key not in known:
            raise ValueError(plugins.unknown(what, key, known))
        if not plugins.fits(value, known[key]):
            raise ValueError(f"{what} {key} is {value!r}, which is no {known[key]}")


def _check_apart(what: str, ranges: tuple[Range, ...], other: str, others: tuple[Range, ...]) -> None:
    """At least ``GAP`` sections lie between the ranges of one use and those of another."""
    for (start, stop), (first, last) in ((a, b) for a in ranges for b in others):
        if start < last + GAP and first < stop + GAP:
            raise ValueError(
                f"{what} [{start}, {stop}] and {other} [{first}, {last}] overlap or lie less than {GAP} sections apart"
            )


KINDS: dict[str, type[BaseModel]] = {  # what stands under a key
    **{"volumes": Volume, "trainings": Training, "superresolve": Superresolve, "report": Report, "model": Model},
    **{"data": Data, "tissue": Tissue, "degradation": Degradation, "hr": Source, "lr": Source, "labels": Source},
}


def parse(values: dict[str, Any]) -> Config:
    """Validate ``values`` as read from YAML; raises ValueError with one line for the first mistake."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ValueError(one_line(error, Config, KINDS)) from None
