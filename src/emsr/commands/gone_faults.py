"""Documents that are gone while what was made of them stands: nothing that is read would say so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from emsr.commands.faults import Fault
from emsr.commands.recorded import STEPS
from emsr.durable import REMOVED


def of_gone(results: Path, volume: str) -> Iterator[Fault]:
    """An ``allocate.json`` beside the card of its array; the card of lr beside its voxels and sr."""
    folder = results / volume
    for stage in (folder / "sr", *sorted(folder.glob("segmentations/*/affinities")), *_fragments(folder)):
        if stage.name in STEPS and stage.with_suffix(".json").is_file() and not (stage / "allocate.json").exists():
            yield _fault(volume, stage / "allocate.json")
    if not (folder / "sr.json").is_file():
        return
    for voxels in sorted([*folder.glob("lr*.zarr"), *folder.glob("lr*.link")]):
        card = voxels.with_suffix(".json")
        if not os.path.lexists(card):
            yield _fault(volume, card)


def _fragments(folder: Path) -> list[Path]:
    return [
        stage for stage in sorted(folder.glob("segmentations/*/fragments")) if not (stage.parent / REMOVED).exists()
    ]


def _fault(volume: str, path: Path) -> Fault:
    return Fault(f"{volume}: {path}", "is gone, though what was made of it stands", (path,))
