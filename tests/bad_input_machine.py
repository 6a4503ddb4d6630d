"""Bad inputs 75 to 92: what the machine, the disk, the clock and other processes do."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bad_input import Program, Row, Words
from bad_input_volumes import MADE, ingested, same
from bad_sources import RAW, SIZE, VOLUME, hdf, own, settings
from emsr.durable import read_json
from emsr.inference import stream
from emsr.stores import fill
from image_files import folder as sections
from sr_project import SrProject, tissue_like, write_weights
from test_bad_sources_denied import ordinary_user

LR = tissue_like((3, 18, 20))
MARK = "sr/jobs/1-of-1.json"
HASHES = r"(?<=settings ).*(?=: run)|(?<=sr-)\w{12}"
JOBS = "sr/jobs.*"  # the stats of an attempt say that it failed


def words(place: Path, out: str = "out/hr.json", **stated: Any) -> Words:
    return ["ingest", json.dumps(settings(hdf(place), **RAW | stated)), out]


def mounted(options: str) -> Callable[[Path], list[Words | Program]]:
    """Ingest to a disk that is mounted so."""

    def made(place: Path) -> list[Words | Program]:
        (place / "out").mkdir()
        return [Program(words(place), before=f"mount -t tmpfs -o {options} tmpfs out", mounts=True)]

    return made


@contextlib.contextmanager
def at_most(what: int, limit: int) -> Iterator[None]:
    """This process may use no more of something; Python does without the signal that goes with long files."""
    soft, hard = resource.getrlimit(what)
    resource.setrlimit(what, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(what, (soft, hard))


def few_files() -> contextlib.AbstractContextManager[None]:
    """No more than 32 files may be opened beside those that are."""
    return at_most(resource.RLIMIT_NOFILE, len(os.listdir("/dev/fd")) + 32)


def short_files() -> contextlib.AbstractContextManager[None]:
    """No file may become longer than 1 kB, as where a quota is used up."""
    return at_most(resource.RLIMIT_FSIZE, 1024)


def redone_after(place: Path) -> list[Words | Program]:
    """An array of before, and a source that has changed since, but there is no room for what is new."""
    path = own(place)
    hdf(place / "own", VOLUME[:, ::-1])
    assert path.is_dir()
    return [["ingest", json.dumps(settings("own/x.h5", **RAW)), "own/hr.json"]]


@contextlib.contextmanager
def no_temporary() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", "/nowhere/at/all")
        yield


# jobs


def allocated(place: Path, model: str = "bicubic", **changes: Any) -> tuple[SrProject, str]:
    project = SrProject(place, write_weights(place, model, 4))
    project.settings |= changes
    project.write_lr(LR)
    project.allocate()
    return project, json.dumps({**project.settings, "result": 1})


def job(stated: str, workers: int = 1) -> Words:
    return ["superresolve", stated, "sr/allocate.json", "1-of-1", MARK, "--workers", str(workers)]


def planned(model: str = "bicubic", workers: int = 1, **changes: Any) -> Callable[[Path], list[Words | Program]]:
    return lambda place: [job(allocated(place, model, **changes)[1], workers)]


def with_others(place: Path) -> list[Words | Program]:
    """The job of another precision than what was allocated."""
    project, _ = allocated(place)
    return [job(json.dumps({**project.settings, "precision": "bfloat16", "result": 1}))]


def unseen(lost: str) -> Callable[[Path], list[Words | Program]]:
    """A file of a finished job, which this machine does not see."""

    def made(place: Path) -> list[Words | Program]:
        project, stated = allocated(place)
        project.job("1-of-1")
        next(place.glob(lost)).unlink()
        return [["stitch", stated, "sr/allocate.json", MARK, "sr.json", "--workers", "1"]]

    return made


def at_another_time(seconds: float) -> Callable[[Path], list[Words | Program]]:
    """All files of a finished job are of another time."""

    def made(place: Path) -> list[Words | Program]:
        project, stated = allocated(place)
        project.job("1-of-1")
        for file in place.rglob("*"):
            os.utime(file, (seconds, seconds), follow_symlinks=False)
        return [job(stated), ["stitch", stated, "sr/allocate.json", MARK, "sr.json", "--workers", "1"]]

    return made


def nothing_redone(place: Path) -> None:
    assert read_json(place / "sr/jobs/1-of-1.stats.json")["computed"] == []
    again = SrProject(place / "again", write_weights(place, "bicubic", 4))
    again.folder.mkdir()
    again.write_lr(LR)
    again.all()
    assert np.array_equal(SrProject(place, place).voxels(), again.voxels())


@contextlib.contextmanager
def patched(*changes: tuple[Any, str, Any]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for where, name, value in changes:
            patch.setattr(where, name, value)
        yield


def no_gpu() -> contextlib.AbstractContextManager[None]:
    return patched((torch.cuda, "is_available", lambda: False))


def too_small(*given: Any) -> None:
    with stream.told_apart():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has 7 GiB in all")


def without_memory(*given: Any) -> None:
    raise MemoryError("Unable to allocate 9.00 GiB for an array")


# places


def many_sections(place: Path) -> list[Words | Program]:
    path = sections(place / "f", np.repeat(VOLUME, 30, 0), name="{}.png")
    told = json.dumps(settings(path, **SIZE))
    return [["ingest", told, "out/hr.json", "--workers", "4"]]


def of_someone(place: Path) -> list[Words | Program]:
    (place / "out/hr.zarr").mkdir(parents=True)
    (place / "out/hr.zarr/notes.txt").write_text("mine")
    return [words(place)]


def link_of_someone(place: Path) -> list[Words | Program]:
    """A folder where stitch makes a link."""
    project, stated = allocated(place)
    project.job("1-of-1")
    (place / "sr.zarr").mkdir()
    return [["stitch", stated, "sr/allocate.json", MARK, "sr.json", "--workers", "1"]]


def in_posix(place: Path) -> list[Words | Program]:
    path = hdf(place).rename(place / "ü猫.h5")
    plain = {"LC_ALL": "POSIX", "LANG": "C", "PYTHONIOENCODING": ""}
    return [Program(["ingest", json.dumps(settings(path, **RAW)), "out/ü.json"], plain)]


def in_posix_right(place: Path) -> None:
    assert read_json(place / "out/ü.json")["source"]["path"] == str(place / "ü猫.h5")
    np.testing.assert_array_equal(ingested(place, "ü"), VOLUME)


def of_another_user(place: Path) -> list[Words | Program]:
    """Results that their owner keeps for himself, and someone else who goes on there."""
    lab = Path(tempfile.mkdtemp(prefix="emsr-"))
    lab.chmod(0o755)
    path = hdf(lab)
    (lab / "out").mkdir(mode=0o700)
    return [["ingest", json.dumps(settings(path, **RAW)), str(lab / "out/hr.json")]]


@contextlib.contextmanager
def taken() -> Iterator[None]:
    with socket.create_server(("127.0.0.1", PORT)):
        yield


PORT = 43177


def viewed(place: Path) -> list[Words | Program]:
    own(place)
    shutil.rmtree(place / "own/hr.zarr/1", ignore_errors=True)
    return [["view", "own/hr.json", "--port", str(PORT), "--no-browser"]]


SLURM = "a real Slurm: make test-slurm"
ROWS = [
    Row(75, "a disk that is full at the start", mounted("size=4k")),
    Row(75, "a disk that is full half-way", mounted("size=28k"), hides=r"(?<=voxels ).*(?=: free)"),
    Row(76, "results that may only be read", mounted("ro")),
    Row(77, "no inode is left", mounted("nr_inodes=4")),
    Row(77, "no byte is left", lambda p: [words(p)], around=short_files, may=MADE, hides=r"(?<=voxels ).*(?=: free)"),
    Row(77, "no byte is left for what changed", redone_after, around=short_files,
        may=("own/hr[.](zarr|unfinished).*",),
        hides=r"(?<=voxels ).*(?=: free)"),
    Row(78, "a GPU is asked for, and there is none", planned(device="cuda"), around=no_gpu, may=(JOBS,)),
    Row(78, "no GPU, and none asked for", planned(device="auto"), code=0, around=no_gpu,
        then=lambda place: read_json(place / "sr/jobs/1-of-1.stats.json")["device"] == "cpu"),
    Row(79, "a GPU that one window does not fit", planned("gpemsr", workers=2), may=(JOBS,),
        around=lambda: patched((stream.Network, "section", too_small))),
    Row(80, "few open files", many_sections, code=0, around=few_files, then=same(np.repeat(VOLUME, 30, 0))),
    Row(81, "no folder for temporary files", lambda p: [words(p)], code=0, around=no_temporary, then=same(VOLUME)),
    Row(82, "a job of other settings than what was allocated", with_others, hides=HASHES),
    Row(83, "someone's folder in the place of the array", of_someone),
    Row(83, "someone's folder in the place of the link", link_of_someone),
    Row(84, "a lock whose owner is dead, and one whose owner lives",
        not_made="tests/test_driver_lock.py, tests/test_driver_run.py"),
    Row(85, "sbatch refuses", not_made=SLURM),
    Row(86, "slurmctld is down", not_made=SLURM),
    Row(87, "a shard that this machine does not see", unseen("sr-*.zarr/0/c/0/0/0"), hides=HASHES),
    Row(87, "a record that this machine does not see", unseen("sr-*.records/0_0_0.json"), hides=HASHES),
    Row(87, "a mark that this machine does not see", unseen(MARK)),
    Row(88, "a locale of ASCII, names of others", in_posix, code=0, then=in_posix_right),
    Row(89, "files of 2100", at_another_time(4.1e9), code=0, then=nothing_redone),
    Row(89, "files of 1980", at_another_time(3.2e8), code=0, then=nothing_redone),
    Row(90, "results of another user", of_another_user, around=ordinary_user, hides=r"\S*/emsr-\w+"),
    Row(91, "a port that another program has", viewed, around=taken),
    Row(91, "a port that another program has, for Dask", not_made="Dask runs threads of emsr's own and opens no port"),
    Row(92, "too little memory for a shard", lambda p: [words(p)], may=("out.*",),
        around=lambda: patched((fill, "read_box", without_memory), (fill, "keep_or_write", without_memory))),
    Row(92, "a worker that is killed for its memory",
        not_made="kill -9, as of any job: tests/test_superresolve.py, tests/test_resume.py, make soak"),
]  # fmt: skip
