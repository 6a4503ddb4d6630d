"""Memory of a device that runs out at the n-th call of a whole job: the same bytes, or one line and then the same."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from emsr import cli
from emsr.steps import superresolve as steps
from sr_project import SrProject, tissue_like, write_weights

ALL = os.environ.get("EMSR_FAULTS") == "all"
JOB, LOADS = "1-of-1", 2  # times that weights are moved to the device
SAID = "CUDA out of memory. Tried to allocate 20.00 GiB"


class Device:
    """Counts what is moved to it and every call of a layer; memory runs out at those of which `short` says so."""

    def __init__(self, short: Callable[[int], bool]) -> None:
        self.short, self.calls, self.lock = short, 0, threading.Lock()

    def called(self, *_: object) -> None:
        with self.lock:
            self.calls += 1
            number = self.calls
        if self.short(number):
            raise torch.cuda.OutOfMemoryError(f"{SAID}\nof 10 in use")

    def __enter__(self) -> Device:
        self.hook, self.to = register_module_forward_pre_hook(self.called), nn.Module.to

        def moved(module: nn.Module, *given: Any, **how: Any) -> nn.Module:
            self.called()
            return self.to(module, *given, **how)

        nn.Module.to = moved  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        self.hook.remove()
        nn.Module.to = self.to  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def allocated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("allocated")
    made = SrProject(folder, write_weights(folder, "gpemsr", 4))
    made.write_lr(tissue_like((3, 16, 20)))
    made.allocate()
    return folder


def begun(allocated: Path, folder: Path) -> SrProject:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(allocated, folder)
    return SrProject(folder, folder / "gpemsr_x4_0.json")


def content(made: SrProject) -> dict[str, bytes]:
    files = (file for file in made.folder.rglob("*") if file.is_file() and not file.name.endswith("stats.json"))
    return {str(file.relative_to(made.folder)): file.read_bytes() for file in files}


def job(made: SrProject, workers: int, short: Callable[[int], bool]) -> tuple[int, int]:
    """Exit code of a job, as a rule runs it, and how many calls of the device it made."""
    settings = json.dumps({**made.settings, "result": steps.SUPERRESOLVE_RESULT})
    words = ["superresolve", settings, str(made.allocation), JOB, str(made.mark(JOB)), "--workers", str(workers)]
    with Device(short) as device:
        return cli.main(words), device.calls


def test_memory_that_runs_out_at_any_call_of_a_job_changes_no_byte(
    allocated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = begun(allocated, tmp_path / "v")
    code, calls = job(made, 2, lambda number: False)
    assert code == 0
    whole = content(made)
    stride = 1 if ALL else calls // 7
    for at in itertools.chain(range(1, LOADS), itertools.count(LOADS, stride)):
        made = begun(allocated, tmp_path / "v")
        code, asked = job(made, 2, lambda number, at=at: number == at)
        if asked < at:
            break
        said = capsys.readouterr().err.splitlines()
        if at <= LOADS:
            assert code == 1
            why = f"the weights of {made.card} do not fit the memory of cpu ({SAID}): end what else holds it"
            assert said[-1].startswith(f"emsr: error: {why}")
            assert job(made, 2, lambda number: False)[0] == 0
        else:
            assert code == 0, (at, said)
            assert made.stats(JOB)["in_flight"] == 1, at
        assert content(made) == whole, at
    assert at > calls > LOADS, "every place was tried"


def test_a_window_that_fits_no_more_ends_the_job_and_the_next_goes_on(
    allocated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a call on there is never enough, as when another process takes the device."""
    made = begun(allocated, tmp_path / "v")
    _, calls = job(made, 1, lambda number: False)
    whole, records = content(made), set(made.folder.glob("sr-*.records/*"))
    for at in (LOADS + 1, calls * 3 // 4, calls):
        made = begun(allocated, tmp_path / "v")
        assert job(made, 1, lambda number, at=at: number >= at)[0] == 1
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith(f"emsr: error: one window of 16 x 16 pixels does not fit the memory ({SAID}): ")
        assert "\n" not in line
        assert not made.mark(JOB).exists()
        kept = {path: path.stat().st_mtime_ns for path in made.folder.glob("sr-*.records/*")}
        assert len(kept) < len(records)
        assert job(made, 1, lambda number: False)[0] == 0
        assert content(made) == whole
        assert {path: path.stat().st_mtime_ns for path in kept} == kept, "what was recorded is not made again"
