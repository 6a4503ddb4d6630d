"""The files of one validated config: what the rules read and write, and where it lies."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from emsr import places, scales
from emsr.config import Config, Data, Source, Training, Volume, WeightsFile
from emsr.scales import Scale
from emsr.slices import IMAGES, reads

DEVIATION = "deviation/"  # where, below a volume, what says how far samples of sr lie apart is made as sr is
METADATA = ("zarr.json", ".zattrs", ".zgroup", "attributes.json", "info")  # what changes with a folder of chunks


class Paths:
    """The paths of one validated config."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.root = config.results

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
        path = places.local(self.source_of(part, image).path)
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
        images = [image for data in part.data for image in self.images_of(data, part, stage).values() if image]
        cards = [self.stage(training, earlier) for earlier in part.needs[stage]]
        return list(dict.fromkeys(images)) + cards

    def mask(self, volume: str) -> list[str]:
        """The card of the mask, if there is one."""
        return [self.image(volume, "mask")] if self.config.volumes[volume].mask else []

    def truth(self, volume: str) -> list[str]:
        """The card of hr on the grid of lr, if there is one."""
        return [self.image(volume, self.hr_image(volume))] if self.config.volumes[volume].has_hr else []

    def segmentation_scores(self, volume: str) -> str | None:
        """The scores of a volume's segmentations: it has some, labels, and test sections."""
        part = self.config.volumes[volume]
        scored = part.segmentations and part.has_labels and part.test
        return self.path(volume, "segmentation.json") if scored else None

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

    @property
    def evidence(self) -> list[str]:
        """Everything that the report is made from."""
        cards = [self.stage(name, stage) for name, part in self.config.trainings.items() for stage in part.stages]
        shown = [self.shown(name) for name in self.superresolved]
        shown += [self.shown_segmented(name) for name in self.only_segmented]
        files = [path for paths in shown for path in paths.values() if path]
        return list(dict.fromkeys([*cards, *files, *self.removed]))

    def shown(self, volume: str) -> dict[str, str | None]:
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

    def shown_segmented(self, volume: str) -> dict[str, str | None]:
        """As ``shown``, of a volume that is only segmented."""
        return {"hr": self.image(volume, self.hr_image(volume)), "segmentation": self.segmentation_scores(volume)}

    def source_of(self, part: Volume, image: str) -> Source:
        """Where an image of a volume comes from; ValueError where it states none."""
        if part.tissue and image != "mask":
            dataset = {"hr": "volumes/raw", "labels": "volumes/labels/neuron_ids"}[image]
            volume = next(name for name, other in self.config.volumes.items() if other is part)
            return Source.model_construct(path=self.path(volume, "tissue.h5"), dataset=dataset, voxel_size_nm=None)
        source: Source | None = getattr(part, image)
        if source is None:
            raise ValueError(f"no source of {image} is stated")
        return source

    def images_of(self, data: Data, training: Training, stage: str) -> dict[str, str | None]:
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
