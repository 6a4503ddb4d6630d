"""The processes that train one network together. Each sees an equal share of every batch; sums make them one.

Whatever is drawn, is drawn as by one process alone, so their number changes a training by no more than the order in
which floats are added.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, nn
from torch import distributed as dist

from emsr.models.stage import Stage

PATIENCE = timedelta(hours=6)  # others wait while the first process validates


@dataclass(frozen=True)
class Group:
    """Process ``rank`` of ``size``; the methods are called by all of them, with tensors of one shape."""

    rank: int = 0
    size: int = 1

    def share(self, count: int) -> slice:
        """Which of ``count`` things, a multiple of ``size``, are this process's."""
        each = count // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor, all of one type, by its sum over the processes."""
        found = list(tensors)
        if self.size == 1 or not found:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in found])
        dist.all_reduce(flat)
        for tensor, summed in zip(found, flat.split([tensor.numel() for tensor in found]), strict=True):
            tensor.copy_(summed.view_as(tensor))

    def gather(self, tensor: Tensor) -> Tensor:
        """The tensors of all processes, joined along the first axis in their order."""
        if self.size == 1:
            return tensor
        found = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(self.size)]
        dist.all_gather(found, tensor.contiguous())
        return torch.cat(found)

    def follow(self, tensors: Iterable[Tensor]) -> None:
        """Make each tensor that of the first process."""
        if self.size == 1:
            return
        for tensor in tensors:
            whole = tensor.contiguous()
            dist.broadcast(whole, 0)
            tensor.copy_(whole)

    def any(self, flag: bool) -> bool:
        """Whether it is so in any of the processes."""
        if self.size == 1:
            return flag
        count = torch.tensor([float(flag)])
        dist.all_reduce(count)
        return bool(count.item())


ALONE = Group()


def parts(stage: Stage, size: int) -> int:
    """Into how many equal parts ``size`` processes cut a batch: ``stage.accumulate``, or the next number that all of
    them get equally many of. Raises ValueError, in one line, for a batch that cannot be cut so."""
    if stage.accumulate < 1:
        raise ValueError(f"accumulate {stage.accumulate} of stage {stage.name} is below 1: state 1 or more")
    count = math.lcm(stage.accumulate, size)
    if stage.batch % count:
        by = f"accumulate {stage.accumulate}" + (f" and {size} processes" if size > 1 else "")
        mend = "choose a batch that it divides, or " + ("another number of GPUs" if size > 1 else "another number")
        raise ValueError(f"batch {stage.batch} of stage {stage.name} is no multiple of {count} ({by}): {mend}")
    return count


def normalised_together(network: nn.Module, group: Group, device: str) -> nn.Module:
    """``network``, whose normalisation over batches, if it has any, is over those of all processes on their GPUs."""
    if group.size == 1 or not device.startswith("cuda"):
        return network
    found: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return found


def invited(environment: Mapping[str, str] = os.environ) -> Group | None:
    """The place in a group that whoever started this process, such as torchrun, gave it; None if nobody did."""
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return None
    return Group(int(environment["RANK"]), int(environment["WORLD_SIZE"]))


@contextmanager
def joined(group: Group, device: str) -> Iterator[None]:
    """A link among the processes of ``group`` while they train, by the addresses in the environment: nccl between
    their GPUs, of which this one's ``device`` ("cuda:1") is another than theirs, and gloo else."""
    if group.size == 1:
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
    dist.init_process_group(backend, rank=group.rank, world_size=group.size, timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()
