"""The networks whose features LPIPS compares: AlexNet and VGG16 up to their last convolution (Zhang et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

SHIFT = (-0.030, -0.088, -0.188)  # of version 0.1, for images in [-1, 1]
SCALE = (0.458, 0.448, 0.450)
VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


@dataclass(frozen=True)
class Tapped:
    """Where five maps leave a backbone: ``ends``, the numbers of their ReLUs, and the ``channels`` of each.

    ``least`` is the side of the smallest image, in pixels, that reaches the last of them.
    """

    ends: tuple[int, ...]
    channels: tuple[int, ...]
    least: int


BACKBONES = {
    "alex": Tapped((1, 4, 7, 9, 11), (64, 192, 384, 256, 256), 31),
    "vgg16": Tapped((3, 8, 15, 22, 29), (64, 128, 256, 512, 512), 16),
}


class Backbone(nn.Module):
    """``name`` of ``BACKBONES``, for grey images; tensors are named as torchvision's, ``features.N.weight``."""

    shift: Tensor
    scale: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.tapped = name, BACKBONES[name]
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1), persistent=False)
        self.features = nn.Sequential(*(_alex() if name == "alex" else _vgg16()))

    def forward(self, image: Tensor) -> list[Tensor]:
        """(batch, 1, y, x) in [0, 1] -> five maps (batch, channels, y', x'), each after its ReLU."""
        maps = []
        values = (2 * image - 1 - self.shift) / self.scale  # (batch, 3, y, x): grey is the same in all three
        for number, layer in enumerate(self.features):
            values = layer(values)
            if number in self.tapped.ends:
                maps.append(values)
        return maps


def _alex() -> list[nn.Module]:
    """AlexNet (Krizhevsky 2014): kernels 11, 5, 3, 3, 3; pooling before the second and the third."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU()]
    for inputs, outputs, kernel, pooled in ((64, 192, 5, 1), (192, 384, 3, 1), (384, 256, 3, 0), (256, 256, 3, 0)):
        layers += [nn.MaxPool2d(3, stride=2)] * pooled
        layers += [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), nn.ReLU()]
    return layers


def _vgg16() -> list[nn.Module]:
    """VGG16 (Simonyan 2015), without the pooling after its last convolution."""
    layers: list[nn.Module] = []
    inputs = 3
    for depth, widths in enumerate(VGG16):
        layers += [nn.MaxPool2d(2)] if depth else []
        for width in widths:
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
            inputs = width
    return layers
