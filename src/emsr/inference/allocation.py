"""What `allocate` settles: whether weights, volume and settings fit, where the result lies, what it is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emsr import plugins, scales
from emsr.geometry import Grids, triple
from emsr.inference import clips
from emsr.inference.extent import without_extent
from emsr.plan import Plan, Table, check_window, inputs_sha256, neighbour_table, settings_sha256
from emsr.scales import Scale

Json = Mapping[str, Any]
LR = ("shape", "dtype", "sha256", "damaged", "missing", "source", "intensity", "damaged_parts")  # kept of lr's card
SAYS_WHAT_IT_COMPUTES = (
    "sha256",
    "model",
    "options",
    "scale",
    "sections",
    "section_step",
    "window",
    "intensity",
    "stage",
)


def at_scale(card: Json, card_path: Path, wanted: Any = None) -> dict[str, Any]:
    """The card of weights as they are used: at the scale `wanted`, or their own for None.

    ValueError for a scale that the model does not have, or that weights of a model without SCALE_RANGE are not of.
    """
    own = scales.of(card["scale"])
    if wanted is None:
        return {**card, "scale": own}
    scale = scales.of(wanted)
    plugins.check_scale(card["model"], scale)
    if scale != own and not plugins.has(plugins.file_of("models", card["model"]), "SCALE_RANGE"):
        raise ValueError(
            f"{card_path} holds weights of scale {scales.name(own)}, {scales.name(scale)} is asked for: model "
            f"{card['model']} has one scale for each training, so name weights of that scale or leave scale out"
        )
    return {**card, "scale": scale}


def check_weights(card: Json, card_path: Path, image: Json, image_path: Path) -> None:
    """Raise ValueError for weights of an early stage, of another scale or for other voxels than the volume's."""
    file = plugins.file_of("models", card["model"])
    if plugins.output(file) != "sr":
        raise ValueError(f"{card_path} holds weights of {card['model']}, which super-resolves nothing: name others")
    needs = plugins.literal(file, "NEEDS")
    assert isinstance(needs, dict)
    last = list(needs)[-1]
    if card["stage"] != last:
        raise ValueError(f"{card_path} holds weights of stage {card['stage']}: super-resolution needs those of {last}")
    check_protocol(card, card_path)
    made = image["degradation"] or {}
    check_protocol(made, image_path)
    own = scales.of(card["scale"])
    coarser = scales.of(made.get("scale", own))
    if coarser != own:
        raise ValueError(
            f"{card_path} holds weights of scale {scales.stated(own)}, {image_path} is coarser by "
            f"{scales.stated(coarser)}: use its weights"
        )
    seen = card.get("intensity", {}).get("dtype", "uint8")
    if image["dtype"] != seen or seen != "uint8":
        raise ValueError(
            f"{image_path} holds {image['dtype']}, the weights of {card_path} see {seen}: convert the volume to uint8"
        )


def check_protocol(stated: Json, path: Path) -> None:
    """Raise ValueError where weights, or how an image was made, are of rescaling: a network's own lr is no coarse image
    of tissue, and what it is enlarged to no super-resolution."""
    if stated.get("protocol", "super-resolution") != "super-resolution":
        raise ValueError(
            f"{path} is of protocol {stated['protocol']}, in which a network enlarges the lr that it made of hr: "
            "super-resolution needs lr that is given, and weights trained on such"
        )


def other_mapping(card: Json, image: Json) -> list[str]:
    """In words, how the grey levels of lr were mapped otherwise than those of training; [] where they were not.

    Kinds are compared and not limits, since each volume has its own. A card that says nothing of it is no mismatch.
    """
    seen = card.get("intensity", {}).get("mapping") or {}
    kinds, kind = sorted({_kind(mapping) for mapping in seen.values()}), _kind(image.get("intensity"))
    return [] if not kinds or kind in kinds else [f"grey levels are {kind}, not {' or '.join(kinds)}"]


def _kind(mapping: Json | None) -> str:
    """How grey levels were mapped."""
    if mapping is None:
        return "as in the source"
    return "mapped by percentiles" if "percentiles" in mapping else "mapped by stated limits"


def check_unchanged(card: Json, card_path: Path, allocated: Json) -> None:
    """Raise ValueError for weights that are not those that `allocated` was made for."""
    found = {"weights_sha256": card["sha256"], "card_sha256": card_sha256(card)}
    for key, value in found.items():
        if value != allocated[key]:
            raise ValueError(
                f"{card_path} has changed since {allocated['array']} was allocated ({key} {value[:12]}, not "
                f"{allocated[key][:12]}): run snakemake again, which allocates for the new weights"
            )


def stated_window(window: int | None, card: Json) -> int:
    """`window`, in lr pixels, or for None that of the card of the weights; ValueError where neither states one."""
    if window is None and (window := card.get("window")) is None:
        raise ValueError("the card of the weights states no window: set superresolve.window, in lr pixels")
    return window


