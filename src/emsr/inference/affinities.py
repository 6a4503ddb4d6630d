"""What `allocate-affinities` settles: whether weights, image and settings fit, and what each shard is made from."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emsr import plugins
from emsr.geometry import Triple, triple
from emsr.inference.allocation import card_sha256, without_result
from emsr.inference.volumetric import mirrored
from emsr.plan import Plan, Table, inputs_sha256, settings_sha256

CHANNELS = 3
Json = Mapping[str, Any]


def check_weights(card: Json, card_path: Path, image: Json, image_path: Path) -> None:
    """Raise ValueError for weights that predict no affinities, or voxels that they do not see."""
    if plugins.output(plugins.file_of("models", card["model"])) != "affinity":
        raise ValueError(f"{card_path} holds weights of {card['model']}, which predicts no affinities: name others")
    if image["dtype"] != "uint8":
        raise ValueError(f"{image_path} holds {image['dtype']}, affinity networks see uint8: convert the volume")


def input_window(settings: Json, card: Json) -> Triple:
    """(z, y, x) of what the network sees at a time: that of the settings, else the card's."""
    depth, side = settings.get("depth") or card.get("depth"), settings.get("window") or card.get("window")
    if not depth or not side:
        raise ValueError("the card of the weights states no window: set segment.depth and segment.window, in voxels")
    return int(depth), int(side), int(side)


def output_window(settings: Json, card: Json, geometry: Any) -> tuple[Triple, int, int]:
    """(z, y, x) of what the network makes of its window, and what windows share along y and x, and along z.

    Raises ValueError for windows that the network does not take and for overlaps that leave no step.
    """
    window = geometry.output(input_window(settings, card))
    padded = not any(geometry.halo)
    overlap, depth_overlap = (settings["overlap"], settings["depth_overlap"]) if padded else (0, 0)
    for name, shared, side in (("overlap", overlap, window[1]), ("depth_overlap", depth_overlap, window[0])):
        if not 0 <= shared < side:
            raise ValueError(f"segment.{name} {shared} leaves no step for a window of {side}: use 0 to {side - 1}")
    return window, overlap, depth_overlap


def make_plan(settings: Json, card: Json, image: Json, geometry: Any) -> Plan:
    """The plan for an image card and weights whose network states `geometry`; ValueError for what it cannot take.

    Windows of a network with a halo (valid convolutions) lie side by side, others overlap as the settings say.
    """
    window, overlap, depth_overlap = output_window(settings, card, geometry)
    shape = triple(image["shape"])
    return Plan(
        lr_shape=shape,
        scale=1,
        window=window[1],
        overlap=overlap,
        shard=triple(settings["shard"]),
        table=_table(image, shape[0]),
        depth=window[0],
        depth_overlap=depth_overlap,
        halo=geometry.halo,
        channels=CHANNELS,
    )


def _table(image: Json, n: int) -> Table:
    """The section that is read in each one's place: for a damaged or missing one the nearest good one.

    Of lower index, else of higher, as super-resolution takes neighbours; itself where none is good.
    """
    bad = {int(z) for state in ("damaged", "missing") for z in image[state]}
    good = [z for z in range(n) if z not in bad]
    return tuple((z if z not in bad or not good else _stand_in(z, good),) for z in range(n))


def _stand_in(z: int, good: Sequence[int]) -> int:
    """The last of the ascending `good` sections below z, else the first above it."""
    return good[max(bisect_left(good, z) - 1, 0)]


def layer_inputs(plan: Plan, section_sha256: Sequence[str]) -> list[str]:
    """For each layer of shards the hash of the sections that it is made from, halos included."""
    deep, n = plan.shard[0], plan.lr_shape[0]
    hashes = []
    for first in range(0, n, deep):
        starts = plan.depths(first, min(first + deep, n))
        low, high = starts[0] - plan.halo[0], starts[-1] + plan.depth + plan.halo[0]
        named = [plan.table[z] for z in mirrored(low, high, n)]
        hashes.append(inputs_sha256(named, section_sha256))
    return hashes


def array_name(settings: Json, card: Json, plan: Plan) -> str:
    """affinities-<hash>: one name for all that voxels depend on but the voxels of the image."""
    return "affinities-" + settings_sha256([without_result(settings), card_sha256(card), plan.lr_shape])[:12]


def document(settings: Json, card: Json, image: Json, plan: Plan) -> dict[str, Any]:
    """What `allocate-affinities` states but for paths: JSON that jobs read as they read that of super-resolution."""
    shared = without_result(settings)
    return {
        "schema": 1,
        "lr": {key: image[key] for key in ("shape", "dtype", "sha256", "damaged", "missing", "source")}
        | {key: image[key] for key in ("damaged_parts", "skipped", "caution") if image.get(key)},
        "shape": list(plan.shape),
        **{key: getattr(plan, key) for key in ("scale", "window", "overlap", "depth", "depth_overlap", "channels")},
        "halo": list(plan.halo),
        "shard": list(plan.shard),
        "sections": plan.table,
        "inputs_sha256": layer_inputs(plan, image["section_sha256"]),
        "card_sha256": card_sha256(card),
        "weights_sha256": card["sha256"],
        **{key: image[key] for key in ("voxel_size_nm", "translation_nm")},
        **{key: settings[key] for key in ("precision", "device")},
        "settings": shared,
        "settings_sha256": settings_sha256(shared),
    }
