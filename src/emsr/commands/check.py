"""`emsr check`: open everything that a config names and say what does not fit, before a workflow writes anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from emsr import plugins
from emsr.config import Config, Range, Source, Superresolve, Training, Volume, WeightsFile, parse

if TYPE_CHECKING:
    from emsr.stores.source import Source as Opened


def check(configs: list[Path]) -> None:
    """Check config.yaml and overlays, in order: open all that they name and refuse what does not fit."""
    from snakemake.utils import update_config

    values: dict[str, Any] = {}
    for file in configs:
        update_config(values, yaml.safe_load(file.read_text(encoding="utf-8")) or {})
    check_config(parse(values))


def check_config(config: Config) -> None:
    """Raise ValueError or FileNotFoundError, in one line, for the first source, range or weights that do not fit."""
    shapes = {name: _check_volume(name, volume) for name, volume in config.volumes.items()}
    for name, what, ranges in _ranges(config):
        depth = shapes[name][0]
        for start, stop in ranges:
            if not start < stop <= depth:
                raise ValueError(f"{what} [{start}, {stop}] does not lie in volume {name} of {depth} sections")
    for name, volume in config.volumes.items():
        if isinstance(volume.weights, WeightsFile):
            _check_weights(name, volume.weights, config.superresolve)
    for name, training in config.trainings.items():
        _check_network(name, training, config.superresolve.window)


def _ranges(config: Config) -> Iterator[tuple[str, str, tuple[Range, ...]]]:
    """Volume, what it is for, and ranges of sections."""
    for name, volume in config.volumes.items():
        yield name, f"volumes.{name}: test", volume.test or ()
    for training, part in config.trainings.items():
        for data in part.data:
            yield data.volume, f"trainings.{training}: train", data.train
            yield data.volume, f"trainings.{training}: validation", data.validation


def _check_volume(name: str, volume: Volume) -> tuple[int, int, int]:
    """The shape (z, y, x) of a volume's images inside its region; every source of it is fit to be ingested."""
    from emsr.stores.admission import check_same_shape

    if volume.tissue:
        return volume.tissue.shape
    shapes = {image: _admit(source, image, volume) for image, source in _sources(volume)}
    if volume.hr and volume.labels:
        with_labels, with_hr = (_opened(source) for source in (volume.labels, volume.hr))
        check_same_shape(with_labels, with_hr)
    return shapes["hr" if volume.hr else "lr"]


def _sources(volume: Volume) -> Iterator[tuple[str, Source]]:
    for image in ("hr", "lr", "labels"):
        source = getattr(volume, image)
        if source is not None:
            yield image, source


def _opened(source: Source) -> Opened:
    """The source, opened and closed again: what it says about itself."""
    from emsr.stores import open_source

    opened = open_source(Path(source.path), source.dataset)
    opened.close()
    return opened


def _admit(source: Source, image: str, volume: Volume) -> tuple[int, int, int]:
    """The shape of what is used of a source."""
    from emsr.stores import open_source
    from emsr.stores.admission import admit

    opened = open_source(Path(source.path), source.dataset)
    try:
        return admit(opened, image, source.voxel_size_nm, volume.region).box.shape
    finally:
        opened.close()


def _check_weights(name: str, weights: WeightsFile, how: Superresolve) -> None:
    """The weights are whole, those of a last stage, and take the window."""
    from emsr.models.checkpoint import load_card, load_state
    from emsr.plan import check_window

    path = Path(weights.path)
    card = load_card(path)
    last = list(plugins.literal(plugins.file_of("models", card["model"]), "NEEDS"))[-1]  # type: ignore[call-overload]
    if card["stage"] != last:
        raise ValueError(f"weights {path} of volume {name} are of stage {card['stage']}; the whole network is {last}")
    window = how.window or card.get("window")
    if window is None:
        raise ValueError(f"card of {path} states no window; set superresolve.window, in lr pixels")
    check_window(window, how.overlap, card)
    load_state(path, card)


def _check_network(name: str, training: Training, window: int | None) -> None:
    """Every stage's network can be built (without memory: on the meta device) and takes the window."""
    import torch

    from emsr.models.stage import overridden
    from emsr.plan import check_window

    model = plugins.load("models", training.model.name)
    try:
        options = overridden(model.PRESETS[training.model.preset], training.model.options)
        with torch.device("meta"):
            model.build(training.scale, training.sections, options)
        check_window(window or training.window, 0, {"options": asdict(options), "scale": training.scale})
    except ValueError as error:
        raise ValueError(f"trainings.{name}: {error}") from None
