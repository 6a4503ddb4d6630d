"""A file system that is really full, of bytes and of files: one line, and after it was made larger the same bytes.

Mounts a file system in memory, so these tests need to be root.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from driver_project import SHAPE, SR, Driven
from emsr import cli
from emsr.steps import superresolve as steps
from sr_project import SrProject, write_weights

JOB, SHARDS = "1-of-1", 12
ROOM = {"bytes": "size", "files": "nr_inodes"}
MOST = {"bytes": "64M", "files": "10000"}


class Disk:
    """A small file system at `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        made = mount("-t", "tmpfs", "-o", "size=64M,nr_inodes=10000", "none", str(folder))
        if made.returncode:
            pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")

    def leave(self, kind: str, free: int) -> None:
        """Let it hold so many bytes or files more, and no more."""
        found = os.statvfs(self.folder)
        used = {"bytes": (found.f_blocks - found.f_bfree) * found.f_frsize, "files": found.f_files - found.f_ffree}
        self.resize(kind, str(used[kind] + free))

    def grow(self) -> None:
        for kind, most in MOST.items():
            self.resize(kind, most)

    def resize(self, kind: str, to: str) -> None:
        done = mount("-o", f"remount,{ROOM[kind]}={to}", str(self.folder))
        assert done.returncode == 0, done.stderr


def mount(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["mount", *words], capture_output=True, text=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if os.geteuid() or shutil.which("mount") is None:
        pytest.skip("mounting takes root")
    small = Disk(tmp_path / "disk")
    yield small
    subprocess.run(["umount", str(small.folder)], check=True)


@pytest.fixture(scope="module")
def allocated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("allocated")
    made = project(folder, write_weights(folder, "bicubic", 4))
    made.write_lr(np.random.default_rng(0).integers(0, 256, (12, 32, 32)).astype(np.uint8))
    made.allocate()
    return folder


def project(folder: Path, card: Path | None = None) -> SrProject:
    return SrProject(folder, card or folder / "bicubic_x4_0.json")


@pytest.fixture(scope="module")
def undisturbed(allocated: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole") / "v"
    shutil.copytree(allocated, folder)
    made = project(folder)
    made.job(JOB)
    made.stitch(1)
    return content(folder)


def content(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file() and not file.name.endswith("stats.json"))
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def superresolve(made: SrProject) -> int:
    """The job as a rule runs it."""
    settings = json.dumps({**made.settings, "result": steps.SUPERRESOLVE_RESULT})
    words = ["superresolve", settings, str(made.allocation), JOB, str(made.mark(JOB)), "--workers", "1"]
    return cli.main(words)


def stitch(made: SrProject) -> int:
    settings = json.dumps({**made.settings, "result": steps.STITCH_RESULT})
    out = str(made.folder / "sr.json")
    return cli.main(["stitch", settings, str(made.allocation), str(made.mark(JOB)), out, "--workers", "1"])


@pytest.mark.parametrize("kind", ["bytes", "files"])
def test_a_job_on_a_disk_that_fills_goes_on_when_there_is_room(
    disk: Disk, allocated: Path, undisturbed: dict[str, bytes], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = disk.folder / "v"
    shutil.copytree(allocated, folder)
    made, left = project(folder), {"bytes": 160_000, "files": 17}[kind]
    before = content(folder)
    disk.leave(kind, left)
    assert superresolve(made) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("emsr: error: ")
    assert str(made.folder) in line
    assert "No space left on device" in line
    assert line.endswith("free some, and run again: what is finished is kept")
    assert {name: content(folder)[name] for name in before} == before
    records = {path.name for path in folder.glob("sr-*.records/[0-9]*.json")}
    assert 0 < len(records) < SHARDS
    for path in folder.glob("sr-*.records/[0-9]*.json"):
        assert path.read_bytes() == undisturbed[str(path.relative_to(folder))]
    assert not made.mark(JOB).exists()

    assert superresolve(made) == 1, "still full"
    assert records <= {path.name for path in folder.glob("sr-*.records/[0-9]*.json")}
    disk.grow()
    assert len(made.job(JOB)) <= SHARDS - len(records)
    disk.leave(kind, {"bytes": 20_000, "files": 3}[kind])
    capsys.readouterr()
    assert stitch(made) == 1
    assert "No space left on device" in capsys.readouterr().err.splitlines()[-1]
    assert not (folder / "sr.json").exists()
    disk.grow()
    assert stitch(made) == 0
    assert content(folder) == undisturbed


@pytest.mark.parametrize("kind", ["bytes", "files"])
def test_what_cannot_fit_is_refused_before_anything_is_written(
    disk: Disk, allocated: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = disk.folder / "v"
    shutil.copytree(allocated, folder, ignore=shutil.ignore_patterns("sr*"))
    made, before = project(folder), content(folder)
    disk.leave(kind, {"bytes": 30_000, "files": 15}[kind])
    settings = json.dumps({**made.settings, "result": steps.ALLOCATE_RESULT})
    words = ["allocate", settings, str(made.lr), str(made.card), str(made.allocation)]
    assert cli.main(words) == 1
    needs = {"bytes": r"MiB to .* MiB of disk and {} has .* MiB free", "files": r"files and {} can hold 15 more"}[kind]
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.search(rf"emsr: error: sr-\w+.zarr needs .*{needs.format(folder)}: .*results in the config", line), line
    assert content(folder) == before
    disk.grow()
    assert cli.main(words) == 0
    assert content(folder) == content(allocated)


@pytest.mark.workflow
@pytest.mark.skipif("EMSR_SOAK" not in os.environ, reason="three runs of the workflow: make soak")
@pytest.mark.parametrize(("kind", "why"), [("bytes", "No space left on device"), ("files", "needs [0-9,]+ files and")])
def test_a_workflow_on_a_disk_that_fills_goes_on_when_there_is_room(tmp_path: Path, kind: str, why: str) -> None:
    """How many files there will be is known, so that too few are refused; bytes depend on how voxels compress."""
    if os.geteuid():
        pytest.skip("mounting takes root")
    noise = np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)
    whole = Driven(tmp_path / "whole", lr=noise)
    whole.run(SR, "--no-canary")
    results = [path for path in whole.path().rglob("*") if path.is_file() and not path.is_symlink()]
    takes = {"bytes": sum(path.stat().st_blocks * 512 for path in results), "files": len(results)}[kind]
    project = Driven(tmp_path / "project", lr=noise)
    small = Disk(project.path())
    try:
        small.leave(kind, takes * 6 // 10)
        run = project.run(SR, "--no-canary", check=False)
        assert run.output.strip().splitlines()[-1].startswith("emsr: error: ")
        assert re.search(rf"emsr: error: .*{why}.*: .*(free some, and run again|results in the config)", run.output)
        done = {path: path.stat().st_mtime_ns for path in project.path().glob("cells/sr-*.records/[0-9]*.json")}
        assert done or kind == "files"
        small.grow()
        project.run(SR, "--no-canary")
        assert {path: path.stat().st_mtime_ns for path in done} == done, "what was recorded is not made again"
        assert of_volume(project) == of_volume(whole)
    finally:
        subprocess.run(["umount", str(small.folder)], check=True)


def of_volume(project: Driven) -> dict[str, bytes]:
    return content(project.path("cells"))
