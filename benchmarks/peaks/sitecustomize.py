"""Python imports this first where it is on PYTHONPATH: a process of `emsr` leaves its peak memory behind."""

import atexit
import json
import os
import sys
import uuid
from pathlib import Path


def _leave() -> None:
    if Path(sys.argv[0]).name != "emsr":
        return
    with Path("/proc/self/status").open() as status:
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
    left = {"verb": sys.argv[1], "words": sys.argv[2:], "peak_mb": round(peak * 2**20 / 10**6, 1)}
    Path(os.environ["EMSR_PEAKS"], f"{uuid.uuid4().hex}.json").write_text(json.dumps(left))


if "EMSR_PEAKS" in os.environ:
    atexit.register(_leave)
