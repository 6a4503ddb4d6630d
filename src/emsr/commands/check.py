"""`emsr check`: open everything that a config names and say what does not fit, before a workflow writes anything."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsr import config_files, plugins
from emsr.config import Config, Range, Segment, Superresolve, WeightsFile, parse

if TYPE_CHECKING:
    from torch import nn

    from emsr.schema import Lpips
    from emsr.schema_parts import Accelerators
    from emsr.schema_volume import Samples

log = logging.getLogger(__name__)


def check(configs: list[Path]) -> None:
    """Check config.yaml and overlays, in order: open all that they name and refuse what does not fit."""
    check_config(read_configs(configs))


def read_configs(configs: list[Path]) -> Config:
    """config.yaml and overlays, in order, as one config; ValueError or OSError, in one line, for a mistake in them."""
    from snakemake.utils import update_config

    values: dict[str, Any] = {}
    for file in configs:
        update_config(values, config_files.read(file))
    return parse(values)


def stop_unless_fit(config: Config) -> None:
    """As `check_config`, for Snakemake: a mistake ends the program with one line, and without Snakemake's own."""
    try:
        check_config(config)
    except (ValueError, OSError) as error:
        raise SystemExit(f"emsr: error: {' '.join(str(error).split())}") from None


def check_config(config: Config) -> None:
    """Raise ValueError or OSError, in one line, for the first source, range, weights or recipe that does not fit, and
    where the disk has no room for what is not there yet.
    """
    from emsr.commands.check_extent import check_extent
    from emsr.commands.check_scales import check_acquired
    from emsr.commands.check_sources import check_sources
    from emsr.commands.check_training import check_training
    from emsr.commands.space import check_space

    shapes = {
        name: check_sources(name, volume, config.scales(name), config.ingest) for name, volume in config.volumes.items()
    }
    for name, what, ranges in _ranges(config):
        depth = shapes[name][0]
        for start, stop in ranges:
            if not start < stop <= depth:
                raise ValueError(f"{what} [{start}, {stop}] does not lie in volume {name} of {depth} sections")
    asked = {"superresolve": config.superresolve.accelerators}
    asked |= {f"trainings.{name}": training.accelerators for name, training in config.trainings.items()}
    for where, accelerators in asked.items():
        if accelerators:
            _check_accelerators(where, accelerators)
    for name, volume in config.volumes.items():
        check_extent(f"volumes.{name}", volume, config, shapes[name])
        if isinstance(volume.weights, WeightsFile):
            _check_weights(name, volume.weights, config.superresolve)
            _check_samples(name, volume.weights, volume.samples)
        for segmentation, part in (volume.segmentations or {}).items():
            if isinstance(part.weights, WeightsFile):
                _check_affinities(f"{name}, segmentation {segmentation},", part.weights, config.segment)
    if config.score and config.score.lpips:
        _check_lpips(config.score.lpips)
    for name, training in config.trainings.items():
        check_training(name, training, config.windows(name))
        check_acquired(name, training, config.volumes)
    if doubt := check_space(config, shapes):
        log.warning("%s", doubt)


def _ranges(config: Config) -> Iterator[tuple[str, str, tuple[Range, ...]]]:
    """Volume, what it is for, and ranges of sections."""
    for name, volume in config.volumes.items():
        yield name, f"volumes.{name}: test", volume.test or ()
    for training, part in config.trainings.items():
        for data in part.data:
            yield data.volume, f"trainings.{training}: train", data.train
            yield data.volume, f"trainings.{training}: validation", data.validation


def _check_weights(name: str, weights: WeightsFile, how: Superresolve) -> None:
    """The weights super-resolve, take the window, are whole and fit the network that their card describes."""
    from emsr.commands.check_training import said_of
    from emsr.inference.allocation import check_protocol
    from emsr.inference.clips import check_network
    from emsr.plan import check_window

    path = Path(weights.path)
    card = _card_of(name, path, "sr")
    window = how.window or card.get("window")
    if window is None:
        raise ValueError(f"card of {path} states no window; set superresolve.window, in lr pixels")
    with said_of(f"weights {path} of volume {name}"):
        check_protocol(card, path)
        check_window(window, how.overlap, card)
    network = _check_tensors(path, card)
    with said_of(f"weights {path} of volume {name}"):
        check_network(card, network)


def _check_samples(name: str, weights: WeightsFile, samples: Samples | None) -> None:
    """The weights are of a model that samples can be drawn of, where they are asked for."""
    from emsr.models.checkpoint import load_card

    model = load_card(Path(weights.path))["model"]
    if samples and not plugins.has(plugins.file_of("models", model), "LATENTS"):
        raise ValueError(f"volumes.{name}.samples: weights {weights.path} of {model} give one image; leave samples out")


def _check_affinities(name: str, weights: WeightsFile, how: Segment) -> None:
    """The weights predict affinities, take the window, are whole and fit the network that their card describes."""
    from emsr.commands.check_training import said_of
    from emsr.inference.affinities import output_window

    path = Path(weights.path)
    card = _card_of(name, path, "affinity")
    network: Any = _check_tensors(path, card)
    with said_of(f"weights {path} of volume {name}"):
        output_window(how.model_dump(), card, network.geometry)


def _check_accelerators(where: str, accelerators: Accelerators) -> None:
    """The packages that shall compute layers can be imported."""
    from emsr.commands.check_training import said_of
    from emsr.layers.accelerators import check

    with said_of(where):
        check(accelerators.chosen)


def _check_lpips(files: Lpips) -> None:
    """Both files are of one published network."""
    from emsr.commands.check_training import said_of
    from emsr.models.published_lpips import load

    with said_of("score.lpips"):
        load(Path(files.backbone), Path(files.linear))


def _card_of(name: str, path: Path, output: str) -> dict[str, Any]:
    """The card of a file of weights, which are those of a last stage and give `output` ("sr" or "affinity")."""
    from emsr.commands.check_training import said_of
    from emsr.models.checkpoint import load_card

    card = load_card(path)
    with said_of(f"card of {path}"):
        file = plugins.file_of("models", card["model"])
        last = list(plugins.literal(file, "NEEDS"))[-1]  # type: ignore[call-overload]
    if card["stage"] != last:
        raise ValueError(f"weights {path} of volume {name} are of stage {card['stage']}; the whole network is {last}")
    if (given := plugins.output(file)) != output:
        raise ValueError(f"weights {path} of volume {name} give {given}, {output} is needed; name others")
    return card


def _check_tensors(path: Path, card: Mapping[str, Any]) -> nn.Module:
    """The network of a card, untrained, which the tensors beside it fit."""
    from emsr.commands.check_training import check_state, said_of, untrained
    from emsr.models.checkpoint import load_state

    state = load_state(path, card)
    with said_of(f"card of {path}"):
        network = untrained(card)
    check_state(network, state, path)
    return network
