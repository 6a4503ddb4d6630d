"""The table of bad inputs: what a row is, how it is run as a user runs it, and what is kept of the line that ends it.

Rows are in bad_input_volumes.py, bad_input_stacks.py, bad_input_config.py, bad_input_weights.py and
bad_input_machine.py, by the numbers of the list that they answer. The lines are in golden/bad_inputs.txt:
``EMSR_SNAPSHOT=1 pytest tests/test_bad_inputs.py`` writes it anew, and its diff shows what users will see.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from bad_sources import LAYOUT, settings
from emsr.cli import main
from project import ROOT

GOLDEN = Path(__file__).parent / "golden" / "bad_inputs.txt"
LAST = 92
APART = ("unshare", "--map-root-user", "--mount")
COUNTED = re.compile(r"[a-z][a-z -]*: \d+/\d+ ")  # progress
Words = list[str]


@dataclass(frozen=True)
class Program:
    """A command in a process of its own, with other variables of the environment, after the shell line `before`.

    `mounts` says that the line mounts something, which is seen by this process alone. Of what it says, lines that hold
    the pattern `keeps` count.
    """

    words: Words
    environment: Mapping[str, str] = field(default_factory=dict)
    before: str = ""
    mounts: bool = False
    keeps: str = ""

    def run(self) -> tuple[int, str, str]:
        """Exit code, standard output and error."""
        program = [sys.executable, "-m", *(self.words if self.words[0] == "snakemake" else ["emsr.cli", *self.words])]
        if self.before:
            program = ["bash", "-c", f'set -e; {self.before}; exec "$@"', "bash", *program]
        if self.mounts:
            program = [*APART, *program]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **self.environment}
        done = subprocess.run(program, capture_output=True, text=True, env=environment, timeout=300)
        if not self.keeps:
            return done.returncode, done.stdout, done.stderr
        lines = [found[0] for line in done.stderr.splitlines() if (found := re.search(self.keeps, line))]
        return done.returncode, "", "\n".join(lines)


@cache
def may_mount() -> bool:
    """Whether this user may mount in a namespace of his own."""
    return shutil.which("unshare") is not None and not subprocess.run([*APART, "true"], capture_output=True).returncode


@dataclass(frozen=True)
class Row:
    """A case: `make` puts it into the working folder and gives the commands, all of which must end alike.

    `then` proves, where the case must be accepted, that what was made is right. `around` is how the machine is
    meanwhile. `may` are patterns of what may be there afterwards though nothing is finished. `hides` is a pattern of
    words in the line that are a library's, and change with its version. `not_made` says why a case is not run.
    """

    number: int
    what: str
    make: Callable[[Path], list[Words | Program]] = lambda folder: []
    code: int = 1
    then: Callable[[Path], object] | None = None
    around: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext
    may: tuple[str, ...] = ()
    hides: str = ""
    not_made: str = ""

    @property
    def name(self) -> str:
        return f"{self.number} {self.what}"


def said(row: Row, folder: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """The line that the commands of a row end with; nothing else was said, and nothing is there that was not."""
    commands = row.make(folder)
    assert commands
    before, lines = state(folder), []
    for command in commands:
        capfd.readouterr()
        with row.around():
            code, out, error = run(command, capfd)
        assert code == row.code, f"{command}: {error}"
        assert "Traceback" not in out + error
        assert not out or row.then, f"it printed {out}"
        lines.append(shown(code, error, folder, row.hides))
        if row.then is None:
            after = {name: content for name, content in state(folder).items() if not _matches(name, row.may)}
            assert after == {name: before[name] for name in before if not _matches(name, row.may)}
    if row.then:
        with row.around():
            row.then(folder)
    lines = list(dict.fromkeys(line for line in lines if line or row.code))
    assert len(lines) <= 1, lines
    return lines[0] if lines else ""


def run(command: Words | Program, capfd: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, standard output and error of a command."""
    if isinstance(command, Program):
        if command.mounts and not may_mount():
            pytest.skip("mounting takes Linux, and a user who may")
        return command.run()
    try:
        code = main(command)
    except SystemExit as end:  # the parser's
        code = int(end.code or 0)
    captured = capfd.readouterr()
    return code, captured.out, captured.err


def state(folder: Path) -> dict[str, Any]:
    """Every file and link below a folder with its time stamp and bytes; what is neither by its kind."""
    found: dict[str, Any] = {}
    for parent, folders, files in os.walk(folder):
        for name in [*files, *folders]:
            path = Path(parent, name)
            seen = path.lstat()
            whole = path.is_file() and not path.is_symlink() and os.access(path, os.R_OK)
            times = seen.st_mtime_ns if not path.is_dir() else 0
            found[str(path.relative_to(folder))] = (seen.st_mode, times, path.read_bytes() if whole else None)
    return found


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def shown(code: int, error: str, folder: Path, hides: str) -> str:
    """What is kept of standard error, with the folder as a dot and without a library's words: after a mistake all of
    it is one line, what is accepted may be warned of, and a mistake on the command line shows the usage too."""
    lines = [line for line in error.replace(str(folder), ".").splitlines() if not COUNTED.match(line)]
    if code == 2:
        lines = [line for line in lines if line.startswith(("emsr ", "emsr: "))]
    if code == 0:
        lines = [" ".join(line for line in lines if line.startswith("emsr: "))]
    assert len(lines) == 1, error
    assert lines[0].isprintable()
    line, count = re.subn(hides, "…", lines[0]) if hides else (lines[0], 1)
    assert count, f"{hides} is not in {line}"
    return line


# what rows are made of


@cache
def _defaults() -> str:
    return (ROOT / "config.yaml").read_text()


def defaults() -> dict[str, Any]:
    """The values of the committed config."""
    values: dict[str, Any] = copy.deepcopy(_parsed())
    return values


@cache
def _parsed() -> dict[str, Any]:
    return dict(yaml.safe_load(_defaults()))


def write_config(folder: Path, volumes: Mapping[str, Any], **parts: Any) -> None:
    """mine.yaml: the committed config with other volumes and, unless they are stated, without trainings."""
    values = {**defaults(), "trainings": {}, "volumes": volumes, **parts}
    (folder / "mine.yaml").write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def source(
    number: int, what: str, make: Callable[[Path], Path], stated: Mapping[str, Any], image: str = "hr", **how: Any
) -> Row:
    """A row of a volume that `emsr check` and `emsr ingest` are given, both of which must say the same."""
    only = how.pop("only", ("check", "ingest"))

    def made(folder: Path) -> list[Words | Program]:
        path = make(folder)
        path = path.relative_to(folder) if path.is_relative_to(folder) else path
        known = {key: value for key, value in stated.items() if key not in ("shard", "chunk", "region", "hr")}
        beside = {key: known.pop(key) for key in ("intensity",) if key in known}
        volume: dict[str, Any] = {image: {"path": str(path), **known}, **beside}
        if image == "labels":
            volume["hr"] = stated.get("hr", {"path": "x.h5", "dataset": "volumes/raw"})
        volume |= {"region": stated["region"]} if "region" in stated else {}
        layout = {key: stated.get(key, LAYOUT[key]) for key in ("shard", "chunk")}
        write_config(folder, {"v": {**volume, "degradation": {"kernel": "area"}}}, ingest=layout)
        told = settings(path, **{**stated, "image": image})
        told |= {"hr": volume["hr"]} if image == "labels" else {}
        commands: dict[str, Words | Program] = {"check": ["check", "mine.yaml"]}
        commands["ingest"] = ["ingest", json.dumps(told), f"out/{image}.json"]
        return [commands[name] for name in only]

    return Row(number, what, made, **how)
