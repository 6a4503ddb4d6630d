"""Whether finished shards are one whole: every one there, of one kind, and holding the voxels that its record says.

Of a shard nothing is held but its hash and its mark's number, so that a million of them fit in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emsr import durable
from emsr.geometry import ShardGrid, Triple, runs
from emsr.inference.records import Records
from emsr.inference.survey import Survey, job_borders, seam_score, shard_borders, window_borders
from emsr.plan import Plan
from emsr.shards import index_of, shard_name

Json = Mapping[str, Any]
MARKED = frozenset(("array", "weights_sha256", "settings_sha256", "shards"))
HASH = 32  # bytes of a sha256


class Hashes:
    """A sha256 for each shard of a grid, as hexadecimal digits; "" where none was put."""

    def __init__(self, grid: ShardGrid) -> None:
        self.grid = grid
        self._bytes = np.zeros((len(grid.boxes()), HASH), np.uint8)

    def __setitem__(self, index: Triple, sha256: object) -> None:
        self._bytes[self.grid.number(index)] = np.frombuffer(_digest(sha256), np.uint8)

    def __getitem__(self, index: Triple) -> str:
        found = self._bytes[self.grid.number(index)]
        return found.tobytes().hex() if found.any() else ""


def _digest(sha256: object) -> bytes:
    """The bytes of a hash; zeros for what is none."""
    try:
        found = bytes.fromhex(sha256) if isinstance(sha256, str) else b""
    except ValueError:
        found = b""
    return found if len(found) == HASH else bytes(HASH)


@dataclass(frozen=True)
class Marks:
    """What the marks of all jobs say: the settings, and of each shard the hash and which of the marks names it."""

    paths: Sequence[Path]
    settings_sha256: str
    hashes: Hashes
    owner: np.ndarray
    """Number of the mark for each shard in raster order, -1 where none names it."""

    def again(self, index: Triple) -> str:
        """What to do so that a shard is made again."""
        owner = int(self.owner[self.hashes.grid.number(index)])
        return "run the jobs again" if owner < 0 else f"remove {self.paths[owner]} and run again"


def read_marks(paths: Sequence[Path], allocated: Json, grid: ShardGrid) -> Marks:
    """The marks of all jobs, one in memory at a time; ValueError where their settings differ or are another array's."""
    hashes, owner, found = Hashes(grid), np.full(len(grid.boxes()), -1, np.int32), set()
    for number, path in enumerate(paths):
        mark = durable.read_json(path)
        if not isinstance(mark, dict) or not mark.keys() >= MARKED:
            raise ValueError(f"{path} is no mark of a job: delete it and run that job again")
        if any(mark[key] != allocated[key] for key in ("array", "weights_sha256")):
            raise ValueError(f"{path} is a mark of {mark['array']}, not of {allocated['array']}: run that job again")
        found.add(mark["settings_sha256"])
        for name, sha256 in mark["shards"].items():
            if (index := index_of(name, grid)) is not None:
                hashes[index], owner[grid.number(index)] = sha256, number
    if len(found) != 1:
        raise ValueError(f"marks name {len(found)} different settings instead of one: run all jobs again")
    return Marks(paths, found.pop(), hashes, owner)


class Left:
    """The shards of a grid that were skipped."""

    def __init__(self, grid: ShardGrid) -> None:
        self._grid, self._skipped = grid, np.zeros(len(grid.boxes()), bool)

    def add(self, index: Triple) -> None:
        self._skipped[self._grid.number(index)] = True

    def __contains__(self, index: object) -> bool:
        return isinstance(index, tuple) and bool(self._skipped[self._grid.number(index)])

    def __len__(self) -> int:
        return int(np.count_nonzero(self._skipped))

    def __iter__(self) -> Iterator[Triple]:
        return map(self._grid.index, map(int, np.flatnonzero(self._skipped)))


@dataclass(frozen=True)
class Whole:
    """What the records of all shards say together: hashes, which were skipped, and what computed the others."""

    hashes: Hashes
    skipped: Left
    devices: Counter[str]
    torch: set[str]
    accelerators: set[str]

    def __len__(self) -> int:
        return len(self.hashes.grid.boxes())


