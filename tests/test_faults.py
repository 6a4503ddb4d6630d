"""Whatever operation fails, and however, running the step again ends with the bytes of an undisturbed run."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from faulted import RECORDED, STEPS, content, copied, recorded
from faults import FAULTS, Server, serving

ALL = os.environ.get("EMSR_FAULTS") == "all"
"""`make soak` sets it; else a sample is tried: every operation of the steps in EVERY for kills, each eleventh of the
others, each thirtieth for what is told an errno, and that in the steps of SAMPLE alone."""
EVERY = ("superresolve", "save_weights", "save_state")
SAMPLE = {
    "killed": tuple(STEPS),
    "EIO": ("superresolve", "stitch"),
    "ENOSPC": ("superresolve", "ingest", "save_state"),
    "EDQUOT": ("cut",),
    "EIO on reading": ("superresolve", "agglomerate"),
}
CASES = [(name, kind) for kind in FAULTS for name in (STEPS if ALL else SAMPLE[kind])]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("faulted") as served:
        yield served


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For each step a folder with what must stand before it."""
    folder = tmp_path_factory.mktemp("before")
    for name, step in STEPS.items():
        step.prepare(folder / name)
    return folder


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_after_a_fault_at_any_operation_the_step_run_again_ends_with_the_same_bytes(
    server: Server, before: Path, tmp_path: Path, name: str, kind: str
) -> None:
    folder = tmp_path / "folder"  # the same for all trials: cards name paths
    copied(before / name, folder)
    assert server.run("faulted:again", folder, name).error is None
    whole, every = content(folder), recorded(folder, name) if name in RECORDED else set()
    stride = 1 if ALL or (kind == "killed" and name in EVERY) else 11 if kind == "killed" else 30
    fired = 0
    for at in itertools.count(1 + len(name + kind) % min(stride, 7), stride):
        copied(before / name, folder)
        trial = server.run("faulted:again", folder, name, fault=FAULTS[kind], at=at)
        if not trial.fired:
            break
        fired += 1
        where = f"{kind} at operation {at} of {name}: {trial.error}"
        assert trial.killed == (kind == "killed"), where
        assert trial.mistake or trial.error is None, f"{where}: not one line for people"
        kept = recorded(folder, name) if name in RECORDED else set()
        resumed = server.run("faulted:again", folder, name)
        assert resumed.error is None, f"{where}; then {resumed.error}"
        assert content(folder) == whole, where
        if name in RECORDED:
            assert set(resumed.value) == every - kept, f"{where}: exactly what had no record"
    if ALL:
        sys.stderr.write(f"faults: {kind} at each of {fired} operations of {name}\n")
    assert fired or kind == "EIO on reading", "the test means something only where operations failed"


NAMES = ("ingest", "superresolve", "agglomerate", "save_state", "allocate", "stitch", "cut", "save_weights")[
    : 8 if ALL else 4
]


@pytest.mark.parametrize("name", NAMES)
def test_where_no_file_may_be_as_large_as_it_must(server: Server, before: Path, tmp_path: Path, name: str) -> None:
    """The kernel says so, not the test: RLIMIT_FSIZE, as a quota does."""
    folder = copied(before / name, tmp_path / "folder")
    assert server.run("faulted:again", folder, name).error is None
    whole = content(folder)
    for size in (0, 200):
        copied(before / name, folder)
        trial = server.run("faulted:within", folder, name, size)
        assert trial.error is not None
        assert trial.mistake, trial.error
        assert "File too large" in trial.error or "writing" in trial.error
        assert server.run("faulted:again", folder, name).error is None
        assert content(folder) == whole


@pytest.mark.parametrize("name", NAMES)
def test_where_nothing_may_be_written_nothing_changes(server: Server, before: Path, tmp_path: Path, name: str) -> None:
    folder = copied(before / name, tmp_path / "folder")
    stood = content(folder)
    trial = server.run("faulted:unprivileged", folder, name)
    assert trial.mistake, trial.error
    assert "ermission denied" in str(trial.error), trial.error
    assert content(folder) == stood
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_record_appears_after_its_voxels_are_on_disk(server: Server, before: Path, tmp_path: Path) -> None:
    """By the order of what is asked of the system: write, fsync, rename, fsync of the folder, and then the record."""
    folder, log = copied(before / "superresolve", tmp_path / "folder"), tmp_path / "log"
    assert server.run("faulted:again", folder, "superresolve", log=str(log)).error is None
    calls = [line.split("\t") for line in log.read_text().splitlines()]
    records = [number for number, (call, path) in enumerate(calls) if call == "rename" and ".records/" in path]
    assert len(records) == 2
    for number in records:
        array, _, name = calls[number][1].rpartition(".records/")
        shard = f"{array}.zarr/0/c/{Path(name).stem.replace('_', '/')}"
        asked = [call for call, path in calls[:number] if path == shard or path == f"{shard}.__lock"]
        assert asked[-3:] == ["writev", "fsync", "rename"] or asked[-3:] == ["write", "fsync", "rename"], asked
        renamed = max(n for n, (call, path) in enumerate(calls[:number]) if (call, path) == ("rename", shard))
        assert ["fsync", str(Path(shard).parent)] in calls[renamed:number]
        partial = calls[number - 1]
        assert partial[0] == "fsync"
        assert partial[1].endswith(".partial")
        assert calls[number + 1] == ["fsync", str(Path(calls[number][1]).parent)]
    marks = [number for number, (call, path) in enumerate(calls) if call == "rename" and path.endswith("1-of-1.json")]
    assert marks[0] > max(records)
