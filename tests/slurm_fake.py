"""Slurm's commands as far as snakemake's plugin and `emsr run` call them, with jobs that go as a plan says.

Run as sbatch, squeue, sacct, scancel, sinfo, scontrol or sacctmgr, with the folder SLURM_FAKE: `plan.json` says by a
job's comment how its first, second, ... submission goes; `jobs.jsonl` tells what was submitted and cancelled; `away`
how many commands more fail because the controller is away; `asked` is a line for each query of states.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import sys
from pathlib import Path

HERE = Path(os.environ.get("SLURM_FAKE", "."))
GONE = {"forgotten": 1, "ok": 10**9}  # after so many queries squeue no longer knows the job


def say(text: object) -> None:
    sys.stdout.write(f"{text}\n")


def jobs() -> list[dict]:
    file = HERE / "jobs.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def option(words: list[str], name: str) -> str:
    for number, word in enumerate(words):
        if word == name:
            return words[number + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return ""


def away() -> bool:
    file = HERE / "away"
    left = int(file.read_text()) if file.exists() else 0
    if left:
        file.write_text(str(left - 1))
        sys.stderr.write("slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n")
    return left > 0


def sbatch(words: list[str]) -> None:
    comment, before = option(words, "--comment"), jobs()
    plan = json.loads((HERE / "plan.json").read_text())
    goes = plan.get(comment, ["ok"])
    goes = goes[min(sum(job.get("comment") == comment for job in before), len(goes) - 1)]
    number = 1000 + len(before)
    if goes == "ok":
        output = Path("results", comment[-1] + ".txt")
        output.parent.mkdir(exist_ok=True)
        output.write_text("made\n")
    wrapped = option(words, "--wrap")
    retries = re.findall(r"--retries (\d+)", wrapped)
    job = {"id": number, "name": option(words, "--job-name"), "comment": comment, "goes": goes, "retries": retries}
    with (HERE / "jobs.jsonl").open("a") as file:
        file.write(json.dumps(job) + "\n")
    say(number)


def states(command: str, words: list[str]) -> None:
    if command == "sacct" and not option(words, "--name"):
        return  # the plugin guesses an account from earlier jobs, while others are submitted: there is none
    asked = 0
    if option(words, "--name"):
        with (HERE / "asked").open("a") as file:
            file.write(f"{command}\n")
        asked = (HERE / "asked").read_text().count("\n")
    name, mine = option(words, "--name"), "--me" in words
    said = {"ok": "COMPLETED", "failed": "FAILED", "cancelled": "CANCELLED", "forgotten": "RUNNING", "waits": "PENDING"}
    cancelled = {str(number) for job in jobs() for number in job.get("cancelled", ())}
    for job in jobs():
        if "id" not in job or (name and job["name"] != name):
            continue
        state = "CANCELLED" if str(job["id"]) in cancelled else said[job["goes"]]
        if state == "CANCELLED" and command == "sacct":
            state = "CANCELLED by 0"
        if mine and state in ("RUNNING", "PENDING"):
            say(f"{job['id']}|{job['name']}")
        elif not mine and asked <= GONE.get(job["goes"], 10**9):
            say(f"{job['id']}|{state}")


def main(command: str, words: list[str]) -> int:
    if command in ("sbatch", "squeue", "sacct", "scancel") and away():
        return 1
    if command == "sbatch":
        with (HERE / "lock").open("w") as lock:  # several are called at once, and a number is one job's
            fcntl.flock(lock, fcntl.LOCK_EX)
            sbatch(words)
    elif command in ("squeue", "sacct"):
        states(command, words)
    elif command == "scancel":
        with (HERE / "jobs.jsonl").open("a") as file:
            file.write(json.dumps({"cancelled": [word for word in words if word.isdigit()]}) + "\n")
    elif command == "scontrol":
        say("MinJobAge = 300 sec\nMaxArraySize = 1001")
    elif command == "sinfo":
        say("x*")
    return 0


def install(folder: Path, plan: dict[str, list[str]]) -> dict[str, str]:
    """Put the commands into `folder`/bin; the environment in which they are found and jobs go as `plan` says."""
    (folder / "bin").mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps(plan))
    for command in ("sbatch", "squeue", "sacct", "scancel", "sinfo", "scontrol", "sacctmgr"):
        path = folder / "bin" / command
        path.write_text(
            f"#!{sys.executable} -S\nimport sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            f"import slurm_fake; sys.exit(slurm_fake.main({command!r}, sys.argv[1:]))\n"
        )
        path.chmod(0o755)
    return {**os.environ, "SLURM_FAKE": str(folder), "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
