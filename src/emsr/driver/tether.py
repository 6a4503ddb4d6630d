"""python tether.py FD SIGNAL COMMAND...: run a command that gets SIGNAL when the other end of pipe FD is gone.

A program of its own, without imports of emsr, because it stands between `emsr run` and snakemake and is all that is
left when `emsr run` is killed. It leads a session, so its process group holds snakemake and every local job.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time

GRACE_SECONDS = 20.0
LOOK_SECONDS = 0.1


def main(fd: int, first: int, command: list[str]) -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # a handler, not SIG_IGN, which the command would inherit
    child = subprocess.Popen(command)
    while child.poll() is None:
        if select.select([fd], [], [], LOOK_SECONDS)[0]:
            _end(child, first)
    code = child.returncode
    return code if code >= 0 else 128 - code


def _end(child: subprocess.Popen[bytes], first: int) -> None:
    """What is left after a while is killed, this process too."""
    os.killpg(0, first)
    deadline = time.monotonic() + GRACE_SECONDS
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
