"""What a call of a network takes: multiply-accumulates by part, sampling, memory. Nothing is computed but shapes.

Multiply-accumulates are those of convolutions, products of matrices, attention and correlation volumes. Sampling is
counted apart: four for each value that is read between pixels (deformable convolution, warping, resizing).
Normalisation, activations and sums are in neither.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from emsr.inference import clips
from emsr.inference.precision import autocast
from emsr.models import checkpoint

aten = torch.ops.aten
TAPS = 4  # pixels that a bilinear sample is made from
SAMPLING = (aten.grid_sampler_2d, aten.upsample_bilinear2d)
OTHERS = "rest"  # what lies in no part that the network names


@dataclass(frozen=True)
class Call:
    """One call: `macs` by part, `sampling`, bytes of its result, and the most bytes of tensors that it holds at once.

    `peak_bytes` counts arguments and result, and neither weights nor what libraries take for themselves.
    """

    macs: dict[str, int]
    sampling: int
    result_bytes: int
    peak_bytes: int

    @property
    def total(self) -> int:
        """Multiply-accumulates of all parts."""
        return sum(self.macs.values())


@dataclass(frozen=True)
class Cost:
    """What streaming a window takes: `section` when a section enters the ring, `centre` for each one that is made.

    Of a network that sees clips `section` is nothing and `centre` a section's part of a clip, which is held at once.
    """

    section: Call
    centre: Call
    parameters: int
    weight_bytes: int


def of_card(card: Mapping[str, Any], window: int, precision: str = "float32") -> Cost:
    """The cost of a window of `window` x `window` lr pixels through the network that a card of weights describes."""
    with FakeTensorMode(), torch.no_grad():
        sections = clip[0] if (clip := clips.of_card(card)) else card["sections"]
        return _cost(checkpoint.network(card).eval(), sections, window, precision)


def of_samples(cost: Cost, count: int) -> Cost:
    """The same where ``count`` images are drawn of each section and held, once as a list and once as an array."""
    one = cost.centre
    macs = {part: count * macs for part, macs in one.macs.items()}
    peak = one.peak_bytes + 2 * count * one.result_bytes
    return replace(cost, centre=Call(macs, count * one.sampling, one.result_bytes, peak))


def of_network(network: nn.Module, sections: int, window: int, precision: str = "float32") -> Cost:
    """The same of a network that is there, put into evaluation mode and moved to the CPU; clips are of `sections`."""
    network = network.to("cpu").eval()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        return _cost(network, sections, window, precision)


def _cost(network: Any, sections: int, window: int, precision: str) -> Cost:
    streams = hasattr(network, "section") and hasattr(network, "centre")
    lr = torch.zeros(1, 1, window, window)
    enter = network.section if streams else lambda lr: (lr,)
    make = network.centre if streams else lambda states: network(torch.stack([state[0] for state in states], 1))
    with autocast("cpu", precision):
        if hasattr(network, "clip"):
            whole, _ = _count(network, network.clip, lr[:, :, None].expand(1, 1, sections, window, window))
            section, centre = Call({}, 0, 0, 0), _shared(whole, sections)
        else:
            section, state = _count(network, enter, lr)
            states = [tuple(torch.empty_like(part) for part in state) for _ in range(sections)]
            centre, _ = _count(network, make, states)
    tensors = [*network.parameters(), *network.buffers()]
    weights = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return Cost(section, centre, sum(each.numel() for each in network.parameters()), weights)


def _shared(call: Call, sections: int) -> Call:
    """A section's part of a call that makes several."""
    macs = {part: count // sections for part, count in call.macs.items()}
    return Call(macs, call.sampling // sections, call.result_bytes, call.peak_bytes)


def _count(network: nn.Module, call: Callable[[Any], Any], argument: Any) -> tuple[Call, Any]:
    counter, memory = counting(), _Memory(tree_leaves(argument))
    with ExitStack() as stack:
        macs = stack.enter_context(_by_module(network, lambda: totals(counter)[0]))
        stated = stack.enter_context(_stated(network))
        stack.enter_context(counter)
        stack.enter_context(memory)
        result = call(argument)
    total, sampling = totals(counter)
    macs[""] += total - sum(macs.values())  # outside every module
    macs.update(stated)
    storages = [tensor.untyped_storage() for tensor in tree_leaves(result)]
    result_bytes = sum({StorageWeakRef(storage): storage.nbytes() for storage in storages}.values())
    return Call(_by_part(network, macs), sampling, result_bytes, memory.peak), result


def counting() -> FlopCounterMode:
    """What counts all that is computed inside it (`with`), the way back too; `totals` tells it."""
    return FlopCounterMode(display=False, custom_mapping=_FORMULAS)


def totals(counter: FlopCounterMode) -> tuple[int, int]:
    """Multiply-accumulates and samples so far; the counter counts two operations each."""
    found = counter.get_flop_counts().get("Global", {})
    sampling = sum(count for operation, count in found.items() if operation in SAMPLING)
    return (sum(found.values()) - sampling) // 2, sampling // 2


def _samples(*_: Any, out_shape: Sequence[int], **__: Any) -> int:
    return 2 * TAPS * torch.Size(out_shape).numel()


def _attention(q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: Any, **__: Any) -> int:
    """The one kernel of attention that torch's counter leaves out."""
    count: int = sdpa_flop_count(q, k, v)
    return count


def _attention_back(
    made: Sequence[int], q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: Any, **__: Any
) -> int:
    """Its way back."""
    count: int = sdpa_backward_flop_count(made, q, k, v)
    return count


_FORMULAS = dict.fromkeys(SAMPLING, _samples) | {
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_back,
}


# -- parts ------------------------------------------------------------------------------------------------------------


@contextmanager
def _by_module(network: nn.Module, total: Callable[[], int]) -> Iterator[Counter[str]]:
    """Multiply-accumulates of each module by its name, without those of the modules inside it."""
    own: Counter[str] = Counter()
    started: list[int] = []
    around: list[str] = []

    def begin(name: str) -> None:
        started.append(total())
        around.append(name)

    def end(name: str) -> None:
        spent = total() - started.pop()
        around.pop()
        own[name] += spent
        if around:
            own[around[-1]] -= spent

    handles = []
    for name, module in network.named_modules():
        handles.append(module.register_forward_pre_hook(lambda *_, name=name: begin(name)))
        handles.append(module.register_forward_hook(lambda *_, name=name: end(name)))
    try:
        yield own
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _stated(network: nn.Module) -> Iterator[Counter[str]]:
    """What modules say of themselves (`macs` of their arguments) whose operations the counter does not know."""
    found: Counter[str] = Counter()

    def add(name: str, module: Any, arguments: Sequence[Tensor]) -> None:
        found[name] += module.macs(*arguments)

    handles = [
        module.register_forward_hook(lambda module, arguments, _, name=name: add(name, module, arguments))
        for name, module in network.named_modules()
        if hasattr(module, "macs")
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _by_part(network: Any, macs: Mapping[str, int]) -> dict[str, int]:
    """Counts by module summed up to the network's `parts`, or where it names none to its direct children."""
    parts = getattr(network, "parts", None) or {name: (name,) for name, _ in network.named_children()}
    found: dict[str, int] = dict.fromkeys([*parts, OTHERS], 0)
    for name, count in macs.items():
        inside = [part for part, roots in parts.items() for root in roots if f"{name}.".startswith(f"{root}.")]
        found[inside[0] if inside else OTHERS] += count
    return {part: count for part, count in found.items() if count}


# -- memory -----------------------------------------------------------------------------------------------------------


class _Memory(TorchDispatchMode):
    """The most bytes of tensors that live at once: the given ones, and all that operations make."""

    def __init__(self, given: Sequence[Tensor]) -> None:
        super().__init__()
        self._live: dict[StorageWeakRef, int] = {}
        self.peak = 0
        self._see(given)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:  # a view of weights would count them
            self._see([leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)])
        return result

    def _see(self, tensors: Sequence[Tensor]) -> None:
        self._live = {reference: size for reference, size in self._live.items() if not reference.expired()}
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._live[StorageWeakRef(storage)] = storage.nbytes()
        self.peak = max(self.peak, sum(self._live.values()))
