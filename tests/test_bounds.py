"""What benchmarks/bounds.py measures: the bounds hold, the rules ask for what was measured, the page says it.

`make bounds` measures all of it again; here a dry run of a million shards is.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from project import ROOT
from test_benchmarks import loaded

RULE = re.compile(r"^rule (\w+):\n(.*?)(?=^rule |\Z)", re.MULTILINE | re.DOTALL)
MEMORY = re.compile(r"mem_mb=(?:lambda wildcards, threads: (\d+) \+ (\d+) \* threads|(\d+)),")


@pytest.fixture
def bounds(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return loaded("bounds", monkeypatch)


@pytest.fixture
def figures(bounds: ModuleType) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(bounds.FIGURES.read_text())
    return found


def asked() -> dict[str, int]:
    """The memory that each rule asks for with one thread, MB."""
    texts = [file.read_text() for file in sorted((ROOT / "workflow" / "rules").glob("*.smk"))]
    bodies = {name: body for text in texts for name, body in RULE.findall(text)}
    found = {name: MEMORY.search(body) for name, body in bodies.items()}
    assert all(found.values()), "every rule states its memory"
    return {name: int(one[1]) + int(one[2]) if one[1] else int(one[3]) for name, one in found.items() if one}


def test_every_rule_was_measured_and_asks_for_enough(bounds: ModuleType, figures: dict[str, Any]) -> None:
    assert bounds.broken(figures) == []
    for sizes in figures["memory"].values():
        small, large = sizes["small"], sizes["large"]
        ratio = large[0] * large[1] * large[2] / (small[0] * small[1] * small[2])
        assert ratio > 9.9, "ten times larger"
    wide = figures["memory"]["wide"]["rules"]
    assert wide.keys() == asked().keys(), "python benchmarks/bounds.py all"
    for rule, mem_mb in asked().items():
        assert wide[rule]["large_mb"] < mem_mb, rule
    assert figures["rerun"]["shards"] == 10_000
    assert {one["shards"] for one in figures["dry_run"]} == {1_000_000}


def test_a_broken_bound_is_named(bounds: ModuleType, figures: dict[str, Any]) -> None:
    figures["memory"]["wide"]["rules"]["stitch"]["large_mb"] = 1e6
    figures["rerun"]["touched"] = ["a"]
    figures["dry_run"][0]["peak_mb"] = 2000
    stitch, rerun, dry = bounds.broken(figures)
    assert "stitch holds" in stitch
    assert "reruns" in rerun
    assert "takes too much" in dry


def test_the_page_says_what_was_measured(bounds: ModuleType, figures: dict[str, Any]) -> None:
    assert bounds.section(figures) in (ROOT / "docs" / "reliability.md").read_text()


@pytest.mark.workflow
def test_a_dry_run_of_a_million_shards(bounds: ModuleType, tmp_path: Path) -> None:
    program = [sys.executable, str(ROOT / "benchmarks" / "bounds.py"), "dry-run", "--folder", str(tmp_path)]
    found = json.loads(subprocess.run(program, check=True, capture_output=True, text=True).stdout)
    assert found["shards"] == 1_000_000
    assert found["rules"] > 2000
    assert found["cpu_seconds"] < bounds.DRY_RUN_SECONDS
    assert found["peak_mb"] < bounds.DRY_RUN_MB
