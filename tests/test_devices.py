"""Several processes on a machine with several GPUs take one each."""

from __future__ import annotations

import multiprocessing
from types import SimpleNamespace

import pytest
import torch

from emsr.inference.devices import choose_device, claimed


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """torch as it would answer with two GPUs; locks lie in a folder of the test's."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: SimpleNamespace(uuid=f"GPU-{number:04}"))


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == "cpu"
    with pytest.raises(ValueError, match="torch finds no GPU"):
        choose_device("cuda")
    with pytest.raises(ValueError, match=r"^device tpu is unknown: use auto, cpu or cuda$"):
        choose_device("tpu")


def test_the_cpu_is_nobodys() -> None:
    with claimed("cpu") as one, claimed("cpu") as other:
        assert one == other == "cpu"


def test_each_takes_a_gpu_and_late_ones_share(two_gpus: None) -> None:
    with claimed("cuda") as first:
        with claimed("cuda") as second:
            assert (first, second) == ("cuda:0", "cuda:1")
            with claimed("cuda") as third:
                assert third in ("cuda:0", "cuda:1")
        with claimed("cuda") as again:
            assert again == "cuda:1", "what was given back is taken again"


def test_other_processes_count_and_the_dead_do_not(two_gpus: None) -> None:
    context = multiprocessing.get_context("fork")
    held, end = context.Event(), context.Event()

    def hold() -> None:
        with claimed("cuda"):
            held.set()
            end.wait()

    other = context.Process(target=hold)
    other.start()
    assert held.wait(30)
    with claimed("cuda") as mine:
        assert mine == "cuda:1"
    other.kill()
    other.join()
    with claimed("cuda") as mine:
        assert mine == "cuda:0"
