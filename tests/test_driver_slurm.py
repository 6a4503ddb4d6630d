"""`emsr run` on Slurm, here a fake: its jobs are found again, answers come to an end, tries are counted once."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import slurm_fake
from driver_project import Driven
from emsr.driver import proxy
from emsr.driver import slurm as slurms
from emsr.driver.proxy import stated
from emsr.driver.slurm import Slurm, name_of

TINY = """
rule make:
    output: "results/{w}.txt"
    shell: "touch {output}"
"""
ON_SLURM = (
    *("--executor", "slurm", "--jobs", "9", "--default-resources", "slurm_partition=x", "mem_mb=1", "runtime=1"),
    *("--retries", "1", "--keep-going", "--latency-wait", "1", "--slurm-init-seconds-before-status-checks", "1"),
)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for key, value in slurm_fake.install(tmp_path / "slurm", {}).items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(slurm_fake, "HERE", tmp_path / "slurm")
    return tmp_path / "slurm"


def submitted() -> list[dict]:
    return [job for job in slurm_fake.jobs() if "id" in job]


def cancelled() -> list[str]:
    return [number for job in slurm_fake.jobs() for number in job.get("cancelled", ())]


@pytest.mark.workflow
def test_forgotten_and_cancelled_jobs_are_made_again_and_tries_are_counted_once(tmp_path: Path, fake: Path) -> None:
    """With the plugin itself, which alone would wait for c for ever."""
    plan = {"b": ["cancelled", "ok"], "c": ["forgotten", "ok"], "d": ["failed"]}
    (fake / "plan.json").write_text(json.dumps({f"rule_make_wildcards_{w}": goes for w, goes in plan.items()}))
    project = Driven(tmp_path / "project")
    (project.folder / "tiny.smk").write_text(TINY)
    command = [sys.executable, "-m", "emsr.cli", "run", "--no-canary", "--lost-after", "1", "--snakefile", "tiny.smk"]
    targets = [f"results/{w}.txt" for w in "abcd"]
    done = subprocess.run(
        [*command, *ON_SLURM, "--", *targets], cwd=project.folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1
    said = done.stderr.splitlines()
    assert said[-1].startswith("emsr: error: snakemake ended with exit code 1"), done.stderr
    forgotten = next(job["id"] for job in submitted() if job["goes"] == "forgotten")
    assert f"emsr: warning: Slurm has not known job {forgotten} for 1 s: it counts as failed" in said
    tries = Counter(job["comment"][-1] for job in submitted())
    assert tries == {"a": 1, "b": 2, "c": 2, "d": 2}, f"--retries 1 is one more try: {done.stderr}"
    assert {retries for job in submitted() for retries in job["retries"]} == {"0"}, "none inside the job"
    assert [path.name for path in sorted(project.path().glob("*.txt"))] == ["a.txt", "b.txt", "c.txt"]
    name = json.loads(project.path(".emsr", "name.json").read_text())["name"]
    assert all(job["name"].startswith(f"{name}_") for job in submitted())
    assert set((fake / "asked").read_text().split()) == {"squeue"}
    assert project.locks == []
    assert [path.name for path in project.path(".emsr").iterdir()] == ["name.json"]


def test_what_an_earlier_run_left_is_cancelled_and_nothing_else(tmp_path: Path, fake: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    name = name_of(results)
    assert name_of(results) == name
    mine, others = (
        [{"id": 7, "name": f"{name}_1", "goes": "waits"}, {"id": 8, "name": f"x_{name}_2", "goes": "waits"}],
        [
            {"id": 9, "name": "emsr-000000000000_3", "goes": "waits"},
            {"id": 10, "name": f"{name}_4", "goes": "ok"},
        ],
    )
    (fake / "jobs.jsonl").write_text("".join(json.dumps({"comment": "", **job}) + "\n" for job in mine + others))
    assert Slurm(name, tmp_path / "files", 900).cancel() == 2
    assert cancelled() == ["7", "8"]
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(results), str(copy)], check=True)
    assert name_of(copy) != name, "a copied tree does not cancel the jobs of the one it was copied from"


def test_without_slurm_there_is_one_line(tmp_path: Path, fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (fake / "away").write_text("1")
    with pytest.raises(ValueError, match=r"squeue does not answer \(slurm_load_jobs error: Unable to contact"):
        Slurm("emsr-1", tmp_path, 900).cancel()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="squeue is not on PATH"):
        Slurm("emsr-1", tmp_path, 900).cancel()


def test_jobs_that_do_not_go_are_waited_for_in_bounded_time(
    tmp_path: Path, fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurms, "LOOK_SECONDS", 0.01)
    job = {"id": 7, "name": "emsr-1_x", "goes": "waits", "comment": ""}
    (fake / "jobs.jsonl").write_text(json.dumps(job) + "\n")
    (fake / "bin" / "scancel").write_text("#!/bin/sh\n")
    clock = time.monotonic()
    assert Slurm("emsr-1", tmp_path, 900).cancel(0.5) == 1
    assert time.monotonic() - clock < 10


# -- the commands that stand before Slurm's ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("7|RUNNING\n", {"7": "RUNNING"}),
        ("7|CANCELLED by 1000\n8|COMPLETED\n", {"7": "CANCELLED", "8": "COMPLETED"}),
        ("7|CANCELLED+\n", {"7": "CANCELLED"}),
        ("7|UNKNOWN\n", {}),
        ("7_[2-9%4]|PENDING\n7_1|RUNNING\n", {"7_[": "PENDING", "7_1": "RUNNING"}),
        ("\nno row\n7|\n", {}),
    ],
)
def test_states_are_one_word_each(said: str, state: dict[str, str]) -> None:
    assert stated(said) == state


class Clock:
    """Time as the commands see it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        patch.setattr(proxy.time, "monotonic", lambda: self.now)
        patch.setattr(proxy.time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def asked(
    files: Path, capfd: pytest.CaptureFixture[str], command: str = "squeue", seconds: float = 100
) -> dict[str, str]:
    """What the plugin is told, `files` being those of a run."""
    capfd.readouterr()
    real = str(slurm_fake.HERE / "bin" / command)
    assert proxy.ask([real, "--format=%i|%T", "--states=all", "--name", "r"], files, seconds) == 0
    return dict(line.split("|") for line in capfd.readouterr().out.splitlines())


def jobs_are(fake: Path, **jobs: str) -> None:
    rows = [{"id": int(number[1:]), "name": "r", "goes": goes, "comment": ""} for number, goes in jobs.items()]
    (fake / "jobs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_job_that_slurm_forgot_fails_after_a_while_and_one_that_ended_does_not(
    tmp_path: Path, fake: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(monkeypatch)
    (tmp_path / "submitted").write_text("7\n8\n")
    assert asked(tmp_path, capfd) == {"7": "PENDING", "8": "PENDING"}, "accounting may not know a new job yet"
    jobs_are(fake, _7="waits", _8="failed")
    clock.now = 90
    assert asked(tmp_path, capfd) == {"7": "PENDING", "8": "FAILED"}
    jobs_are(fake)
    for clock.now in (100, 150, 200):
        assert asked(tmp_path, capfd) == {"7": "PENDING", "8": "FAILED"}, clock.now
    clock.now = 201
    assert asked(tmp_path, capfd) == {"7": "FAILED", "8": "FAILED"}
    assert (tmp_path / "lost").read_text() == "7\n", "told once, and of 8 not at all"
    clock.now = 999
    asked(tmp_path, capfd)
    assert (tmp_path / "lost").read_text() == "7\n"


def test_while_slurm_is_away_jobs_are_what_they_were(
    tmp_path: Path, fake: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The plugin forgets all its jobs when a few queries in a row fail, and then waits for ever."""
    clock, slurm = Clock(monkeypatch), Slurm("r", tmp_path, 100)
    (tmp_path / "submitted").write_text("7\n")
    jobs_are(fake, _7="forgotten")
    assert asked(tmp_path, capfd) == {"7": "RUNNING"}
    (fake / "away").write_text("99")
    for clock.now in (10, 60, 110):
        assert asked(tmp_path, capfd) == {"7": "RUNNING"}
    assert not slurm.away()
    (fake / "away").write_text("0")
    assert asked(tmp_path, capfd) == {"7": "RUNNING"}
    (fake / "away").write_text("99")
    for clock.now in (111, 211, 212):
        asked(tmp_path, capfd)
    assert slurm.away(), "for longer than it may"


def test_sacct_says_who_cancelled_and_the_plugin_is_not_told(
    tmp_path: Path, fake: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "submitted").write_text("7\n")
    jobs_are(fake, _7="cancelled")
    real = subprocess.run([str(fake / "bin" / "sacct"), "--name", "r"], capture_output=True, text=True).stdout
    assert real == "7|CANCELLED by 0\n"
    assert asked(tmp_path, capfd, "sacct") == {"7": "CANCELLED"}


def test_tasks_of_an_array_that_wait_are_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], fake: Path
) -> None:
    clock = Clock(monkeypatch)
    (tmp_path / "submitted").write_text("7_1\n7_2\n7_3\n")
    (fake / "bin" / "squeue").write_text("#!/bin/sh\nprintf '7_1|RUNNING\\n7_[2-3]|PENDING\\n'\n")
    for clock.now in (0, 1000):
        told = asked(tmp_path, capfd)
        assert [told[f"7_{task}"] for task in (1, 2, 3)] == ["RUNNING", "PENDING", "PENDING"]


def test_sbatch_waits_while_slurm_is_away_and_notes_what_it_submits(
    tmp_path: Path, fake: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(monkeypatch)
    monkeypatch.setattr(proxy.sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    monkeypatch.chdir(tmp_path)
    words = [str(fake / "bin" / "sbatch"), "--job-name", "r", "--comment", "rule_make_wildcards_a"]
    (fake / "away").write_text("3")
    assert proxy.submit(words, tmp_path, 100) == 0
    assert (clock.now, capfd.readouterr().out) == (3 * proxy.AGAIN_SECONDS, "1000\n")
    assert proxy.submit([*words, "--array=2-4"], tmp_path, 100) == 0
    assert (tmp_path / "submitted").read_text() == "1000\n1001_2\n1001_3\n1001_4\n"
    (fake / "away").write_text("9999")
    capfd.readouterr()
    assert proxy.submit(words, tmp_path, 10) == 1
    assert "Unable to contact slurm controller" in capfd.readouterr().err
    (fake / "away").write_text("0")
    (fake / "bin" / "sbatch").write_text(
        "#!/bin/sh\necho 'sbatch: error: invalid partition specified: no' >&2\nexit 1\n"
    )
    before = clock.now
    assert proxy.submit(words, tmp_path, 100) == 1
    assert clock.now == before, "a mistake of the user's is said at once"


def test_the_commands_are_found_before_slurms_own(tmp_path: Path, fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = tmp_path / "it's here"
    environment = Slurm("r", files, 100).environment()
    jobs_are(fake, _7="cancelled")
    for command, words in (("sacct", ["--name", "r"]), ("squeue", ["--me"])):
        done = subprocess.run([command, *words], env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "7|CANCELLED\n" if command == "sacct" else "")
    (fake / "bin" / "sacct").unlink()
    monkeypatch.setenv("PATH", str(fake / "bin"))
    Slurm("r", tmp_path / "other", 100).environment()
    assert not (tmp_path / "other" / "bin" / "sacct").exists(), "where there is none there is none"
