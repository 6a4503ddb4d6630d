"""A process whose n-th operation on files fails: killed there, or told EIO, ENOSPC, EDQUOT.

SQLite's way: let the n-th operation fail, n from 1 on, until none is left to fail. Operations are counted below the C
library (faults.c, by LD_PRELOAD), so those of tensorstore and HDF5 count too. Each trial is a fork of a server that has
imported what it needs and run nothing, which costs some ten milliseconds.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_suffix(".c")
TRIAL_SECONDS = 30


@dataclass(frozen=True)
class Fault:
    """What happens at the operation: an errno, or the process is killed; `lasting`: as on a disk that stays full."""

    number: int = 0
    lasting: bool = False
    reads: bool = False


FAULTS = {
    "killed": Fault(),
    "EIO": Fault(errno.EIO),
    "ENOSPC": Fault(errno.ENOSPC, lasting=True),
    "EDQUOT": Fault(errno.EDQUOT, lasting=True),
    "EIO on reading": Fault(errno.EIO, reads=True),
}


@dataclass(frozen=True)
class Trial:
    """What became of one: `fired` says whether there was an n-th operation; `error` is the line of an exception."""

    killed: bool
    fired: bool
    error: str | None
    mistake: bool
    value: Any


class Server:
    """Runs functions, each in a process of its own, the n-th of whose operations below a folder fails."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(
        self, function: str, folder: Path, *words: Any, fault: Fault = FAULTS["killed"], at: int = 0, log: str = ""
    ) -> Trial:
        """`function` ("module:name") of the folder and `words`, which JSON holds; 0: nothing fails. `log` is a file to
        which operations are written, a line each."""
        order = {
            "function": function,
            "folder": str(folder),
            "words": words,
            "at": at,
            "fault": vars(fault),
            "log": log,
        }
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the server of faults ended"
        return Trial(**json.loads(answer))


@contextmanager
def serving(*modules: str) -> Iterator[Server]:
    """A server that has imported `modules`; RuntimeError where there is no C compiler."""
    if not (compiler := shutil.which("cc") or shutil.which("gcc")):
        raise RuntimeError("no C compiler on PATH: install one, such as gcc, to run the tests of faults")
    with tempfile.TemporaryDirectory() as built:
        library = Path(built, "faults.so")
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"], check=True)
        before = os.environ.get("LD_PRELOAD", "")
        paths = os.pathsep.join(path for path in (str(SOURCE.parent), os.environ.get("PYTHONPATH", "")) if path)
        own = {"LD_PRELOAD": f"{library} {before}".strip(), "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(
            [sys.executable, __file__, str(library), *modules],
            env=os.environ | own,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            try:
                yield Server(process)
            finally:
                assert process.stdin
                process.stdin.close()
                process.wait()


# -- in the server ----------------------------------------------------------------------------------------------------


def _serve(library: str, modules: list[str]) -> None:
    for module in modules:
        importlib.import_module(module)
    answers = os.dup(1)
    os.dup2(2, 1)  # what functions print is no answer
    for line in sys.stdin:
        answer = _trial(library, json.loads(line))
        _imported(answer.pop("imported", ()))
        os.write(answers, (json.dumps(answer) + "\n").encode())


def _imported(names: Sequence[str]) -> None:
    """Import what a child imported, so that the next one need not."""
    for name in names:
        with suppress(Exception):
            importlib.import_module(name)


def _trial(library: str, order: dict[str, Any]) -> dict[str, Any]:
    """Fork, let the child run, and say what became of it."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _child(library, order, writing)
    os.close(writing)
    with os.fdopen(reading) as stream:
        text = stream.read()
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    told = json.loads(text) if text else {"fired": killed, "error": None, "mistake": False, "value": None}
    if not text and not killed:
        told["error"] = f"ended with status {status}"
    return {"killed": killed, **told}


def _child(library: str, order: dict[str, Any], pipe: int) -> None:
    """Run the function and tell the pipe what came of it; never returns."""
    import ctypes

    signal.alarm(TRIAL_SECONDS)
    told: dict[str, Any] = {"error": None, "mistake": False, "value": None}
    known, (module, _, name) = set(sys.modules), order["function"].partition(":")
    function, fault, shim = getattr(importlib.import_module(module), name), order["fault"], ctypes.CDLL(library)
    shim.faults_arm(
        order["folder"].encode(), 2 if fault["reads"] else 1, order["at"], fault["number"], fault["lasting"],
        order["log"].encode(),
    )  # fmt: skip
    try:
        told["value"] = function(Path(order["folder"]), *order["words"])
    except BaseException as error:
        from emsr.cli import USER_MISTAKES

        told |= {"error": f"{type(error).__name__}: {error}", "mistake": isinstance(error, USER_MISTAKES)}
    told["fired"] = 0 < order["at"] <= shim.faults_counted()
    told["imported"] = sorted(set(sys.modules) - known)
    with suppress(OSError):
        os.write(pipe, json.dumps(told).encode())
    os._exit(0)


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2:])