def make_plan(settings: Json, card: Json, image: Json) -> Plan:
    """The plan for an image card and weights; ValueError for window, overlap or shards that fit neither."""
    window = stated_window(settings.get("window"), card)
    check_window(window, settings["overlap"], card)
    shard, scale = triple(settings["shard"]), scales.of(card["scale"])
    if isinstance(scale, int) and (shard[1] % scale or shard[2] % scale):
        raise ValueError(f"shard {list(shard)} is not a multiple of scale {scale} along y and x: choose one that is")
    shape, (depth, shared) = triple(image["shape"]), clips.of_card(card) or (1, 0)
    return Plan(shape, scale, window, settings["overlap"], shard, _table(card, image, shape[0]), depth, shared)


def _table(card: Json, image: Json, n: int) -> Table:
    damaged, missing = (map(int, image[state]) for state in ("damaged", "missing"))
    if clips.of_card(card):
        return clips.clip_table(n, damaged, missing)
    return neighbour_table(n, card["sections"], card.get("section_step", 1), damaged, missing)


def card_sha256(card: Json) -> str:
    """Hash of what a card says about the function that its weights are; scores and costs are not part of it.

    Its scale is that of the weights, whatever they are used at.
    """
    said = {key: card.get(key) for key in SAYS_WHAT_IT_COMPUTES}
    return settings_sha256({**said, "clips": seen} if (seen := clips.of_card(card)) else said)


def array_name(settings: Json, card: Json, plan: Plan) -> str:
    """sr-<hash>: one name for all that voxels depend on but the voxels of the input, however many of them are made."""
    decides = without_extent(without_result(settings))
    return "sr-" + settings_sha256([decides, card_sha256(card), plan.scale, plan.lr_shape])[:12]


def space(image: Json, scale: Scale) -> dict[str, list[float]]:
    """Voxel size and translation of the super-resolved volume: the one place where they change.

    A voxel's corner stays, so the centre of the first one moves by -v (s - 1) / (2 s) along y and x, v being lr's size.
    At a real scale s is that of the sizes, so that the far corners of lr and sr coincide too.
    """
    (vz, *sides), (tz, *centre) = image["voxel_size_nm"], image["translation_nm"]
    by: list[float] = [scale, scale] if isinstance(scale, int) else _ratios(image["shape"], scale)
    moved = [t - v * (s - 1) / (2 * s) for t, v, s in zip(centre, sides, by, strict=True)]
    return {"voxel_size_nm": [vz, *(v / s for v, s in zip(sides, by, strict=True))], "translation_nm": [tz, *moved]}


def _ratios(shape: Sequence[int], scale: Scale) -> list[float]:
    return [axis.ratio for axis in scales.axes(shape[1:], scales.fine_plane(shape[1:], scale))]


def coarse_space(fine: Json, grids: Grids) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Voxel size and translation of lr, from those of `fine`, what was made of it: the way back of `space`."""
    (vz, *sides), (tz, *centre) = fine["voxel_size_nm"], fine["translation_nm"]
    ratios = [grids.axis(axis).ratio for axis in (1, 2)]
    by: list[float] = [int(ratio) if ratio == int(ratio) else ratio for ratio in ratios]
    (y, x), (ty, tx) = zip(
        *((v * s, t + v * (s - 1) / 2) for v, t, s in zip(sides, centre, by, strict=True)), strict=True
    )
    return (vz, y, x), (tz, ty, tx)


def layer_inputs(plan: Plan, section_sha256: Sequence[str]) -> list[str]:
    """For each layer of shards the hash of the lr sections that it is made from, in clips those of its windows."""
    deep, n = plan.shard[0], len(plan.table)
    layers = [(first, min(first + deep, n)) for first in range(0, n, deep)]
    if plan.depth == 1:
        return [inputs_sha256(plan.table[first:last], section_sha256) for first, last in layers]
    return [clips.inputs_sha256(plan, *layer, section_sha256) for layer in layers]


def document(settings: Json, card: Json, image: Json, plan: Plan) -> dict[str, Any]:
    """What `allocate` states but for paths: JSON that jobs and stitch read."""
    shared = without_result(settings)
    return {
        "schema": 1,
        "lr": {key: image[key] for key in LR if key in image},
        "shape": list(plan.shape),
        "scale": scales.stated(plan.scale),
        "window": plan.window,
        "overlap": plan.overlap,
        "shard": list(plan.shard),
        "sections": plan.table,
        **({"depth": plan.depth, "depth_overlap": plan.depth_overlap} if plan.depth > 1 else {}),
        "inputs_sha256": layer_inputs(plan, image["section_sha256"]),
        "card_sha256": card_sha256(card),
        "weights_sha256": card["sha256"],
        **{key: card[key] for key in ("caution",) if key in card},
        **space(image, plan.scale),
        "precision": settings["precision"],
        "device": settings["device"],
        "settings": shared,
        "settings_sha256": settings_sha256(shared),
    }


def without_result(settings: Json) -> dict[str, Any]:
    """What the steps of super-resolution share: each has a result number of its own."""
    return {key: value for key, value in settings.items() if key != "result"}
