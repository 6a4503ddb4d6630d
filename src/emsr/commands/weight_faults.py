"""What is wrong with weights, and with what was learnt from voxels and is no image: histories of merges."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from emsr.commands.faults import Fault
from emsr.commands.recorded import read


def weight_cards(results: Path, allocations: Iterable[Path]) -> list[Path]:
    """The cards of weights that were trained below a results folder, or that its volumes were made by."""
    files = results.glob("trainings/*/*.safetensors")
    found = {file.with_suffix(".json").resolve(): file.with_suffix(".json") for file in files}
    for allocate in allocations:
        stated = read(allocate)
        if isinstance(stated, dict) and isinstance(stated.get("card"), str):
            card = (allocate.parent.resolve() / stated["card"]).resolve()
            found.setdefault(card, card)
    return sorted(found.values())


def of_weights(card: Path, results: Path) -> Iterator[Fault]:
    """What is wrong with weights and their card. Those of a training below `results` are trained again without it."""
    label, own = f"weights {card.parent.name} {card.stem}", card.resolve().is_relative_to(results.resolve())
    weights, record = card.with_suffix(".safetensors"), card.with_suffix(".record.json")
    if own and record.is_file() and not isinstance(read(record), dict):
        yield Fault(f"{label}: {record}", "is damaged: the training would not be known as finished", (record,))
    stated, remove = read(card), (card,) if own else ()
    if not isinstance(stated, dict) or "sha256" not in stated:
        yield Fault(f"{label}: {card}", "is damaged" if card.is_file() else "is gone", remove)
    elif not weights.is_file():
        yield Fault(f"{label}: {weights}", "is gone", remove)
    elif (found := _digest(weights)) != stated["sha256"]:
        yield Fault(f"{label}: {weights}", f"has sha256 {found[:12]}, its card says {stated['sha256'][:12]}", remove)


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def of_history(path: Path) -> list[Fault]:
    """What is wrong with the tables of an agglomeration, whose document `path` is."""
    from emsr.stores import tables

    stated = read(path)
    if not isinstance(stated, dict) or "history" not in stated:
        return []
    file = path.parent / str(stated["history"])
    try:
        same = tables.digest(tables.parts(file)) == stated.get("sha256")
        reason = None if same else "holds other merges than its document says"
    except (OSError, ValueError) as error:
        reason = f"is damaged ({error})" if file.is_file() else "is gone"
    return [Fault(f"{path.parent.name} {path.stem}: {file}", reason, (path,))] if reason else []
