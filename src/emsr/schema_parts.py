"""What several parts of config.yaml are made of: names, counts, sources, layouts, files of weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, model_validator

from emsr import durable, numbering, places, plugins, scales
from emsr.scales import Scale

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]{0,99}$")]
Count = Annotated[int, Field(ge=1, strict=True)]
ScaleValue = Annotated[Scale, PlainValidator(scales.of)]
Natural = Annotated[int, Field(ge=0, strict=True)]
Nanometres = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
Shape = tuple[Count, Count, Count]
VoxelSize = tuple[Nanometres, Nanometres, Nanometres]
Range = tuple[Natural, Natural]
Level = Annotated[int, Field(ge=1, le=255, strict=True)]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False, strict=True)]
Grey = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Place = Annotated[
    str, AfterValidator(places.expanded)
]  # of a file or folder: ~ and $NAME stand for what they do in shells
PATHS = "paths are relative to the folder that snakemake is started in"


class Part(BaseModel):
    """A part of the config: unknown keys are errors, nothing changes after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Intensity(Part):
    """How grey levels of a source become 0 to 255: its levels that become 0 and 255, or percentiles of its voxels."""

    low: Grey | None = None
    high: Grey | None = None
    percentiles: tuple[Percent, Percent] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Intensity:
        limits = (self.low, self.high)
        if (None in limits) == (self.percentiles is None) or (self.percentiles and limits != (None, None)):
            raise ValueError("state either low and high, or percentiles, for example {percentiles: [0.5, 99.5]}")
        low, high = self.percentiles or limits
        if low is not None and high is not None and low >= high:
            raise ValueError(
                f"intensity from {low:g} to {high:g} leaves no grey level between; write the lower one first"
            )
        return self


class Canary(Part):
    """What the first jobs of a super-resolution must show before `emsr run` starts the others; null: no such gate."""

    jobs: Count
    sections: Count
    consistency_db: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    seams: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = None
    spectrum_db: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    confidence: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = None


class Source(Part):
    """An array on the user's disk."""

    path: Place
    dataset: str | None = None
    voxel_size_nm: VoxelSize | None = None
    mip: Natural | None = None
    pattern: str | None = None
    link: Flag | None = None
    intensity: Intensity | None = None
    membranes: Level | None = None

    @model_validator(mode="after")
    def _exists(self) -> Source:
        if places.is_address(self.path):
            places.check_address(self.path)
        path = places.local(self.path)
        if path is not None and (fault := places.fault(path)):
            raise ValueError(f"path {path} {fault}" + (f"; {PATHS}" if fault == places.MISSING else ""))
        if self.pattern is not None:
            numbering.check_pattern(self.pattern)
        return self

    @property
    def place(self) -> tuple[Path, str]:
        """What this is, however it is spelt: a folder, or a file and the dataset in it. All levels are one image.

        Of a folder of sections it is also the name of the first one, since images of several volumes may lie there.
        """
        local, inside = places.local(self.path), Path("/" + (self.dataset or "").strip("/"))
        if local is None:
            return Path(self.path), ""
        path = local.resolve()
        if not path.is_dir():
            return path, str(inside)
        folder = path.joinpath(*inside.parts[1:]).resolve()
        return (folder.parent, "") if _is_level(folder) else (folder, numbering.first(folder, self.pattern))


def check_membranes(sources: Mapping[str, Source | None]) -> None:
    """Raise ValueError, in one line, where another image than labels is made from membranes, or they are linked."""
    for image, source in sources.items():
        if source and source.membranes and image != "labels":
            raise ValueError(f"{image}.membranes: only labels are made from membranes; leave it out")
        if source and source.membranes and source.link:
            raise ValueError(f"{image}.link: objects between membranes are found, which makes a copy; leave link out")


class Layout(Part):
    """How an array lies on disk, in voxels."""

    shard: Shape
    chunk: Shape

    @model_validator(mode="after")
    def _aligned(self) -> Layout:
        if any(s % c for s, c in zip(self.shard, self.chunk, strict=True)):
            raise ValueError(f"shard {list(self.shard)} is not a multiple of chunk {list(self.chunk)} on every axis")
        return self


class Accelerators(Part):
    """Compiled packages that compute single layers in PyTorch's place; they change float bits."""

    deform: Literal["pytorch", "mmcv", "torchvision"] | None = None
    correlation: Literal["pytorch", "spatial_correlation_sampler"] | None = None

    @property
    def chosen(self) -> dict[str, str]:
        """The layers that another package than PyTorch computes."""
        return {layer: str(package) for layer, package in self if package not in (None, "pytorch")}


def accelerated(stated: Accelerators | None) -> dict[str, dict[str, str]]:
    """What a slice of settings says of accelerators: nothing where PyTorch computes all."""
    chosen = stated.chosen if stated else {}
    return {"accelerators": chosen} if chosen else {}


class WeightsFile(Part):
    """Weights on the user's disk, with their card beside them."""

    path: Place

    @model_validator(mode="after")
    def _with_card(self) -> WeightsFile:
        for file in (Path(self.path), self.card):
            if not file.is_file():
                raise ValueError(
                    f"{file} does not exist; weights are FILE.safetensors with their card FILE.json beside it"
                )
        _ = self.scale
        return self

    @property
    def card(self) -> Path:
        """The card beside the weights."""
        return Path(self.path).with_suffix(".json")

    @property
    def scale(self) -> Scale:
        """The scale that the card states; ValueError for what is no card of weights."""
        scale = self._stated("scale")
        if type(scale) not in (int, float, list):
            raise ValueError(f"{self.card} states no scale, so it is no card of weights; import or train them again")
        try:
            return scales.of(scale)
        except ValueError:
            raise ValueError(f"{self.card} states scale {scale}; name weights whose card states at least 1") from None

    def check_scale(self, scale: Scale) -> None:
        """ValueError, in one line, for a scale that these weights cannot be used at."""
        model = str(self._stated("model"))
        plugins.check_scale(model, scale)
        if scale != self.scale and not plugins.has(plugins.file_of("models", model), "SCALE_RANGE"):
            raise ValueError(
                f"scale {scales.stated(scale)} is not that of {self.card}, {scales.stated(self.scale)}, and model "
                f"{model} has one for each training; leave scale out, or name other weights"
            )

    def _stated(self, key: str) -> Any:
        card = durable.read_json(self.card)
        return card.get(key) if isinstance(card, dict) else None


def _is_level(folder: Path) -> bool:
    """Whether a folder is a level of the pyramid above it: one that its multiscales name, or s0, s1, ... of a zarr."""
    files = [folder.parent / name for name in ("zarr.json", ".zattrs", ".zgroup")]
    above = [file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file()]
    named = any('"multiscales"' in text and f'"{folder.name}"' in text for text in above)
    return named or bool(above and re.fullmatch(r"s\d+", folder.name))
