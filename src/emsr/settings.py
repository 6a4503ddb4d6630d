"""The slice of config that each rule depends on.

Rules pass a slice as one JSON argument and in ``params``, so a changed value reruns just the rules that depend on it.
A slice also holds the step's result number, raised when the code's output changes. What cannot change a result (jobs,
workers) is in no slice.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from emsr import places, scales
from emsr.config import WeightsFile, parse
from emsr.fingerprints import content_sha256, fingerprint, hashed
from emsr.paths import DEVIATION, Paths
from emsr.schema_parts import Intensity, accelerated
from emsr.shards import proved
from emsr.slices import of_stage, own_model, result_number, text


class Settings(Paths):
    """Slices and paths of one validated config."""

    @classmethod
    def read(cls, values: dict[str, Any]) -> Settings:
        """The settings in ``values``, as read from YAML; a mistake in them ends the program with one line."""
        try:
            return cls(parse(values))
        except (ValueError, OSError) as error:
            raise SystemExit(f"emsr: error: {error}") from None

    def marks(self, volume: str, part: str = "") -> list[str] | None:
        """The marks that a proof already stands on, however many jobs there are now; None if there is no such proof."""
        return standing(Path(self.path(volume, f"{part}sr", "proof.json")), self.stitch(volume, part))

    def grow(self, volume: str) -> str:
        """Shape, voxel size and seed."""
        tissue = self.config.volumes[volume].tissue
        if tissue is None:
            raise ValueError(f"volume {volume} is not synthetic")
        return text("grow", tissue.model_dump(mode="json"))

    def ingest(self, volume: str, image: str) -> str:
        """Source, region and layout of one image."""
        part = self.config.volumes[volume]
        stated = self.source_of(part, image)
        source = stated.model_dump(mode="json", exclude={"intensity", *(() if stated.membranes else ("membranes",))})
        source["fingerprint"] = _fingerprint(source["path"])
        values = {
            "image": image,
            "source": source,
            "region": part.region if image != "mask" else None,
            **self._layout(),
        }
        if image == "labels" and part.hr:
            values["hr"] = part.hr.model_dump(mode="json", include={"path", "dataset", "mip", "pattern"})
        if image in ("hr", "lr") and (mapping := part.mapping(image)):
            values["intensity"] = self._mapping(volume, image, mapping)
        return text("ingest", values)

    def degrade(self, volume: str, scale: str) -> str:
        """The imaging model."""
        degradation = self.config.volumes[volume].degradation
        if degradation is None:
            raise ValueError(f"volume {volume} states no degradation, so no lr is made from its hr")
        stated = degradation.model_dump(exclude={"noise"})
        if degradation.noise:
            estimate = next(iter(self.noise_image(volume)), None)
            stated["noise"] = {**degradation.noise.model_dump(), "estimate": estimate}
        return text("degrade", {"scale": scales.of_name(scale), "degradation": stated, **self._layout()})

    def enlarge(self, scale: str) -> str:
        """The factor and the layout."""
        return text("enlarge", {"scale": scales.of_name(scale), **self._layout()})

    def register(self, volume: str) -> str:
        """How hr is brought onto the grid of lr, and which grid that is."""
        registration = self.config.volumes[volume].registration
        used = list(self.config.scales(volume))
        if registration is None or not used:
            raise ValueError(f"volume {volume} states no registration, or neither weights nor a training use it")
        return text("register", {"scale": used[0], "registration": registration.model_dump(), **self._layout()})

    def register_labels(self) -> str:
        """The layout."""
        return text("register-labels", self._layout())

    def train(self, training: str, stage: str) -> str:
        """Everything that the weights of one stage depend on, and where it lies."""
        part = self.config.trainings[training]
        values = of_stage(part, stage)
        values["cards"] = {earlier: self.stage(training, earlier) for earlier in part.needs[stage]}
        values["data"] = [
            {**data.model_dump(mode="json", exclude={"image"}), **self.images_of(data, part, stage)}
            for data in part.data
        ]
        return text("train", values)

    def allocate(self, volume: str, part: str = "") -> str:
        """What decides the voxels of sr, or of its part ``DEVIATION``, and their layout."""
        how = self.config.superresolve
        values = how.model_dump(mode="json", exclude={"accelerators"}) | accelerated(how.accelerators)
        weights = self.config.volumes[volume].weights
        values["weights"] = content_sha256(Path(weights.path)) if isinstance(weights, WeightsFile) else None
        if isinstance(weights, str):
            values["model_sha256"] = own_model(self.config.trainings[weights])
        values["superresolve_result"] = result_number("superresolve")
        stated = self.config.volumes[volume]
        values |= {"pilot": stated.pilot} if stated.pilot else {}
        values |= {"scale": stated.scale} if stated.scale is not None else {}
        values |= {"mask": self.mask(volume)[0]} if stated.mask else {}
        values |= {"samples": stated.samples.model_dump()} if stated.samples and part == DEVIATION else {}
        return text("allocate", values)

    def superresolve(self, volume: str, part: str = "") -> str:
        """What ``allocate`` was given, and the result number of super-resolution."""
        return text("superresolve", json.loads(self.allocate(volume, part)))

    def stitch(self, volume: str, part: str = "") -> str:
        """What ``superresolve`` was given, and the result number of stitching."""
        return text("stitch", json.loads(self.superresolve(volume, part)))

    def score(self, volume: str) -> str:
        """Which sections are scored, against what, and with whose weights."""
        part, lpips = self.config.volumes[volume], self.config.score and self.config.score.lpips
        values = {
            "volume": volume,
            "test": part.test,
            "scale": self.scale(volume),
            "lr": self.lr(volume),
            "hr": next(iter(self.truth(volume)), None),
            "sr": self.path(volume, "sr.json"),
            "segmentation": self.segmentation_scores(volume),
            "lpips": {name: hashed(path) for name, path in lpips} if lpips and part.test else None,
        }
        return text("score", values)

    def report(self) -> str:
        """Title, the config without what changes no result, and where the evidence lies."""
        config = self.config.model_dump(mode="json", exclude_none=True, exclude={"jobs", "workers", "canary", "keep"})
        values = {
            "title": self.config.report.title,
            "config": config,
            "volumes": {name: {"scale": self.scale(name), **self.shown(name)} for name in self.superresolved},
            "segmented": {name: self.shown_segmented(name) for name in self.only_segmented},
            "trainings": {
                name: {stage: self.stage(name, stage) for stage in part.stages}
                for name, part in self.config.trainings.items()
            },
            "benchmarks": self.path("benchmarks"),
        }
        return text("report", values)

    def _mapping(self, volume: str, image: str, mapping: Intensity) -> dict[str, Any]:
        """How grey levels are mapped; ``of`` is the source whose percentiles count, where it is another."""
        values = mapping.model_dump(mode="json", exclude_none=True)
        if image == "hr" and self.config.volumes[volume].shares_intensity:
            values["of"] = json.loads(self.ingest(volume, "lr"))["source"]
        return values

    def _layout(self) -> dict[str, Any]:
        return self.config.ingest.model_dump()


def standing(proof: Path, settings: str) -> list[str] | None:
    """As ``proved``, for Snakemake: a proof that this emsr cannot read ends the program with one line."""
    try:
        return proved(proof, json.loads(settings))
    except ValueError as error:
        raise SystemExit(f"emsr: error: {error}") from None


def _fingerprint(place: str) -> str | None:
    """What says that a folder, or a volume behind an address, is another one; None for a file, which is watched."""
    path = places.local(place)
    if path is None:
        from emsr.stores.precomputed import fingerprint as of_address

        return of_address(place)
    return fingerprint(path) if path.is_dir() else None


def wildcard(names: list[str]) -> str:
    """A regular expression that matches exactly ``names``."""
    return "|".join(map(re.escape, names)) or "$^"
