"""`emsr run` on a real workflow: others are kept out, a kill costs what was in flight, and success is proved."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from driver_project import SHARDS, SR, WORDS, Driven, alive
from emsr import superresolve
from emsr.cli import main
from emsr.driver import run as driver
from emsr.driver.words import Asked
from emsr.stores.zarr import open_array

pytestmark = pytest.mark.workflow
SEED = random.SystemRandom().randrange(10**6)


def records(project: Driven) -> dict[str, int]:
    """When each shard was recorded."""
    found = project.states("cells/sr-*.records/[0-9]*.json")
    return {Path(file).stem: time for file, time in found.items()}


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str], project: Driven) -> None:
    start = time.monotonic()
    while not condition():
        assert process.poll() is None, project.said
        assert time.monotonic() - start < 120, project.said
        time.sleep(0.01)


def gone(project: Driven) -> None:
    """No process works in the project, and no lock is there."""
    start = time.monotonic()
    while alive(project.folder) and time.monotonic() - start < 60:
        time.sleep(0.05)
    assert alive(project.folder) == []
    assert project.locks == []


def here(project: Driven, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """`emsr run` in this process."""
    with monkeypatch.context() as patch:
        patch.chdir(project.folder)
        return main(["run", "--", *WORDS, *words])


def last(capfd: pytest.CaptureFixture[str]) -> str:
    """The only line that was said."""
    said = capfd.readouterr()
    lines = (said.out + said.err).splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_a_kill_at_random_costs_what_was_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Everything is killed at once, as when the power fails; and while it worked a second one was refused."""
    project = Driven(tmp_path / "project")
    first = project.start(SR, "--no-canary")
    wait_for(lambda: project.locks and "child" in lock_of(project), first, project)
    group = lock_of(project)["child"]["group"]
    os.killpg(group, signal.SIGSTOP)  # so that the second comes in time, however slow this machine is
    clock = time.process_time()
    capfd.readouterr()
    assert here(project, monkeypatch, SR) == 1
    assert time.process_time() - clock < 10
    assert f"emsr run, process {first.pid} on " in last(capfd)
    os.killpg(group, signal.SIGCONT)
    at = random.Random(SEED).randrange(SHARDS)
    wait_for(lambda: len(records(project)) >= at, first, project)
    os.kill(first.pid, signal.SIGKILL)
    os.killpg(group, signal.SIGKILL)
    first.wait()
    done = records(project)
    run = project.run(SR, "--no-canary")
    now = records(project)
    assert len(now) == SHARDS
    assert {shard: now[shard] for shard in done} == done, (SEED, at, run.output)
    lr, weights = open_array(project.path("cells", "lr.zarr")), project.config["volumes"]["cells"]["weights"]["path"]
    sr = superresolve(lr.read().result(), weights)
    assert np.array_equal(open_array(project.path("cells", "sr.zarr")).read().result(), sr)
    gone(project)


def lock_of(project: Driven) -> dict:
    content = json.loads(project.path(".emsr", "run-1.lock").read_text())
    return {key: value for key, value in content.items() if value}


@pytest.fixture
def working(tmp_path: Path) -> Iterator[tuple[Driven, subprocess.Popen[str]]]:
    project = Driven(tmp_path / "project")
    process = project.start(SR, "--no-canary")
    wait_for(lambda: project.path("logs", "ingest").exists(), process, project)
    yield project, process
    process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_bounded_time(
    working: tuple[Driven, subprocess.Popen[str]], number: signal.Signals
) -> None:
    project, process = working
    process.send_signal(number)
    assert process.wait(60) == 128 + number, project.said
    assert f"emsr: error: {number.name} came: everything is ended" in project.said.splitlines()[-1]
    assert not project.path("cells", "lr.json").exists()
    gone(project)


# -- without a run of snakemake ---------------------------------------------------------------------------------------


