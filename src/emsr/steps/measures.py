"""How near bicubic and sr of a section are to hr: PSNR, SSIM and MS-SSIM of all of it, FRC and LPIPS of its middle.

A spectrum and a network need their pixels at once, so they are of a square of bounded size: memory does not grow with
the section. A figure that cannot be said is null, and the reason is stated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emsr.metrics import image, perceptual, spectrum, structure
from emsr.steps.tiles import RIVALS, Area, Images, against_truth, rivals

if TYPE_CHECKING:
    from emsr.models.published_lpips import Lpips

FRC_SIDE = 1024  # sr voxels, the side of the square in a section's middle whose spectrum is taken
LPIPS_SIDE = 512  # the same, of the square that a network looks at
LEAST_FRC = 8  # voxels
FILES = ("backbone", "linear")  # of LPIPS
CRITERIA: dict[str, spectrum.Criterion] = {"frc_nm": "1/7", "frc_half_bit_nm": "half-bit"}


@dataclass(frozen=True, eq=False)
class Measured:
    """One image of one section against hr; ``curve`` and ``lpips`` are None where they cannot be said."""

    pixels: image.Tally
    scales: structure.Tally
    curve: spectrum.Curve | None
    lpips: float | None

    @property
    def ms_ssim(self) -> float | None:
        """None without any scale, and where no part that was made has a window at the coarsest one."""
        return self.scales.score() if self.scales.sums and all(self.scales.pixels) else None

    def row(self) -> dict[str, float | None]:
        """The figures of the section; PSNR is null where there is no error at all."""
        psnr = self.pixels.psnr()
        found = {"psnr": psnr if math.isfinite(psnr) else None, "ssim": self.pixels.ssim(), "ms_ssim": self.ms_ssim}
        resolved = {key: self._nm(criterion) for key, criterion in CRITERIA.items()}
        return {**found, "lpips": self.lpips, **resolved}

    def _nm(self, criterion: spectrum.Criterion) -> float | None:
        return spectrum.resolution(self.curve, criterion).nm if self.curve else None


@dataclass(frozen=True, eq=False)
class Measures:
    """What is measured of each section of ``images``, and with what."""

    images: Images
    scales: int
    rings: spectrum.Rings | None
    lpips: Lpips | None
    reasons: Mapping[str, str]
    """Why a figure is null of every section, by figure."""

    def section(self, z: int) -> dict[str, Measured]:
        """Section ``z`` of bicubic and of sr."""
        tallies = against_truth(self.images, z, self.scales)
        curves, distances = self._curves(z), self._distances(z)
        return {name: Measured(*tallies[name], curves.get(name), distances.get(name)) for name in RIVALS}

    def _curves(self, z: int) -> dict[str, spectrum.Curve]:
        """Fourier ring correlation of both with hr; empty where an image is constant, so that both have the same."""
        area = middle(self.images.covered, FRC_SIDE)
        if self.rings is None or self.images.left_out(z, area) is not None:
            return {}
        voxels = rivals(self.images, z, area)
        if any(one.min() == one.max() for one in voxels.values()):
            return {}
        return {
            name: spectrum.Curve(self.rings, spectrum.correlation(voxels["hr"], voxels[name], self.rings), 1)
            for name in RIVALS
        }

    def _distances(self, z: int) -> dict[str, float]:
        area = middle(self.images.covered, LPIPS_SIDE)
        if self.lpips is None or self.images.left_out(z, area) is not None:
            return {}
        voxels = rivals(self.images, z, area)
        maps = {name: features(self.lpips, one) for name, one in voxels.items()}
        return {name: perceptual.lpips_distance(maps["hr"], maps[name], self.lpips.weights) for name in RIVALS}


def middle(area: Area, side: int) -> Area:
    """The middle of ``area``, at most ``side`` x ``side`` voxels."""
    starts = [low + max(high - low - side, 0) // 2 for low, high in area]
    y, x = ((start, min(start + side, high)) for start, (_, high) in zip(starts, area, strict=True))
    return y, x


def features(lpips: Lpips, voxels: np.ndarray) -> list[np.ndarray]:
    """The maps (channels, y, x) of a section (y, x) uint8, by one thread: their number would change float bits."""
    import torch

    from emsr.training.arithmetic import reproducible

    with torch.inference_mode(), reproducible(1, "cpu"):
        maps = lpips.backbone(torch.from_numpy(voxels.astype(np.float32))[None, None] / 255)
        return [one[0].numpy() for one in maps]


def prepare(images: Images, voxel_nm: Sequence[float], weights: Mapping[str, Any] | None) -> Measures:
    """What can be measured of sections of ``images``, whose voxels are ``voxel_nm`` (z, y, x).

    ``weights`` are LPIPS' two files, each {path, sha256}, or None. Raises ValueError for files that are not what they
    are named for.
    """
    plane = images.fine_plane
    size = f"sections of {plane[0]} x {plane[1]} voxels are smaller than"
    scales = structure.scales_that_fit(plane)
    lpips = load_lpips(weights) if weights else None
    least = lpips.backbone.tapped.least if lpips else 0
    reasons = {} if scales else {"ms_ssim": f"{size} the window, {structure.WINDOW} x {structure.WINDOW}"}
    if lpips is None:
        reasons["lpips"] = "no weights are named (score.lpips)"
    elif min(plane) < least:
        reasons["lpips"] = f"{size} {least} x {least}, which {lpips.backbone.name} needs"
    rings = None
    if images.made is not None:
        parts = "of the sections only parts were made, and their middles may be none of them"
        reasons |= dict.fromkeys((*CRITERIA, "lpips"), parts)
    elif min(plane) < LEAST_FRC:
        reasons |= dict.fromkeys(CRITERIA, f"{size} {LEAST_FRC} x {LEAST_FRC}")
    else:
        (y0, y1), (x0, x1) = middle(images.covered, FRC_SIDE)
        rings = spectrum.rings((y1 - y0, x1 - x0), (voxel_nm[1], voxel_nm[2]))
    return Measures(images, scales, rings, None if "lpips" in reasons else lpips, reasons)


def load_lpips(weights: Mapping[str, Any]) -> Lpips:
    """The network of both files, whose content must be what the settings were made from."""
    from emsr.fingerprints import content_sha256
    from emsr.models.published_lpips import load

    paths = {name: Path(weights[name]["path"]) for name in FILES}
    for name, path in paths.items():
        if content_sha256(path) != weights[name]["sha256"]:
            raise ValueError(f"score.lpips.{name}: {path} changed since the workflow was planned: start it again")
    return load(**paths)


def means(truth: Mapping[int, Mapping[str, Measured]], how: Measures) -> dict[str, dict[str, Any]]:
    """The figures of bicubic and of sr over all sections; "reasons" says why one is null.

    "frc_at_limit" names resolutions that are null because the images agree up to what the voxels can hold.
    """
    return {name: _mean([section[name] for section in truth.values()], how) for name in RIVALS}


def _mean(sections: Sequence[Measured], how: Measures) -> dict[str, Any]:
    reasons, curves = dict(how.reasons), [one.curve for one in sections if one.curve is not None]
    found: dict[str, Any] = image.summary([one.pixels for one in sections])
    if any(one.ms_ssim is None for one in sections):
        reasons.setdefault("ms_ssim", "of some section nothing that is scored has a window at the coarsest scale")
    if not any(one.lpips is not None for one in sections):
        reasons.setdefault("lpips", "the middle of every test section touches a damaged part")
    for key in ("ms_ssim", "lpips"):
        values = [value for one in sections if (value := getattr(one, key)) is not None]
        found[key] = None if key in reasons else float(np.mean(values))
    curve = reduce(spectrum.Curve.__add__, curves) if curves else None
    resolved = {key: spectrum.resolution(curve, how) for key, how in CRITERIA.items()} if curve else {}
    for key in CRITERIA:
        found[key] = resolved[key].nm if key in resolved else None
        if found[key] is None:
            constant = "every test section is constant in its middle" + (" or damaged" if how.images.damaged else "")
            reasons.setdefault(key, str(resolved[key].reason) if key in resolved else constant)
    at_limit = [key for key, one in resolved.items() if one.at_limit]
    return {**found, "frc_at_limit": at_limit, "frc_sections": len(curves), "reasons": reasons}


def stated(how: Measures, weights: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the figures are, in words and numbers that go beside them."""
    sides = {
        name: [stop - start for start, stop in middle(how.images.covered, side)]
        for name, side in (("frc", FRC_SIDE), ("lpips", LPIPS_SIDE))
    }
    hashes = {name: file["sha256"] for name, file in weights.items()} if weights else None
    return {
        "metrics": image.STATED,
        "ms_ssim": {**structure.STATED, "scales_used": how.scales},
        "frc": {
            **spectrum.STATED,
            "middle_yx": sides["frc"],
            "criteria": CRITERIA,
            "limit_nm": how.rings and 1 / how.rings.limit,
        },
        "lpips": {
            **perceptual.STATED,
            "middle_yx": sides["lpips"],
            "network": how.lpips and how.lpips.backbone.name,
            "sha256": hashes,
        },
    }
