"""What is wrong with arrays below a results folder, and which small files to remove so that a run mends it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsr.commands.recorded import Recorded, read
from emsr.plan import settings_sha256
from emsr.shards import shard_name

if TYPE_CHECKING:
    import tensorstore as ts

    from emsr.geometry import Box, Triple

Named = dict[str, list[tuple[Path, str]]]


@dataclass(frozen=True)
class Fault:
    """`what` is wrong and `why`, a line together. Without the files of `remove` (records before marks) the next run
    makes again what is wrong, and nothing else of the array. A fault without such files is not one that a run mends.
    """

    what: str
    why: str
    remove: tuple[Path, ...] = ()

    def __str__(self) -> str:
        return " ".join(f"{self.what}: {self.why}".split())


def of_metadata(label: str, array: Path, *makers: Path) -> list[Fault]:
    """Metadata of an array that is gone or torn; without the documents `makers` it is written again."""
    group, found = read(array / "zarr.json"), []
    try:
        levels = [str(one["path"]) for one in group["attributes"]["ome"]["multiscales"][0]["datasets"]]
    except (TypeError, KeyError, IndexError):
        found, levels = [array / "zarr.json"], []
    found += [file for level in levels if not isinstance(read(file := array / level / "zarr.json"), dict)]
    return [Fault(f"{label}: {file}", "is gone or damaged", (file, *makers)) for file in found]


def of_array(array: Recorded, workers: int) -> list[Fault]:
    """Bad shards, records and marks of one array. Reads every shard that has a record, one a worker.

    A shard that no mark names and that has no record is not made yet, unless the whole was proved.
    """
    from emsr.stores.shards import each
    from emsr.stores.zarr import open_array

    name, records = array.label, array.records
    if found := of_metadata(name, records.array, array.allocate, *_card(array)):
        return found
    voxels, proof, named = open_array(records.array), read(array.allocate.parent / "proof.json"), _named(array)
    whole = isinstance(proof, dict) and _proved(array)
    grid, gone = records.grid, _removed(array)

    def look(box: Box) -> str | None:
        index = grid.holding(box.start)
        return _why(array, voxels, index, whole or shard_name(index) in named)

    reasons = each(look, grid.boxes(), workers, f"checking {name}")
    bad = {grid.index(number): reason for number, reason in enumerate(reasons) if reason}
    for index, reason in bad.items():
        marks = tuple(mark for mark, _ in named.get(shard_name(index), ()))
        remove = (records.path(index), *marks, *((array.allocate,) if gone else ()), *_card(array))
        again = f"; {gone[0]}, of which it is made, is gone and is made again too" if gone else ""
        found.append(Fault(f"{name}: shard {shard_name(index)}", reason + again, remove))
    found += _of_marks(array, named, bad)
    found += _of_proof(array, proof)
    if whole and array.step != "superresolve":
        found += _of_card(array, bad)
    return found


def _why(array: Recorded, voxels: ts.TensorStore, index: Triple, wanted: bool) -> str | None:
    """What is wrong with a shard; None where nothing is, or it is not `wanted` yet."""
    from emsr.stores.shards import read_box

    records, path = array.records, array.records.path(index)
    if not path.is_file():
        return f"has no record {path.name}" if wanted else None
    record = records.read(index)
    if not isinstance(record, dict) or not isinstance(record.get("sha256"), str):
        return f"its record {path} is damaged"
    if not records.fits(index, record):
        stale = f"its record is of another place, other settings, weights or inputs than {array.allocate} states"
        return stale if wanted else None
    if not (file := records.file(index)).is_file():
        return f"its file {file} is gone"
    try:
        block = read_box(voxels, records.grid.box(index))
    except (OSError, ValueError) as error:
        return f"its file {file} is damaged ({error})"
    if record.get("skipped"):
        return "is skipped, but holds voxels" if block.any() else None
    same = hashlib.sha256(block.tobytes()).hexdigest() == record["sha256"]
    return None if same else f"its file {file} holds other voxels than its record says"


def _named(array: Recorded) -> Named:
    """The marks of now that name each shard, and the hash that they state."""
    found: Named = {}
    for path, mark in array.marks.items():
        if _of_now(array, mark):
            for name, sha256 in mark["shards"].items():
                found.setdefault(name, []).append((path, sha256))
    return found


def _of_now(array: Recorded, mark: Any) -> bool:
    return array.is_mine(mark) and bool(mark.get("settings_sha256") == array.records.settings_sha256)


def _of_marks(array: Recorded, named: Named, bad: Mapping[Triple, str]) -> Iterator[Fault]:
    """Marks that are torn, or name another hash than the record of a shard that is well, or no shard at all."""
    for path, mark in array.marks.items():
        if mark is None:
            yield Fault(f"{array.label}: mark {path}", "is damaged", (path, *_card(array)))
    indices = {shard_name(index): index for index in array.records.grid.indices}
    other: dict[Path, str] = {}
    for name, marks in named.items():
        index = indices.get(name)
        record = array.records.read(index) if index and index not in bad else None
        for path, sha256 in marks:
            if index is None or (record and record["sha256"] != sha256):
                other.setdefault(path, name)
    for path, name in sorted(other.items()):
        yield Fault(f"{array.label}: mark {path}", f"is not of the shard {name} that is there", (path, *_card(array)))


def _of_proof(array: Recorded, proof: Any) -> Iterator[Fault]:
    """What a finished array was proved by: that this is whole, and that its marks are there and of this array."""
    path = array.allocate.parent / "proof.json"
    if not path.is_file():
        return
    if not isinstance(proof, dict) or not isinstance(proof.get("marks"), list):
        yield Fault(f"{array.label}: {path}", "is damaged", (path, *_card(array)))
        return
    for mark in (path.parent / str(one) for one in proof["marks"]) if _proved(array) else ():
        if not mark.is_file():
            yield Fault(f"{array.label}: mark {mark}", "is gone", _card(array))
        elif (held := read(mark)) is not None and not _of_now(array, held):
            yield Fault(
                f"{array.label}: mark {mark}", "is of another array, weights or settings", (mark, *_card(array))
            )


def _card(array: Recorded) -> tuple[Path, ...]:
    """The card: without it, and only then, the workflow asks for the marks that lack, and proves the whole anew."""
    return (array.card,) if array.card.is_file() else ()


def _removed(array: Recorded) -> tuple[Path, ...]:
    """The card of affinities that fragments are made of, where it is gone.

    Without what was allocated for the fragments the next run needs it, and makes affinities again before it cuts.
    """
    of = array.allocated.get("affinities")
    card = of and (array.allocate.parent.resolve() / str(of)).resolve()
    return (card,) if card and not card.is_file() else ()


def _proved(array: Recorded) -> bool:
    """Whether the array that is allocated now was proved a whole."""
    card = read(array.card)
    keys = ("weights_sha256", "settings_sha256")
    if not isinstance(card, dict) or any(card.get(key) != array.allocated[key] for key in keys):
        return False
    return (array.card.parent / str(card.get("array"))).resolve() == array.records.array


def _of_card(array: Recorded, bad: Mapping[Triple, str]) -> Iterator[Fault]:
    """The hashes of shards on the card of affinities and fragments, against those of records."""
    card = read(array.card)
    shards, what = card.get("shards"), f"{array.label}: {array.card}"
    if not isinstance(shards, dict) or card.get("sha256") != settings_sha256(shards):
        yield Fault(what, "is damaged: its hash is not of its shards", (array.card,))
        return
    for index in array.records.grid.indices:
        name, record = shard_name(index), array.records.read(index)
        if index not in bad and record and shards.get(name) != record["sha256"]:
            yield Fault(what, f"is not of the shard {name} that is there", (array.card,))
            return
