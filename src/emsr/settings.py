"""The slice of config that each rule depends on, and the files that it reads.

Rules pass a slice as one JSON argument and in ``params``, so a changed value reruns just the rules that depend on it.
A slice also holds the step's result number, raised when the code's output changes. What cannot change a result (jobs,
workers) is in no slice.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from emsr import places, scales
from emsr.config import Config, Data, Source, Training, Volume, WeightsFile, parse
from emsr.fingerprints import content_sha256, fingerprint, hashed
from emsr.plan import proved
from emsr.scales import Scale
from emsr.schema_parts import Intensity, accelerated
from emsr.slices import IMAGES, of_stage, own_model, reads, result_number, text

DEVIATION = "deviation/"  # where, below a volume, what says how far samples of sr lie apart is made as sr is
METADATA = ("zarr.json", ".zattrs", ".zgroup", "attributes.json", "info")  # what changes with a folder of chunks


class Settings:
    """Slices and paths of one validated config."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.root = config.results

    @classmethod
    def read(cls, values: dict[str, Any]) -> Settings:
        """The settings in ``values``, as read from YAML; a mistake in them ends the program with one line."""
        try:
            return cls(parse(values))
        except (ValueError, OSError) as error:
            raise SystemExit(f"emsr: error: {error}") from None

    # paths

    def path(self, *parts: str) -> str:
        """A path below the results folder."""
        return "/".join((self.root, *parts))

    def image(self, volume: str, image: str) -> str:
        """The card of one image of a volume."""
        return self.path(volume, f"{image}.json")

    def lr_image(self, volume: str, scale: Scale | str) -> str:
        """The name of a volume's coarse image at ``scale``: its own, or the one made from hr."""
        named = scale if isinstance(scale, str) else scales.name(scale)
        return "lr" if self.config.volumes[volume].lr else f"lr_x{named}"

    def hr_image(self, volume: str) -> str:
        """The name of the fine image on the grid of lr: hr itself, or what was registered to lr."""
        return "hr_registered" if self.config.volumes[volume].registration else "hr"

    def labels_image(self, volume: str) -> str:
        """The name of a volume's labels on the grid of lr: labels themselves, or what followed hr onto it."""
        return "labels_registered" if self.config.volumes[volume].registration else "labels"

    def stage(self, training: str, stage: str) -> str:
        """The card of a trained stage, which may belong to another training."""
        return self.path("trainings", self.config.owner(training, stage), f"{stage}.json")

    def source(self, volume: str, image: str) -> list[str]:
        """The files whose time stamps say that an image's source, or what its grey levels are mapped by, changed."""
        part = self.config.volumes[volume]
        if part.tissue and image != "mask":
            return [self.path(volume, "tissue.h5")]
        images = [image, "lr"] if image == "hr" and part.shares_intensity else [image]
        return list(dict.fromkeys(file for each in images for file in self._watched(part, each)))

    def noise_image(self, volume: str) -> list[str]:
        """The card of the image that the noise of a made lr is estimated from, if it is."""
        degradation = self.config.volumes[volume].degradation
        estimate = degradation and degradation.noise and degradation.noise.estimate
        return [self.image(estimate, "lr")] if estimate else []

    def accept_mismatch(self, volume: str) -> str:
        """The option of ``allocate`` by which a volume takes weights that were trained on images unlike its lr."""
        return "--accept-mismatch" if self.config.volumes[volume].accept_mismatch else ""

    def _watched(self, part: Volume, image: str) -> list[str]:
        path = places.local(self._source(part, image).path)
        if path is None:
            return []
        if path.is_file():
            return [str(path)]
        return [str(file) for name in METADATA if (file := path / name).is_file()][:1]

    def card(self, volume: str) -> str:
        """The card of the weights that super-resolve ``volume``."""
        weights = self.config.volumes[volume].weights
        if isinstance(weights, WeightsFile):
            return str(weights.card)
        if weights is None:
            raise ValueError(f"volume {volume} names no weights, so it is not super-resolved")
        return self.stage(weights, self.config.trainings[weights].last_stage)

    def lr(self, volume: str) -> str:
        """The card of the coarse image that is super-resolved."""
        return self.image(volume, self.lr_image(volume, self.scale(volume)))

    def scale(self, volume: str) -> Scale:
        """The scale that ``volume`` is super-resolved at."""
        return self.config.scale(volume)

    def train_inputs(self, training: str, stage: str) -> list[str]:
        """Image cards and cards of earlier stages that ``stage`` reads."""
        part = self.config.trainings[training]
        images = [image for data in part.data for image in self._images(data, part, stage).values() if image]
        cards = [self.stage(training, earlier) for earlier in part.needs[stage]]
        return list(dict.fromkeys(images)) + cards

    def marks(self, volume: str, part: str = "") -> list[str] | None:
        """The marks that a proof already stands on, however many jobs there are now; None if there is no such proof."""
        return standing(Path(self.path(volume, f"{part}sr", "proof.json")), self.stitch(volume, part))

    def mask(self, volume: str) -> list[str]:
        """The card of the mask, if there is one."""
        return [self.image(volume, "mask")] if self.config.volumes[volume].mask else []

    def truth(self, volume: str) -> list[str]:
        """The card of hr on the grid of lr, if there is one."""
        return [self.image(volume, self.hr_image(volume))] if self.config.volumes[volume].has_hr else []

    @property
    def superresolved(self) -> list[str]:
        """Volumes that name weights."""
        return [name for name, volume in self.config.volumes.items() if volume.weights is not None]

    @property
    def only_segmented(self) -> list[str]:
        """Volumes that name no weights and whose segmentations are scored."""
        return [
            name
            for name, volume in self.config.volumes.items()
            if volume.weights is None and self.segmentation_scores(name)
        ]

    @property
    def report_path(self) -> str:
        """The page that a run ends in."""
        return self.path("report.html")

    @property
    def targets(self) -> list[str]:
        """The JSON of every stage of every volume and training, and the report. Of stages on the way only those whose
        arrays stand, so that one whose card was taken away (`emsr repair`) is made again.
        """
        config = self.config
        images = [self.image(name, self.labels_image(name)) for name, part in config.volumes.items() if part.has_labels]
        cards = [self.stage(name, stage) for name, part in config.trainings.items() for stage in part.stages]
        sr = [self.path(name, part) for name in self.superresolved for part in ("sr.json", "scores.json")]
        sr += [self.path(name, f"{DEVIATION}sr.json") for name in self.superresolved if config.volumes[name].samples]
        sr += [
            self.path(name, "segmentations", segmentation, "segments.json")
            for name, part in config.volumes.items()
            for segmentation in part.segmentations or ()
        ]
        sr += [path for name in config.volumes if (path := self.segmentation_scores(name))]
        return list(dict.fromkeys([*images, *cards, *sr, *self._on_the_way(), *self.removed, self.report_path]))

    def _on_the_way(self) -> list[str]:
        """The cards of images and of parts of segmentations whose arrays stand and that `keep` does not remove."""
        images = [self.lr(name) for name in self.superresolved]
        images += [path for name in self.config.volumes for path in (*self.truth(name), *self.mask(name))]
        images += [path for name, part in self.config.trainings.items() for path in self._seen(name, part.stages)]
        standing = [path for path in images if any(map(os.path.lexists, (f"{path[:-5]}.zarr", f"{path[:-5]}.link")))]
        made = {"affinities": ("affinities",), "fragments": ("fragments", "agglomeration")}
        kept = [part for stage, parts in made.items() if stage not in self.discarded for part in parts]
        folders = [
            Path(self.path(name, "segmentations", segmentation, part))
            for name, volume in self.config.volumes.items()
            for segmentation in volume.segmentations or ()
            for part in kept
        ]
        arrays = [folder for folder in folders if any(folder.glob(f"{folder.name}-*.zarr"))]
        merges = [folder for folder in folders if (folder / "history.npz").is_file()]
        return [*standing, *(f"{folder}.json" for folder in (*arrays, *merges))]

    def _seen(self, training: str, stages: Iterable[str]) -> list[str]:
        """The image cards that a training reads."""
        read = [path for stage in stages for path in self.train_inputs(training, stage)]
        return [path for path in read if not path.startswith(self.path("trainings", ""))]

    @property
    def discarded(self) -> list[str]:
        """The stages of segmentations whose arrays are not kept."""
        return [stage for stage, kept in self.config.keep or () if not kept]

    @property
    def removed(self) -> list[str]:
        """What says that the arrays of a segmentation that are not kept were removed."""
        return [
            self.path(name, "segmentations", segmentation, "removed.json")
            for name, part in self.config.volumes.items()
            for segmentation in (part.segmentations or ())
            if self.discarded
        ]

    # slices

    def grow(self, volume: str) -> str:
        """Shape, voxel size and seed."""
        tissue = self.config.volumes[volume].tissue
        if tissue is None:
            raise ValueError(f"volume {volume} is not synthetic")
        return text("grow", tissue.model_dump(mode="json"))

    def ingest(self, volume: str, image: str) -> str:
        """Source, region and layout of one image."""
        part = self.config.volumes[volume]
        stated = self._source(part, image)
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
            {**data.model_dump(mode="json", exclude={"image"}), **self._images(data, part, stage)} for data in part.data
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

    def segmentation_scores(self, volume: str) -> str | None:
        """The scores of a volume's segmentations: it has some, labels, and test sections."""
        part = self.config.volumes[volume]
        scored = part.segmentations and part.has_labels and part.test
        return self.path(volume, "segmentation.json") if scored else None

    @property
    def evidence(self) -> list[str]:
        """Everything that the report is made from."""
        cards = [self.stage(name, stage) for name, part in self.config.trainings.items() for stage in part.stages]
        shown = [self._shown(name) for name in self.superresolved]
        shown += [self._shown_segmented(name) for name in self.only_segmented]
        files = [path for paths in shown for path in paths.values() if path]
        return list(dict.fromkeys([*cards, *files, *self.removed]))

    def report(self) -> str:
        """Title, the config without what changes no result, and where the evidence lies."""
        config = self.config.model_dump(mode="json", exclude_none=True, exclude={"jobs", "workers", "canary", "keep"})
        values = {
            "title": self.config.report.title,
            "config": config,
            "volumes": {name: {"scale": self.scale(name), **self._shown(name)} for name in self.superresolved},
            "segmented": {name: self._shown_segmented(name) for name in self.only_segmented},
            "trainings": {
                name: {stage: self.stage(name, stage) for stage in part.stages}
                for name, part in self.config.trainings.items()
            },
            "benchmarks": self.path("benchmarks"),
        }
        return text("report", values)

    # parts of slices

    def _shown(self, volume: str) -> dict[str, str | None]:
        """The files of a volume that the report reads."""
        samples = {"deviation": self.path(volume, f"{DEVIATION}sr.json")} if self.config.volumes[volume].samples else {}
        return samples | {
            "lr": self.lr(volume),
            "hr": next(iter(self.truth(volume)), None),
            "sr": self.path(volume, "sr.json"),
            "scores": self.path(volume, "scores.json"),
            "segmentation": self.segmentation_scores(volume),
            "allocate": self.path(volume, "sr", "allocate.json"),
            "card": self.card(volume),
        }

    def _shown_segmented(self, volume: str) -> dict[str, str | None]:
        """As ``_shown``, of a volume that is only segmented."""
        return {"hr": self.image(volume, self.hr_image(volume)), "segmentation": self.segmentation_scores(volume)}

    def _source(self, part: Volume, image: str) -> Source:
        if part.tissue and image != "mask":
            dataset = {"hr": "volumes/raw", "labels": "volumes/labels/neuron_ids"}[image]
            volume = next(name for name, other in self.config.volumes.items() if other is part)
            return Source.model_construct(path=self.path(volume, "tissue.h5"), dataset=dataset, voxel_size_nm=None)
        source: Source | None = getattr(part, image)
        if source is None:
            raise ValueError(f"no source of {image} is stated")
        return source

    def _mapping(self, volume: str, image: str, mapping: Intensity) -> dict[str, Any]:
        """How grey levels are mapped; ``of`` is the source whose percentiles count, where it is another."""
        values = mapping.model_dump(mode="json", exclude_none=True)
        if image == "hr" and self.config.volumes[volume].shares_intensity:
            values["of"] = json.loads(self.ingest(volume, "lr"))["source"]
        return values

    def _layout(self) -> dict[str, Any]:
        return self.config.ingest.model_dump()

    def _images(self, data: Data, training: Training, stage: str) -> dict[str, str | None]:
        """The cards of the images of a volume that ``stage`` reads; None for hr and lr where it does not.

        A stage that learns from labels reads them, and the image that the data name.
        """
        read = reads(training, stage)
        if "labelled" in read:
            image = self.hr_image(data.volume) if data.image in (None, "hr") else str(data.image)
            labels = self.labels_image(data.volume)
            return {"image": self.image(data.volume, image), "labels": self.image(data.volume, labels)}
        names = {"hr": self.hr_image(data.volume), "lr": self.lr_image(data.volume, training.scale)}
        return {image: self.image(data.volume, names[image]) if image in read else None for image in IMAGES}


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
