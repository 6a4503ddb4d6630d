"""`emsr verify`: read everything that is made, and name what is not what it was when it was made."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emsr.commands.faults import Fault


def verify(results: Path, *, volume: str | None = None, workers: int = 1) -> None:
    """Read all voxels and say, in a line each, what is damaged, gone, or not what was made; writes nothing.

    RESULTS is the results folder of a config; `--volume` names one of its volumes. Every shard of sr, affinities and
    fragments is compared with the hash in its record, records with their array, marks with records; every other image
    with the hashes of its sections on its card, coarser levels with the one below; weights, and histories of merges,
    with the hash that is stated of them; small documents with their seals. What is not made yet is no fault; a
    document that is gone though what was made of it stands is one. Ends with
    exit code 1 where there is one: `emsr repair` lets the next run mend it. A worker holds one shard, or a row of
    chunks across the volume.
    """
    total = bad = 0
    for checked, faults in examined(results, volume, workers):
        total += checked
        bad += len(faults)
        sys.stdout.writelines(f"{fault}\n" for fault in faults)
        sys.stdout.flush()
    if bad:
        raise ValueError(f"{bad} faults in {total} arrays and cards of {results}: mend them with emsr repair {results}")
    sys.stdout.write(f"{total} arrays and cards of {results} are what was made\n")


def examined(results: Path, volume: str | None, workers: int) -> Iterator[tuple[int, list[Fault]]]:
    """What is wrong, array by array and card by card, with how many were looked at."""
    from emsr.commands.faults import Fault, of_array
    from emsr.commands.gone_faults import of_gone
    from emsr.commands.image_faults import cards, of_card
    from emsr.commands.recorded import allocations, open_allocation, volumes
    from emsr.commands.weight_faults import of_history, of_weights, weight_cards

    for card in weight_cards(results, [allocate for _, allocate in allocations(results, volume)]):
        yield 1, list(of_weights(card, results))
    for name in volumes(results, volume):
        recorded: dict[Path, list[Fault]] = {}
        for _, allocate in allocations(results, name):
            try:
                array = open_allocation(name, allocate)
            except (OSError, ValueError) as error:
                card = allocate.parent.with_name(f"{allocate.parent.name}.json")
                yield 1, [Fault(name, str(error), (allocate, card))]
                continue
            recorded[array.card] = of_array(array, workers)
            yield 1, recorded[array.card]
        for path in cards(results, name):
            checked, faults = of_card(path, workers, recorded.get(path))
            if checked:
                yield 1, faults
        if gone := list(of_gone(results, name)):
            yield len(gone), gone
        for path in sorted(results.glob(f"{name}/segmentations/*/agglomeration.json")):
            yield 1, of_history(path)
