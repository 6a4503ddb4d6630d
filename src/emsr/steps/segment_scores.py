"""Rule score_segments of segment.smk: splits, merges and membrane of every segmentation, and where they go wrong."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emsr.geometry import Box
    from emsr.metrics.membrane import MembraneTally
    from emsr.steps.segment_tallies import Counts, Scene

SCORE_SEGMENTS_RESULT = 2

log = logging.getLogger(__name__)


def score_segments(settings: dict, out: Path, *, workers: int = 1) -> None:
    """Score the segmentations of a volume on its test sections against labels, and say what super-resolution is worth.

    `settings`: volume (name); test and validation (half-open ranges of sections; validation chooses the threshold of
    membrane, null: the best is stated); labels (path of their image card); segmentations {name: {image ("bicubic",
    "sr" or "hr"), segments (path of their image card), affinities (path of affinities.json), threshold (path of
    threshold.json)}}, of which those named bicubic, sr and hr are compared and others with image bicubic are further
    rivals; border_nm (voxels nearer to a border are left out of splits and merges), membrane_nm (membrane so near to a
    border is right), in_plane (both keep to the own section), absorb (objects of at most so many voxels that another
    encloses become part of it; 0: none), windows (side of sub-volumes in y and x), seed.
    What is scored are the voxels that all segmentations have, but for damaged parts of sections and what was not made
    of any of the images, box by box; labels are read whole if `absorb` is not 0.
    Measured with three segmentations: 350 MB a worker. Workers change no figure. Raises ValueError for what does not
    fit together and where no test section is left.
    """
    from emsr.durable import write_json
    from emsr.steps import segment_tallies as tallies
    from emsr.stores.shards import each

    run = _open(settings)
    scene = run.scene
    counts = each(lambda tile: tallies.count(scene, tile), run.tiles, workers, f"segments of {settings['volume']}")
    levels = _levels(run, workers)
    scores = {
        "schema": 1,
        "volume": settings["volume"],
        **_figures(run, counts, levels, workers),
        **_worth(scene, counts, levels, settings["seed"]),
        **_places(run, counts, levels, workers),
        "settings": _stated(settings, run, counts),
    }
    log.info("%s: %s", settings["volume"], scores["segmentation"])
    write_json(out, scores)


@dataclass(frozen=True, eq=False)
class Run:
    """What is scored: the scene of test sections, its sub-volumes, stretches of validation sections, what is left out.

    ``labels`` is the card of the labels and ``plane`` (y, x) the voxels that are scored.
    """

    scene: Scene
    tiles: Sequence[Box]
    validation: Sequence[Box]
    excluded: Mapping[int, str]
    labels: Mapping[str, Any]
    plane: tuple[int, int]


def _open(settings: Mapping[str, Any]) -> Run:
    """All that is scored, open for reading; ValueError for what does not fit together."""
    from emsr.metrics.tolerance import Tolerance
    from emsr.steps import segment_tallies as tallies
    from emsr.steps import segment_truth as truths
    from emsr.steps.left_out import of_images
    from emsr.stores.card import read_card

    if not settings["segmentations"]:
        raise ValueError(f"no segmentation of {settings['volume']} is named: nothing can be scored")
    path = Path(settings["labels"])
    labels = read_card(path)
    rivals = {name: tallies.open_rival(stated) for name, stated in settings["segmentations"].items()}
    cards = {name: rival.card for name, rival in rivals.items()}
    plane, depth = truths.common_plane((path, labels), cards), int(labels["shape"][0])
    excluded = truths.left_out({"labels": labels, **cards})
    test = truths.good_sections(settings["test"], depth, excluded, "test")
    chosen = settings["validation"]
    validation = truths.good_sections(chosen, depth, excluded, "validation") if chosen else []
    z, y, x = next(iter(cards.values()))["voxel_size_nm"]
    border, membrane = (
        Tolerance(settings[name], (z, y, x), settings["in_plane"]) for name in ("border_nm", "membrane_nm")
    )
    truth = truths.open_truth(path, labels, border, settings["absorb"], of_images(cards.values()))
    scene = tallies.Scene(truth, membrane, truths.stretches(test, plane), rivals)
    tiles = truths.tiles(plane, settings["windows"], depth)
    return Run(scene, tiles, truths.stretches(validation, plane), excluded, labels, plane)


def _levels(run: Run, workers: int) -> dict[str, int | None] | None:
    """The level of membrane that validation sections choose for each rival; None without such sections."""
    from emsr.steps import segment_tallies as tallies
    from emsr.steps.segment_worth import best_level
    from emsr.stores.shards import each

    if not run.validation:
        return None

    def of_tile(tile: Box) -> dict[str, MembraneTally]:
        return tallies.count_membranes(run.scene, run.validation, tile)

    total = tallies.added(each(of_tile, run.tiles, workers, "threshold of membrane"))
    return {name: best_level(tally) for name, tally in total.items()}


def _figures(run: Run, counts: Sequence[Counts], levels: Mapping[str, Any] | None, workers: int) -> dict[str, Any]:
    """The figures of each rival: of its objects, of those of single sections, and of its membrane."""
    from emsr.geometry import Box
    from emsr.metrics import membrane
    from emsr.metrics import segmentation as objects
    from emsr.steps import segment_tallies as tallies
    from emsr.steps.segment_truth import IGNORED
    from emsr.stores.shards import each

    scene, names = run.scene, run.scene.rivals
    each_z = [Box((z, 0, 0), (z + 1, *run.plane)) for part in scene.scored for z in range(part.start[0], part.stop[0])]
    sections = each(lambda section: tallies.count_section(scene, section), each_z, workers, "single sections")
    tables = {name: objects.Contingency.sum(part.tables[name] for part in counts) for name in names}
    found = tallies.added(part.membranes for part in counts)
    chosen = levels or dict.fromkeys(names)
    return {
        "segmentation": {name: objects.summary(tables[name], IGNORED) | _made(scene, name) for name in names},
        "sections": {name: objects.section_summary(t for row in sections for t in row[name]) for name in names},
        "membrane": {
            name: membrane.summary(found[name], chosen[name])
            | {"image": names[name].image, "threshold_source": "best" if chosen[name] is None else "validation"}
            for name in names
        },
    }


def _made(scene: Scene, name: str) -> dict[str, Any]:
    """What a segmentation is of."""
    rival = scene.rivals[name]
    stated = {"image": rival.image, "threshold": rival.threshold, "threshold_source": rival.chosen_by}
    return {**stated, "method": rival.card["method"], "weights_sha256": rival.near["weights_sha256"]}


def _worth(
    scene: Scene, counts: Sequence[Counts], levels: Mapping[str, int | None] | None, seed: int
) -> dict[str, Any]:
    """The share of the gap that sr closes, from bicubic and from every other rival of bicubic images."""
    from emsr.steps.segment_worth import IMAGES, worth

    if lacking := [name for name in IMAGES if name not in scene.rivals]:
        reason = f"no segmentation is named {' or '.join(lacking)}: there is no gap to measure"
        return {"worth": None, "worth_reason": reason, "worth_against": {}}
    others = [name for name, rival in scene.rivals.items() if rival.image == "bicubic" and name != "bicubic"]
    against = {name: worth(counts, name, levels, seed) for name in others}
    return {"worth": worth(counts, "bicubic", levels, seed), "worth_reason": None, "worth_against": against}


def _places(run: Run, counts: Sequence[Counts], levels: Mapping[str, Any] | None, workers: int) -> dict[str, Any]:
    """The worst mistakes of sr, and where it invents and loses membrane; None with a reason."""
    from emsr.metrics.segmentation import Contingency
    from emsr.steps import segment_mistakes as mistakes
    from emsr.steps import segment_tallies as tallies
    from emsr.stores.shards import each

    scene, tiles = run.scene, list(run.tiles)
    reason, at = _not_compared(scene, counts, levels)
    found: dict[str, Any] = {"worst": None, "invented": None, "lost": None, "invented_lost_reason": reason}
    if "sr" in scene.rivals:
        table = Contingency.sum(part.tables["sr"] for part in counts)
        found["worst"] = mistakes.worst_of(scene, "sr", table, tiles, workers)
    if reason is None:
        parts = each(lambda tile: tallies.differences(scene, at, tile), tiles, workers, "invented and lost membrane")
        windows = {window: difference for part in parts for window, difference in part.items()}
        found |= {
            "invented": mistakes.listed(scene, windows, "invented"),
            "lost": mistakes.listed(scene, windows, "lost"),
        }
        found["invented_lost_levels"] = {"sr": at[0] / 255, "hr": at[1] / 255}
    return found


def _not_compared(
    scene: Scene, counts: Sequence[Counts], levels: Mapping[str, Any] | None
) -> tuple[str | None, tuple[int, int]]:
    """Why membrane of sr and hr cannot be compared, else None, and the levels at which it is."""
    from emsr.steps.segment_tallies import added
    from emsr.steps.segment_worth import best_level

    nowhere = (0, 0)
    if lacking := [name for name in ("sr", "hr") if name not in scene.rivals]:
        return f"no segmentation is named {' or '.join(lacking)}", nowhere
    weights = {name: scene.rivals[name].near["weights_sha256"] for name in ("sr", "hr")}
    if weights["sr"] != weights["hr"]:
        return "affinities of sr and hr are predicted with different weights, whose membrane differs anyhow", nowhere
    tallies = added(part.membranes for part in counts)
    at = [(levels or {}).get(name) for name in ("sr", "hr")]
    at = [best_level(tallies[name]) if one is None else one for one, name in zip(at, ("sr", "hr"), strict=True)]
    if at[0] is None or at[1] is None:
        return "the truth holds no membrane that is counted, so no threshold is known", nowhere
    return None, (at[0], at[1])


def _stated(settings: Mapping[str, Any], run: Run, counts: Sequence[Counts]) -> dict[str, Any]:
    """What the figures are: of which voxels, by what definition."""
    from dataclasses import asdict

    from emsr.metrics import bootstrap, enclosed, membrane, segmentation, truth, worst
    from emsr.steps import segment_mistakes, segment_tallies, segment_worth
    from emsr.steps.segment_truth import IGNORED

    scene = run.scene
    stretches = [[part.start[0], part.stop[0]] for part in scene.scored]
    sections = [z for first, last in stretches for z in range(first, last)]
    named = [*settings["test"], *(settings["validation"] or ())]
    keys = ("test", "validation", "border_nm", "membrane_nm", "in_plane", "windows", "seed")
    modules = {"segmentation": segmentation, "truth": truth, "membrane": membrane, "worst": worst}
    modules |= {"organelles": enclosed, "worth": bootstrap, "measured": segment_tallies, "places": segment_mistakes}
    made = run.labels["source"].get("membranes")  # labels are then of single sections
    return {
        **({"single_sections": made} if made else {}),
        **{key: settings[key] for key in keys},
        "sections": sections,
        "stretches": stretches,
        "left_out": {str(z): why for z, why in run.excluded.items() if any(a <= z < b for a, b in named)},
        "parts_left_out": scene.truth.left_out.stated(sections, run.plane),
        "region_yx": list(run.plane),
        "labels": Path(settings["labels"]).name,
        "voxel_size_nm": list(scene.membrane.voxel_size),
        "ignored": list(IGNORED),
        "organelles": {"max_voxels": settings["absorb"], "absorbed": len(scene.truth.organelles)},
        "sub_volumes": len(counts),
        "draws": asdict(segment_worth.DRAWS),
        "thresholds": {name: rival.chosen_by for name, rival in scene.rivals.items()},
        "metrics": {name: module.STATED for name, module in modules.items()},
        "sha256": {"labels": run.labels["sha256"], **{name: r.card["sha256"] for name, r in scene.rivals.items()}},
    }
