"""The programs of benchmarks/ run, compare equal results, and the page says what their figures say."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
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


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """What a program prints as JSON; constants of it may be others."""

    def run(name: str, *words: str, **constants: Any) -> Any:
        program = loaded(name, monkeypatch)
        for key, value in constants.items():
            monkeypatch.setattr(program, key, value)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", "--json", *words])
        assert program.main() == 0
        return json.loads(capsys.readouterr().out)

    return run


def test_streaming_and_window_at_a_time_make_the_same_voxels(found: Callable[..., Any]) -> None:
    short = ("--preset", "small", "--scales", "16", "--depth", "2", "--every", "1", "--rounds", "1")
    one = found("stream", *short, "--sides", "x16=8")["x16"]
    assert one["largest_difference"] <= 1e-5
    assert one["ratio"] > 0
    assert 1 < one["ratio_of_operations"] < 3, "few centres, so that lead-in weighs"


def test_every_part_is_counted_and_timed(found: Callable[..., Any]) -> None:
    small = {"SIDE": {"cpu": 256}, "COPIED": {"cpu": 2**20}}
    one = found("parts", "--preset", "small", "--window", "16", "--rounds", "1", **small)
    parts = one["parts"]
    assert {"features", "indexer", "decoder", "prior fusion", "flow", "alignment", "attention"} <= parts.keys()
    assert all(part["seconds"] > 0 and part["gigabytes"] > 0 for part in parts.values())
    assert parts["rest"]["gmac"] == 0, "every operation lies in a part"


def test_the_page_says_what_the_figures_say(monkeypatch: pytest.MonkeyPatch) -> None:
    performance = loaded("performance", monkeypatch)
    assert performance.PAGE.read_text() == performance.page(), "python benchmarks/performance.py --write-only"


def test_an_unknown_benchmark_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    performance = loaded("performance", monkeypatch)
    monkeypatch.setattr(sys, "argv", ["performance.py", "nothing"])
    with pytest.raises(SystemExit) as end:
        performance.main()
    assert end.value.code == 2
    assert "'nothing' is no benchmark: name some of stream, plan" in capsys.readouterr().err.splitlines()[-1]


def test_what_is_never_measured_is_not_on_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    performance = loaded("performance", monkeypatch)
    monkeypatch.setattr(performance, "FIGURES", tmp_path)
    assert "##" not in performance.page()
    assert "Not measured yet" in performance.page()
