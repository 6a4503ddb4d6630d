"""Whether finished shards are one whole: every one there, of one kind, and holding the voxels that its record says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from emsr.geometry import Triple, runs
from emsr.inference.records import Records
from emsr.inference.survey import Survey, job_borders, seam_score, shard_borders, window_borders
from emsr.plan import Plan, shard_name

Json = Mapping[str, Any]
MARKED = frozenset(("array", "weights_sha256", "settings_sha256", "shards"))


def one_settings(marks: Mapping[str, Json], allocated: Json) -> str:
    """The hash of the settings that all marks were made with; ValueError where they differ or are another array's."""
    for path, mark in marks.items():
        if not isinstance(mark, dict) or not mark.keys() >= MARKED:
            raise ValueError(f"{path} is no mark of a job: delete it and run that job again")
        if any(mark[key] != allocated[key] for key in ("array", "weights_sha256")):
            raise ValueError(f"{path} is a mark of {mark['array']}, not of {allocated['array']}: run that job again")
    found = {mark["settings_sha256"] for mark in marks.values()}
    if len(found) != 1:
        raise ValueError(f"marks name {len(found)} different settings instead of one: run all jobs again")
    return found.pop()


def whole(records: Records, marks: Mapping[str, Json]) -> dict[Triple, Json]:
    """The record of every shard; ValueError where one is lacking, in no mark, or made on another kind of device."""
    marked = {name: sha256 for mark in marks.values() for name, sha256 in mark["shards"].items()}
    found: dict[Triple, Json] = {}
    for index in records.grid.indices:
        record, name = records.settled(index), shard_name(index)
        if record is None:
            raise ValueError(f"shard {name} of {records.array.name} has no record that holds: {_again(marks, name)}")
        if marked.get(name) != record["sha256"]:
            raise ValueError(f"shard {name} of {records.array.name} is not the one of its mark: {_again(marks, name)}")
        found[index] = record
    _one_device(records, found)
    return found


def computed(found: Mapping[Triple, Json]) -> dict[Triple, Json]:
    """The records of shards that were not skipped."""
    return {index: record for index, record in found.items() if "skipped" not in record}


def _one_device(records: Records, found: Mapping[Triple, Json]) -> None:
    counts = Counter(record["device"] for record in computed(found).values())
    if len(counts) > 1:
        listed = ", ".join(f"{n} on {device}" for device, n in sorted(counts.items()))
        raise ValueError(
            f"shards of {records.array.name} were computed on different devices ({listed}), which differ in voxels: "
            f"set {records.device_key} to one of {', '.join(sorted(counts))}"
        )


def check_voxels(records: Records, found: Mapping[Triple, Json], surveyed: Survey, marks: Mapping[str, Json]) -> None:
    """Raise ValueError for the first shard whose voxels are not those of its record."""
    for index, record in computed(found).items():
        if surveyed.shard_sha256[index] != record["sha256"]:
            name = shard_name(index)
            raise ValueError(
                f"shard {name} of {records.array.name} does not hold the voxels of its record: remove "
                f"{records.path(index)}; {_again(marks, name)}"
            )


def _again(marks: Mapping[str, Json], name: str) -> str:
    owner = next((path for path, mark in marks.items() if name in mark["shards"]), None)
    return f"remove {owner} and run again" if owner else "run the jobs again"


def statement(plan: Plan, surveyed: Survey, found: Mapping[Triple, Json]) -> dict[str, Any]:
    """What is known of the whole: hashes, seam scores, counts, what computed it. The same for any number of jobs.

    "windows" are those that a whole volume has.
    """
    made = computed(found).values()
    borders = {"window": window_borders, "shard": shard_borders}
    return {
        "section_sha256": surveyed.section_sha256,
        "seams": {kind: seams(plan, surveyed, [places(plan, 1), places(plan, 2)]) for kind, places in borders.items()},
        "counts": {"shards": len(found), "windows": len(plan.starts(1)) * len(plan.starts(2)) * plan.shape[0]},
        "devices": sorted({record["device"] for record in made}),
        "torch": sorted({record["torch"] for record in made}),
        **_accelerators(made),
    }


def _accelerators(made: Iterable[Json]) -> dict[str, list[str]]:
    """What computed layers in PyTorch's place, as "deform by mmcv 2.2.0"; nothing where nothing did."""
    named = {f"{layer} by {package}" for record in made for layer, package in record.get("accelerators", {}).items()}
    return {"accelerators": sorted(named)} if named else {}


def skipped(records: Records, found: Mapping[Triple, Json]) -> dict[str, Any] | None:
    """How much of the volume was not made, and which shards: runs of their numbers in raster order. None where all was.

    "reasons" counts shards by what left them out, "pilot" or "mask".
    """
    grid, left = records.grid, [index for index, record in found.items() if "skipped" in record]
    if not left:
        return None
    return {
        "shards": len(left),
        "voxels": sum(grid.box(index).size for index in left),
        "reasons": dict(sorted(Counter(records.skipped[index] for index in left).items())),
        "shard": list(grid.shard),
        "runs": runs(grid.number(index) for index in left),
    }


def job_seams(plan: Plan, surveyed: Survey, n: int) -> dict[str, float | None]:
    """Seam scores of the borders of `n` jobs."""
    return seams(plan, surveyed, [job_borders(plan, 1, n), job_borders(plan, 2, n)])


def seams(plan: Plan, surveyed: Survey, borders: Sequence[list[int]]) -> dict[str, float | None]:
    """Seam scores of borders along y and along x: {"y": 1.01, "x": 0.99}."""
    both = zip("yx", (1, 2), surveyed.steepness, borders, strict=True)
    return {name: seam_score(steepness, places, plan.axis(axis).step) for name, axis, steepness, places in both}
