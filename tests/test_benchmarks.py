"""The programs of benchmarks/ run, compare equal results, and the page says what their figures say."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from project import ROOT

BENCHMARKS = ROOT / "benchmarks"


def loaded(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A program of benchmarks/ as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def found(name: str, *words: str) -> Any:
    """What a program prints as JSON."""
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--json", *words]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_streaming_and_window_at_a_time_make_the_same_voxels() -> None:
    short = ("--preset", "small", "--scales", "16", "--depth", "2", "--every", "1", "--rounds", "1")
    one = found("stream", *short)["x16"]
    assert one["largest_difference"] <= 1e-5
    assert one["ratio"] > 0
    assert 1 < one["ratio_of_operations"] < 3, "few centres, so that lead-in weighs"


def test_every_part_is_counted_and_timed() -> None:
    one = found("parts", "--preset", "small", "--window", "16", "--rounds", "1")
    parts = one["parts"]
    assert {"features", "indexer", "decoder", "prior fusion", "flow", "alignment", "attention"} <= parts.keys()
    assert all(part["seconds"] > 0 and part["gigabytes"] > 0 for part in parts.values())
    assert parts["rest"]["gmac"] == 0, "every operation lies in a part"


def test_the_page_says_what_the_figures_say(monkeypatch: pytest.MonkeyPatch) -> None:
    performance = loaded("performance", monkeypatch)
    assert performance.PAGE.read_text() == performance.page(), "python benchmarks/performance.py --write-only"


def test_an_unknown_benchmark_is_one_line() -> None:
    program = [sys.executable, str(BENCHMARKS / "performance.py"), "nothing"]
    said = subprocess.run(program, capture_output=True, text=True)
    assert said.returncode == 2
    assert "'nothing' is no benchmark: name some of stream, plan" in said.stderr.splitlines()[-1]


def test_what_is_never_measured_is_not_on_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    performance = loaded("performance", monkeypatch)
    monkeypatch.setattr(performance, "FIGURES", tmp_path)
    assert "##" not in performance.page()
    assert "Not measured yet" in performance.page()
