"""A run that was killed half-way goes on: finished shards stay, the others are made, and nothing else is mixed in."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import warm
from chunked import n5
from emsr.durable import read_json
from emsr.steps.data import degrade, enlarge, ingest
from emsr.stores import fill, hdf
from emsr.stores.journal import Journal

SHAPE = (12, 150, 300)
SHARDS = 2 * 3 * 5
LAID = {"shard": [8, 64, 64], "chunk": [4, 32, 32]}
RAW = np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)


def source(path: Path, raw: np.ndarray = RAW) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", data=raw).attrs["resolution"] = (40.0, 4.0, 4.0)
    return path


def settings(path: Path, **changes: Any) -> dict[str, Any]:
    stated = {"path": str(path), "dataset": "raw", "voxel_size_nm": None}
    return {"image": "hr", "source": stated, "region": None, **LAID, "result": 1, **changes}


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


class Fault:
    """Makes shard number `at` of level 0 fail before it is written, and counts those that were made."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int | None = None) -> None:
        self.made: list[tuple[int, ...]] = []
        original = fill._shard

        def shard(fine: Any, make: Callable[..., np.ndarray], journal: Journal, box: Any) -> np.ndarray:
            def counted(box: Any) -> np.ndarray:
                if len(self.made) == at:
                    raise OSError("no space left on device")
                self.made.append(box.start)
                return make(box)

            return original(fine, counted, journal, box)

        patch.setattr(fill, "_shard", shard)


def test_whichever_shard_fails_the_next_run_makes_the_others_and_the_same_bytes(tmp_path, monkeypatch):
    path = source(tmp_path / "x.h5")
    ingest(settings(path), tmp_path / "whole/hr.json")
    for at in (0, 1, 7, SHARDS - 1):
        out = tmp_path / str(at) / "hr.json"
        with monkeypatch.context() as patch:
            fault = Fault(patch, at)
            with pytest.raises(OSError, match="no space"):
                ingest(settings(path), out)
        assert not out.exists()
        with monkeypatch.context() as patch:
            again = Fault(patch)
            ingest(settings(path), out, workers=2)
        assert len(again.made) == SHARDS - at
        assert not set(again.made) & set(fault.made)
        assert content(out.parent) == content(tmp_path / "whole")


KILLED = """
import os, signal, sys, threading
from pathlib import Path
from emsr.steps.data import ingest
from emsr.stores import fill
import json
count, lock, write = 0, threading.Lock(), fill.keep_or_write
def killing(*given):
    global count
    with lock:
        count += 1
        if count == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
    return write(*given)
fill.keep_or_write = killing
ingest(json.loads(sys.argv[1]), Path(sys.argv[2]), workers=2)
"""


@pytest.mark.parametrize("at", [5, 20])
def test_after_sigkill_the_finished_shards_are_not_read_from_the_source_again(tmp_path, monkeypatch, at):
    path, out = source(tmp_path / "x.h5"), tmp_path / "v/hr.json"
    words = (json.dumps(settings(path)), str(out), str(at))
    assert warm.program(KILLED, *words).returncode == -signal.SIGKILL
    noted = len((tmp_path / "v/hr.unfinished").read_text().splitlines()) - 1
    reads, read = [], hdf._read
    monkeypatch.setattr(hdf, "_read", lambda *given: reads.append(given[2:]) or read(*given))
    ingest(settings(path), out, workers=2)
    shards = [box for box in reads if tuple(np.subtract(box[1], box[0])) != (1, 1, 1)]
    assert len(shards) == SHARDS - noted < SHARDS
    ingest(settings(path), tmp_path / "whole/hr.json")
    left = {name: data for name, data in content(tmp_path / "v").items() if not name.endswith(".__lock")}
    assert left == content(tmp_path / "whole")


def stopped(patch: pytest.MonkeyPatch, stated: dict[str, Any], out: Path, at: int = 7) -> None:
    """An ingest that fails at one shard."""
    with patch.context() as context:
        Fault(context, at)
        with pytest.raises(OSError, match="no space"):
            ingest(stated, out)


def another_source(path: Path) -> dict[str, Any]:
    os.utime(source(path, 255 - RAW), ns=(10**18, 10**18))
    return settings(path)


def renamed_voxels(path: Path) -> dict[str, Any]:
    state = path.stat()
    with h5py.File(path, "r+") as file:
        file["raw"].attrs["resolution"] = (40.0, 8.0, 8.0)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    return settings(path)


CHANGES = [
    (another_source, "source", "another file"),
    (renamed_voxels, "metadata", "another voxel size, declared in a file of the same size and time stamp"),
    (lambda path: settings(path, region=[[0, 12], [0, 150], [0, 299]]), "settings", "a region"),
    (lambda path: settings(path, intensity={"low": 10, "high": 200}), "settings", "a mapping of grey levels"),
    (lambda path: settings(path, result=2), "settings", "another result number"),
]


@pytest.mark.parametrize(("change", "named", "why"), CHANGES, ids=[why for *_, why in CHANGES])
def test_shards_of_anything_else_do_not_count_and_the_log_says_so(tmp_path, monkeypatch, caplog, change, named, why):
    path, out = source(tmp_path / "x.h5"), tmp_path / "v/hr.json"
    stopped(monkeypatch, settings(path), out)
    stated, made = change(path), Fault(monkeypatch)
    ingest(stated, out)
    assert len(made.made) == SHARDS
    assert f"hr: {named} changed since a run that did not finish, so its 7 shards do not count" in caplog.text
    ingest(stated, tmp_path / "whole/hr.json")
    assert content(out.parent) == content(tmp_path / "whole")


