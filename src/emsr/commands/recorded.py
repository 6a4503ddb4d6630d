"""The arrays below a results folder whose shards have records: sr, affinities, fragments. Only read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsr import durable, plugins

if TYPE_CHECKING:
    from emsr.inference.records import Records

STEPS = {"sr": "superresolve", "affinities": "affinities", "fragments": "fragments"}
ASKED = 64  # records that are asked which settings they are of
MARK = re.compile(r"(\d+)-of-(\d+)")


@dataclass(frozen=True)
class Recorded:
    """One array, as the file `allocate` of `volume` states it; `allocated` is the content of that file."""

    volume: str
    allocate: Path
    allocated: Mapping[str, Any]

    @property
    def step(self) -> str:
        """The step whose jobs make the shards."""
        return STEPS[self.allocate.parent.name]

    @property
    def label(self) -> str:
        """What people call it, such as "tissue sr" or "tissue hr affinities"."""
        stage = self.allocate.parent
        own = stage.name == "sr" and stage.parent.name == self.volume
        return " ".join([self.volume, *([] if own else [stage.parent.name]), stage.name])

    @property
    def card(self) -> Path:
        """What stands when all shards were proved to be a whole."""
        return self.allocate.parent.with_name(f"{self.allocate.parent.name}.json")

    @cached_property
    def marks(self) -> dict[Path, Any]:
        """Every mark, and what stands in it; None where that is no JSON."""
        files = sorted(self.allocate.parent.glob("jobs/*.json"))
        return {file: read(file) for file in files if MARK.fullmatch(file.stem)}

    @cached_property
    def records(self) -> Records:
        """The records by the settings that most marks and records are of, so that a damaged one decides nothing."""
        from emsr.inference.records import Records

        folder = (self.allocate.parent / self.allocated["records"]).resolve()
        sample = map(read, islice(folder.glob("[0-9]*.json"), ASKED)) if folder.is_dir() else ()
        mine = [mark for mark in self.marks.values() if self.is_mine(mark)]
        named = Counter(one["settings_sha256"] for one in (*mine, *sample) if _names_settings(one))
        return Records(self.allocate, self.allocated, named.most_common(1)[0][0] if named else "")

    def is_mine(self, mark: Any) -> bool:
        """Whether a mark is of this array, made by these weights."""
        keys = ("array", "weights_sha256")
        stated = isinstance(mark, dict) and isinstance(mark.get("shards"), dict)
        return stated and all(mark.get(key) == self.allocated[key] for key in keys)


def allocations(results: Path, volume: str | None = None) -> list[tuple[str, Path]]:
    """Name of the volume and allocate.json of every array below a results folder, or of one volume of it."""
    names = volumes(results, volume)
    places = ("sr", "deviation/sr", "segmentations/*/affinities", "segmentations/*/fragments")
    patterns = [(name, f"{name}/{place}/allocate.json") for name in names for place in places]
    return [(name, file) for name, pattern in patterns for file in sorted(results.glob(pattern))]


def volumes(results: Path, volume: str | None = None) -> list[str]:
    """The volumes of a results folder, or the one named; FileNotFoundError or ValueError where there is none."""
    if not results.is_dir():
        raise FileNotFoundError(f"{results} is not a folder: name the results folder of a config")
    names = sorted(path.name for path in results.iterdir() if path.is_dir() and _is_volume(path))
    if volume is not None and volume not in names:
        raise ValueError(plugins.unknown("volume", volume, names))
    return names if volume is None else [volume]


def _is_volume(folder: Path) -> bool:
    kinds = ("*.zarr", "*.link", "sr/allocate.json", "segmentations")
    return any(next(folder.glob(kind), None) for kind in kinds)


def open_allocation(volume: str, allocate: Path) -> Recorded:
    """What an allocate.json states; ValueError, in one line, where it is torn or of no array."""
    from emsr.plan import settings_sha256

    found = durable.read_json(allocate)
    keys = ("array", "records", "shape", "shard", "inputs_sha256", "weights_sha256", "settings", "settings_sha256")
    lacking = [key for key in keys if key not in found] if isinstance(found, dict) else list(keys)
    if lacking or found["settings_sha256"] != settings_sha256(found["settings"]):
        reason = f"lacks {', '.join(lacking)}" if lacking else "does not hold the settings of its hash"
        raise ValueError(f"{allocate} {reason}: delete it and run again")
    return Recorded(volume, allocate, found)


def read(file: Path) -> Any:
    """A JSON document; None where it is absent or torn. SchemaError where this emsr does not know its form."""
    try:
        return durable.read_json(file)
    except durable.SchemaError:
        raise
    except (OSError, ValueError):
        return None


def _names_settings(found: Any) -> bool:
    return isinstance(found, dict) and isinstance(found.get("settings_sha256"), str)


def stats_of(marks: Path) -> Iterator[tuple[Path, re.Match[str], Any]]:
    """Each stats file in the folder of marks, what its name says of the job (number, of how many), its content."""
    for file in sorted(marks.glob("*.stats.json")):
        match = MARK.fullmatch(file.name.removesuffix(".stats.json"))
        found = read(file)
        if match and isinstance(found, dict):
            yield file, match, found
