"""Whether what was asked for is there and has records that hold: what `emsr run` takes for success."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from emsr import durable
from emsr.settings import Settings


def check(settings: Settings, targets: Sequence[str]) -> None:
    """Raise ValueError, in one line, unless every file that was asked for is whole; `targets` empty: all of a run.

    A JSON is one, weights lie beside their card, and of sr every shard has a record that holds and its file. Voxels are
    not read: `emsr verify` does.
    """
    asked = [target for target in targets if "/" in target] or ([] if targets else settings.targets)
    found = [*_files(asked), *_arrays(Path(settings.root), {str(Path(path).resolve()) for path in asked})]
    if found:
        more = f" (and {len(found) - 1} more)" if found[1:] else ""
        raise ValueError(f"snakemake ended well, but {found[0]}{more}: run again; emsr verify and repair say more")


def _files(asked: Sequence[str]) -> Iterator[str]:
    for path in map(Path, asked):
        if not path.exists():
            yield f"{path} is not there"
        elif path.suffix == ".json":
            try:
                card = durable.read_json(path)
            except (OSError, ValueError):
                yield f"{path} is not whole"
                continue
            if isinstance(card, dict) and {"stage", "model"} <= card.keys():
                weights = path.with_suffix(".safetensors")
                if not weights.is_file() or not weights.stat().st_size:
                    yield f"{weights} is not there"


def _arrays(results: Path, asked: Collection[str]) -> Iterator[str]:
    """Arrays whose cards, or whose jobs' marks, were asked for, and that lack something."""
    from emsr.commands.recorded import allocations, open_allocation
    from emsr.commands.status import of_array

    for name, allocate in allocations(results):
        card = allocate.parent.with_name(f"{allocate.parent.name}.json")
        marks = [mark for mark in allocate.parent.glob("jobs/*-of-*.json") if str(mark.resolve()) in asked]
        if str(card.resolve()) not in asked and not marks:
            continue
        try:
            array = open_allocation(name, allocate)
        except (OSError, ValueError) as error:
            yield str(error)
            continue
        if str(card.resolve()) in asked:
            shards = of_array(array, time.time())["shards"]
            if lacking := shards["all"] - shards["done"] - shards["skipped"]:
                yield f"{lacking} of {shards['all']} shards of {array.label} have no record that holds"
        for mark in marks:
            if not array.is_mine(durable.read_json(mark)):
                yield f"{mark} is of other settings or weights"
