"""Files of LPIPS as they are published, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

State = dict[str, Tensor]
# number of each convolution, its inputs, outputs, kernel, stride, padding, and the pooling before it
ALEX = [(0, 3, 64, 11, 4, 2, 0), (3, 64, 192, 5, 1, 2, 3), (6, 192, 384, 3, 1, 1, 3), (8, 384, 256, 3, 1, 1, 0)]
ALEX += [(10, 256, 256, 3, 1, 1, 0)]
VGG16 = [(0, 3, 64, 0), (2, 64, 64, 0), (5, 64, 128, 2), (7, 128, 128, 0), (10, 128, 256, 2), (12, 256, 256, 0)]
VGG16 += [(14, 256, 256, 0), (17, 256, 512, 2), (19, 512, 512, 0), (21, 512, 512, 0), (24, 512, 512, 2)]
VGG16 += [(26, 512, 512, 0), (28, 512, 512, 0)]
LAYERS = {"alex": ALEX, "vgg16": [(*row[:3], 3, 1, 1, row[3]) for row in VGG16]}
TAPS = {"alex": [0, 3, 6, 8, 10], "vgg16": [2, 7, 14, 21, 28]}  # convolutions whose ReLU is compared


def states(name: str, seed: int = 0) -> tuple[State, State]:
    """Random weights as torchvision and LPIPS name them, with a classifier that is not used."""
    generator = torch.Generator().manual_seed(seed)
    backbone = {"classifier.1.weight": torch.zeros(2, 2)}
    for number, inputs, outputs, kernel, *_ in LAYERS[name]:
        spread = (2 / (inputs * kernel**2)) ** 0.5
        backbone[f"features.{number}.weight"] = spread * torch.randn(
            outputs, inputs, kernel, kernel, generator=generator
        )
        backbone[f"features.{number}.bias"] = 0.1 * torch.randn(outputs, generator=generator)
    widths = [outputs for number, _, outputs, *_ in LAYERS[name] if number in TAPS[name]]
    linear = {
        f"lin{i}.model.1.weight": torch.rand(1, width, 1, 1, generator=generator) for i, width in enumerate(widths)
    }
    return backbone, linear


def saved(
    folder: Path, name: str, suffix: str = ".pth", change: Callable[[State, State], Any] | None = None
) -> list[Path]:
    """Both files of a network."""
    parts = states(name)
    if change:
        change(*parts)
    paths = [folder / f"{part}{suffix}" for part in ("backbone", "linear")]
    for path, state in zip(paths, parts, strict=True):
        if suffix == ".pth":
            torch.save(state, path)
        else:
            save_file(state, path)
    return paths
