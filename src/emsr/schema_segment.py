"""The parts of config.yaml that say how images are segmented and how segmentations are scored."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from emsr.schema_parts import Count, Flag, Layout, Name, Natural, Part, Shape, WeightsFile

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]
Length = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]


class Fragments(Part):
    """How affinities are cut into fragments."""

    method: Literal["watershed", "mutex"]
    block: Shape
    halo: tuple[Natural, Natural, Natural]


class Agglomeration(Part):
    """How fragments are merged."""

    method: Literal["exact", "waterz"]
    until: Share
    thresholds: tuple[Share, ...]

    @model_validator(mode="after")
    def _reached(self) -> Agglomeration:
        if not self.thresholds or max(self.thresholds) > self.until:
            raise ValueError(f"thresholds {list(self.thresholds)} must be some, none above until {self.until}")
        return self


class SegmentScores(Part):
    """How segmentations are scored; every value is stated beside the figures."""

    border_nm: Length
    membrane_nm: Length
    in_plane: Flag
    absorb: Natural
    windows: Count
    seed: Natural


def check_single_sections(where: str, scores: SegmentScores) -> None:
    """Raise ValueError, in one line, for scores that labels of single sections cannot give."""
    if not scores.in_plane:
        raise ValueError(
            f"{where}: its labels are made from membranes, section by section, so every voxel would lie at a border "
            "along z; set segment.scores.in_plane to true"
        )


class Segment(Layout):
    """How images are segmented."""

    depth: Count | None = None
    window: Count | None = None
    overlap: Natural
    depth_overlap: Natural
    precision: Literal["float32", "bfloat16", "float16"]
    device: Literal["auto", "cpu", "cuda"]
    fragments: Fragments
    agglomeration: Agglomeration
    scores: SegmentScores

    @model_validator(mode="after")
    def _blocks_fit(self) -> Segment:
        block = self.fragments.block
        if any(s % b for s, b in zip(self.shard, block, strict=True)):
            raise ValueError(f"fragments.block {list(block)} does not divide shard {list(self.shard)} on every axis")
        return self


class Segmentation(Part):
    """One segmentation of a volume: which image, by which affinity network, at which threshold."""

    image: Literal["bicubic", "sr", "hr"]
    weights: Name | WeightsFile
    threshold: Share | None = None
