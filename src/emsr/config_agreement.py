"""What the parts of config.yaml say of each other agrees: one line for the first thing that does not."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise, product
from typing import TYPE_CHECKING

from emsr import plugins
from emsr.scales import Scale, stated
from emsr.schema_parts import Range
from emsr.schema_segment import Segmentation, check_single_sections
from emsr.schema_training import Data, Training
from emsr.schema_volume import Volume

if TYPE_CHECKING:
    from emsr.config import Config

RESERVED = ("trainings", "logs", "benchmarks", "report")  # folders of the results beside those of volumes
GAP = 2  # sections that must lie between test and all that was seen
VALIDATION_GAP = 1  # the same between training and validation, which only chooses: networks never read beyond a range
Named = tuple[str, list[tuple[str, Range]]]  # what ranges are for, and each with its volume


def check(config: Config) -> None:
    """Raise ValueError, in one line, for the first part that does not fit another."""
    for what, named in (("volumes", config.volumes), ("trainings", config.trainings)):
        if len({name.lower() for name in named}) < len(named):
            raise ValueError(f"two {what} differ only in case; some file systems cannot tell them apart")
    for name, training in config.trainings.items():
        _check_data(config, name, training)
        _check_used(config, name, training)
        _check_splits(config, name)
    for name, volume in config.volumes.items():
        if name in RESERVED:
            raise ValueError(f"volume name {name!r} is a folder that emsr writes itself; choose another")
        if isinstance(volume.weights, str):
            _check_weights(config, name, volume, volume.weights)
        if volume.weights is not None:
            _check_shard(config, name, config.scale(name))
        _check_noise(config, f"volumes.{name}.degradation.noise", volume)
        if volume.registration:
            _check_registration(name, config.scales(name))
        if volume.segmentations and volume.labels and volume.labels.membranes:
            check_single_sections(f"volumes.{name}.segmentations", config.segment.scores)
        for segmentation, part in (volume.segmentations or {}).items():
            _check_segmentation(config, f"volumes.{name}.segmentations.{segmentation}", name, part)
        _check_one_validation(config, name)


def _check_data(config: Config, name: str, training: Training) -> None:
    for data in training.data:
        if data.volume not in config.volumes:
            raise ValueError(f"trainings.{name}: " + plugins.unknown("volume", data.volume, config.volumes))
        _check_can_train(config, name, training, data)
        for start, stop in (*data.train, *data.validation):
            if start >= stop:
                raise ValueError(
                    f"trainings.{name}: range [{start}, {stop}] of {data.volume} is empty; write [first, last + 1]"
                )


def _check_can_train(config: Config, name: str, training: Training, data: Data) -> None:
    volume = config.volumes[data.volume]
    if not volume.has_hr and (training.output == "sr" or data.image in (None, "hr")):
        raise ValueError(f"trainings.{name}: volume {data.volume} has no hr to train on")
    if training.output == "affinity" and not volume.has_labels:
        raise ValueError(f"trainings.{name}: volume {data.volume} has no labels to learn affinities from")


def _check_used(config: Config, name: str, training: Training) -> None:
    """A stage that is taken from another training stands on the same earlier stages there as here."""
    for stage, earlier in ((late, early) for late, needed in training.needs.items() for early in needed):
        owner = config.owner(name, stage)
        if owner != name and config.owner(name, earlier) != config.owner(owner, earlier):
            there, here = config.owner(owner, earlier), config.owner(name, earlier)
            raise ValueError(
                f"trainings.{name}: {stage} is that of {owner}, made with the {earlier} of {there}, not of {here}; "
                f"use {there} for {earlier} too"
            )


def _check_splits(config: Config, training: str) -> None:
    """Training, validation and test sections of one tissue lie apart, also those of stages taken from others."""
    seen = list(config.seen_by(training))
    train = [(data.volume, part) for data in seen for part in data.train]
    validation = [(data.volume, part) for data in seen for part in data.validation]
    tested = [name for name, volume in config.volumes.items() if training in _weights_of(volume)]
    test = [(name, part) for name in tested for part in config.volumes[name].test or ()]
    first, second, last = (f"trainings.{training}: train", train), ("validation", validation), ("test", test)
    _check_apart(config, first, second, VALIDATION_GAP)
    _check_apart(config, first, last, GAP)
    _check_apart(config, second, last, GAP)


def _weights_of(volume: Volume) -> list[object]:
    """Names and files of all weights that a volume's images are made or segmented with."""
    return [volume.weights, *(part.weights for part in (volume.segmentations or {}).values())]


def _check_weights(config: Config, name: str, volume: Volume, weights: str) -> None:
    """The training of a volume's weights gives sr of it, and samples of that where some are asked for."""
    if weights not in config.trainings:
        raise ValueError(f"volumes.{name}: " + plugins.unknown("training", weights, config.trainings))
    training = config.trainings[weights]
    if training.output != "sr":
        raise ValueError(f"volumes.{name}: training {weights} predicts affinities and not sr")
    if any(stage.get("protocol") == "rescaling" for stage in training.stages.values()):
        raise ValueError(
            f"volumes.{name}: training {weights} learns to enlarge its own lr (protocol rescaling), "
            "which super-resolves nothing; name another, or leave protocol out"
        )
    if volume.samples and not plugins.has(plugins.file_of("models", training.model.name), "LATENTS"):
        raise ValueError(
            f"volumes.{name}.samples: model {training.model.name} gives one image and no samples; take "
            "snadn or irn, or leave samples out"
        )
    _check_overlap(config, name, training.window)
    _check_scale(config, name, weights)


