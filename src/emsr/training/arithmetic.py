"""How a training computes: its precision, and the same bits each time on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch


def autocast(precision: str, device: str) -> AbstractContextManager[Any]:
    """Mixed precision of a recipe: "bfloat16", "float16", or nothing for "float32"."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.split(":")[0], {"bfloat16": torch.bfloat16, "float16": torch.float16}[precision])


def scaler(precision: str, device: str) -> torch.amp.GradScaler:
    """What keeps gradients of "float16" within its range: it scales the loss, and leaves out a step that overflowed.
    Other precisions pass as they are."""
    return torch.amp.GradScaler(device.split(":")[0], enabled=precision == "float16")


@contextmanager
def reproducible(threads: int, device: str) -> Iterator[None]:
    """A stated number of threads and, on a CPU, only deterministic algorithms; both as before afterwards."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    filling = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(not device.startswith("cuda"))
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        torch.utils.deterministic.fill_uninitialized_memory = filling  # type: ignore[attr-defined]
