"""Start the processes that train one network together, on this machine and joined over its loopback alone."""

from __future__ import annotations

import logging
import logging.handlers
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import torch
from torch import multiprocessing
from torch.distributed import TCPStore
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from emsr.progress import OutOfTimeError, UnfinishedError
from emsr.training.group import Group
from emsr.training.stopping import listening

LOOPBACK = "127.0.0.1"
GRACE = 5.0  # seconds for the others when one has failed
FORETOLD = (ValueError, OSError, OutOfTimeError, UnfinishedError)  # what is told in one line


def launch(function: Callable[..., None], size: int, *arguments: Any) -> None:
    """``function(group, *arguments)`` in ``size`` new processes; returns when all of them have.

    The first of them logs as this process does, the others only warnings. SIGTERM is passed on. What one of them raises
    of ValueError, OSError and UnfinishedError is raised here, anything else as torch's ProcessRaisedException.
    """
    context = multiprocessing.get_context("spawn")
    records, outcomes = context.Queue(), context.SimpleQueue()
    store = TCPStore(LOOPBACK, 0, is_master=True, wait_for_workers=False)
    listener = logging.handlers.QueueListener(records, *logging.getLogger().handlers, respect_handler_level=True)
    listener.start()
    try:
        started = multiprocessing.start_processes(
            _member, (function, arguments, size, store.port, records, outcomes), size, join=False, start_method="spawn"
        )
        with _passing_on(started.pids()) as told:
            try:
                while not started.join(grace_period=GRACE):
                    pass
            except (ProcessExitedException, ProcessRaisedException):
                if outcomes.empty() and told.is_set():
                    raise UnfinishedError("the training stopped before its first step: start it again") from None
                if outcomes.empty():
                    raise
        if not outcomes.empty():
            raise outcomes.get() from None
    finally:
        listener.stop()


def _member(rank: int, function: Callable[..., None], arguments: Any, size: int, port: int, *queues: Any) -> None:
    """One of the processes, with the addresses in its environment that torchrun would put there."""
    records, outcomes = queues
    found = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": LOOPBACK, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in found.items()})
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"  # the store is that of the process which started this one
    if sys.platform == "linux":
        os.environ.update(GLOO_SOCKET_IFNAME="lo", NCCL_SOCKET_IFNAME="lo")
    level = logging.WARNING if rank else logging.INFO
    logging.basicConfig(level=level, handlers=[logging.handlers.QueueHandler(records)], force=True)
    with listening():
        try:
            function(Group(rank, size), *arguments)
        except FORETOLD as error:
            kind = next(kind for kind in FORETOLD if isinstance(error, kind))
            outcomes.put(kind(str(error)))
            if not isinstance(error, UnfinishedError):  # which all of them raise
                raise


@contextmanager
def _passing_on(processes: list[int]) -> Iterator[threading.Event]:
    """SIGTERM goes to ``processes``, which stop in their own time; the event says that there was one."""
    told = threading.Event()

    def pass_on(number: int, frame: FrameType | None) -> None:
        told.set()
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, number)

    if threading.current_thread() is not threading.main_thread():
        yield told
        return
    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        yield told
    finally:
        signal.signal(signal.SIGTERM, before)


def enough(size: int, device: str) -> None:
    """Raise ValueError, in one line, for more processes than ``device`` has GPUs, if it is one."""
    present = torch.cuda.device_count()
    if device.startswith("cuda") and size > present:
        raise ValueError(f"{size} processes were asked for and torch finds {present} GPUs: ask for as many at most")
