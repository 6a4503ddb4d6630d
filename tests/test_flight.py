"""Windows in flight: reading ahead, and lack of memory, after which half as many go on to the same voxels."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from emsr.geometry import Box
from emsr.inference.flight import Flight, OutOfMemory, told_apart
from emsr.inference.meter import Meter
from emsr.inference.reading import ReadAhead
from emsr.inference.run import count_windows, run
from emsr.inference.stream import Network
from emsr.inference.volumetric import VolumeNetwork
from emsr.plan import Plan, neighbour_table
from sr_project import tissue_like


class Shown:
    done = 0

    def update(self, count: int) -> None:
        self.done += count


class Scarce(nn.Module):
    """Streams; memory runs out at the calls of which `fails` says so, given their number and how many are under way."""

    def __init__(self, calls: Sequence[int] = (), room: int = 1000) -> None:
        super().__init__()
        self.calls, self.room = set(calls), room
        self.number = self.under_way = self.most = self.short = 0
        self.lock = threading.Lock()

    def section(self, lr: Tensor) -> tuple[Tensor]:
        self.called()
        return (lr,)

    def centre(self, states: Sequence[tuple[Tensor, ...]]) -> Tensor:
        self.called()
        mean = torch.stack([state[0] for state in states]).mean(0)
        return mean.repeat_interleave(2, -1).repeat_interleave(2, -2)

    def forward(self, volume: Tensor) -> Tensor:
        self.called()
        return volume[:, 0, None].repeat(1, 3, 1, 1, 1)

    def called(self) -> None:
        with self.lock:
            self.number += 1
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            short = self.number in self.calls or self.under_way > self.room
            self.short += short
        time.sleep(0.001)  # so that calls of several threads meet
        with self.lock:
            self.under_way -= 1
        if short:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


def plan_of(volume: np.ndarray) -> Plan:
    """Several columns, with damage, so that a column reads several boxes."""
    shape = (volume.shape[0], volume.shape[1], volume.shape[2])
    return Plan(shape, 2, 8, 4, (4, 32, 32), neighbour_table(len(volume), 3, 1, (2,), (5,)))


def made(network: Network | VolumeNetwork, plan: Plan, volume: np.ndarray, workers: int, meter: Meter | None = None):
    shown = Shown()
    shards = plan.grid.indices
    found = dict(run(network, plan, shards, lambda box: volume[box.slices], workers, shown, meter))  # type: ignore[arg-type]
    assert shown.done == count_windows(plan, shards, workers)
    return found


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[index], other[index]) for index in one)


VOLUME = tissue_like((7, 18, 22))


@pytest.fixture(scope="module")
def undisturbed() -> dict:
    return made(Network(Scarce(), "cpu", "float32"), plan_of(VOLUME), VOLUME, 1)


def test_lack_of_memory_at_any_call_changes_no_voxel(undisturbed: dict) -> None:
    whole = Scarce()
    made(Network(whole, "cpu", "float32"), plan_of(VOLUME), VOLUME, 1)
    for call in range(1, whole.number, 7):
        network, meter = Scarce([call]), Meter()
        found = made(Network(network, "cpu", "float32"), plan_of(VOLUME), VOLUME, 4, meter)
        assert same(found, undisturbed), call
        assert (network.short, meter.in_flight) == (1, 2), call


@pytest.mark.parametrize(("room", "in_flight"), [(4, 4), (3, 2), (2, 2), (1, 1)])
def test_windows_in_flight_are_halved_until_they_fit(room: int, in_flight: int, undisturbed: dict) -> None:
    network, meter = Scarce(room=room), Meter()
    found = made(Network(network, "cpu", "float32"), plan_of(VOLUME), VOLUME, 4, meter)
    assert same(found, undisturbed)
    assert meter.in_flight == in_flight
    assert (network.short > 0) == (room < 4), "the test means something only where memory did run out"


@pytest.mark.parametrize("workers", [1, 4])
def test_a_window_that_never_fits_is_one_line(workers: int) -> None:
    with pytest.raises(
        ValueError, match=r"^one window of 8 x 8 pixels does not fit the memory \(CUDA out of"
    ) as raised:
        made(Network(Scarce(room=0), "cpu", "float32"), plan_of(VOLUME), VOLUME, workers)
    assert "(CUDA out of memory. Tried to allocate 20.00 GiB): take a smaller window" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_networks_of_volumes_share_the_way_out() -> None:
    table = neighbour_table(7, 1, 1, (), ())
    plan = Plan((7, 18, 22), 1, 8, 4, (4, 16, 16), table, channels=3, depth=4, depth_overlap=2)
    undisturbed = made(VolumeNetwork(Scarce(), "cpu", "float32"), plan, VOLUME, 1)
    network, meter = Scarce(room=2), Meter()
    assert same(made(VolumeNetwork(network, "cpu", "float32"), plan, VOLUME, 4, meter), undisturbed)
    assert network.short > 0
    assert meter.in_flight == 2


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (lambda: torch.empty(2**50, dtype=torch.uint8), "the CPU's allocator"),
        (lambda: np.empty(2**60, np.uint8), "numpy"),
        (lambda: _raise(torch.OutOfMemoryError("CUDA out of memory")), "a GPU"),
        (lambda: _raise(RuntimeError("CUDA error: out of memory")), "a driver"),
    ],
)
def test_lack_of_memory_is_known_by_whoever_says_it(error, reason: str) -> None:
    with pytest.raises(OutOfMemory) as raised, told_apart():
        error()
    assert str(raised.value)
    assert "\n" not in str(raised.value), reason


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"), told_apart():
        torch.zeros(2, 3) @ torch.zeros(2, 3)


def test_of_several_that_ran_out_together_the_first_halves() -> None:
    flight = Flight(8)
    assert flight.halve(8)
    assert flight.halve(8), "another one that was in flight with it"
    assert flight.limit == 4
    assert flight.halve(4)
    assert flight.halve(2)
    assert not flight.halve(1)
    assert flight.limit == 1


# -- reading ahead ----------------------------------------------------------------------------------------------------


def boxes(count: int) -> list[Box]:
    return [Box((z, 0, 0), (z + 1, 4, 4)) for z in range(count)]


def test_boxes_are_read_by_another_thread_and_no_more_than_wanted() -> None:
    volume, threads, reads = tissue_like((9, 4, 4)), set(), []

    def read(box: Box) -> np.ndarray:
        threads.add(threading.get_ident())
        reads.append(box)
        return volume[box.slices]

    def asked() -> Iterator[Box]:
        yield from boxes(9)

    with ThreadPoolExecutor(1) as pool:
        ahead = ReadAhead(read, asked(), pool, Meter(), ahead=2)
        for number, box in enumerate(boxes(9)):
            assert np.array_equal(ahead(box), volume[box.slices])
            assert len(reads) <= number + 3, "two that nobody asked for yet"
    assert reads == boxes(9), "each once, in order"
    assert threading.get_ident() not in threads


def test_a_box_that_was_not_foreseen_is_read_too() -> None:
    volume, meter = tissue_like((9, 4, 4)), Meter()
    with ThreadPoolExecutor(1) as pool:
        ahead = ReadAhead(lambda box: volume[box.slices], boxes(3), pool, meter)
        late = Box((4, 1, 1), (8, 3, 3))
        assert np.array_equal(ahead(late), volume[late.slices])
        ahead.close()
        assert np.array_equal(ahead(boxes(9)[7]), volume[7:8])
    assert meter.seconds["read"] > 0


def test_what_reading_fails_with_reaches_who_asked() -> None:
    def read(box: Box) -> np.ndarray:
        raise ValueError(f"voxels {box.start} cannot be read")

    network = Network(Scarce(), "cpu", "float32")
    with pytest.raises(ValueError, match="cannot be read"):
        list(run(network, plan_of(VOLUME), plan_of(VOLUME).grid.indices, read, 2, Shown()))  # type: ignore[arg-type]


class Slow(Scarce):
    """Takes its time, so that a column takes seconds."""

    def called(self) -> None:
        super().called()
        time.sleep(0.01)


LONG = tissue_like((100, 8, 16))
COLUMNS = Plan((100, 8, 16), 2, 8, 4, (100, 16, 16), neighbour_table(100, 1, 1, (), ()))
CALLS = 200  # of a column: a section and a centre for each z


def test_after_an_error_columns_under_way_do_not_go_on_to_their_end() -> None:
    network = Slow()

    def read(box: Box) -> np.ndarray:
        if box.start[2] == 0:
            raise ValueError("the first column cannot be read")
        return LONG[box.slices]

    with pytest.raises(ValueError, match="the first column"):
        list(run(Network(network, "cpu", "float32"), COLUMNS, COLUMNS.grid.indices, read, 2, Shown()))  # type: ignore[arg-type]
    assert network.number < CALLS


def test_who_wants_no_more_waits_for_no_column() -> None:
    """As a job whose disk is full: of three columns the first two make a shard, the third is under way then."""
    network, shards = Slow(), COLUMNS.grid.indices
    made = run(Network(network, "cpu", "float32"), COLUMNS, shards, lambda box: LONG[box.slices], 2, Shown())  # type: ignore[arg-type]
    assert next(made)[0] == shards[0]
    made.close()
    assert 2 * CALLS <= network.number < 3 * CALLS


def _raise(error: Exception) -> None:
    raise error
