"""`emsr export` on its way: what is stopped goes on or starts over, one writes at a time, OUT is whole or absent."""

from __future__ import annotations

import hashlib
import logging
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emsr.commands.export import export
from emsr.stores import export as writers
from emsr.stores import export_staging
from test_export import volume, voxels, with_cloud_volume

FULL = OSError(28, "No space left on device")
WAYS = {"precomputed": "out", "ome-zarr-0.4": "out.zarr", "n5": "out.n5", "cremi": "out.h5", "tiff": "out.tif"}


def files(out: Path) -> dict[str, str]:
    """Hashes of all files below a folder."""
    found = sorted(path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def stopped(
    card: Path,
    out: Path,
    after: int,
    error: BaseException,
    format: str,
    monkeypatch: pytest.MonkeyPatch,
    sharded: bool = False,
) -> str:
    """Export until `after` units are written, then let the next one fail; what was said."""
    written = 0

    def fails(own: writers.Read, sink: writers.Sink, *rest: object) -> int:
        def write(box: object, values: np.ndarray) -> None:
            nonlocal written
            if written == after:
                raise error
            sink.write(box, values)
            written += 1

        return copy(own, replace(sink, write=write), *rest)

    copy = writers.copy
    monkeypatch.setattr(writers, "copy", fails)
    with pytest.raises(OSError, match="is not written") as refused:
        export(card, out, format=format, sharded=sharded, workers=1)
    monkeypatch.setattr(writers, "copy", copy)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def units(caplog: pytest.LogCaptureFixture) -> int:
    """How many units were written since this was last asked."""
    found = [record.args[1] for record in caplog.records if "units written" in str(record.msg)]
    caplog.clear()
    return sum(found)


@pytest.mark.parametrize(
    ("format", "sharded", "error"),
    [
        ("precomputed", False, FULL),
        ("precomputed", True, KeyboardInterrupt()),
        ("n5", False, OSError(5, "Input/output error")),
        ("ome-zarr-0.4", False, KeyboardInterrupt()),
    ],
)
def test_a_stopped_export_goes_on(
    tmp_path: Path,
    format: str,
    sharded: bool,
    error: BaseException,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card, out, place = volume(tmp_path), tmp_path / "out", tmp_path / ".out.partial"
    with caplog.at_level(logging.INFO):
        export(card, tmp_path / "whole" / "out", format=format, sharded=sharded)
        total = units(caplog)
        said = stopped(card, out, 2, error, format, monkeypatch, sharded)
        assert said.endswith(f"; the same command goes on from {place}, else remove that")
        assert not out.exists()
        caplog.clear()
        (place / "whole" / "out" / "1.__lock").write_text("what a killed process was writing")
        export(card, out, format=format, sharded=sharded)
    assert units(caplog) == total - 2
    assert files(out) == files(tmp_path / "whole" / "out")
    assert not place.exists()


@pytest.mark.parametrize(("format", "name"), [("cremi", "out.h5"), ("tiff", "out.tif"), ("tiff", "out")])
def test_files_start_over_and_leave_nothing(
    tmp_path: Path, format: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = volume(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    said = stopped(card, tmp_path / name, 2, FULL, format, monkeypatch)
    assert said == f"{tmp_path / name} is not written: {tmp_path} is full, or a quota is reached: free space there"
    assert sorted(tmp_path.rglob("*")) == before
    (half := tmp_path / f".{name}.partial" / "whole" / name).parent.mkdir(parents=True)
    half.write_text("of a process that was killed")
    export(card, tmp_path / name, format=format)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["cells", name])


def test_what_was_written_from_other_voxels_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped(volume(tmp_path / "old", values=voxels("uint8") ^ 255), tmp_path / "out", 4, FULL, "n5", monkeypatch)
    card = volume(tmp_path)
    export(card, tmp_path / "out", format="n5")
    export(card, tmp_path / "whole" / "out", format="n5")
    assert files(tmp_path / "out") == files(tmp_path / "whole" / "out")


def test_another_export_starts_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card, out = volume(tmp_path), tmp_path / "out"
    stopped(card, out, 4, FULL, "n5", monkeypatch)
    export(card, out, format="precomputed", level=1)
    assert len(with_cloud_volume(out)) == 2
    assert not list(out.rglob("attributes.json"))


def test_one_exports_at_a_time_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    card, out = volume(tmp_path), tmp_path / "out"
    holds = f"""
import sys, time; from pathlib import Path; from emsr.stores import export_staging as s
with s.staged(Path({str(out)!r}), lambda path: path.mkdir(exist_ok=True), {{"a": 1}}):
    print("held", flush=True); time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", holds], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(FileExistsError, match="is being written by another emsr"):
            export(card, out, format="n5")
        assert (tmp_path / ".out.partial" / "whole" / "out").is_dir(), "the other's"
        other.send_signal(signal.SIGKILL)
    export(card, out, format="n5")
    assert not (tmp_path / ".out.partial").exists()


def test_a_disk_that_is_too_small_is_known_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = volume(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    usage = type("Usage", (), {"free": 139_999})
    monkeypatch.setattr(export_staging.shutil, "disk_usage", lambda _: usage)
    for name, format in (("out.tif", "tiff"), ("out", "precomputed")):
        with pytest.raises(OSError, match=r"too full, the voxels take 0\.000\d+ GB, and 0\.00014 GB are free there"):
            export(card, tmp_path / name, format=format)
    assert sorted(tmp_path.rglob("*")) == before


# --overwrite


def broken(*_: object) -> None:
    raise ValueError("broken")


@pytest.mark.parametrize(("format", "name"), [*WAYS.items(), ("tiff", "out")])
def test_overwrite_replaces_an_export_when_the_new_one_is_whole(
    tmp_path: Path, format: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / name
    export(volume(tmp_path / "old", values=voxels("uint8") ^ 255), out, format=format)
    before, card = files(tmp_path), volume(tmp_path)
    with pytest.raises(FileExistsError, match="or add --overwrite to replace an export"):
        export(card, out, format=format)
    with monkeypatch.context() as patch:
        patch.setattr(writers, "check_same", broken)
        with pytest.raises(ValueError, match="broken"):
            export(card, out, format=format, overwrite=True)
    assert {name: sha256 for name, sha256 in files(tmp_path).items() if name in before} == before
    export(card, out, format=format, overwrite=True)
    export(card, tmp_path / "fresh" / name, format=format)
    if format not in ("tiff", "cremi"):  # these have identifiers and places in the file that differ
        assert files(out) == files(tmp_path / "fresh" / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["cells", "old", "fresh", name])


def own_text(out: Path) -> None:
    (out / "notes.txt").write_text("mine")


@pytest.mark.parametrize(("format", "name"), [*WAYS.items(), ("tiff", "out")])
def test_overwrite_leaves_what_is_no_export(tmp_path: Path, format: str, name: str) -> None:
    card, out = volume(tmp_path), tmp_path / name
    for spoil in (
        lambda: out.mkdir(),
        lambda: own_text(out),
        lambda: (out.rename(tmp_path / "x"), out.symlink_to("x")),
    ):
        spoil()
        before = files(tmp_path)
        with pytest.raises(FileExistsError, match="is no export of this format, and nothing else is overwritten"):
            export(card, out, format=format, overwrite=True)
        assert files(tmp_path) == before


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process")
@pytest.mark.parametrize(("format", "name"), WAYS.items())
def test_what_the_disk_refuses_is_one_line(tmp_path: Path, format: str, name: str) -> None:
    card = volume(tmp_path)
    words = [sys.executable, "-m", "emsr.cli", "export", str(card), str(tmp_path / name), "--format", format]
    limit = (4096, 4096)  # bytes a file
    done = subprocess.run(
        words, stderr=subprocess.PIPE, text=True, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    )
    said = [line for line in done.stderr.splitlines() if "boxes" not in line]
    assert done.returncode == 1
    assert said[0].startswith(f"emsr: error: {tmp_path / name} is not written: {tmp_path} is full, or a quota is")
    assert not (tmp_path / name).exists()
