"""`emsr plan`: what super-resolving a volume will take, before anything is written."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsr import plugins, scales

if TYPE_CHECKING:
    from emsr.config import Config, Volume
    from emsr.geometry import Triple
    from emsr.plan import Plan
    from emsr.scales import Scale
    from emsr.stores.room import Room

Card = tuple[dict[str, Any], Path]  # of weights, and where it stands or what to call it
LR = Path("lr")  # what messages call an image that is not on disk


@dataclass(frozen=True)
class Asked:
    """What a config or options ask for; `image` and `network` are cards, as far as they are known.

    `rooms` is what all arrays of the volume take on the disk of `results`; `samples` are those drawn beside sr.
    """

    settings: dict[str, Any]
    image: dict[str, Any]
    network: Card
    jobs: int
    workers: int
    pilot: Any = None
    notes: tuple[str, ...] = ()
    rooms: tuple[Room, ...] = ()
    results: Path | None = None
    samples: int = 0


def plan(
    configs: list[Path],
    *,
    volume: str | None = None,
    shape: list[int] | None = None,
    weights: Path | None = None,
    model: str = "gpemsr",
    preset: str | None = None,
    scale: str | None = None,
    sections: int | None = None,
    window: int | None = None,
    overlap: int | None = None,
    shard: list[int] | None = None,
    jobs: int | None = None,
    workers: int | None = None,
    rate: float | None = None,
    stats: Path | None = None,
) -> None:
    """Say what super-resolving a volume will take: work of its jobs, memory, files, time. Writes nothing.

    CONFIGS are config.yaml and overlays, in order; `--volume` names one of their volumes. Other options replace what
    they say, to see what that would change. Without configs state `--shape` of lr (z y x), `--overlap` (lr pixels),
    `--shard` (z y x, sr voxels), `--jobs` and the network: `--weights` (a card), or `--preset` of `--model`, `--scale`,
    `--sections` and `--window` (lr pixels). Time is told where `--rate` says how many sr voxels a job makes in a
    second, or `--stats` what a finished job took with equal windows, as many in flight
    (results/VOLUME/sr/jobs/1-of-2.stats.json).
    """
    named = {"shape": shape, "overlap": overlap, "shard": shard, "window": window, "jobs": jobs, "workers": workers}
    given = {name: value for name, value in named.items() if value is not None}
    network = {"model": model, "preset": preset, "scale": scale, "sections": sections, "window": window}
    found = _network(weights, network)
    asked = _of_config(configs, volume, given, found) if configs else _of_options(given, found)
    sys.stdout.write("\n".join([*_lines(asked, rate, stats), ""]))


# -- what is asked for ------------------------------------------------------------------------------------------------


def _network(weights: Path | None, network: Mapping[str, Any]) -> Card | None:
    """The card that options name, or that of a preset; None where they name neither."""
    from emsr.models.checkpoint import load_card

    preset = network["preset"]
    if weights is not None:
        return load_card(weights), weights
    if preset is None:
        return None
    if missing := [f"--{name}" for name, value in network.items() if value is None]:
        raise ValueError(f"--preset {preset} needs {', '.join(missing)} beside it: state them, as --scale 8")
    if preset not in (presets := plugins.keys(plugins.file_of("models", network["model"]), "PRESETS")):
        raise ValueError(plugins.unknown("preset", preset, presets))
    module = plugins.load("models", network["model"])
    scale = scales.of_name(str(network["scale"]))
    plugins.check_scale(network["model"], scale)
    options, stage = asdict(module.PRESETS[preset]), list(module.NEEDS)[-1]
    return {**network, "scale": scale, "options": options, "stage": stage, "section_step": 1}, Path(f"preset {preset}")


def _of_options(given: Mapping[str, Any], network: Card | None) -> Asked:
    """All that is needed, from the command line alone."""
    if network is None:
        raise ValueError("no network is named: state --weights CARD, --preset, or a config")
    for name, example in (("shape", "64 4096 4096"), ("overlap", "8"), ("shard", "16 512 512"), ("jobs", "16")):
        if name not in given:
            raise ValueError(f"--{name} is not stated: without a config it is needed, as --{name} {example}")
    settings = {"window": given.get("window"), "overlap": given["overlap"], "shard": given["shard"]}
    return Asked(settings, _unseen(given["shape"]), network, given["jobs"], given.get("workers", 1))


def _of_config(configs: list[Path], volume: str | None, given: Mapping[str, Any], network: Card | None) -> Asked:
    """What a config says of a volume, replaced by what the command line states."""
    from emsr.commands.check import read_configs

    config = read_configs(configs)
    made = [name for name, part in config.volumes.items() if part.weights is not None]
    if not made:
        raise ValueError("the config super-resolves no volume: name weights in one")
    if volume is None and len(made) > 1:
        raise ValueError(f"the config super-resolves {len(made)} volumes: state one, as --volume {' or '.join(made)}")
    name = volume or made[0]
    if name not in made:
        raise ValueError(plugins.unknown("volume", name, made))
    part, stated = config.volumes[name], config.superresolve.model_dump(exclude={"accelerators"})
    network, notes = network or _used(_card_of(config, part), part.scale), []
    image, pilot = _image(config, name, part, scales.of(network[0]["scale"])), part.pilot
    if "shape" in given:
        image, pilot = _unseen(given["shape"]), None
    elif "section_sha256" not in image:
        notes.append("lr is not ingested yet: damaged and missing sections are not known")
    if part.mask:
        notes.append("the mask is not read: shards without tissue are counted too")
    settings = {**stated, "shard": list(stated["shard"]), **{key: given[key] for key in stated if key in given}}
    jobs, workers = given.get("jobs", config.jobs), given.get("workers", config.workers)
    scale = scales.of(network[0]["scale"])
    samples = part.samples.count if part.samples else 0
    if samples and not plugins.has(plugins.file_of("models", network[0]["model"]), "LATENTS"):
        samples, part = 0, part.model_copy(update={"samples": None})
        notes.append(f"samples are left out: model {network[0]['model']} gives one image; take snadn or irn")
        config = config.model_copy(update={"volumes": {**config.volumes, name: part}})
    rooms = _all_rooms(config, name, {**given, "jobs": jobs}, (image["shape"], scale))
    return Asked(settings, image, network, jobs, workers, pilot, tuple(notes), rooms, Path(config.results), samples)


def _all_rooms(config: Config, name: str, given: Mapping[str, Any], lr: tuple[list[int], Scale]) -> tuple[Room, ...]:
    """What all arrays of a volume take, with what the command line states; `lr` is its shape, and the scale."""
    from emsr.commands.space import of_volume, scaled
    from emsr.geometry import triple

    stated = {"shard": triple(list(given["shard"]))} if "shard" in given else {}
    how = config.superresolve.model_copy(update=stated)
    asked = config.model_copy(update={"jobs": given["jobs"], "superresolve": how})
    shape, scale = triple(list(lr[0])), lr[1]
    part = config.volumes[name]
    fine = scaled(shape, scale) if part.has_hr else shape
    if part.has_hr and not part.lr and "shape" not in given:
        fine = _fine(config, name, part)
    return tuple(one.room for one in of_volume(asked, name, fine))


def _fine(config: Config, name: str, part: Volume) -> Triple:
    """The shape of hr, from its card or its source."""
    from emsr.commands.check_sources import admitted_source
    from emsr.geometry import triple
    from emsr.stores.card import read_card

    card = Path(config.results, name, "hr.json")
    if part.tissue:
        return part.tissue.shape
    if card.is_file():
        return triple(read_card(card)["shape"])
    assert part.hr is not None
    return admitted_source(part.hr, "hr", part, config.ingest).box.shape


def _rooms(asked: Asked, made: Plan) -> list[Room]:
    """What super-resolution writes, where no config says what else is made."""
    from emsr.commands.space import of_sr
    from emsr.geometry import triple

    chunk = triple(list(asked.settings.get("chunk") or made.shard))
    return of_sr("", made.shape, made.scale, (made.shard, chunk), asked.jobs)


def _card_of(config: Config, part: Volume) -> Card:
    """The card of a volume's weights; of a training that has not ended, what it will say of the network."""
    from emsr.commands.check_training import card_of
    from emsr.models.checkpoint import load_card

    if not isinstance(part.weights, str):
        assert part.weights is not None
        return load_card(part.weights.card), part.weights.card
    training = config.trainings[part.weights]
    owner = config.owner(part.weights, training.last_stage)
    trained = Path(config.results, "trainings", owner, f"{training.last_stage}.json")
    return load_card(trained) if trained.is_file() else card_of(training), trained