def _check_overlap(config: Config, volume: str, window: int) -> None:
    window = config.superresolve.window or window
    if config.superresolve.overlap >= window:
        raise ValueError(
            f"superresolve.overlap {config.superresolve.overlap} is not less than window {window} of volume {volume}"
        )


def _check_scale(config: Config, volume: str, training: str) -> None:
    """A volume's own scale is one that the network of its training has."""
    scale, trained = config.volumes[volume].scale, config.trainings[training]
    if scale is None or scale == trained.scale:
        return
    try:
        plugins.check_scale(trained.model.name, scale)
    except ValueError as error:
        raise ValueError(f"volumes.{volume}: {error}") from None
    if not plugins.has(plugins.file_of("models", trained.model.name), "SCALE_RANGE"):
        raise ValueError(
            f"volumes.{volume}: scale {stated(scale)} is not that of training {training}, {stated(trained.scale)}, "
            f"and model {trained.model.name} has one for each training; leave scale out, or name other weights"
        )


def _check_shard(config: Config, volume: str, scale: Scale) -> None:
    if isinstance(scale, int) and any(side % scale for side in config.superresolve.shard[1:]):
        raise ValueError(
            f"superresolve.shard {list(config.superresolve.shard)} is not a multiple of scale {scale} in y and x, "
            f"which volume {volume} needs"
        )


def _check_noise(config: Config, where: str, volume: Volume) -> None:
    """Noise is estimated from a volume that was imaged coarsely."""
    other = volume.degradation and volume.degradation.noise and volume.degradation.noise.estimate
    if not other:
        return
    if other not in config.volumes:
        raise ValueError(f"{where}.estimate: " + plugins.unknown("volume", other, config.volumes))
    if not config.volumes[other].lr:
        raise ValueError(f"{where}.estimate: volume {other} has no lr of its own; name one that was imaged coarsely")


def _check_registration(name: str, scales: Mapping[Scale, str]) -> None:
    """hr is registered at one whole scale; ``scales`` are those that the volume is used at, and what uses it so."""
    if not scales:
        raise ValueError(
            f"volumes.{name}: hr is registered at the scale of weights or of a training of super-resolution "
            "that reads the volume, and there is none; name one, or leave registration out"
        )
    if not all(isinstance(scale, int) for scale in scales):
        raise ValueError(
            f"volumes.{name}: hr is registered on the grid of lr times a whole scale; use one, or leave "
            "registration out"
        )
    if len(scales) > 1:
        users = ", ".join(f"{scale} by {user}" for scale, user in scales.items())
        raise ValueError(f"volumes.{name}: hr is registered at one scale, but used at {users}; drop one")


def _check_segmentation(config: Config, where: str, volume: str, part: Segmentation) -> None:
    """Weights that predict affinities, and a threshold: stated, or chosen on validation sections of this volume."""
    if not isinstance(part.weights, str):
        if part.threshold is None:
            raise ValueError(f"{where}: weights from a file have no validation sections; state threshold")
        return
    if part.weights not in config.trainings:
        raise ValueError(f"{where}: " + plugins.unknown("training", part.weights, config.trainings))
    training = config.trainings[part.weights]
    if training.output != "affinity":
        raise ValueError(f"{where}: training {part.weights} predicts no affinities; name one that does")
    if part.threshold is None and not config.validation_of(part.weights, volume):
        raise ValueError(f"{where}: {part.weights} has no validation sections in {volume}; state threshold")
    if part.threshold is not None and part.threshold > config.segment.agglomeration.until:
        raise ValueError(f"{where}: threshold {part.threshold} lies above segment.agglomeration.until; raise that")
    if part.image == "sr":
        _check_unseen(config, volume, part.weights)


def _check_unseen(config: Config, volume: str, training: str) -> None:
    """What chooses thresholds for segments of sr was not trained on to make sr: it would show too good an sr."""
    weights = config.volumes[volume].weights
    if isinstance(weights, str):
        train = [(data.volume, part) for data in config.seen_by(weights) for part in data.train]
        validation = [(volume, part) for part in config.validation_of(training, volume)]
        where = f"trainings.{training}, which segments its sr: validation"
        _check_apart(config, (f"trainings.{weights}: train", train), (where, validation), VALIDATION_GAP)


def _check_one_validation(config: Config, volume: str) -> None:
    """Networks of one volume that is scored agree on its validation sections, which choose thresholds for all."""
    stated = [(name, part) for name in config.segmented_by(volume) if (part := config.validation_of(name, volume))]
    for (one, some), (other, others) in pairwise(stated if config.volumes[volume].test else ()):
        if set(some) != set(others):
            raise ValueError(
                f"volumes.{volume}: validation {list(map(list, some))} of training {one} is not "
                f"{list(map(list, others))} of {other}, but both choose thresholds for its segmentations; "
                "state the same in both"
            )


def _check_apart(config: Config, some: Named, others: Named, gap: int) -> None:
    """At least ``gap`` sections lie between ranges of one kind and of another in one tissue."""
    (what, ranges), (other, against) = some, others
    for (volume, part), (place, rest) in product(ranges, against):
        one, two = _at(config, volume, part), _at(config, place, rest)
        if config.same_tissue(volume, place) and one[0] < two[1] + gap and two[0] < one[1] + gap:
            raise ValueError(
                f"{what} {list(part)} of {volume} and {other} {list(rest)} of {place} overlap or have "
                f"less than {gap} {'section' if gap == 1 else 'sections'} between them"
            )


def _at(config: Config, volume: str, part: Range) -> Range:
    """A range of sections counted from the start of the source."""
    region = config.volumes[volume].region
    first = region[0][0] if region else 0
    return part[0] + first, part[1] + first
