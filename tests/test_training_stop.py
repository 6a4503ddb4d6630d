"""A training stops before its wall time and on SIGTERM, says so, and goes on bit for bit when it is started again."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from emsr import cli
from emsr.progress import OutOfTimeError, UnfinishedError
from emsr.training import state
from emsr.training.data import Batch
from emsr.training.loop import Result, Run, train
from emsr.training.objective import Losses
from emsr.training.stopping import NEVER, Limit, listening, requeue, wall_time
from test_training import STAGE, Tiny, same
from train_project import pair, settings

AVERAGED = replace(STAGE, weight_ema=0.9, precision="bfloat16", checkpoint_every=0)


def run(folder: Path, tiny: Tiny, limit: Limit = NEVER) -> Result:
    return train(tiny, AVERAGED, Run(folder, "a", "tiny", limit=limit))


def test_many_short_wall_times_end_with_the_bits_of_one(tmp_path: Path) -> None:
    """Each attempt makes one step, however little time it has; it needs no other states than those it leaves then."""
    tiny, whole = Tiny(), run(tmp_path / "whole", Tiny())
    for done in range(1, AVERAGED.steps):
        with pytest.raises(OutOfTimeError) as stopped:
            run(tmp_path / "cut", Tiny(), Limit(end=time.time() + 60))
        line = (
            rf"tiny stopped at step {done} of 12, because the wall time of its job ends in 1.0 minutes: start it again"
        )
        assert str(stopped.value).startswith(line)
    resumed = run(tmp_path / "cut", tiny, Limit(end=time.time() + 60))
    assert resumed.stats["attempts"] == AVERAGED.steps
    assert same(whole.weights, resumed.weights)
    assert whole.curve == resumed.curve
    assert whole.scores == resumed.scores


class Told(Tiny):
    """Gets SIGTERM in the middle of a step, twice, as from a scheduler that tells every process."""

    def losses(self, batch: Batch, step: int) -> Losses:
        if step == 6:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
        return super().losses(batch, step)


def test_sigterm_ends_the_step_and_saves(tmp_path: Path) -> None:
    before, whole = signal.getsignal(signal.SIGTERM), run(tmp_path / "whole", Tiny())
    with pytest.raises(
        UnfinishedError, match="stopped at step 7 of 12, because it was told to: start it again"
    ) as told:
        run(tmp_path / "cut", Told())
    assert told.type is UnfinishedError, "who was told to stop does not go back into the queue"
    assert signal.getsignal(signal.SIGTERM) is before
    saved = state.load(tmp_path / "cut", "a")
    assert saved is not None
    assert saved["step"] == 7
    resumed = run(tmp_path / "cut", Tiny())
    assert same(whole.weights, resumed.weights)
    assert whole.curve == resumed.curve


def test_the_last_step_is_no_reason_to_stop(tmp_path: Path) -> None:
    short = replace(AVERAGED, steps=1)
    assert train(Tiny(), short, Run(tmp_path, "a", "tiny", limit=Limit(end=0.0))).curve["training"][-1]["step"] == 1
    saved = state.load(tmp_path, "a")
    assert saved is not None
    assert saved["step"] == 1, "a kill after the last step repeats no step"


def test_margins() -> None:
    assert NEVER.reason(1e9) is None
    assert Limit(time.time() + 400, 300).reason(10) is None
    assert "ends in 6.7 minutes" in str(Limit(time.time() + 400, 300).reason(201)), "two long steps take longer"
    assert "ends in 0.0 minutes" in str(Limit(0.0).reason(0))
    with listening():
        os.kill(os.getpid(), signal.SIGTERM)
        assert Limit().reason(0) == "it was told to"
    assert Limit().reason(0) is None


@pytest.mark.parametrize(
    ("environment", "end", "why"),
    [
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": "5000"}, 5000.0, "SLURM says it"),
        ({"SLURM_JOB_ID": "7"}, 1600.0, "an older SLURM does not: what the rule asked for counts"),
        ({"PBS_JOBID": "7"}, 1600.0, "nor do others"),
        ({}, None, "outside a job nobody ends it"),
    ],
)
def test_where_the_wall_time_comes_from(environment: dict[str, str], end: float | None, why: str) -> None:
    assert wall_time(1000.0, 10, environment) == end, why
    assert wall_time(1000.0, 0, {"SLURM_JOB_ID": "7"}) is None


def test_the_command_says_that_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen: dict[str, Any] = settings("flow", pair(tmp_path), tmp_path)
    out = tmp_path / "t" / "flow.json"
    words = ["train", json.dumps(chosen), str(out), "--log", str(tmp_path / "log")]
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 60))
    assert cli.main(words) == 75
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("emsr:")]
    assert len(said) == 1
    assert said[0].startswith("emsr: warning: t flow stopped at step 1 of 6, because the wall time of its job ends in ")
    assert not out.exists()
    monkeypatch.delenv("SLURM_JOB_END_TIME")
    assert cli.main(words) == 0
    stats = json.loads(out.with_suffix(".stats.json").read_text())
    assert stats["attempts"] == 2
    assert 0 <= stats["waiting_seconds"] < stats["seconds"]


def scontrol(folder: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> Path:
    """A stand-in for SLURM's command, first on PATH; returns where it notes its words."""
    said, program = folder / "said", folder / "bin" / "scontrol"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" > {said}\n{ending}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    return said


@pytest.mark.parametrize(("words", "asked"), [((), False), (("--requeue", "1"), True)])
def test_out_of_wall_time_a_job_goes_back_into_the_queue_if_the_rule_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], asked: bool
) -> None:
    said = scontrol(tmp_path, monkeypatch, "echo 'slurm_requeue error: not permitted' >&2; exit 1")
    out = tmp_path / "t" / "flow.json"
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 60))
    command = ["train", json.dumps(settings("flow", pair(tmp_path), tmp_path)), str(out)]
    assert cli.main([*command, *words, "--log", str(tmp_path / "log")]) == 75, "refused: a retry starts it again"
    assert said.exists() == asked
    if asked:
        assert said.read_text() == "requeue 17\n"
        refused = "job 17 cannot go back into the queue by itself: slurm_requeue error: not permitted"
        assert refused in (tmp_path / "log").read_text()


def test_requeue_waits_for_the_end_and_needs_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    said, began = scontrol(tmp_path, monkeypatch, "exit 0"), time.monotonic()
    requeue({}, patience=60)
    assert not said.exists()
    requeue({"SLURM_JOB_ID": "17"}, patience=0.2)
    assert said.read_text() == "requeue 17\n"
    assert time.monotonic() - began > 0.2, "SLURM needs a moment to end it"
    monkeypatch.setenv("PATH", str(tmp_path))
    requeue({"SLURM_JOB_ID": "17"}, patience=60)
    assert "job 17 cannot go back into the queue by itself" in caplog.text
    assert time.monotonic() - began < 60
