"""Commands in processes that need not import torch and Snakemake again: forks of one that has.

``python warm.py FOLDER`` listens at FOLDER/socket. A connection brings words of a command line, an environment and
three open files (working folder, standard output and error); a fork runs the words and sends back its exit status.
FOLDER/bin/emsr makes such a connection, and a forked Snakemake finds it instead of the installed one. Only others'
packages are imported beforehand: every fork imports emsr anew, as a new process does.
"""

from __future__ import annotations

import functools
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

PACKAGES = (
    *("snakemake.cli", "snakemake.workflow", "smart_open", "yte", "torch", "torch._dynamo", "safetensors.torch"),
    *("tensorstore", "h5py", "dask.array", "scipy.ndimage", "scipy.optimize", "scipy.signal", "skimage.metrics"),
    *("skimage.morphology", "skimage.segmentation", "matplotlib.pyplot", "PIL.Image", "jinja2", "pydantic"),
)
CLIENT = f"""#!{sys.executable} -IS
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect(os.path.join(os.path.dirname(sys.argv[0]), "..", "socket"))
said = json.dumps([["emsr", *sys.argv[1:]], dict(os.environ), os.getpgrp()]).encode()
socket.send_fds(server, [len(said).to_bytes(4, "big")], [os.open(".", os.O_RDONLY), 1, 2])
server.sendall(said)
server.recv(4, socket.MSG_WAITALL)
os._exit(int(server.recv(16) or b"1"))
"""


class Started:
    """``snakemake``, ``emsr`` or a Python file with its words in a folder, as the first of a process group of its own.

    What it starts, forks for its jobs too, belongs to the group, so that ``os.killpg(pid, ...)`` reaches all.
    """

    def __init__(self, words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.server = socket.socket(socket.AF_UNIX)
        self.server.connect(str(_server()[1] / "socket"))
        here = os.open(folder, os.O_RDONLY)
        text = json.dumps([list(words), dict(environment), 0]).encode()
        socket.send_fds(self.server, [len(text).to_bytes(4, "big")], [here, self.said.fileno(), self.said.fileno()])
        os.close(here)
        self.server.sendall(text)
        self.pid = int.from_bytes(self.server.recv(4, socket.MSG_WAITALL), "big")

    def ended(self) -> bool:
        """Whether it has ended, in whatever way."""
        return bool(select.select([self.server], [], [], 0)[0])

    def wait(self, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        """Its exit status, that of SIGKILL where it died without one; standard output and error come as one text."""
        self.server.settimeout(timeout)
        with self.server, self.said:
            status = int(self.server.recv(16) or -signal.SIGKILL)
            self.server.recv(1)  # nothing: it is no process any more
            self.said.seek(0)
            return subprocess.CompletedProcess([], status, self.said.read())


def program(text: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A program of this text with its words, run to its end."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "program.py")
        file.write_text(text)
        return Started([str(file), *words], Path(folder), os.environ).wait()


@functools.cache
def _server() -> tuple[subprocess.Popen[str], Path]:
    """The one server of this process and its folder."""
    folder = Path(tempfile.mkdtemp(prefix="emsr-warm-"))
    words = [sys.executable, __file__, str(folder)]
    server = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    return server, folder


def stop() -> None:
    """End the server, if there is one."""
    if _server.cache_info().currsize:
        server, folder = _server()
        server.communicate()
        shutil.rmtree(folder)
        _server.cache_clear()


def _serve(folder: Path) -> None:
    """Answer until standard input ends."""
    for name in PACKAGES:
        importlib.import_module(name)
    gc.freeze()
    emsr = folder / "bin" / "emsr"
    emsr.parent.mkdir()
    emsr.write_text(CLIENT)
    emsr.chmod(0o755)
    children: dict[int, socket.socket] = {}
    woken, waker = socket.socketpair()
    for end in (woken, waker):
        end.setblocking(False)
    signal.set_wakeup_fd(waker.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
        listener.listen(64)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while 0 not in (ready := select.select([0, listener, woken], [], [])[0]):
            if woken in ready:
                woken.recv(4096)
            if listener in ready:
                connection, _ = listener.accept()
                child = os.fork()
                if not child:
                    _answer(connection, list(children.values()), emsr)
                children[child] = connection
            for child in [child for child in children if os.waitpid(child, os.WNOHANG)[0]]:
                children.pop(child).close()  # so whoever waits for the end knows that the process is gone
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _answer(connection: socket.socket, others: Sequence[socket.socket], emsr: Path) -> NoReturn:
    """Become the command that the connection asks for."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for other in others:
        other.close()
    head, (here, out, err), *_ = socket.recv_fds(connection, 4, 3)
    words, environment, group = json.loads(connection.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL))
    os.setpgid(0, group)
    connection.sendall(os.getpid().to_bytes(4, "big"))
    os.fchdir(here)
    for number, file in enumerate((os.open(os.devnull, os.O_RDONLY), out, err)):
        os.dup2(file, number)
    os.environ.clear()
    os.environ.update(environment)
    sys.executable = str(emsr.with_name("python"))  # Snakefile: its folder comes first on PATH
    sys.argv, file = words, Path(words[0])
    sys.path[0] = str(emsr.parent) if words[0] == "emsr" else str(file.parent) if file.suffix else os.getcwd()
    status = 1
    try:
        if file.suffix:
            runpy.run_path(words[0], run_name="__main__")
        else:
            runpy.run_module("emsr.cli" if words[0] == "emsr" else words[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        sys.stderr.write(end.code if isinstance(end.code, str) else "")
    except BaseException:
        traceback.print_exc()
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(str(status).encode())
    os._exit(status)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
