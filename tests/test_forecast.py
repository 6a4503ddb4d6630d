"""What is foretold of jobs is what they do: counted against runs, and the bounds of the geometry of jobs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from emsr.commands.space import of_sr
from emsr.geometry import Box, triple
from emsr.inference import forecast
from emsr.inference.blend import Blend
from emsr.inference.cost import Call, Cost
from emsr.inference.run import run
from emsr.inference.stream import Network, stream_column
from emsr.plan import Plan, neighbour_table
from emsr.shards import jobs
from sr_project import SrProject, tissue_like, write_weights
from test_stream import Counted, Recorder


def cost_of(section: float, centre: float) -> Cost:
    """Of a network of which nothing is known but operations."""
    parts = [Call({"all": round(count)}, 0, 0, 0) for count in (section, centre)]
    return Cost(*parts, 0, 0)


PLANS = [
    (Plan((11, 40, 36), 2, 8, 4, (4, 16, 16), neighbour_table(11, 5, 1, (), ())), "several layers, uneven at the ends"),
    (Plan((11, 24, 20), 2, 8, 2, (4, 16, 32), neighbour_table(11, 5, 1, (4,), (7,))), "beside damage and a gap"),
    (Plan((9, 8, 8), 2, 8, 4, (9, 16, 16), neighbour_table(9, 3, 2, (), ())), "one column, cut in z for workers"),
]


@pytest.mark.parametrize(("plan", "why"), PLANS, ids=[why for _, why in PLANS])
@pytest.mark.parametrize(("n", "workers"), [(1, 1), (3, 1), (2, 4)])
def test_jobs_do_what_was_foretold(monkeypatch: pytest.MonkeyPatch, plan: Plan, why: str, n: int, workers: int) -> None:
    held: list[int] = []

    def noted(self: Blend, index: tuple[int, int, int], of: object = Blend._sum) -> object:
        found = of(self, index)  # type: ignore[operator]
        held.append(sum(each.nbytes for each in self._sums.values()))
        return found

    monkeypatch.setattr(Blend, "_sum", noted)
    volume = tissue_like(plan.lr_shape)
    for mine, foretold in zip(jobs(plan.grid, n), forecast.of_jobs(plan, n, workers), strict=True):
        shards = [index for box in mine for index in box.indices()]
        recorder, shown = Recorder(), Counted()
        held.clear()
        made = dict(run(Network(recorder, "cpu", "float32"), plan, shards, lambda b: volume[b.slices], workers, shown))
        assert (foretold.shards, foretold.voxels) == (len(made), sum(voxels.size for voxels in made.values()))
        assert foretold.windows == shown.done, why
        assert (foretold.sections, foretold.centres) == (len(recorder.sections), len(recorder.centres)), why
        assert max(held, default=0) <= foretold.sums_bytes
        if workers == 1 and held:
            assert foretold.sums_bytes <= 2 * max(held), "of one window more than is under way"


@pytest.mark.parametrize(
    ("sections", "step", "damaged", "reason"),
    [
        (1, 1, (), "the section alone"),
        (5, 1, (), "five neighbours"),
        (5, 1, (7, 9), "those that stand in are kept longer"),
        (3, 4, (), "every fourth section is a neighbour, so nine lie between the outer ones"),
    ],
)
def test_the_ring_holds_what_was_foretold(sections: int, step: int, damaged: tuple[int, ...], reason: str) -> None:
    volume = tissue_like((24, 8, 8))
    plan = Plan((24, 8, 8), 2, 8, 4, (24, 16, 16), neighbour_table(24, sections, step, damaged, ()))
    stream = stream_column(Network(Recorder(), "cpu", "float32"), plan, (0, 0), range(24), lambda b: volume[b.slices])
    kept = [len(stream.gi_frame.f_locals["ring"]) for _ in stream]  # type: ignore[attr-defined]
    assert forecast.of_shards(plan, [(0, 0, 0)], 1).ring == max(kept), reason
    assert max(kept) >= sections


def test_a_pilot_takes_no_more_than_its_shards() -> None:
    plan = PLANS[0][0]
    wanted = Box((0, 1, 1), (1, 3, 3))
    part = replace(plan, within=wanted)
    whole, left = forecast.of_jobs(part, 2, 1), frozenset([(0, 1, 1)])
    assert sum(work.shards for work in whole) == wanted.size
    assert sum(work.shards for work in forecast.of_jobs(part, 2, 1, left)) == wanted.size - 1
    assert forecast.one_pass(part, cost_of(1, 1)) == 4 * 32 * 32 / (2 * 8) ** 2 * 2
    assert forecast.one_pass(part, cost_of(1, 1), left) == 4 * 3 * 16 * 16 / (2 * 8) ** 2 * 2


def test_files_are_those_that_a_run_leaves(tmp_path: Path) -> None:
    made = SrProject(tmp_path, write_weights(tmp_path, "bicubic", 4))
    made.settings |= {"shard": [4, 128, 128], "chunk": [2, 64, 64]}
    made.write_lr(tissue_like((9, 70, 130)))
    made.all()
    sr, records, jobs, valid = of_sr("", (9, 280, 520), 4, ((4, 128, 128), (2, 64, 64)), 1)
    for array in (sr, valid):
        files = [file for file in (tmp_path / f"{array.name}.zarr").resolve().rglob("*") if file.is_file()]
        assert array.files == len(files), array.name
    assert records.files == len(list(tmp_path.glob("sr-*.records/*.json")))
    assert jobs.files - 2 == len(list((tmp_path / "sr" / "jobs").iterdir())), "a log and a benchmark are Snakemake's"


# operations of a window by tests/test_cost.py, giga multiply-accumulates
X8, X16 = cost_of(467.7e9, 596.3e9), cost_of(441.6e9, 217.2e9)


@pytest.mark.parametrize(
    ("scale", "window", "overlap", "depth", "cost", "most", "reason"),
    [
        (8, 128, 8, 16, X8, 1.40, "config.yaml's shards"),
        (8, 128, 8, 32, X8, 1.40, "twice as deep"),
        (8, 128, 16, 16, X8, 1.55, "twice the overlap"),
        # 16 jobs that share no window with each other cannot do less: of 73 x 73 windows those on the borders of 4 x 4
        # jobs are computed twice, (76 / 64)^2
        (16, 64, 8, 64, X16, 1.4102, "shards as deep as the volume, so that no section is computed twice along z"),
        (16, 64, 8, 32, X16, 1.431, "less memory and files, sections at one border in z twice"),
    ],
)
def test_jobs_repeat_little(
    scale: int, window: int, overlap: int, depth: int, cost: Cost, most: float, reason: str
) -> None:
    """64 x 4096 x 4096 lr in 16 jobs: overlap, borders of jobs and halos along z included."""
    table = neighbour_table(64, 5, 1, (), ())
    plan = Plan((64, 4096, 4096), scale, window, overlap, triple([depth, 1024, 1024]), table)
    each = forecast.of_jobs(plan, 16, 1)
    assert sum(work.voxels for work in each) == 64 * (4096 * scale) ** 2
    total = sum(work.macs(cost) for work in each) / forecast.one_pass(plan, cost)
    assert 1 < total <= most, reason
    assert max(work.macs(cost) for work in each) <= 1.06 * sum(work.macs(cost) for work in each) / 16


def test_one_window_over_all_is_one_pass() -> None:
    plan = Plan((6, 16, 16), 4, 16, 4, (6, 64, 64), neighbour_table(6, 5, 1, (), ()))
    (work,) = forecast.of_jobs(plan, 1, 1)
    assert work.macs(X8) == forecast.one_pass(plan, X8)
    assert work.sums_bytes == 4 * 6 * 64 * 64
