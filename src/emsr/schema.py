"""The parts of config.yaml: their types and limits. Values live in YAML; a key that may be left out may be null."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from emsr import durable, plugins
from emsr.limits import check_fields, check_stage

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]{0,99}$")]
Count = Annotated[int, Field(ge=1, strict=True)]
Natural = Annotated[int, Field(ge=0, strict=True)]
Nanometres = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Shape = tuple[Count, Count, Count]
VoxelSize = tuple[Nanometres, Nanometres, Nanometres]
Range = tuple[Natural, Natural]
PATHS = "paths are relative to the folder that snakemake is started in"


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
            raise ValueError(f"path {self.path} does not exist; {PATHS}")
        return self

    @property
    def place(self) -> tuple[Path, str]:
        """What this is, however it is spelt: a folder, or a file and the dataset in it. All levels are one image."""
        path, inside = Path(self.path).resolve(), Path("/" + (self.dataset or "").strip("/"))
        if not path.is_dir():
            return path, str(inside)
        folder = path.joinpath(*inside.parts[1:]).resolve()
        return folder.parent if _is_level(folder) else folder, ""


class Tissue(Part):
    """Synthetic tissue that emsr grows itself."""

    shape: Shape
    voxel_size_nm: VoxelSize
    seed: Natural


class Degradation(Part):
    """The imaging model that makes lr from hr."""

    kernel: Literal["bicubic", "area"]


class Layout(Part):
    """How an array lies on disk, in voxels."""

    shard: Shape
    chunk: Shape

    @model_validator(mode="after")
    def _aligned(self) -> Layout:
        if any(s % c for s, c in zip(self.shard, self.chunk, strict=True)):
            raise ValueError(f"shard {list(self.shard)} is not a multiple of chunk {list(self.chunk)} on every axis")
        return self


class Superresolve(Layout):
    """How volumes are super-resolved; every value changes the voxels or their layout on disk."""

    window: Count | None = None
    overlap: Natural
    precision: Literal["float32", "bfloat16"]
    device: Literal["auto", "cpu", "cuda"]


class WeightsFile(Part):
    """Weights on the user's disk, with their card beside them."""

    path: str

    @model_validator(mode="after")
    def _with_card(self) -> WeightsFile:
        for file in (Path(self.path), self.card):
            if not file.is_file():
                raise ValueError(
                    f"{file} does not exist; weights are FILE.safetensors with their card FILE.json beside it"
                )
        if self.scale < 1:
            raise ValueError(f"{self.card} states scale {self.scale}; name weights whose card states at least 1")
        return self

    @property
    def card(self) -> Path:
        """The card beside the weights."""
        return Path(self.path).with_suffix(".json")

    @property
    def scale(self) -> int:
        """The scale that the card states; ValueError for what is no card of weights."""
        card = durable.read_json(self.card)
        scale = card.get("scale") if isinstance(card, dict) else None
        if type(scale) is not int:
            raise ValueError(f"{self.card} states no scale, so it is no card of weights; import or train them again")
        return scale


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
        if self.region and self.tissue:
            raise ValueError("tissue is grown whole, so region does not cut it; change its shape")
        if self.region and self.hr and self.lr:
            raise ValueError("region counts voxels of one grid, so it cannot cut hr and lr alike; cut the sources")
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
        check_fields("option", self.options, plugins.fields(file, "Options"))
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
    init_from: dict[Name, str] | None = None
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
        named = {f"init_from.{stage}": path for stage, path in (self.init_from or {}).items()}
        for key, path in {**named, "perceptual": self.perceptual, "spynet": self.spynet}.items():
            if path is not None and not Path(path).is_file():
                raise ValueError(f"{key}: {path} does not exist; {PATHS}")
        return self

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
        for stage in self.init_from or ():
            if stage not in self.stages:
                raise ValueError(plugins.unknown("init_from stage", stage, self.stages))


class Report(Part):
    """What the report says about itself."""

    title: str


def _is_level(folder: Path) -> bool:
    """Whether a folder is a level of the pyramid above it: one that its multiscales name, or s0, s1, ... of a zarr."""
    files = [folder.parent / name for name in ("zarr.json", ".zattrs", ".zgroup")]
    above = [file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file()]
    named = any('"multiscales"' in text and f'"{folder.name}"' in text for text in above)
    return named or bool(above and re.fullmatch(r"s\d+", folder.name))
