"""The command line: verbs, help, one line for a mistake; and what may not be imported on the way."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from emsr import cli, plugins
from emsr.progress import progress


def emsr(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "emsr.cli", *words], capture_output=True, text=True, timeout=60)


def test_help_names_every_verb_with_its_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    for verb in cli.VERBS:
        assert plugins.summary(*cli._function(verb)), verb
        assert verb in shown


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_a_parser(verb: str) -> None:
    assert cli.parser_of(verb).get_default("function").__name__ == verb.replace("-", "_")


HEAVY = ("torch", "dask", "tensorstore", "h5py", "zarr", "scipy", "skimage", "matplotlib")


@pytest.mark.parametrize(
    "statement",
    ["import emsr, emsr.cli", "import emsr.config, emsr.settings", "import emsr.plan, emsr.geometry, emsr.plugins"]
    + [f"import {module}" for module in sorted(set(cli.VERBS.values()))],
)
def test_parsing_a_workflow_imports_nothing_heavy(statement: str) -> None:
    """Snakemake reads the Snakefile anew in every cluster job."""
    code = f"import sys\n{statement}\nprint([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_mistake_is_one_line_and_the_log_knows_where(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "ingest.log"
    source = {"path": str(tmp_path / "nowhere.h5"), "dataset": None, "voxel_size_nm": None}
    layout = {"shard": [8, 64, 64], "chunk": [8, 32, 32]}
    settings = json.dumps({"image": "hr", "source": source, "region": None, "result": 1, **layout})
    done = emsr("ingest", settings, str(tmp_path / "hr.json"), "--workers", "1", "--log", str(log))
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("emsr: error: ")
    assert "nowhere.h5" in lines[0]
    assert "Traceback" in log.read_text()
    assert not (tmp_path / "hr.json").exists()


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["superresolv"], 2, "did you mean 'superresolve'?"),
        (["stitch", "{", "a", "b"], 2, "settings are no JSON"),
        (["stitch", "[]", "a", "b"], 2, "must be a JSON object"),
    ],
)
def test_mistakes_on_the_command_line(words: list[str], code: int, text: str) -> None:
    done = emsr(*words)
    assert done.returncode == code
    assert text in done.stderr


def test_progress_without_a_terminal_is_lines() -> None:
    log = io.StringIO()
    for done in (0, 3):
        with progress(3, "reading", "boxes", log) as shown:
            shown.update(done)
    first, last = log.getvalue().splitlines()
    assert re.fullmatch(r"reading: 0/3 boxes, \d+ s", first)
    assert re.fullmatch(r"reading: 3/3 boxes, \d+ s, 0 s left", last)


@pytest.mark.parametrize("verb", ["superresolve", "affinities", "fragments"])
def test_no_worker_makes_nothing(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [verb, "{}", str(tmp_path / "allocate.json"), "1-of-1", str(tmp_path / "jobs" / "1-of-1.json")]
    assert cli.main([*words, "--workers", "0"]) == 1
    assert capsys.readouterr().err == "emsr: error: workers 0 make nothing: state at least 1\n"
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("value", "annotation", "fits"),
    [
        (3, "int", True),
        (True, "int", False),
        ("3", "int", False),
        (3, "float", True),
        ("x", "str", True),
        ([1, 2], "tuple[int, ...]", True),
        ([1, "2"], "tuple[int, ...]", False),
        (None, "int | None", True),
        (1.5, "int | None", False),
        (False, "bool", True),
    ],
)
def test_option_types(value: Any, annotation: str, fits: bool) -> None:
    assert plugins.fits(value, annotation) is fits


def test_plugins_are_read_without_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "SCALES = (4,)\nPRESETS = {'a': 1}\nclass Options:\n    width: int\nraise SystemExit('imported')\n"
    (tmp_path / "someones_model.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="cannot be found"):
        plugins.file_of("models", "someones.model")
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").touch()
    (tmp_path / "pack" / "model.py").write_text(source)
    file = plugins.file_of("models", "pack.model")
    assert plugins.literal(file, "SCALES") == (4,)
    assert plugins.keys(file, "PRESETS") == ["a"]
    assert plugins.fields(file, "Options") == {"width": "int"}


def test_public_names_come_lazily() -> None:
    code = (
        "import sys, emsr; first = 'torch' in sys.modules; "
        "print(first, callable(emsr.load_model), callable(emsr.superresolve))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "True"]


STOPS = """
import os, signal, sys
from emsr import cli
from emsr.steps import data

signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may have had it ignored

def grow(settings: dict, out: str) -> None:
    os.kill(os.getpid(), signal.SIGINT)

data.grow = grow
sys.exit(cli.main(["grow", "{}", "out.h5"]))
"""


def test_ctrl_c_ends_any_verb_with_one_line() -> None:
    done = subprocess.run([sys.executable, "-c", STOPS], capture_output=True, text=True, timeout=60)
    assert done.returncode == 130
    assert done.stderr == "emsr: error: stopped by Ctrl+C: start it again, what is finished is kept\n"


def test_a_lack_of_memory_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def grow(settings: dict[str, Any], out: Path) -> None:
        raise MemoryError("Unable to allocate 9.00 GiB\nfor an array")

    monkeypatch.setattr("emsr.steps.data.grow", grow)
    assert cli.main(["grow", "{}", "out.h5"]) == 1
    line = "memory ran out (Unable to allocate 9.00 GiB for an array): take fewer workers, or smaller shards"
    assert capsys.readouterr().err == f"emsr: error: {line}\n"


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["stitch", "@nowhere.json", "a", "b"], 2, "settings cannot be read: [Errno 2] No such file"),
        (["stitch", "[" * 10**5, "a", "b"], 2, "settings are no JSON"),
        (["clean", "nowhere", "--log", "/dev/null/x.log"], 1, "/dev/null cannot be used"),
        (["clean", "no\x1b[31mwhere"], 1, "no?[31mwhere is not a folder"),
    ],
    ids=["no settings", "deep settings", "no log", "what terminals obey"],
)
def test_mistakes_without_a_traceback(
    words: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        found = cli.main(words)
    except SystemExit as end:
        found = int(end.code or 0)
    shown = capsys.readouterr().err
    assert found == code
    assert text in shown
    assert "Traceback" not in shown
