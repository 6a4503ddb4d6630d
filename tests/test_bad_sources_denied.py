"""Sources that may not be read, and what a user sees of bad ones: one line, exit code 1, the old result as it was."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import test_bad_sources as arrays
import test_bad_sources_blocks as blocks
import test_bad_sources_images as images
from bad_sources import (
    FORMATS,
    LAYOUT,
    RAW,
    SIZE,
    VOLUME,
    Row,
    bare,
    hdf,
    ids,
    n5,
    precomputed,
    refused,
    settings,
    torn,
    without,
)
from emsr.cli import main
from emsr.steps.data import ingest
from image_files import cut, folder, mrc, tiff
from project import ROOT
from test_steps_data import state

NOBODY = 65534


@contextlib.contextmanager
def ordinary_user() -> Iterator[None]:
    """The superuser may read everything, so he is somebody else for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may write to; those of pytest are closed to others."""
    path = Path(tempfile.mkdtemp(prefix="emsr-"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


def parts(path: Path) -> Iterator[Path]:
    """What a volume is made of: itself, the folder around it, its files of metadata, the first one of voxels."""
    yield path
    yield path.parent
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.is_file() and file.name != ".zmetadata")
        voxels = [file for file in found if file.suffix != ".json" and file.name != "info" and file.name[0] != "."]
        yield from {file.name: file for file in found if file not in voxels}.values()
        yield next((file for file in voxels if str(file).removesuffix(".gz").endswith(blocks.FIRST)), voxels[0])


@pytest.mark.parametrize("form", FORMATS)
def test_what_may_not_be_read_is_one_line_that_says_so(open_folder, form):
    (open_folder / "lab").mkdir()
    path, stated = FORMATS[form].make(open_folder / "lab"), FORMATS[form].stated
    ingest(settings(path, **stated), open_folder / "mine/hr.json")  # also imports what another user may not
    with ordinary_user():
        ingest(settings(path, **stated), open_folder / "others/hr.json")
    for part in parts(path):
        mode = part.stat().st_mode
        part.chmod(0)
        try:
            with ordinary_user():
                line = refused(path, stated, open_folder / "out", "(may not be|cannot be) (read|reached|opened)")
        finally:
            part.chmod(mode)
        assert "ermission" in line.partition(":")[2], f"the mend of {part}"
        assert not (open_folder / "out").exists()


def config(path: Path, stated: dict[str, Any]) -> dict[str, Any]:
    """A config whose only volume is a source."""
    values: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())
    beside = {key: stated[key] for key in ("intensity",) if key in stated}
    source = {key: value for key, value in stated.items() if key in ("dataset", "voxel_size_nm")}
    volume = {"hr": {"path": str(path), **source, **beside}, "degradation": {"kernel": "area"}}
    layout = {key: stated.get(key, LAYOUT[key]) for key in ("shard", "chunk")}
    return {**values, "volumes": {"v": volume}, "trainings": {}, "ingest": layout}


def told(words: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    """The one line that a command ends with."""
    capfd.readouterr()
    assert main(words) == 1
    shown = capfd.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith("emsr: error: ")
    return line


def chosen(rows: list[Row], *cases: str) -> list[Row]:
    return [row for row in rows if f"{row[0]}, {row[1]}" in cases]


SHOWN = [
    *chosen(arrays.HDF, "HDF5, truncated", "HDF5, RGB volume", "HDF5, float", "HDF5, 64 TiB, large shards"),
    *chosen(arrays.ZARR, "OME-Zarr 0.5, axes reversed", "zarr 3, half a chunk", "an array of emsr, a shard is lost"),
    *chosen(blocks.ROWS, "N5, truncated", "precomputed, a missing chunk", "precomputed, half a chunk"),
    *chosen(images.ROWS, "tiled TIFF, truncated", "folder of PNG, sizes", "folder of PNG, 60000 x 60000 in 3 MB"),
    *chosen(images.ROWS, "MRC, truncated", "TIFF, a strip without bytes"),
]


@pytest.mark.parametrize("row", SHOWN, ids=ids(SHOWN))
def test_commands_end_with_that_line_and_nothing_else(tmp_path, capfd, row):
    _, _, make, stated, reason = row
    path = make(tmp_path)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config(path, stated)))
    line = told(["ingest", json.dumps(settings(path, **stated)), str(tmp_path / "out/hr.json")], capfd)
    assert told(["check", str(tmp_path / "mine.yaml")], capfd) == line
    assert re.search(reason, line)
    assert not (tmp_path / "out").exists()


def test_exit_code_and_output_of_the_program(tmp_path):
    path = cut(hdf(tmp_path), 0.5)
    words = ["ingest", json.dumps(settings(path, **RAW)), str(tmp_path / "out/hr.json")]
    done = subprocess.run([sys.executable, "-m", "emsr.cli", *words], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"emsr: error: {path} cannot be opened as HDF5")
    assert not (tmp_path / "out").exists()


def test_check_says_who_may_not_read(open_folder, capfd):
    path = hdf(open_folder)
    (open_folder / "mine.yaml").write_text(yaml.safe_dump(config(path, RAW)))
    assert main(["check", str(open_folder / "mine.yaml")]) == 0
    path.chmod(0)
    with ordinary_user():
        line = told(["check", str(open_folder / "mine.yaml")], capfd)
    assert f"volumes.v.hr path {path} may not be read (Permission denied): mend its permissions" in line


def fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def link(path: Path, target: str) -> Path:
    path.symlink_to(target)
    return path


NO_FILES = [
    (lambda p: fifo(p / "x.tif"), "x.tif is neither a file nor a folder: name one that is"),
    (lambda p: link(p / "x.h5", "/dev/zero"), "x.h5 is neither a file nor a folder: name one that is"),
    (
        lambda p: link(p / "x.mrc", "x.mrc"),
        "x.mrc cannot be reached .Too many levels of symbolic links.: mend the links",
    ),
    (lambda p: link(p / "x.png", "nothing"), "x.png does not exist: correct the path in the config"),
    (lambda p: p / ("x" * 300), "cannot be reached .File name too long.: mend"),
    (lambda p: hdf(p) / "volumes", "x.h5/volumes does not exist: correct the path"),
]


@pytest.mark.parametrize(
    ("make", "reason"), NO_FILES, ids=["fifo", "device", "loop", "dangling", "long", "below a file"]
)
def test_what_is_no_file_is_one_line(tmp_path, make, reason):
    refused(make(tmp_path), SIZE, tmp_path / "out", reason)
    assert not (tmp_path / "out").exists()


SPOILT = {
    "HDF5": (lambda p: hdf(p), lambda path: cut(path, 0.5), RAW),
    "TIFF": (lambda p: tiff(p / "x.tif"), lambda path: cut(path, 0.5), SIZE),
    "folder": (lambda p: folder(p / "f", name="{}.png"), lambda path: torn(path, "3.png", 20), SIZE),
    "MRC": (lambda p: mrc(p / "x.mrc", VOLUME.astype("u2")), lambda path: cut(path, 0.5), FORMATS["MRC"].stated),
    "zarr": (lambda p: bare(p, 3), lambda path: torn(path, "zarr.json"), SIZE),
    "N5": (n5, lambda path: torn(path, "0/0/0"), SIZE),
    "precomputed": (precomputed, lambda path: without(path, blocks.FIRST), {}),
}


@pytest.mark.parametrize("form", SPOILT)
def test_the_old_result_stays_as_it_was(tmp_path, form):
    make, spoil, stated = SPOILT[form]
    path = make(tmp_path)
    ingest(settings(path, **stated), tmp_path / "out/hr.json")
    before = state(tmp_path / "out")
    spoil(path)
    with pytest.raises((ValueError, OSError)):
        ingest(settings(path, **stated), tmp_path / "out/hr.json")
    assert state(tmp_path / "out") == before
