"""What benchmarks/bounds.py measures: the bounds hold, the rules ask for what was measured, the page says it.

`make bounds` measures all of it again; here a dry run of a million shards is.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from emsr import durable
from emsr.inference import proof
from emsr.inference.records import Records
from emsr.shards import all_marks
from project import ROOT
from test_benchmarks import loaded

RULE = re.compile(r"^rule (\w+):\n(.*?)(?=^rule |\Z)", re.MULTILINE | re.DOTALL)
WHO = {"device": "cpu", "torch": "2.0"}
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


def test_a_million_shards_fit_in_what_rules_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    shards = loaded("shards", monkeypatch)
    found = json.loads(shards.FIGURES.read_text())
    assert found.keys() == {step.__name__ for step in shards.STEPS}
    rules = asked() | {"prove": asked()["prove_fragments"]}
    assert all(one["million_mb"] < rules.get(step, 1000) for step, one in found.items())
    assert shards.section(found) in (ROOT / "docs" / "reliability.md").read_text()


def test_a_proof_holds_few_bytes_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python's own allocator counts them; records come and go."""
    shards = loaded("shards", monkeypatch)
    grid = shards.grid_of(5000)
    file = shards.allocated(tmp_path, grid)
    stated = durable.read_json(file)
    monkeypatch.setattr(Records, "read", lambda self, index: {**self._expected(index), "sha256": shards.ZEROS, **WHO})
    monkeypatch.setattr(Records, "_has_voxels", lambda self, index: True)
    marks = all_marks([file.parent / "jobs" / f"1-of-{shards.JOBS}.json"])
    tracemalloc.start()
    named = proof.read_marks(marks, stated, grid)
    found = proof.whole(Records(file, stated, named.settings_sha256), named)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == 5000
    assert (found.devices, found.torch) == ({"cpu": 5000}, {"2.0"})
    assert {found.hashes[index] for index in grid.indices} == {shards.ZEROS}
    assert peak < 200 * 5000


@pytest.mark.workflow
def test_a_dry_run_of_a_million_shards(bounds: ModuleType, tmp_path: Path) -> None:
    program = [sys.executable, str(ROOT / "benchmarks" / "bounds.py"), "dry-run", "--folder", str(tmp_path)]
    found = json.loads(subprocess.run(program, check=True, capture_output=True, text=True).stdout)
    assert found["shards"] == 1_000_000
    assert found["rules"] > 2000
    assert found["cpu_seconds"] < bounds.DRY_RUN_SECONDS
    assert found["peak_mb"] < bounds.DRY_RUN_MB