def whole(records: Records, marks: Marks) -> Whole:
    """What all records say; ValueError where one is lacking, in no mark, or made on another kind of device."""
    grid = records.grid
    found = Whole(Hashes(grid), Left(grid), Counter(), set(), set())
    for index in map(grid.index, range(len(found))):
        record, name = records.settled(index), shard_name(index)
        if record is None:
            raise ValueError(f"shard {name} of {records.array.name} has no record that holds: {marks.again(index)}")
        found.hashes[index] = record["sha256"]
        if not found.hashes[index] or marks.hashes[index] != found.hashes[index]:
            raise ValueError(f"shard {name} of {records.array.name} is not the one of its mark: {marks.again(index)}")
        if "skipped" in record:
            found.skipped.add(index)
            continue
        found.devices[record["device"]] += 1
        found.torch.update([record["torch"]] if "torch" in record else [])
        found.accelerators.update(f"{layer} by {package}" for layer, package in record.get("accelerators", {}).items())
    _one_device(records, found.devices)
    return found


def _one_device(records: Records, counts: Counter[str]) -> None:
    if len(counts) > 1:
        listed = ", ".join(f"{n} on {device}" for device, n in sorted(counts.items()))
        raise ValueError(
            f"shards of {records.array.name} were computed on different devices ({listed}), which differ in voxels: "
            f"set {records.device_key} to one of {', '.join(sorted(counts))}"
        )


def check_shard(records: Records, found: Whole, marks: Marks, index: Triple, sha256: str) -> None:
    """Raise ValueError for a shard whose voxels, of hash `sha256`, are not those of its record."""
    if sha256 != found.hashes[index]:
        raise ValueError(
            f"shard {shard_name(index)} of {records.array.name} does not hold the voxels of its record: remove "
            f"{records.path(index)}; {marks.again(index)}"
        )


def statement(plan: Plan, surveyed: Survey, found: Whole) -> dict[str, Any]:
    """What is known of the whole: hashes, seam scores, counts, what computed it. The same for any number of jobs.

    "windows" are those that a whole volume has. "accelerators" says what computed layers in PyTorch's place, as "deform
    by mmcv 2.2.0"; nothing where nothing did.
    """
    borders = {"window": window_borders, "shard": shard_borders}
    return {
        "section_sha256": surveyed.section_sha256,
        "seams": {kind: seams(plan, surveyed, [places(plan, 1), places(plan, 2)]) for kind, places in borders.items()},
        "counts": {"shards": len(found), "windows": len(plan.starts(1)) * len(plan.starts(2)) * plan.shape[0]},
        "devices": sorted(found.devices),
        "torch": sorted(found.torch),
        **({"accelerators": sorted(found.accelerators)} if found.accelerators else {}),
    }


def skipped(records: Records, left: Left) -> dict[str, Any] | None:
    """How much of the volume was not made, and which shards: runs of their numbers in raster order. None where all was.

    "reasons" counts shards by what left them out, "pilot" or "mask".
    """
    grid = records.grid
    if not len(left):
        return None
    return {
        "shards": len(left),
        "voxels": sum(grid.box(index).size for index in left),
        "reasons": dict(sorted(Counter(records.skipped[index] for index in left).items())),
        "shard": list(grid.shard),
        "runs": runs(map(grid.number, left)),
    }


def job_seams(plan: Plan, surveyed: Survey, n: int) -> dict[str, float | None]:
    """Seam scores of the borders of `n` jobs."""
    return seams(plan, surveyed, [job_borders(plan, 1, n), job_borders(plan, 2, n)])


def seams(plan: Plan, surveyed: Survey, borders: Sequence[list[int]]) -> dict[str, float | None]:
    """Seam scores of borders along y and along x: {"y": 1.01, "x": 0.99}."""
    both = zip("yx", (1, 2), surveyed.steepness, borders, strict=True)
    return {name: seam_score(steepness, places, plan.axis(axis).step) for name, axis, steepness, places in both}
