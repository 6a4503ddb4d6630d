"""Whether what was asked for is there and has records that hold: what `emsr run` takes for success."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from emsr import durable
from emsr.settings import Settings
from emsr.shards import index_of, shard_name

if TYPE_CHECKING:
    from emsr.commands.recorded import Recorded

MADE_OF = {
    "fragments.json": ("affinities.json",),
    "agglomeration.json": ("affinities.json", "fragments.json"),
    "segments.json": ("affinities.json", "fragments.json"),
}


def check(settings: Settings, targets: Sequence[str]) -> None:
    """Raise ValueError, in one line, unless every file that was asked for is whole; `targets` empty: all of a run.

    A JSON is one, weights lie beside their card, and every shard of sr, affinities and fragments has its file and a
    record that holds: where the card was asked for, or what is made of it (but not after `keep` had it removed), and
    those of a job whose mark was asked for. Voxels are not read: `emsr verify` does.
    """
    asked = [target for target in targets if "/" in target] or ([] if targets else settings.targets)
    paths = {Path(path).resolve() for path in asked}
    found = [*_files(asked), *_arrays(Path(settings.root), paths | set(_behind(paths)))]
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


def _behind(asked: Collection[Path]) -> Iterator[Path]:
    """The cards of affinities and fragments that segments were made of, where they are kept."""
    for path in asked:
        if path.name in MADE_OF:
            yield from (card for name in MADE_OF[path.name] if (card := path.with_name(name)).is_file())


def _arrays(results: Path, asked: Collection[Path]) -> Iterator[str]:
    """Arrays whose cards, or whose jobs' marks, were asked for, and that lack something."""
    from emsr.commands.recorded import allocations, open_allocation
    from emsr.commands.status import of_array

    for name, allocate in allocations(results):
        card = allocate.parent.with_name(f"{allocate.parent.name}.json")
        folder = allocate.parent.resolve() / "jobs"
        marks = sorted(path for path in asked if path.parent == folder and path.is_file())
        if card.resolve() not in asked and not marks:
            continue
        try:
            array = open_allocation(name, allocate)
        except (OSError, ValueError) as error:
            yield str(error)
            continue
        if card.resolve() in asked:
            shards = of_array(array, time.time())["shards"]
            if lacking := shards["all"] - shards["done"] - shards["skipped"]:
                yield f"{lacking} of {shards['all']} shards of {array.label} have no record that holds"
        for mark in marks:
            yield from _mark(array, mark)


def _mark(array: Recorded, path: Path) -> Iterator[str]:
    """What is wrong with a job by its mark, in a line."""
    try:
        mark = durable.read_json(path)
    except (OSError, ValueError):
        return  # said of the file already
    if not array.is_mine(mark):
        yield f"{path} is of other settings or weights"
        return
    records, shards = array.records, mark["shards"]
    indices = filter(None, (index_of(name, records.grid) for name in shards))
    held = {shard_name(index): record["sha256"] for index in indices if (record := records.settled(index))}
    if lacking := sum(held.get(name) != sha256 for name, sha256 in shards.items()):
        yield f"{lacking} of {len(shards)} shards of {path} have no record that holds"
