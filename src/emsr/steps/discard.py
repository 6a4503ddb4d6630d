"""Rule discard of segment.smk: intermediates that the config does not keep, removed once all made of them is proved."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emsr import durable

DISCARD_RESULT = 1
CARDS = {"affinities": ("affinities.json",), "fragments": ("agglomeration.json", "fragments.json")}
FOLDERS = {"affinities": ("affinities",), "fragments": ("fragments", "agglomeration")}

log = logging.getLogger(__name__)


def discard(settings: dict, segments: Path, out: Path, *, workers: int) -> None:
    """Remove affinities or fragments of the segmentation beside the card `segments`, after all made of them is proved.

    `settings`: stages (of "affinities" and "fragments", which agglomeration goes with), scores (path of what
    `score_segments` wrote, or null). Proved means: segments hold the voxels of their card, were made of the
    agglomeration, and this of the fragments, that are there; scores are of these segments. Cards go first, so that a
    killed removal leaves no card without its array. What proves which marks an array was made from stays: it lets a
    later run with another number of jobs make the same again. Raises ValueError, and removes nothing, otherwise.
    """
    folder = segments.parent
    card = _proved(segments, workers)
    if settings["scores"]:
        of = durable.read_json(Path(settings["scores"]))["settings"]["sha256"].get(folder.name)
        _agree(of == card["sha256"], f"{settings['scores']} scores other segments than {segments}")
    for stage in settings["stages"]:
        for name in CARDS[stage]:
            (folder / name).unlink(missing_ok=True)
        durable.sync_folder(folder)
        for path in _of_stage(folder, stage):
            log.info("removing %s", path)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    removed = {"removed": sorted(settings["stages"]), "segments_sha256": card["sha256"]}
    durable.write_json(out, {"schema": durable.SCHEMA, **removed})


def _proved(segments: Path, workers: int) -> dict[str, Any]:
    """The card of segments that hold the voxels that it says, and are made of what still stands before them."""
    from emsr.stores.card import array_path, read_card
    from emsr.stores.sections import section_sha256

    card, folder = read_card(segments), segments.parent
    agglomeration, fragments = folder / "agglomeration.json", folder / "fragments.json"
    if agglomeration.is_file():
        of = durable.read_json(agglomeration)
        _agree(card["source"].get("sha256") == of["sha256"], f"{segments} is not made of {agglomeration}")
        if fragments.is_file():
            same = durable.read_json(fragments)["sha256"] == of["fragments_sha256"]
            _agree(same, f"{agglomeration} is not made of {fragments}")
    _agree(
        section_sha256(array_path(segments, card), workers) == card["section_sha256"],
        f"{segments.with_suffix('.zarr')} does not hold the voxels of its card (see emsr verify)",
    )
    return card


def _agree(holds: bool, why: str) -> None:
    if not holds:
        raise ValueError(f"{why}: nothing is removed; run snakemake again")


def _of_stage(folder: Path, stage: str) -> Iterator[Path]:
    """What lies in the folders of a stage but for its proof."""
    for name in FOLDERS[stage]:
        if (folder / name).is_dir():
            yield from sorted(path for path in (folder / name).iterdir() if path.name != "proof.json")
