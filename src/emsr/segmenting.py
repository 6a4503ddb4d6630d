"""Paths and slices of segmentations: what the rules of segment.smk read, write and depend on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emsr import scales
from emsr.fingerprints import content_sha256
from emsr.schema_parts import WeightsFile
from emsr.schema_segment import Segmentation
from emsr.settings import Settings, standing
from emsr.slices import own_model, result_number, text

SHARED = ("shard", "chunk", "precision", "device")


class Segmenting:
    """The segmentations of one validated config."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.config = settings, settings.config
        self.segment = settings.config.segment

    @property
    def names(self) -> dict[str, list[str]]:
        """Volumes that are segmented, and their segmentations."""
        return {name: list(part.segmentations) for name, part in self.config.volumes.items() if part.segmentations}

    def of(self, volume: str, name: str) -> Segmentation:
        """One segmentation, as stated."""
        return (self.config.volumes[volume].segmentations or {})[name]

    # paths

    def path(self, volume: str, name: str, *parts: str) -> str:
        """A path below the folder of a segmentation."""
        return self.settings.path(volume, "segmentations", name, *parts)

    def image(self, volume: str, name: str) -> str:
        """The card of the image that is segmented."""
        image: str = self.of(volume, name).image
        if image == "bicubic":
            image = f"bicubic_x{scales.name(self.settings.scale(volume))}"
        return self.settings.image(volume, self.settings.hr_image(volume) if image == "hr" else image)

    def card(self, volume: str, name: str) -> str:
        """The card of the affinity network."""
        weights = self.of(volume, name).weights
        if isinstance(weights, WeightsFile):
            return str(weights.card)
        return self.settings.stage(weights, self.config.trainings[weights].last_stage)

    def labels(self, volume: str) -> list[str]:
        """The card of the labels, if there are any."""
        labels = self.settings.labels_image(volume)
        return [self.settings.image(volume, labels)] if self.config.volumes[volume].has_labels else []

    def truth(self, volume: str, name: str) -> list[str]:
        """The labels, where validation chooses the threshold."""
        return self.labels(volume) if self.of(volume, name).threshold is None else []

    def marks(self, volume: str, name: str, stage: str) -> list[str] | None:
        """The marks that a proof of "affinities" or "fragments" stands on; None if there is no such proof."""
        settings: str = getattr(self, f"prove_{stage}")(volume, name)
        return standing(Path(self.path(volume, name, stage, "proof.json")), settings)

    @property
    def lacking(self) -> list[str]:
        """Allocations, marks and thresholds that are gone though arrays and what was made of them stand.

        Snakemake looks no further back than what stands already. Cards are targets of their own.
        """
        return [path for path in dict.fromkeys(self._behind()) if not os.path.exists(path)]

    def _behind(self) -> Iterator[str]:
        settings = self.settings
        for volume in settings.superresolved:
            if all(os.path.exists(settings.path(volume, name)) for name in ("sr.json", "sr.zarr")):
                yield from (settings.path(volume, "sr", "allocate.json"), *(settings.marks(volume) or ()))
        kept = [stage for stage in ("affinities", "fragments") if stage not in settings.discarded]
        for volume, names in self.names.items():
            for name in names:
                if not os.path.exists(self.path(volume, name, "segments.json")):
                    continue
                for stage in kept:
                    if any(Path(self.path(volume, name, stage)).glob(f"{stage}-*.zarr")):
                        marks = self.marks(volume, name, stage) or ()
                        yield from (self.path(volume, name, stage, "allocate.json"), *marks)
                if os.path.exists(self.path(volume, name, "agglomeration.json")):
                    yield self.path(volume, name, "threshold.json")

    # slices

    def allocate_affinities(self, volume: str, name: str) -> str:
        """What decides affinities and their layout."""
        weights = self.of(volume, name).weights
        keys = {"depth", "window", "overlap", "depth_overlap", *SHARED}
        values: dict[str, Any] = self.segment.model_dump(mode="json", include=keys)
        values["weights"] = content_sha256(Path(weights.path)) if isinstance(weights, WeightsFile) else None
        if isinstance(weights, str):
            values["model_sha256"] = own_model(self.config.trainings[weights])
        values["affinities_result"] = result_number("affinities")
        return text("allocate-affinities", values)

    def affinities(self, volume: str, name: str) -> str:
        """What ``allocate_affinities`` was given."""
        return text("affinities", json.loads(self.allocate_affinities(volume, name)))

    def prove_affinities(self, volume: str, name: str) -> str:
        """What ``affinities`` was given."""
        return text("prove-affinities", json.loads(self.affinities(volume, name)))

    def allocate_fragments(self, volume: str, name: str) -> str:
        """How affinities are cut."""
        values: dict[str, Any] = self.segment.fragments.model_dump(mode="json")
        values |= {"chunk": list(self.segment.chunk), "fragments_result": result_number("fragments")}
        return text("allocate-fragments", values)

    def fragments(self, volume: str, name: str) -> str:
        """What ``allocate_fragments`` was given."""
        return text("fragments", json.loads(self.allocate_fragments(volume, name)))

    def prove_fragments(self, volume: str, name: str) -> str:
        """What ``fragments`` was given."""
        return text("prove-fragments", json.loads(self.fragments(volume, name)))

    def agglomerate(self, volume: str, name: str) -> str:
        """How fragments are merged."""
        values = self.segment.agglomeration.model_dump(mode="json", include={"method", "until"})
        return text("agglomerate", {**values, "affinities": self.path(volume, name, "affinities.json")})

    def choose_threshold(self, volume: str, name: str) -> str:
        """The threshold, or the sections and candidates that it is chosen from."""
        part = self.of(volume, name)
        values: dict[str, Any] = {"threshold": part.threshold}
        if part.threshold is None:
            validation = self.config.validation_of(str(part.weights), volume)
            candidates = list(self.segment.agglomeration.thresholds)
            values |= {"labels": self.labels(volume)[0], "validation": validation, "candidates": candidates}
            values |= self._borders()
        return text("choose-threshold", values)

    def segments(self) -> str:
        """The layout of segments."""
        return text("segment", {"chunk": list(self.segment.chunk)})

    def discard(self, volume: str) -> str:
        """What is removed, and the scores that must have been made before."""
        scores = self.settings.segmentation_scores(volume)
        return text("discard", {"stages": self.settings.discarded, "scores": scores})

    def scores(self, volume: str) -> list[str]:
        """The scores of a volume's segmentations, where it has any."""
        scores = self.settings.segmentation_scores(volume)
        return [scores] if scores else []

    def scored(self, volume: str) -> list[str]:
        """Everything that the scores of a volume's segmentations are made from."""
        files = [path for part in self._scored(volume).values() for path in part.values() if path.endswith(".json")]
        return [*self.labels(volume), *files]

    def score_segments(self, volume: str) -> str:
        """Which sections are scored against the labels, and how."""
        part = self.config.volumes[volume]
        weights = {str(one.weights) for one in (part.segmentations or {}).values() if isinstance(one.weights, str)}
        validation = [section for name in sorted(weights) for section in self.config.validation_of(name, volume)]
        values: dict[str, Any] = self.segment.scores.model_dump(mode="json")
        values |= {"volume": volume, "test": part.test, "validation": sorted(set(validation)) or None}
        values |= {"labels": self.labels(volume)[0], "segmentations": self._scored(volume)}
        return text("score-segments", values)

    def _scored(self, volume: str) -> dict[str, dict[str, str]]:
        files = {"segments": "segments.json", "affinities": "affinities.json", "threshold": "threshold.json"}
        return {
            name: {"image": self.of(volume, name).image}
            | {key: self.path(volume, name, file) for key, file in files.items()}
            for name in self.names[volume]
        }

    def _borders(self) -> dict[str, Any]:
        return self.segment.scores.model_dump(mode="json", include={"border_nm", "in_plane", "absorb"})