def _used(network: Card, scale: Scale | None) -> Card:
    """The card at the scale that a volume states, if it does."""
    from emsr.inference.allocation import at_scale

    return (at_scale(*network, scale), network[1]) if scale is not None else network


def _image(config: Config, name: str, part: Volume, scale: Scale) -> dict[str, Any]:
    """The image card of lr; before lr is ingested its shape, from the sources."""
    from emsr.commands.check_sources import admitted_source
    from emsr.stores.card import read_card

    path = Path(config.results, name, "lr.json" if part.lr else f"lr_x{scales.name(scale)}.json")
    if path.is_file():
        return read_card(path)
    if source := part.lr or part.hr:
        shape = admitted_source(source, "lr" if part.lr else "hr", part, config.ingest).box.shape
    else:
        assert part.tissue is not None
        shape = part.tissue.shape
    return _unseen([shape[0], *(shape[1:] if part.lr else scales.coarse_plane(shape[1:], scale))])


def _unseen(shape: list[int]) -> dict[str, Any]:
    """What is known of an lr that nobody has looked at."""
    return {"shape": shape, "dtype": "uint8", "degradation": None, "damaged": {}, "missing": {}}


# -- the plan that will run -------------------------------------------------------------------------------------------


def _lines(asked: Asked, rate: float | None, stats: Path | None) -> Iterator[str]:
    from emsr.commands import plan_lines as say
    from emsr.inference import cost, forecast

    (card, _), (made, skipped) = asked.network, _plan(asked)
    of_window = cost.of_card(card, made.window, asked.settings.get("precision", "float32"))
    each = forecast.of_jobs(made, asked.jobs, asked.workers, skipped)
    yield from say.volume_lines(made, each, len(skipped))
    million = f"{of_window.parameters / 1e6:.1f} million parameters"
    sees = f"clips of {made.depth}" if made.depth > 1 else f"{card['sections']}"
    yield f"network     {card['model']}, {sees} sections, {million}"
    yield from say.work_lines(of_window, each, forecast.one_pass(made, of_window, skipped))
    yield from say.memory_lines(of_window, each, asked.workers)
    yield from say.sample_lines(asked.samples, of_window, each, asked.workers) if asked.samples else ()
    yield from say.disk_lines(asked.rooms or _rooms(asked, made), asked.results)
    yield from say.time_lines(made, each, asked.workers, rate, stats, asked.samples)
    yield from (f"note        {note}" for note in asked.notes)


def _plan(asked: Asked) -> tuple[Plan, frozenset[Triple]]:
    """The plan that `allocate` will make, and the shards that a pilot leaves out."""
    from emsr.geometry import Box, triple
    from emsr.inference import allocation, extent

    for name in ("jobs", "workers"):
        if getattr(asked, name) < 1:
            raise ValueError(f"{name} {getattr(asked, name)} make nothing: state at least 1")
    for name, values in (("shape", asked.image["shape"]), ("shard", asked.settings["shard"])):
        if min(triple(list(values))) < 1:
            raise ValueError(f"{name} {list(values)} holds no voxel: state three lengths (z, y, x) of at least 1")
    allocation.check_weights(*asked.network, asked.image, LR)
    made = allocation.make_plan(asked.settings, asked.network[0], asked.image)
    if asked.pilot is None:
        return made, frozenset()
    stated = extent.stated(made, extent.pilot_box(asked.pilot, made.lr_shape), None)
    low, high = (triple(list(corner)) for corner in stated["within"])
    return replace(made, within=Box(low, high)), frozenset(extent.reasons(stated, made.grid))
