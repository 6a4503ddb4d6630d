"""The parts of config.yaml that say what a volume is, how its lr is made and what is made of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from emsr.schema_parts import (
    Flag,
    Intensity,
    Name,
    Nanometres,
    Natural,
    Part,
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