def test_a_snakemake_at_work_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    project = Driven(tmp_path / "project")
    folder = project.folder / ".snakemake" / "locks"
    folder.mkdir(parents=True)
    (folder / "0.output.lock").write_text("results/cells/sr.json\n")
    program = tmp_path / "snakemake"
    program.write_text("import time; time.sleep(600)")
    plain = subprocess.Popen([sys.executable, str(program)], cwd=project.folder)
    try:
        assert (here(project, monkeypatch, SR), plain.poll()) == (1, None)
        assert f"snakemake, process {plain.pid}, works in" in last(capfd)
    finally:
        plain.kill()
        plain.wait()
    assert here(project, monkeypatch, SR) == 1
    assert "unlock with snakemake --unlock" in last(capfd), "it may work on another machine"
    assert project.locks == ["0.output.lock"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--bogus"], "snakemake does not take these words"),
        (["--profile", "nowhere"], "snakemake does not take these words"),
        (
            ["results/cells/st.json"],
            "snakemake cannot make this: MissingRuleException: No rule to produce results/cells/st",
        ),
        (["--unlock"], "for --unlock call snakemake itself"),
        (["--configfile", "absent.yaml"], "absent.yaml does not exist"),
        (["--config", "canary={jobs: 0}"], "canary.jobs"),
        (["--config", "canaries=1"], "did you mean 'canary'"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    project = Driven(tmp_path / "project")
    before = sorted(project.folder.rglob("*"))
    assert here(project, monkeypatch, *words) == 1
    assert said in last(capfd)
    left = [path for path in project.folder.rglob("*") if not {".snakemake", ".emsr"} & set(path.parts)]
    assert sorted(path for path in left if path != project.path()) == before
    assert project.locks == []


def test_what_is_not_run_is_snakemakes_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, called = Driven(tmp_path / "project"), []
    monkeypatch.setattr(driver.subprocess, "call", lambda words: called.append(words) or 3)
    with pytest.raises(SystemExit) as ended:
        here(project, monkeypatch, "-n", "--profile", "none")
    assert ended.value.code == 3
    assert called == [[sys.executable, "-m", "snakemake", *WORDS, "-n", "--profile", "none"]]
    assert not project.path().exists()


def test_a_training_that_got_on_goes_on_and_one_that_did_not_ends(tmp_path: Path) -> None:
    """Six wall times of a training, of which each call of snakemake sees two."""
    latest, calls = tmp_path / "trainings" / "t" / "fusion.checkpoint" / "latest.json", []
    latest.parent.mkdir(parents=True)
    one = driver.Driver.__new__(driver.Driver)
    one.settings, one.stop = type("Settings", (), {"root": str(tmp_path)}), driver.Stop()
    one.unlock = lambda: None

    def once(targets: object) -> int:
        calls.append(targets)
        if len(calls) < 4:
            latest.write_text(json.dumps({"step": 2 * len(calls)}))
        return 0 if len(calls) == ends else 1

    one.once, ends = once, 4
    one.snakemake(["a"])
    assert calls == [["a"]] * 4
    calls.clear()
    ends = 0
    with pytest.raises(ValueError, match="snakemake ended with exit code 1"):
        one.snakemake()
    assert len(calls) == 4, "the fourth got nowhere"


def test_a_run_that_lost_its_lock_touches_nothing_more(tmp_path: Path) -> None:
    """What stands there, and is queued, may be that of the run that took the lock."""
    lock = tmp_path / ".snakemake" / "locks" / "0.output.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("x\n")
    one = driver.Driver.__new__(driver.Driver)
    one.asked, one.stop, done = type("Asked", (), {"folder": tmp_path}), driver.Stop(), []
    one.slurm = type(
        "Slurm", (), {"cancel": lambda *_: done.append("cancel"), "clear": lambda _: done.append("clear")}
    )()
    one.stop.lose()
    one.unlock()
    one.leave(False)
    assert (lock.exists(), done) == (True, ["clear"])
    with pytest.raises(ValueError, match="nothing was heard of this run for a minute"):
        one.stop.check()


def test_words_name_folder_config_jobs_and_targets_as_snakemake_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Driven(tmp_path / "project")
    overlay = tmp_path / "mine.yaml"
    overlay.write_text("canary: {seams: 3}\n")
    profile = tmp_path / "cluster"
    profile.mkdir()
    (profile / "config.yaml").write_text("executor: slurm\njobs: 3\nset-scatter: {job: 7}\n")
    monkeypatch.chdir(tmp_path)
    words = ["a/b.json", "--profile", "cluster", "-d", "project", "--config", "jobs=5", "--configfile", "mine.yaml"]
    asked = Asked.read(words)
    assert (asked.folder, asked.configs) == (project.folder, (project.folder / "config.yaml", overlay))
    assert (asked.slurm, asked.jobs, asked.targets, asked.dry) == (True, 7, ["a/b.json"], False)
    assert asked.line(["--x"], ["c"]) == ["--x", *words[1:], "--", "c"]
    monkeypatch.chdir(asked.folder)
    config = asked.settings().config
    assert (config.jobs, config.canary and config.canary.seams) == (5, 3)
    assert Asked.read(["--cores", "2", "--", "x", "x"]).line([], ["y"]) == ["--cores", "2", "--", "y"]
    assert Asked.read([]).words == ("--cores", "all")
