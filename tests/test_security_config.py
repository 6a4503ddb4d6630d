"""Security, the row YAML of the threats: a config from anywhere costs neither time nor memory, and runs nothing.

`emsr check` reads with the same function as the Snakefile, which asks before Snakemake's own line for config.yaml.
Overlays on the command line are another matter: Snakemake reads them before the first line of the Snakefile.
"""

from __future__ import annotations

import copy
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bad_sources import little_memory
from emsr import config_files
from emsr.commands.check import check, read_configs
from emsr.config import parse
from project import ROOT, Project

BOMB = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)
MAPPINGS = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{{', '.join(f'k{m}: *a{n - 1}' for m in range(9))}}}\n" for n in range(1, 9)
)
DEEP = "x: " + "[" * 100_000 + "]" * 100_000
MERGED = "a: &a {<<: {x: 1}, y: 2}\nb: {<<: *a, y: 3}\nc: {d: &d {<<: *a, z: 1}}\ne: {<<: *d}\n"

REFUSED: list[tuple[str, str | bytes, str]] = [
    ("a key twice", "jobs: 1\nresults: x\njobs: 2\n", "line 3: key 'jobs' stands there twice: remove one"),
    ("a key twice, in quotes", "{a: {jobs: 1, 'jobs': 2}}", "line 1: key 'jobs' stands there twice"),
    ("a key twice, as JSON", '{"jobs": 1,\n "jobs": 2}', "line 2: key 'jobs' stands there twice"),
    ("aliases of lists", BOMB, "line 6: more than 100000 values with its aliases"),
    ("aliases of mappings", MAPPINGS, "line 6: more than 100000 values with its aliases"),
    ("an alias in itself", "a: &a [*a]", "line 1: alias *a stands for nothing, or lies in what it stands for"),
    ("an alias of nothing", "a: *b", "alias *b stands for nothing"),
    ("deep", DEEP, "line 1: more than 20 levels of keys"),
    ("long", "a: " + "x" * 2**20, "has more than 1048576 bytes, so it is no config"),
    ("10 MB", "a: 1\n" * 2**21, "has more than 1048576 bytes"),
    ("many values", "a: [" + "1," * 100_001 + "]", "more than 100000 values"),
    ("a tag of Python", "a: !!python/object/apply:os.system ['touch PWNED']", "could not determine a constructor"),
    ("a name of Python", "a: !!python/name:os.system ''", "could not determine a constructor"),
    ("a tuple of Python", "a: !!python/tuple [1]", "could not determine a constructor"),
    ("a program", "__use_yte__: true\n'?print(1)': 2", "__use_yte__ makes Snakemake run Python that stands in it"),
    ("base 8", "jobs: 010", "line 1: 010 is another number in YAML: write it decimal, or in quotes"),
    ("base 60", "a:\n - 4:30", "line 2: 4:30 is another number in YAML"),
    ("base 60 with a fraction", "a: 1:30.5", "1:30.5 is another number in YAML"),
    ("no date", "a: 2024-13-45", "is not YAML (month must be in 1..12): mend it there"),
    ("tabs", "a:\n\tb: 1", "is not YAML"),
    ("no end", "a: [", "is not YAML"),
    ("a list", "- a", "holds no keys with values"),
    ("two documents", "a: 1\n---\nb: 2", "is not YAML"),
    ("a key that is a list", "? [a]\n: 1", "is not YAML"),
    ("binary", b"\x89HDF\r\n\x1a\n\x00", "save it as UTF-8 text"),
    ("a NUL", "a: \x00", "is not YAML"),
    ("what a terminal obeys", "a: [\x1b[31m", "is not YAML"),
]  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize(("case", "content", "words"), REFUSED, ids=[case for case, *_ in REFUSED])
def test_a_config_that_is_no_harmless_one_is_one_line_at_once(here: Path, case: str, content: Any, words: str) -> None:
    (here / "mine.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    began = time.monotonic()
    with little_memory(2**29), pytest.raises(ValueError) as refusal:  # noqa: PT011
        check([Path("mine.yaml")])
    assert time.monotonic() - began < 5
    assert words in str(refusal.value)
    assert "mine.yaml" in str(refusal.value)
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(
    ("content", "values"),
    [
        (MERGED, {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": {"d": {"x": 1, "y": 2, "z": 1}},
                  "e": {"x": 1, "y": 2, "z": 1}}),
        ("﻿jobs: 1\r\nworkers: 2\r\n", {"jobs": 1, "workers": 2}),
        ("", {}),
        ("# nothing yet\n", {}),
        ("a: '010'\nb: \"4:30\"\nc: 0x10\nd: 08:30", {"a": "010", "b": "4:30", "c": 16, "d": "08:30"}),
        ("a: &a [1, 2]\nb: *a\n", {"a": [1, 2], "b": [1, 2]}),
    ],
    ids=["merges", "BOM and CRLF", "empty", "only a comment", "in quotes", "an alias"],
)  # fmt: skip
def test_what_is_harmless_is_read(here: Path, content: str, values: dict[str, Any]) -> None:
    (here / "mine.yaml").write_bytes(content.encode())
    assert config_files.read(Path("mine.yaml")) == values


@pytest.mark.parametrize("file", ["config.yaml", *(f"examples/{file.name}" for file in ROOT.glob("examples/*.yaml"))])
def test_committed_configs_are_read_as_pyyaml_reads_them(file: str) -> None:
    assert config_files.read(ROOT / file) == yaml.safe_load((ROOT / file).read_text())


@pytest.mark.parametrize("place", ["absent.yaml", "folder", "pipe"])
def test_what_is_no_file_is_one_line(here: Path, place: str) -> None:
    (here / "folder").mkdir()
    subprocess.run(["mkfifo", "pipe"], check=True)
    with pytest.raises((ValueError, OSError), match=f"config {place} (does not exist|is a folder|is neither a file)"):
        read_configs([Path(place)])


NAMES = ["a;touch PWNED", "$(touch PWNED)", "`touch PWNED`", "x\n", "../x", "/x", "{x}", "-x", "a b", "x\0", "é", ""]


@pytest.mark.parametrize("name", [*NAMES, "x" * 101])
@pytest.mark.parametrize("part", ["volumes", "trainings", "segmentations"])
def test_names_that_become_files_are_letters_digits_and_underscores(name: str, part: str) -> None:
    values: dict[str, Any] = copy.deepcopy(config_files.read(ROOT / "config.yaml"))
    place = values["volumes"]["tissue"]["segmentations"] if part == "segmentations" else values[part]
    place[name] = copy.deepcopy(next(iter(place.values())))
    with pytest.raises(ValueError, match="names hold letters, digits and _, at most 100"):
        parse(values)


PROGRAM = """__use_yte__: true
__definitions__:
  - open("PWNED", "w").close()
"""


@pytest.mark.workflow
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (PROGRAM, "__use_yte__ makes Snakemake run Python"),
        (MAPPINGS, "more than 100000 values with its aliases"),
    ],
    ids=["a program", "aliases of mappings"],
)
def test_snakemake_does_not_come_to_read_a_config_that_emsr_refuses(here: Path, content: str, words: str) -> None:
    project = Project(here, config_files.read(ROOT / "config.yaml"))
    (here / "config.yaml").write_text(content)
    run = project.run("-n", check=False)
    assert run.returncode == 1
    assert "emsr: error: config.yaml" in run.output
    assert words in run.output
    assert "Traceback" not in run.output


@pytest.mark.workflow
def test_a_key_twice_in_an_overlay_stops_snakemake(here: Path) -> None:
    project = Project(here, config_files.read(ROOT / "config.yaml"))
    (here / "mine.yaml").write_text("jobs: 1\njobs: 2\n")
    run = project.run("-n", "--configfile", "mine.yaml", check=False)
    assert run.returncode == 1
    assert "mine.yaml, line 2: key 'jobs' stands there twice: remove one" in run.output
