"""The parts of config.yaml that say how a network is trained, and on which sections of volumes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from emsr import plugins, scales
from emsr.limits import check_fields, check_stage
from emsr.schema_parts import PATHS, Accelerators, Count, Name, Natural, Part, Place, Range, ScaleValue

TrainedImage = Annotated[str, Field(pattern=rf"^(hr|bicubic_x{scales.NAME})$")]


class Data(Part):
    """Sections of one volume that a training uses."""

    volume: Name
    image: TrainedImage | None = None
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
        check_fields("option", self.options, plugins.fields(file, "Options"))
        return self


class Training(Part):
    """A network trained stage by stage on sections of volumes."""

    scale: ScaleValue
    model: Model
    sections: Count
    section_step: Count
    window: Count
    seed: Natural
    threads: Count
    device: Literal["auto", "cpu", "cuda"]
    data: tuple[Data, ...]
    stages: dict[Name, dict[str, Any]]
    init_from: dict[Name, Place] | None = None
    perceptual: Place | None = None
    spynet: Place | None = None
    accelerators: Accelerators | None = None

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
        plugins.check_scale(self.model.name, self.scale)
        self._check_window()
        self._check_stages()
        self._check_accelerators()
        named = {f"init_from.{stage}": path for stage, path in (self.init_from or {}).items()}
        for key, path in {**named, "perceptual": self.perceptual, "spynet": self.spynet}.items():
            if path is not None and not Path(path).is_file():
                raise ValueError(f"{key}: {path} does not exist; {PATHS}")
        return self

    @property
    def output(self) -> str:
        """What the network gives: "sr" or "affinity"."""
        return plugins.output(plugins.file_of("models", self.model.name))

    def _check_window(self) -> None:
        if self.output == "affinity":
            if self.sections != 1 or self.section_step != 1:
                raise ValueError("an affinity network sees whole volumes: write sections: 1 and section_step: 1")
            return
        if self.window % 4:
            raise ValueError(f"window {self.window} is not a multiple of 4, which the pyramid of the network needs")
        if self.sections % 2 == 0:
            raise ValueError(f"sections {self.sections} must be odd: a centre and as many neighbours on both sides")
        if any(data.image for data in self.data):
            raise ValueError("image says what an affinity network is trained on; other networks read hr and lr")

    def _check_accelerators(self) -> None:
        file = plugins.file_of("models", self.model.name)
        stated = plugins.literal(file, "ACCELERATED") if plugins.has(file, "ACCELERATED") else {}
        layers = {layer for each in stated.values() for layer in each} if isinstance(stated, dict) else set()
        for layer in self.accelerators.chosen if self.accelerators else ():
            if layer not in layers:
                raise ValueError(f"accelerators.{layer}: model {self.model.name} has no such layer; leave it out")

    def _check_stages(self) -> None:
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
                check_stage(stage, values)
                self._check_pairs(stage)
        for stage in self.init_from or ():
            if stage not in self.stages:
                raise ValueError(plugins.unknown("init_from stage", stage, self.stages))

    def _check_pairs(self, stage: str) -> None:
        """Patches of lr and hr are cut on one grid."""
        file = plugins.file_of("models", self.model.name)
        stated = plugins.literal(file, "READS") if plugins.has(file, "READS") else {}
        read = stated.get(stage, ("hr", "lr")) if isinstance(stated, dict) else ()
        if not scales.whole(self.scale) and {"hr", "lr"} <= set(read):
            raise ValueError(
                f"scale {scales.stated(self.scale)}: stage {stage} cuts patches of lr and hr on one grid, so train at "
                "a whole scale; volumes that are super-resolved with the weights may state another scale"
            )
