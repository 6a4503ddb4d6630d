"""Compiled packages against the PyTorch layers whose place they take; skipped where a package is not installed.

Needs torch and pytest alone, so that an environment built for the packages can run it (benchmarks/accelerators.sh).
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from emsr.layers.accelerators import PACKAGES, accelerate, check
from emsr.layers.correlation import Correlation
from emsr.layers.deform import DeformableConv

EQUAL = {"atol": 1e-4, "rtol": 1e-4}
ALL = [(layer, package) for layer, packages in PACKAGES.items() for package in packages]


def made(layer: str) -> tuple[nn.Module, list[Tensor]]:
    """A layer and its two arguments, features of 8 channels; displacements reach outside the image."""
    torch.manual_seed(3)
    arguments = [torch.randn(2, 8, 9, 11, requires_grad=True) for _ in range(2)]
    if layer == "correlation":
        return Correlation(3), arguments
    module = DeformableConv(8, 4)
    nn.init.normal_(module.offsets.weight, std=0.3)
    nn.init.normal_(module.bias)
    return module, arguments


def answers(module: nn.Module, arguments: list[Tensor]) -> dict[str, Tensor]:
    """The layer's result and the gradients of arguments and weights."""
    for tensor in (*arguments, *module.parameters()):
        tensor.grad = None
    result = module(*arguments)
    (result * torch.linspace(-1, 1, result.numel()).view_as(result)).sum().backward()
    gradients = {f"argument {i}": argument.grad for i, argument in enumerate(arguments)}
    gradients |= {name: parameter.grad for name, parameter in module.named_parameters()}
    return {"result": result.detach(), **{name: grad for name, grad in gradients.items() if grad is not None}}


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("layer", "package"), ALL)
def test_a_package_computes_what_pytorch_does(layer: str, package: str, memory: torch.memory_format) -> None:
    try:
        check({layer: package})
    except ValueError as error:
        pytest.skip(str(error))
    module, arguments = made(layer)
    arguments = [one.detach().contiguous(memory_format=memory).requires_grad_() for one in arguments]
    wanted = answers(module, arguments)
    used = accelerate(module, {layer: package})
    assert used[layer].startswith(f"{package} ")
    found = answers(module, arguments)
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, **EQUAL, msg=lambda text, name=name: f"{name}: {text}")
    accelerate(module, {})
    assert torch.equal(answers(module, arguments)["result"], wanted["result"]), "PyTorch again"


# the switch, with stand-ins for the packages


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **functions: Any) -> None:
    module = ModuleType(name)
    for function, body in functions.items():
        setattr(module, function, body)
    monkeypatch.setitem(sys.modules, name, module)


def test_the_layers_are_given_what_the_packages_expect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argument for argument, as their documentation lists them."""
    seen: dict[str, Any] = {}

    def convolve(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, *rest: int) -> Tensor:
        seen["mmcv"] = [offset.shape[1], mask.shape[1], tuple(weight.shape), *rest]
        return x

    def sample(a: Tensor, b: Tensor, kernel_size: int, patch_size: int) -> Tensor:
        seen["sampler"] = [kernel_size, patch_size]
        return a.new_zeros(len(a), patch_size, patch_size, *a.shape[-2:])

    stand_in(monkeypatch, "mmcv")
    stand_in(monkeypatch, "mmcv.ops", modulated_deform_conv2d=convolve)
    stand_in(monkeypatch, "spatial_correlation_sampler", spatial_correlation_sample=sample)
    both = nn.ModuleList([made("deform")[0], made("correlation")[0]])
    chosen = {"deform": "mmcv", "correlation": "spatial_correlation_sampler"}
    used = accelerate(both, chosen)
    assert [text.split()[0] for text in used.values()] == list(chosen.values())
    with torch.autocast("cpu", torch.bfloat16):
        half = both[0](torch.randn(1, 8, 5, 6).bfloat16(), torch.randn(1, 8, 5, 6).bfloat16())
    assert half.dtype is torch.bfloat16, "as PyTorch gives it"
    assert both[1](torch.randn(1, 8, 5, 6), torch.randn(1, 8, 5, 6)).shape == (1, 49, 5, 6)
    assert seen == {"mmcv": [4 * 18, 4 * 9, (8, 8, 3, 3), 1, 1, 1, 1, 4], "sampler": [1, 7]}


def test_a_network_names_only_the_layers_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "mmcv")
    stand_in(monkeypatch, "mmcv.ops")
    assert accelerate(nn.Conv2d(1, 1, 1), {"deform": "mmcv"}) == {}
    assert accelerate(made("deform")[0], {"deform": "pytorch"}) == {}


@pytest.mark.parametrize(("chosen", "message"), [
    ({"deform": "mmvc"}, "accelerators.deform 'mmvc' is unknown; did you mean 'mmcv'"),
    ({"warp": "mmcv"}, "accelerators: layer 'warp' is unknown; choose from deform, correlation"),
    ({"correlation": "mmcv"}, "accelerators.correlation 'mmcv' is unknown"),
    ({"deform": "mmcv"}, r"accelerators.deform: mmcv cannot be imported \(.*\): build it for the installed torch "),
])  # fmt: skip
def test_what_cannot_be_used_is_one_line(chosen: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mmcv", None)  # as where it is not installed
    monkeypatch.delitem(sys.modules, "mmcv.ops", raising=False)
    with pytest.raises(ValueError, match=message) as caught:
        accelerate(made("deform")[0], chosen)
    assert "\n" not in str(caught.value)
