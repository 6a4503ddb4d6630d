"""The parts of config.yaml: their types and limits. Values live in YAML; a key that may be left out may be null."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from emsr import plugins, scales
from emsr.limits import check_fields, check_stage
from emsr.schema_parts import (
    PATHS,
    Accelerators,
    Count,
    Flag,
    Intensity,
    Layout,
    Name,
    Nanometres,
    Natural,
    Part,
    Place,
    Range,
    ScaleValue,
    Shape,
    Source,
    VoxelSize,
    WeightsFile,
    check_membranes,
)
from emsr.schema_segment import Segmentation


class Tissue(Part):
    """Synthetic tissue that emsr grows itself."""

    shape: Shape
    voxel_size_nm: VoxelSize
    seed: Natural


class Noise(Part):
    """What the detector adds to lr: stated (dose null: no shot noise), or estimated from the lr of a volume."""

    dose: Annotated[float, Field(gt=0, le=1e9, strict=True)] | None = None
    read: Annotated[float, Field(ge=0, le=255, strict=True)] | None = None
    estimate: Name | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63, strict=True)]

    @model_validator(mode="after")
    def _one_way(self) -> Noise:
        if self.estimate is not None and (self.dose, self.read) != (None, None):
            raise ValueError(f"noise is estimated from {self.estimate}, so dose and read are not stated; leave one out")
        if self.estimate is None and self.read is None:
            raise ValueError("noise needs read, grey levels (0 for none), or estimate, a volume with an lr of its own")
        return self


class Degradation(Part):
    """The imaging model that makes lr from hr."""

    kernel: Literal["bicubic", "area"]
    noise: Noise | None = None


class Registration(Part):
    """How hr, imaged apart from lr, is brought onto it, and by how much it may miss it."""

    limit_nm: Nanometres
    kernel: Literal["bicubic", "area"]


class Samples(Part):
    """Images that a network with latents is asked for beside sr, to say how far they lie apart."""

    count: Annotated[int, Field(ge=2, le=1000, strict=True)]
    temperature: Annotated[float, Field(gt=0, le=100, strict=True)]
    seed: Annotated[int, Field(ge=0, lt=2**32, strict=True)]


class Superresolve(Layout):
    """How volumes are super-resolved; every value changes the voxels or their layout on disk."""

    window: Count | None = None
    overlap: Natural
    precision: Literal["float32", "bfloat16", "float16"]
    device: Literal["auto", "cpu", "cuda"]
    accelerators: Accelerators | None = None


class Volume(Part):
    """A volume: what is known of it and, if it is to be super-resolved, by which weights."""

    tissue: Tissue | None = None
    hr: Source | None = None
    lr: Source | None = None
    labels: Source | None = None
    mask: Source | None = None
    pilot: tuple[Range, Range, Range] | None = None
    region: tuple[Range, Range, Range] | None = None
    intensity: Intensity | None = None
    degradation: Degradation | None = None
    registration: Registration | None = None
    accept_mismatch: Flag | None = None
    weights: Name | WeightsFile | None = None
    samples: Samples | None = None
    scale: ScaleValue | None = None
    test: tuple[Range, ...] | None = None
    segmentations: dict[Name, Segmentation] | None = None

    @model_validator(mode="after")
    def _complete(self) -> Volume:
        if self.tissue and (self.hr or self.lr or self.labels):
            raise ValueError("tissue brings its own hr and labels; name either tissue or sources")
        if not (self.tissue or self.hr or self.lr):
            raise ValueError("a volume needs hr, lr or tissue")
        if self.has_hr and not self.lr and not self.degradation:
            raise ValueError("lr is made from hr, so degradation must say how, for example {kernel: bicubic}")
        if self.region and self.tissue:
            raise ValueError("tissue is grown whole, so region does not cut it; change its shape")
        if self.region and self.hr and self.lr:
            raise ValueError("region counts voxels of one grid, so it cannot cut hr and lr alike; cut the sources")
        if self.test and not self.has_hr:
            raise ValueError("test sections are scored against hr, which this volume does not have; leave test out")
        if self.labels and self.labels.intensity:
            raise ValueError("labels.intensity: labels are no grey levels; leave it out")
        check_membranes({"hr": self.hr, "lr": self.lr, "labels": self.labels, "mask": self.mask})
        for image in ("hr", "lr"):
            if (source := getattr(self, image)) and source.link and self.mapping(image):
                raise ValueError(
                    f"{image}.link: its intensity is mapped, which makes a copy; leave link or intensity out"
                )
        for name, part in (self.segmentations or {}).items():
            if part.image == "hr" and not self.has_hr:
                raise ValueError(f"segmentations.{name}: this volume has no hr to segment; take sr or bicubic")
            if part.image != "hr" and self.weights is None:
                raise ValueError(
                    f"segmentations.{name}: {part.image} needs weights, which say at what scale; name some"
                )
        return self

    @model_validator(mode="after")
    def _scaled(self) -> Volume:
        if self.scale is None:
            return self
        if self.weights is None:
            raise ValueError("scale says what weights are used at, and there are none; name some, or leave it out")
        if isinstance(self.weights, WeightsFile):
            self.weights.check_scale(self.scale)
        return self

    @model_validator(mode="after")
    def _registered(self) -> Volume:
        if self.registration and not (self.hr and self.lr):
            raise ValueError("registration brings hr onto lr, so it needs the sources of both; leave it out")
        return self

    @model_validator(mode="after")
    def _made_in_part(self) -> Volume:
        for key in ("pilot", "mask", "samples"):
            if getattr(self, key) is None:
                continue
            if self.weights is None:
                raise ValueError(f"{key} says what is super-resolved, which takes weights; name some, or leave it out")
        if self.pilot and any(low >= high for low, high in self.pilot):
            raise ValueError(f"pilot {[*map(list, self.pilot)]} holds no voxel; write [[z0, z1], [y0, y1], [x0, x1]]")
        if self.mask and self.mask.intensity:
            raise ValueError("mask.intensity: a mask has no grey levels; leave it out")
        return self

    def mapping(self, image: str) -> Intensity | None:
        """How grey levels of hr or lr are mapped: as its source says, else as the volume does."""
        source: Source | None = getattr(self, image)
        return (source.intensity if source else None) or self.intensity

    @property
    def shares_intensity(self) -> bool:
        """Whether the percentiles of hr are those of lr: both are sources, and neither states its own."""
        both = [source for source in (self.hr, self.lr) if source and not source.intensity]
        return len(both) == 2 and self.intensity is not None and self.intensity.percentiles is not None

    @property
    def has_labels(self) -> bool:
        return self.labels is not None or self.tissue is not None

    @property
    def has_hr(self) -> bool:
        return self.hr is not None or self.tissue is not None


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


class Lpips(Part):
    """Others' weights of LPIPS: a backbone as torchvision saves it, and the weights of its channels."""

    backbone: Place
    linear: Place

    @model_validator(mode="after")
    def _exist(self) -> Lpips:
        for name, path in (("backbone", self.backbone), ("linear", self.linear)):
            if not Path(path).is_file():
                raise ValueError(f"{name}: {path} does not exist; {PATHS}")
        return self


class Score(Part):
    """What sr is scored with besides the figures that need no weights."""

    lpips: Lpips | None = None


class Keep(Part):
    """Which intermediates stay on disk once everything made of them is proved."""

    affinities: Flag
    fragments: Flag


class Report(Part):
    """What the report says about itself."""

    title: str
