"""Streaming: every section once, states of the table alone, the same voxels as the whole network."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from emsr.geometry import Box
from emsr.inference.blend import STEPS
from emsr.inference.memory import superresolve
from emsr.inference.run import Task, _in_order, count_windows, run, tasks
from emsr.inference.stream import Network, pad_to, stream_column
from emsr.models import checkpoint
from emsr.plan import Plan, neighbour_table
from sr_project import SrProject, tissue_like, write_weights


class Recorder(nn.Module):
    """Streams sections that carry their own grey; notes what it was asked for and how many states live."""

    def __init__(self) -> None:
        super().__init__()
        self.sections: list[int] = []
        self.centres: list[tuple[int, ...]] = []
        self.threads: set[tuple[int, int]] = set()

    def section(self, lr: Tensor) -> tuple[Tensor]:
        assert lr.shape[:2] == (1, 1)
        self.threads.add((threading.get_ident(), torch.get_num_threads()))
        self.sections.append(round(float(lr.mean()) * 255))
        return (lr,)

    def centre(self, states: Sequence[tuple[Tensor, ...]]) -> Tensor:
        self.centres.append(tuple(round(float(state[0].mean()) * 255) for state in states))
        return states[len(states) // 2][0].repeat_interleave(2, -1).repeat_interleave(2, -2)


class Whole(nn.Module):
    """Has `forward` only: the mean over sections, enlarged."""

    def forward(self, lr: Tensor) -> Tensor:
        return lr.mean(dim=1).repeat_interleave(2, -1).repeat_interleave(2, -2)


class Broken(nn.Module):
    def forward(self, lr: Tensor) -> Tensor:
        return lr[:, 0].repeat_interleave(2, -1).repeat_interleave(2, -2) * float("nan")


class Counted:
    """A progress bar that counts."""

    def __init__(self) -> None:
        self.done = 0

    def update(self, n: int = 1) -> None:
        self.done += n

    def note(self, text: str) -> None: ...


def greys(n: int, side: int = 8) -> np.ndarray:
    """A volume whose section z is z grey."""
    return np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None], (n, side, side)).copy()


def plan_of(
    volume: np.ndarray, sections: int = 5, damaged: Sequence[int] = (), missing: Sequence[int] = (), scale: int = 2
) -> Plan:
    table = neighbour_table(len(volume), sections, 1, damaged, missing)
    z, y, x = volume.shape
    return Plan((z, y, x), scale, 8, 4, (4, 16, 16), table)


def test_each_section_enters_once_and_the_centres_see_the_table() -> None:
    volume, recorder = greys(12), Recorder()
    plan = plan_of(volume, damaged=(6,), missing=(9,))
    network = Network(recorder, "cpu", "float32")
    got = dict(stream_column(network, plan, (0, 0), range(4, 11), lambda box: volume[box.slices]))
    assert recorder.sections == [2, 3, 4, 5, 7, 6, 8, 10, 11], "in the order in which centres name them, each once"
    assert recorder.centres == [plan.table[z] for z in (4, 5, 6, 7, 8, 10)]
    assert sorted(got) == [4, 5, 6, 7, 8, 10], "a missing section yields nothing"
    assert all((steps == z * 128).all() for z, steps in got.items())


def test_states_are_kept_no_longer_than_the_table_names_them() -> None:
    volume = greys(40)
    recorder = Recorder()
    network = Network(recorder, "cpu", "float32")
    plan = plan_of(volume, damaged=tuple(range(10, 20)))
    alive: list[int] = []
    stream = stream_column(network, plan, (0, 0), range(40), lambda box: volume[box.slices])
    for _ in stream:
        frame = stream.gi_frame  # type: ignore[attr-defined]
        alive.append(len(frame.f_locals["ring"]))
    assert max(alive) <= 6, "five sections, and the one that stands in for damaged ones"
    assert len(recorder.sections) == 40


def test_runs_of_sections_are_read_at_once() -> None:
    volume, asked = greys(30), []

    def read(box: Box) -> np.ndarray:
        asked.append((box.start[0], box.stop[0]))
        return volume[box.slices]

    plan = plan_of(volume, damaged=tuple(range(8, 20)))
    list(stream_column(Network(Recorder(), "cpu", "float32"), plan, (0, 0), range(20, 24), read))
    assert asked == [(7, 8), (20, 26)], "beyond the damage lies one section further away"


def test_a_module_without_streaming_gives_what_its_forward_gives() -> None:
    volume = tissue_like((6, 8, 8))
    plan = plan_of(volume)
    network = Network(Whole(), "cpu", "float32")
    got = dict(stream_column(network, plan, (0, 0), range(6), lambda box: volume[box.slices]))
    named = plan.table[1]
    assert named is not None
    expected = volume[list(named)].astype(np.float64).mean(axis=0) * 128
    assert np.abs(got[1][::2, ::2] - expected).max() <= 0.5 + 1e-2


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ((1, 1), "a single pixel is repeated"),
        ((1, 7), "a single row is repeated, its columns reflected"),
        ((2, 3), "far smaller than half the window: reflected again and again"),
        ((5, 9), "smaller than half"),
        ((15, 16), "one row short"),
        ((16, 16), "nothing to pad"),
    ],
)
def test_padding_to_a_window(size: tuple[int, int], reason: str) -> None:
    section = np.arange(size[0] * size[1], dtype=np.uint8).reshape(size)
    padded = pad_to(section, 16)
    assert padded.shape == (16, 16), reason

    def mirrored(i: int, n: int) -> int:
        return 0 if n == 1 else min(i % (2 * n - 2), 2 * n - 2 - i % (2 * n - 2))

    for y, x in np.ndindex(16, 16):
        assert padded[y, x] == section[mirrored(y, size[0]), mirrored(x, size[1])], reason


def test_nan_is_an_error_and_not_black() -> None:
    network = Network(Broken(), "cpu", "float32")
    with pytest.raises(ValueError, match="gave NaN or infinity"):
        network.centre([network.section(np.zeros((8, 8), np.uint8))])


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="precision 'float8' is unknown"):
        Network(Whole(), "cpu", "float8")


@pytest.mark.parametrize(("precision", "limit"), [("bfloat16", 0.1), ("float16", 0.02)])
def test_a_reduced_precision_is_near_float32_and_not_equal(tmp_path: Path, precision: str, limit: float) -> None:
    model = checkpoint.load(write_weights(tmp_path, "gpemsr", 4))
    section = tissue_like((1, 16, 16))[0]
    full, half = (Network(model, "cpu", precision) for precision in ("float32", precision))
    a, b = (network.centre([network.section(section)] * 3).astype(int) for network in (full, half))
    assert 0 < np.abs(a - b).max() < limit * STEPS


# -- runs -------------------------------------------------------------------------------------------------------------


def test_only_windows_that_touch_the_wanted_shards_are_computed() -> None:
    plan = Plan((4, 40, 40), 2, 8, 4, (4, 32, 32), neighbour_table(4, 1, 1, (), ()))
    corners = [task.corner for task in tasks(plan, [(0, 0, 0)], 1)]
    assert corners == [(y, x) for y in (0, 4, 8, 12) for x in (0, 4, 8, 12)]
    whole = {task.corner for task in tasks(plan, plan.grid.indices, 1)}
    assert whole == {(y, x) for y in plan.starts(1) for x in plan.starts(2)}, "each window once for all shards"


def test_workers_are_not_left_idle_under_one_window() -> None:
    plan = Plan((10, 8, 8), 2, 8, 4, (10, 16, 16), neighbour_table(10, 3, 1, (), ()))
    assert [task.starts for task in tasks(plan, [(0, 0, 0)], 3)] == [(0, 1, 2), (3, 4, 5), (6, 7, 8, 9)]
    assert [task.starts for task in tasks(plan, [(0, 0, 0)], 1)] == [tuple(range(10))]
    assert len(tasks(plan, [(0, 0, 0)], 64)) == 10, "no more parts than sections"


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_runs_count_their_windows_and_use_one_intra_op_thread(workers: int) -> None:
    volume, recorder, shown = tissue_like((6, 20, 20)), Recorder(), Counted()
    plan, before = plan_of(volume), torch.get_num_threads()
    shards = list(plan.grid.indices)
    network = Network(recorder, "cpu", "float32")
    found = dict(run(network, plan, shards, lambda box: volume[box.slices], workers, shown))
    assert sorted(found) == shards
    assert shown.done == count_windows(plan, shards, workers) == len(recorder.centres) == 6 * 16
    assert {threads for _, threads in recorder.threads} == {1}
    assert len({thread for thread, _ in recorder.threads}) <= workers
    assert torch.get_num_threads() == before
    assert network.seconds > 0


def test_no_more_tasks_are_under_way_than_allowed() -> None:
    under_way, most, lock = 0, 0, threading.Lock()

    def work() -> None:
        time.sleep(0.002)

    with ThreadPoolExecutor(8) as pool:

        def start(task: Task) -> Future[None]:
            nonlocal under_way, most
            with lock:
                under_way += 1
                most = max(most, under_way)
            return pool.submit(work)

        todo = [Task((0, number), (0,), ()) for number in range(20)]
        for task, expected in zip(_in_order(todo, start, 3), todo, strict=True):
            under_way -= 1
            assert task is expected
    assert most == 3


def test_an_error_in_a_worker_ends_the_run() -> None:
    volume = tissue_like((2, 20, 20))
    plan = plan_of(volume)
    network = Network(Broken(), "cpu", "float32")
    with pytest.raises(ValueError, match="gave NaN"):
        list(run(network, plan, plan.grid.indices, lambda box: volume[box.slices], 2, Counted()))


# -- volumes in memory ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 5, 7), (2, 1, 40), (4, 33, 18)])
def test_a_volume_in_memory_of_any_size(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    card = write_weights(tmp_path, "gpemsr", 8, sections=5)
    voxels = superresolve(tissue_like(shape), card)
    assert voxels.shape == (shape[0], shape[1] * 8, shape[2] * 8)
    assert voxels.dtype == np.uint8


def test_memory_and_pipeline_are_one_engine(tmp_path: Path) -> None:
    project = SrProject(tmp_path, write_weights(tmp_path, "gpemsr", 4))
    volume = tissue_like((5, 24, 30))
    project.write_lr(volume)
    project.all()
    assert np.array_equal(superresolve(volume, project.card), project.voxels())


def test_one_window_is_the_network_and_no_more(tmp_path: Path) -> None:
    card = write_weights(tmp_path, "gpemsr", 4)
    volume = tissue_like((3, 16, 16))
    model = checkpoint.load(card)
    with torch.inference_mode():
        lr = torch.from_numpy(volume).float()[None, :, None] / 255
        whole = model(lr)[0, 0].clamp(0, 1).numpy() * 255
    assert np.abs(superresolve(volume, card.with_suffix(".safetensors"))[1] - whole).max() <= 0.51


@pytest.mark.parametrize(
    ("volume", "window", "message"),
    [
        (np.zeros((4, 8), np.uint8), None, r"volume is uint8 \(4, 8\)"),
        (np.zeros((4, 8, 8), np.float32), None, "volume is float32"),
        (np.zeros((0, 8, 8), np.uint8), None, "one at least"),
        (np.zeros((4, 8, 8), np.uint8), 18, "window 18 is not a multiple of 4"),
    ],
)
def test_volumes_that_cannot_be_resolved(tmp_path: Path, volume: np.ndarray, window: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        superresolve(volume, write_weights(tmp_path, "bicubic", 4), window)
