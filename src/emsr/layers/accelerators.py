"""Compiled packages that take PyTorch's place in two layers, where they are asked for; equal to float precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from torch import Tensor, nn

from emsr import plugins
from emsr.layers.correlation import Correlation
from emsr.layers.deform import DeformableConv

PYTORCH = "pytorch"
LAYERS: dict[str, type[nn.Module]] = {"deform": DeformableConv, "correlation": Correlation}
MODULES = {package: package for package in ("spatial_correlation_sampler",)}
MODULES |= {package: f"{package}.ops" for package in ("mmcv", "torchvision")}


def _mmcv(x: Tensor, offsets: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    groups = mask.shape[1] // weight[0, 0].numel()
    convolve = _loaded("mmcv").modulated_deform_conv2d
    result: Tensor = convolve(
        *(part.contiguous() for part in (x, offsets, mask, weight)), bias, 1, 1, 1, 1, groups
    )  # stride, padding, dilation, groups of channels
    return result


def _torchvision(x: Tensor, offsets: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    result: Tensor = _loaded("torchvision").deform_conv2d(x, offsets, weight, bias, padding=1, mask=mask)
    return result


def _sampler(a: Tensor, b: Tensor, radius: int) -> Tensor:
    sample = _loaded("spatial_correlation_sampler").spatial_correlation_sample
    result: Tensor = sample(a.contiguous(), b.contiguous(), kernel_size=1, patch_size=2 * radius + 1)
    return result


PACKAGES: dict[str, dict[str, Callable[..., Tensor]]] = {
    "deform": {"mmcv": _mmcv, "torchvision": _torchvision},
    "correlation": {"spatial_correlation_sampler": _sampler},
}


def _loaded(package: str) -> Any:
    return import_module(MODULES[package])


def check(chosen: Mapping[str, str]) -> None:
    """Raise ValueError, in one line, for a layer or package that is unknown, or a package that cannot be imported."""
    for layer, package in chosen.items():
        if layer not in PACKAGES:
            raise ValueError(plugins.unknown("accelerators: layer", layer, PACKAGES))
        if package not in (PYTORCH, *PACKAGES[layer]):
            raise ValueError(plugins.unknown(f"accelerators.{layer}", package, (PYTORCH, *PACKAGES[layer])))
        if package == PYTORCH:
            continue
        try:
            _loaded(package)
        except Exception as error:  # a package built for another torch fails in many ways
            why = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(
                f"accelerators.{layer}: {package} cannot be imported ({why}): build it for the installed torch "
                f"(docs/how-to.md, Accelerators), or leave accelerators.{layer} out"
            ) from None


def accelerate(network: nn.Module, chosen: Mapping[str, str]) -> dict[str, str]:
    """Let the layers of ``network`` compute with the ``chosen`` packages ({"deform": "mmcv"}); others use PyTorch.

    Returns the layers that the network has and what each uses, as {"deform": "mmcv 2.2.0"}. Raises as ``check`` does.
    """
    check(chosen)
    used = {}
    for layer, kind in LAYERS.items():
        package = chosen.get(layer, PYTORCH)
        found: list[Any] = [module for module in network.modules() if isinstance(module, kind)]
        for module in found:
            module.accelerator = PACKAGES[layer].get(package)
        if found and package != PYTORCH:
            used[layer] = f"{package} {_version(package)}"
    return used


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "of unknown version"