def test_a_changed_chunk_of_a_folder_is_another_source(tmp_path, monkeypatch, caplog):
    path, out = n5(tmp_path / "x.n5"), tmp_path / "v/hr.json"
    stated = settings(path, shard=[4, 16, 16], chunk=[4, 16, 16])
    stated["source"] |= {"dataset": None, "voxel_size_nm": [40, 4, 4], "fingerprint": "that of Snakemake's start"}
    stopped(monkeypatch, stated, out, 3)
    (path / "1/0/0").write_bytes((path / "0/0/0").read_bytes())
    made = Fault(monkeypatch)
    ingest(stated, out)
    assert len(made.made) == 8
    assert "hr: source changed since" in caplog.text


def test_a_noted_shard_that_is_gone_or_damaged_is_made_again(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    path, out = source(tmp_path / "x.h5"), tmp_path / "v/hr.json"
    stopped(monkeypatch, settings(path), out)
    gone, damaged, *_ = sorted((tmp_path / "v/hr.zarr/0/c").rglob("*/*/*"))
    gone.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-9])
    made = Fault(monkeypatch)
    ingest(settings(path), out)
    assert len(made.made) == SHARDS - 7 + 2
    assert "hr: going on after a run that did not finish: it made 7 shards" in caplog.text
    ingest(settings(path), tmp_path / "whole/hr.json")
    assert content(out.parent) == content(tmp_path / "whole")


def test_percentiles_are_not_counted_again(tmp_path, monkeypatch):
    path, out = source(tmp_path / "x.h5", RAW.astype(np.uint16) * 200), tmp_path / "v/hr.json"
    stated = settings(path, intensity={"percentiles": [1, 99]})
    stopped(monkeypatch, stated, out)
    with monkeypatch.context() as patch:
        patch.setattr("emsr.steps.intensities._histogram", None)
        ingest(stated, out)
    ingest(stated, tmp_path / "whole/hr.json")
    assert content(out.parent) == content(tmp_path / "whole")
    assert read_json(out)["intensity"]["percentiles"] == [1, 99]


def coarser(hr: Path, out: Path) -> None:
    degrade({"scale": 2, "degradation": {"kernel": "area"}, "shard": [8, 32, 32], "chunk": [4, 16, 16]}, hr, out)


def finer(hr: Path, out: Path) -> None:
    enlarge({"scale": 2, "shard": [8, 128, 128], "chunk": [4, 64, 64]}, hr, out)


@pytest.mark.parametrize("step", [coarser, finer])
def test_degrade_and_enlarge_go_on_unless_what_they_read_changed(tmp_path, monkeypatch, caplog, step):
    hr, out = tmp_path / "hr.json", tmp_path / "v/made.json"
    ingest(settings(source(tmp_path / "x.h5")), hr)
    step(hr, tmp_path / "whole/made.json")
    for again in ("same", "changed"):
        with monkeypatch.context() as patch:
            Fault(patch, 5)
            with pytest.raises(OSError, match="no space"):
                step(hr, out)
        if again == "changed":
            ingest(settings(source(tmp_path / "x.h5", 255 - RAW)), hr)
            step(hr, tmp_path / "whole/made.json")
        with monkeypatch.context() as patch:
            made = Fault(patch)
            step(hr, out)
        assert len(made.made) == (SHARDS if again == "changed" else SHARDS - 5)
        assert content(out.parent) == content(tmp_path / "whole")
        out.unlink()
    assert "made: hr changed since" in caplog.text or "made: lr changed since" in caplog.text


# journals


def test_lines_that_a_crash_cut_or_spoilt_do_not_count(tmp_path):
    journal = Journal(tmp_path / "hr.json", {"settings": 1})
    with journal.open():
        for corner in ((0, 0, 0), (0, 0, 64)):
            journal.add(fill.Box(corner, (8, 64, 128)))
    file = tmp_path / "hr.unfinished"
    file.write_bytes(file.read_bytes() + b"\0\0\0\n[8,0,0]\n[1,2]\n[8,64,")
    after = Journal(tmp_path / "hr.json", {"settings": 1})
    assert after.done == {(0, 0, 0), (0, 0, 64), (8, 0, 0)}
    with after.open():
        after.add(fill.Box((8, 64, 0), (12, 128, 64)))
    assert Journal(tmp_path / "hr.json", {"settings": 1}).done == {*after.done, (8, 64, 0)}
    file.write_bytes(b"{}\n[0,0,0]\n")
    torn = Journal(tmp_path / "hr.json", {"settings": 1})
    assert (torn.done, torn.changed) == (frozenset(), [])


def test_a_process_that_is_not_dead_yet_adds_nothing_to_the_journal_of_another_source(tmp_path):
    old, box = Journal(tmp_path / "hr.json", {"source": "old"}), fill.Box((0, 0, 0), (8, 64, 64))
    with old.open():
        new = Journal(tmp_path / "hr.json", {"source": "new"})
        with new.open():
            old.add(box)
            assert not Journal(tmp_path / "hr.json", {"source": "new"}).done
            new.add(box)
            assert Journal(tmp_path / "hr.json", {"source": "new"}).done == {(0, 0, 0)}
