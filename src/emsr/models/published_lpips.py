"""LPIPS from others' files: a backbone as torchvision saves it, and the channels' weights as LPIPS 0.1 has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from emsr.layers.lpips import BACKBONES, Backbone
from emsr.models import published
from emsr.models.checkpoint import differences

FIRST: dict[tuple[int, ...], str] = {(64, 3, 11, 11): "alex", (64, 3, 3, 3): "vgg16"}  # first convolution


@dataclass(frozen=True, eq=False)
class Lpips:
    """A backbone and, for each of its five maps, the weights of the channels, float32 (channels,), at least 0."""

    backbone: Backbone
    weights: list[np.ndarray]


def load(backbone: Path, linear: Path) -> Lpips:
    """Both files, ``.pth`` or ``.safetensors``; other tensors in them (a classifier) are left out.

    Raises ValueError or FileNotFoundError, in one line, for files that are not of one published network.
    """
    network = _backbone(backbone)
    shapes: dict[str, tuple[int, ...]] = {
        f"lin{number}.model.1.weight": (1, width, 1, 1) for number, width in enumerate(network.tapped.channels)
    }
    given = _named(read(linear), shapes)
    if wrong := differences(shapes, given):
        raise ValueError(f"{linear} holds no LPIPS weights for {network.name}: {wrong}; name the file of that network")
    weights = [given[name].flatten().numpy() for name in shapes]
    if not all((weight >= 0).all() for weight in weights):
        raise ValueError(f"{linear} holds weights below 0 or no numbers, LPIPS has none: download it again")
    return Lpips(network, weights)


def _backbone(path: Path) -> Backbone:
    state = read(path)
    first = state.get("features.0.weight")
    name = FIRST.get(tuple(first.shape)) if first is not None else None
    if name is None:
        known = " or ".join(BACKBONES)
        raise ValueError(f"{path} holds no {known} as torchvision saves them (features.0.weight): name such a file")
    network = Backbone(name)
    shapes = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    taken = _named(state, shapes)
    if wrong := differences(shapes, taken):
        raise ValueError(f"{path} holds no {name}: {wrong}; give another file")
    network.load_state_dict(taken)
    return network.eval().requires_grad_(False)


def _named(state: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    return {name: state[name].to(torch.float32) for name in names if name in state}


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file; a one-line error for what is no file of weights."""
    if path.suffix != ".safetensors":
        return published.read(path)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not safetensors ({error}): download it again") from None
