"""A file per finished shard, written after its voxels are durable: what a job resumes by and what stitch proves by.

A shard that is skipped holds zeros and has a record too, which says so and depends on no input.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from emsr import durable
from emsr.geometry import ShardGrid, Triple, triple
from emsr.inference.extent import reasons
from emsr.plan import read_within
from emsr.shards import shard_name

SCHEMA = 1
OF_NOTHING = hashlib.sha256(b"").hexdigest()
"""What the record of a skipped shard states in place of the hash of its voxels."""


class Records:
    """The records of one array. A record holds if shard, settings, weights and inputs are those of now and the shard's
    file is there. Inputs are those of the shard, where `allocated` states them, or of its whole layer.
    """

    def __init__(self, allocate: Path, allocated: Mapping[str, Any], settings_sha256: str) -> None:
        """`allocated` is the content of the file `allocate`; `settings_sha256` are the settings of now."""
        self._allocate, self._allocated = allocate, allocated
        self._unchanged: tuple[int, int, int] | None = None  # inode, time and size of `allocate` when it was last read
        self.array = (allocate.parent / allocated["array"]).resolve()
        self.folder = (allocate.parent / allocated["records"]).resolve()
        self.grid = ShardGrid(triple(allocated["shape"]), triple(allocated["shard"]))
        self.settings_sha256 = settings_sha256
        channels = allocated.get("channels")  # of affinities
        self.device_key = "segment.device" if channels else "superresolve.device"
        self._before = ("0",) if channels else ()  # the one chunk along the axis of channels
        self.skipped = reasons(allocated, self.grid)
        self.within = read_within(allocated)
        self._inputs: list[str] = allocated["inputs_sha256"]
        self._read: dict[str, str] = allocated.get("shard_inputs_sha256") or {}
        self._hashes = {"settings_sha256": settings_sha256, "weights_sha256": allocated["weights_sha256"]}

    def path(self, index: Triple) -> Path:
        """Where a shard's record stands."""
        return self.folder / f"{shard_name(index)}.json"

    def file(self, index: Triple) -> Path:
        """Where a shard's voxels stand."""
        return self.array.joinpath("0", "c", *self._before, *map(str, index))

    def read(self, index: Triple) -> Any:
        """What stands in the place of a shard's record; None where that is nothing or no JSON.

        SchemaError for one that another emsr wrote in a form that this one does not know.
        """
        try:
            return durable.read_json(self.path(index), SCHEMA)
        except durable.SchemaError:
            raise
        except (OSError, ValueError):
            return None

    def holding(self, index: Triple) -> dict[str, Any] | None:
        """The record of a shard, if it holds."""
        record = self.read(index)
        return record if self._of_computed(index, record) and self._has_voxels(index) else None

    def settled(self, index: Triple) -> dict[str, Any] | None:
        """The record of a shard that needs no more work: it was computed, or is skipped and says so.

        What was computed before, when more was made, stays.
        """
        record = self.read(index)
        return record if self.fits(index, record) and self._has_voxels(index) else None

    def fits(self, index: Triple, record: Any) -> bool:
        """Whether a record is one of the shard, settings, weights and inputs of now, whatever became of the voxels."""
        return self._of_computed(index, record) or (index in self.skipped and record == self._of_skipped(index))

    def _of_computed(self, index: Triple, record: Any) -> bool:
        expected = self._expected(index)
        layer = expected | {"inputs_sha256": self._inputs[index[0]]}
        same = isinstance(record, dict) and any(one.items() <= record.items() for one in (expected, layer))
        return same and "sha256" in record

    def refuse_mixture(self, indices: Iterable[Triple], device: str) -> None:
        """Raise ValueError if a record that holds was made on another kind of device than `device`."""
        for index in indices:
            record = self.holding(index)
            if record and record.get("device") != device:
                name = f"{shard_name(index)} of {self.array.name}"
                raise ValueError(
                    f"shard {name} was computed on {record.get('device')}, others would be on {device} and differ in "
                    f"voxels: set {self.device_key} to one of them"
                )

    def refuse_orphan(self) -> None:
        """Raise ValueError or OSError unless `allocate` still states what this was opened with: another run has begun
        since on other inputs, and a job that it does not know of must not write over what its jobs write.
        """
        try:
            found = self._allocate.stat()
        except OSError as error:
            raise ValueError(
                f"{self._allocate} is gone since this job began ({error.strerror}): run it again"
            ) from None
        state = (found.st_ino, found.st_mtime_ns, found.st_size)
        if state != self._unchanged and durable.read_json(self._allocate) != self._allocated:
            raise ValueError(
                f"{self._allocate} has changed since this job began, which therefore stops and writes no more of "
                f"{self.array.name}: run it again"
            )
        self._unchanged = state

    def begin(self, index: Triple) -> None:
        """Before a shard is written: an older record no longer holds, whatever happens next.

        ValueError or OSError where this job is not one of the run that goes on now.
        """
        self.refuse_orphan()
        path = self.path(index)
        if path.exists():
            path.unlink()
            durable.sync_folder(path.parent)

    def finish(self, index: Triple, sha256: str, made_by: Mapping[str, Any]) -> None:
        """After a shard's voxels are durable: its record; `made_by` says what else bits depend on (device, torch,
        accelerators)."""
        durable.write_sealed(self.path(index), {**self._expected(index), "sha256": sha256, **made_by})

    def skip(self, index: Triple) -> None:
        """After a shard that is skipped holds zeros, durably: its record."""
        durable.write_sealed(self.path(index), self._of_skipped(index))

    def _of_skipped(self, index: Triple) -> dict[str, Any]:
        box = self.grid.box(index)
        return {"schema": SCHEMA, "box": [list(box.start), list(box.stop)], "skipped": True, "sha256": OF_NOTHING}

    def _expected(self, index: Triple) -> dict[str, Any]:
        box = self.grid.box(index)
        sides = [list(box.start), list(box.stop)]
        inputs = self._read.get(shard_name(index), self._inputs[index[0]])
        return {"schema": SCHEMA, "box": sides, "inputs_sha256": inputs, **self._hashes}

    def _has_voxels(self, index: Triple) -> bool:
        file = self.file(index)
        return file.is_file() and file.stat().st_size > 0
