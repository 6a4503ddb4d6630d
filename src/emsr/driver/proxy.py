"""python proxy.py COMMAND REAL FOLDER SECONDS ARGUMENTS...: sbatch, squeue or sacct, as snakemake needs them.

A program of its own, without imports of emsr, that stands before Slurm's own on PATH while `emsr run` works. The plugin
of snakemake waits for ever for a job that Slurm no longer knows, loses every job when Slurm does not answer a few times
in a row, and does not know "CANCELLED by 0". So here sbatch notes the jobs and waits while Slurm is away, and a status
query gives every noted job one plain state: the one that Slurm says, the last that it said while it is away, and FAILED
for a job that it has not known for SECONDS. In FOLDER: `submitted`, `states.json`, `lost`, and `away` once Slurm was
away for SECONDS.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

QUERY_SECONDS = 45.0  # the plugin gives a query a minute
AGAIN_SECONDS = 5.0
AWAY = re.compile(
    r"unable to contact|connection refused|connect failure|timed out|zero bytes were transmitted|"
    r"temporarily|controller|connection timed|communication|slurmdbd",
    re.IGNORECASE,
)
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE"}


def main(command: str, real: str, folder: Path, seconds: float, words: list[str]) -> int:
    if command == "sbatch":
        return submit([real, *words], folder, seconds)
    if any(word == "--name" or word.startswith("--name=") for word in words):
        return ask([real, *words], folder, seconds)
    return subprocess.call([real, *words])


def submit(words: list[str], folder: Path, seconds: float) -> int:
    """Submit, again and again while Slurm is away, and note the number of the job, or of each of an array."""
    script, begun = sys.stdin.buffer.read(), time.monotonic()
    while True:
        done = subprocess.run(words, input=script, capture_output=True)
        away = done.returncode != 0 and AWAY.search(done.stderr.decode(errors="replace"))
        if not away or time.monotonic() - begun > seconds:
            break
        time.sleep(AGAIN_SECONDS)
    number = re.search(rb"\d+", done.stdout)
    if done.returncode == 0 and number:
        job = number[0].decode()
        tasks = [match for word in words if (match := re.search(r"^--array=(\d+)-(\d+)", word))]
        ids = [f"{job}_{task}" for match in tasks for task in range(int(match[1]), int(match[2]) + 1)] or [job]
        with (folder / "submitted").open("a") as file:
            file.write("".join(f"{each}\n" for each in ids))
    sys.stdout.buffer.write(done.stdout)
    sys.stderr.buffer.write(done.stderr)
    return done.returncode


def ask(words: list[str], folder: Path, seconds: float) -> int:
    """The state of every job that was noted, a line each: number|STATE."""
    now = time.monotonic()
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=QUERY_SECONDS)
        said = stated(done.stdout) if done.returncode == 0 else None
    except subprocess.TimeoutExpired:
        said = None
    jobs = _lines(folder / "submitted")
    known = _known(folder / "states.json")
    if said is None:
        known.setdefault("away", now)
        if now - known["away"] > seconds:
            (folder / "away").touch()
    else:
        known.pop("away", None)
        for job in jobs:
            _judge(known, job, said, now, seconds, folder / "lost")
    _write(folder / "states.json", known)
    told = {job: known[job]["state"] if job in known else "PENDING" for job in jobs}
    sys.stdout.write("".join(f"{job}|{state}\n" for job, state in {**(said or {}), **told}.items()))
    return 0


def _judge(known: dict, job: str, said: dict[str, str], now: float, seconds: float, lost: Path) -> None:
    """What is to be said of a job, by what Slurm says of it, or of its array, now and said before."""
    one = known.setdefault(job, {"state": "PENDING", "absent": None})
    array, _, task = job.partition("_")
    of_array = [said.get(array), said.get(f"{array}_[")] if task and one["state"] not in ENDED else []
    if state := next(filter(None, [said.get(job), *of_array]), None):
        one |= {"state": state, "absent": None}
    elif one["state"] not in ENDED:
        one["absent"] = now if one["absent"] is None else one["absent"]
        if now - one["absent"] > seconds:
            one["state"] = "FAILED"
            with lost.open("a") as file:
                file.write(f"{job}\n")


def stated(text: str) -> dict[str, str]:
    """Number and state, one word, of each job of a status query; UNKNOWN, which the plugin takes for success, is none.

    Tasks of an array that wait, 7_[2-9], are together "7_[".
    """
    rows = [line.split("|") for line in text.splitlines() if line.count("|") == 1]
    states = {re.sub(r"\[.*", "[", job.strip()): state.split()[0].rstrip("+") for job, state in rows if state.strip()}
    return {job: state for job, state in states.items() if state != "UNKNOWN"}


def _lines(file: Path) -> list[str]:
    return list(dict.fromkeys(file.read_text().split())) if file.exists() else []


def _known(file: Path) -> dict:
    try:
        return dict(json.loads(file.read_text()))
    except (OSError, ValueError):
        return {}


def _write(file: Path, known: dict) -> None:
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    partial.write_text(json.dumps(known))
    partial.replace(file)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), float(sys.argv[4]), sys.argv[5:]))
