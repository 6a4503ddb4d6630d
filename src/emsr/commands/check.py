"""`emsr check`: open everything that a config names and say what does not fit, before a workflow writes anything."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsr import config_files, plugins
from emsr.config import Config, Layout, Range, Segment, Source, Superresolve, Volume, WeightsFile, parse
from emsr.scales import Scale, coarse_plane, fits, pair

if TYPE_CHECKING:
    from torch import nn

    from emsr.schema import Lpips, Samples
    from emsr.schema_parts import Accelerators
    from emsr.stores.admission import Admitted
    from emsr.stores.source import Source as Opened

log = logging.getLogger(__name__)
STRETCH = 0.1  # relative difference of scale and ratio of voxel sizes that registration takes
ROUNDING = 0.01  # relative difference of voxel sizes of hr and lr that counts as rounding


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
    from emsr.commands.check_training import check_training
    from emsr.commands.space import check_space

    shapes = {
        name: _check_volume(name, volume, config.scales(name), config.ingest) for name, volume in config.volumes.items()
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


def _check_volume(name: str, volume: Volume, scales: Mapping[Scale, str], layout: Layout) -> tuple[int, int, int]:
    """The shape (z, y, x) of a volume's images inside its region; every source of it is fit to be ingested.

    `scales` are those that the volume is used at, and what uses it so; `layout` is that of its arrays.
    """
    from emsr.stores.admission import check_same_shape

    admitted = {image: admitted_source(source, image, volume, layout) for image, source in _sources(volume)}
    if volume.hr and volume.labels:
        with_labels, with_hr = (_opened(source) for source in (volume.labels, volume.hr))
        check_same_shape(with_labels, with_hr)
        _check_same_voxels(f"volumes.{name}", admitted["hr"], admitted["labels"])
    if volume.hr and volume.lr:
        check = _check_registered if volume.registration else _check_pair
        _check_depth(f"volumes.{name}", admitted["hr"], admitted["lr"])
        check(f"volumes.{name}", admitted["hr"], admitted["lr"], scales)
    shape = volume.tissue.shape if volume.tissue else admitted["hr" if volume.hr else "lr"].box.shape
    for scale, user in scales.items():
        if volume.has_hr and 0 in coarse_plane(shape[1:], scale):
            raise ValueError(
                f"volumes.{name}: hr {list(shape)} is smaller than scale {scale} of {user}; use a larger one"
            )
    return shape


def _check_same_voxels(where: str, hr: Admitted, labels: Admitted) -> None:
    """Labels lie voxel by voxel on hr."""
    size, of_hr = labels.voxel_size_nm, hr.voxel_size_nm
    if any(abs(a - b) > ROUNDING * b for a, b in zip(size, of_hr, strict=True)):
        raise ValueError(
            f"{where}: voxel size {list(size)} nm of labels is not {list(of_hr)} nm of hr; correct the wrong one"
        )


def _check_depth(where: str, hr: Admitted, lr: Admitted) -> None:
    """hr and lr have as many sections."""
    depth, lr_depth = hr.box.shape[0], lr.box.shape[0]
    if depth != lr_depth:
        raise ValueError(
            f"{where}: hr has {depth} sections, lr {lr_depth}; cut one so that both show the same sections"
        )


def _check_registered(where: str, hr: Admitted, lr: Admitted, scales: Mapping[Scale, str]) -> None:
    """hr can be brought onto lr: square voxels about a scale apart, and sections that are large enough."""
    from emsr.registration import LEAST_SIDE

    for image, admitted in (("hr", hr), ("lr", lr)):
        _, y, x = admitted.voxel_size_nm
        if abs(y - x) > ROUNDING * x:
            raise ValueError(
                f"{where}: voxels of {image} are {y:g} x {x:g} nm in y and x; registration needs square ones"
            )
    if abs(hr.voxel_size_nm[0] - lr.voxel_size_nm[0]) > ROUNDING * lr.voxel_size_nm[0]:
        raise ValueError(
            f"{where}: sections of hr are {hr.voxel_size_nm[0]:g} nm thick, those of lr {lr.voxel_size_nm[0]:g}; "
            "state images of the same sections"
        )
    for scale, user in scales.items():
        if not isinstance(scale, int):
            continue  # the config refuses it
        ratio = lr.voxel_size_nm[2] / (scale * hr.voxel_size_nm[2])
        if abs(ratio - 1) > STRETCH:
            raise ValueError(
                f"{where}: voxels of lr ({lr.voxel_size_nm[2]:g} nm) are not about {scale} of hr "
                f"({hr.voxel_size_nm[2]:g} nm), the scale of {user}; correct voxel_size_nm or use another scale"
            )
        sides = [side // unit for image, unit in ((hr, scale), (lr, 1)) for side in image.box.shape[1:]]
        if min(sides) < LEAST_SIDE:
            raise ValueError(
                f"{where}: hr {list(hr.box.shape)} or lr {list(lr.box.shape)} is too small to be registered at scale "
                f"{scale} of {user}; {LEAST_SIDE} lr pixels along y and x are the least"
            )


def _check_pair(where: str, hr: Admitted, lr: Admitted, scales: Mapping[Scale, str]) -> None:
    """hr and lr are images of the same place: sides and voxels are a scale apart."""
    fine, coarse = hr.box.shape[1:], lr.box.shape[1:]
    for scale, user in scales.items():
        if not fits(coarse, fine, scale):
            raise ValueError(
                f"{where}: hr {list(hr.box.shape)} is not lr {list(lr.box.shape)} times scale {scale} of {user} "
                "in y and x; cut one so that both show the same place, or use another scale"
            )
        (z, *sides), size = hr.voxel_size_nm, lr.voxel_size_nm
        wanted = (z, *(by * side for by, side in zip(pair(scale), sides, strict=True)))
        rounding = ROUNDING if isinstance(scale, int) else ROUNDING + 0.5 / min(fine)
        if any(abs(a - b) > rounding * b for a, b in zip(wanted, size, strict=True)):
            raise ValueError(
                f"{where}: voxel size {list(size)} nm of lr is not {list(hr.voxel_size_nm)} nm of hr times scale "
                f"{scale} of {user} in y and x; correct the one that is wrong"
            )


def _sources(volume: Volume) -> Iterator[tuple[str, Source]]:
    for image in ("hr", "lr", "labels"):
        source = getattr(volume, image)
        if source is not None:
            yield image, source


def _opened(source: Source) -> Opened:
    """The source, opened and closed again: what it says about itself."""
    from emsr.stores import open_stated

    opened = open_stated(source.model_dump())
    opened.close()
    return opened


def admitted_source(source: Source, image: str, volume: Volume, layout: Layout) -> Admitted:
    """What is used of a source, and where it lies."""
    from emsr.stores import open_stated, probe
    from emsr.stores.admission import admit, check_declared
    from emsr.stores.link import check_link

    opened = open_stated(source.model_dump())
    try:
        mapping = None if image == "labels" else volume.mapping(image)
        stated = mapping.model_dump() if mapping else None
        admitted = admit(opened, image, source.voxel_size_nm, volume.region, stated)
        if source.link:
            check_link(opened, image, volume.region)
        probe(opened, admitted.box)
        check_declared(opened, image, admitted.box, layout.shard, layout.chunk)
        return admitted
    finally:
        opened.close()


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
