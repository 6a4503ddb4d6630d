"""The smaller parts of config.yaml: how volumes are super-resolved and scored, what is kept, what the report says.

Values live in YAML; a key that may be left out may be null.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from emsr.schema_parts import PATHS, Accelerators, Count, Flag, Layout, Natural, Part, Place


class Superresolve(Layout):
    """How volumes are super-resolved; every value changes the voxels or their layout on disk."""

    window: Count | None = None
    overlap: Natural
    precision: Literal["float32", "bfloat16", "float16"]
    device: Literal["auto", "cpu", "cuda"]
    accelerators: Accelerators | None = None


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
