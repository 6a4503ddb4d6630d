"""Where a job computes: the CPU, or one of the GPUs that it may see, which other jobs here then leave to it."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

DEVICES = ("auto", "cpu", "cuda")


def choose_device(device: str) -> str:
    """ "auto" becomes "cuda" where there is a GPU, else "cpu"; ValueError for any other or a GPU that is not there."""
    if device.split(":")[0] not in DEVICES:
        raise ValueError(f"device {device} is unknown: use {', '.join(DEVICES[:-1])} or {DEVICES[-1]}")
    present = torch.cuda.is_available()
    if device.startswith("cuda") and not present:
        raise ValueError("device cuda was asked for and torch finds no GPU: use auto or cpu, or install a CUDA build")
    return ("cuda" if present else "cpu") if device == "auto" else device


@contextmanager
def claimed(device: str) -> Iterator[str]:
    """The device with its number, for as long as the block runs: "cuda:1" of "cuda", where 0 is another process's.

    `CUDA_VISIBLE_DEVICES`, which a cluster sets, says which GPUs there are. With more processes than GPUs, those that
    come late share.
    """
    if device != "cuda":
        yield device
        return
    count = torch.cuda.device_count()
    for number in range(count):
        lock = os.open(_lock(number), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        try:
            yield f"cuda:{number}"
        finally:
            os.close(lock)
        return
    yield f"cuda:{os.getpid() % max(1, count)}"


def _lock(number: int) -> Path:
    """A file that stands for a GPU on this machine, whatever its number is here; each user has files of their own."""
    return Path(tempfile.gettempdir(), f"emsr-{os.getuid()}-gpu-{torch.cuda.get_device_properties(number).uuid}.lock")
