"""Every bad input of the list: its exit code, its one line, nothing written; or, where it is good, what was made of it.

The table is in bad_input*.py. A row is run as a user runs it, by `emsr check` on a config and by the verb that a rule
calls, and both must say the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import bad_input_config
import bad_input_machine
import bad_input_stacks
import bad_input_volumes
import bad_input_weights
from bad_input import GOLDEN, LAST, Row, said

ROWS: list[Row] = [
    row
    for part in (bad_input_volumes, bad_input_stacks, bad_input_config, bad_input_weights, bad_input_machine)
    for row in part.ROWS
]
WRITES = os.environ.get("EMSR_SNAPSHOT") == "1"
SAID: dict[str, str] = {}


def kept() -> dict[str, str]:
    """The lines of the snapshot by the names of rows."""
    lines = GOLDEN.read_text().splitlines() if GOLDEN.exists() else []
    return dict(line.split("\t", 1) for line in lines)


@pytest.fixture(scope="module", autouse=True)
def snapshot() -> Iterator[None]:
    yield
    if WRITES:
        lines = {row.name: {**kept(), **SAID}.get(row.name) for row in ROWS}
        GOLDEN.write_text("".join(f"{name}\t{line}\n" for name, line in lines.items() if line is not None))


@pytest.mark.parametrize("row", [row for row in ROWS if not row.not_made], ids=lambda row: row.name)
def test_bad_input(
    row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    found = f"{row.code}\t{said(row, tmp_path, capfd)}"
    SAID[row.name] = found
    assert WRITES or found == kept().get(row.name)


def test_every_case_of_the_list_is_there() -> None:
    assert {row.number for row in ROWS} == {*range(1, LAST + 1)}
    assert len({row.name for row in ROWS}) == len(ROWS)
    skipped = {row.number: row.not_made for row in ROWS if row.not_made}
    assert len(skipped) <= 6
    assert all(skipped.values())


def test_the_snapshot_is_of_these_rows() -> None:
    assert list(kept()) == [row.name for row in ROWS if not row.not_made]
