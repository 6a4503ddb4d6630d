"""One optimiser's share of a step: gradients of the batch, part by part, over all processes, and the descent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from emsr.models.stage import Stage
from emsr.training import schedule
from emsr.training.arithmetic import autocast, scaler
from emsr.training.group import Group
from emsr.training.objective import Losses, Turn


class Descent:
    """The optimiser of one turn of a stage. Batches come in ``count`` parts, of which this process sees some."""

    def __init__(self, turn: Turn, stage: Stage, device: str, group: Group, count: int) -> None:
        self.turn, self.stage, self.device, self.group, self.count = turn, stage, device, group, count
        check(turn.network, stage, group.size, count)
        self.optimiser = optimiser(turn.network, stage)
        self.scaler = scaler(stage.precision, device)
        self.rate = 0.0

    def descend(self, parts: Sequence[Any], step: int) -> dict[str, float]:
        """Follow the gradient of the mean loss of all parts once; returns the losses by name, means over all parts."""
        self.rate = schedule.rate(self.stage, step - self.turn.first_step)
        for group in self.optimiser.param_groups:
            learns = "factor" not in group or step >= self.stage.slow_from
            group["lr"] = self.rate * group.get("factor", 1) if learns else 0.0
        self.turn.network.train()
        self.optimiser.zero_grad(set_to_none=True)
        found = []
        for part in parts:
            with autocast(self.stage.precision, self.device):
                losses = self.turn.losses(part, step)
            share = losses["loss"] / self.count if self.count > 1 else losses["loss"]
            self.scaler.scale(share).backward()
            found.append({name: value.detach() for name, value in losses.items()})
        self._step()
        return self._means(found)

    def _step(self) -> None:
        network = self.turn.network
        self.group.add(parameter.grad for parameter in trained(network) if parameter.grad is not None)
        if self.stage.clip or self.stage.clip_change:
            self.scaler.unscale_(self.optimiser)
        if self.stage.clip:
            nn.utils.clip_grad_norm_(trained(network), self.stage.clip)
        if self.stage.clip_change and self.rate:
            nn.utils.clip_grad_norm_(trained(network), self.stage.clip_change / self.rate)
        self.scaler.step(self.optimiser)
        self.scaler.update()

    def _means(self, found: Sequence[Losses]) -> dict[str, float]:
        if self.count == 1:
            return {name: float(value) for name, value in found[0].items()}
        sums = torch.stack([torch.stack([each[name].double() for each in found]).sum() for name in found[0]])
        self.group.add([sums])
        return dict(zip(found[0], (sums / self.count).tolist(), strict=True))


def optimiser(network: nn.Module, stage: Stage) -> torch.optim.Optimizer:
    """Adam, or stochastic gradient descent with momentum, over what is trained; slow parts are a group of their own."""
    slow = {name for name, _ in network.named_parameters() if name.startswith(tuple(f"{part}." for part in stage.slow))}
    groups: list[dict[str, Any]] = [{"params": trained(network)}]
    if slow:
        named = [(name, each) for name, each in network.named_parameters() if each.requires_grad]
        groups = [
            {"params": [each for name, each in named if name not in slow]},
            {"params": [each for name, each in named if name in slow], "factor": stage.slow_factor},
        ]
    rate, decay = stage.learning_rate, stage.weight_decay
    if stage.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=stage.betas[0], weight_decay=decay)
    return torch.optim.Adam(groups, lr=rate, betas=stage.betas, weight_decay=decay)


def check(network: nn.Module, stage: Stage, size: int, count: int) -> None:
    """Raise ValueError for a network that sees a batch in ``count`` parts, by ``size`` processes, otherwise than as a
    whole, and for one without the parts that are to learn slowly."""
    names = [name for name, _ in network.named_children()]
    for part in stage.slow:
        if part not in names:
            raise ValueError(f"stage {stage.name}: slow {part!r} is no part of the network: use of {', '.join(names)}")
    alone = [type(part).__name__ for part in network.modules() if isinstance(part, _BatchNorm)]
    together = count == size and all(name == "SyncBatchNorm" for name in alone)
    if alone and count > 1 and not together:
        raise ValueError(
            f"the network of stage {stage.name} normalises over its batch ({alone[0]}), which {count} parts would "
            "change: train it with accumulate 1 and one process, or on GPUs"
        )


def trained(network: nn.Module) -> list[nn.Parameter]:
    """The parameters that are not frozen."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def tensors(network: nn.Module) -> list[Tensor]:
    """What changes while training: trained parameters and buffers, in a fixed order."""
    return [*trained(network), *network.buffers()]
