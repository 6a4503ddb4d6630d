"""VGG19 up to the layer that is compared, and how alike two images' features are, patch by patch (spec C.3, C.9)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emsr.layers.flow import IMAGENET_MEAN, IMAGENET_STD

VggLayer = Literal["relu1_2", "relu3_4", "conv5_4"]
WIDTHS = {"relu1_2": ((64, 64),), "relu3_4": ((64, 64), (128, 128), (256, 256, 256, 256))}
WIDTHS["conv5_4"] = (*WIDTHS["relu3_4"], (512, 512, 512, 512), (512, 512, 512, 512))


class Vgg19(nn.Module):
    """The first layers of VGG19 (Simonyan 2015), through the one named ``layer``, for grey images.

    ``normalise`` repeats the image to three channels and applies ImageNet's normalisation; without it the first
    convolution has one input channel, the sum of the three.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, layer: VggLayer, normalise: bool) -> None:
        super().__init__()
        self.normalise = normalise
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        layers: list[nn.Module] = []
        inputs = 3 if normalise else 1
        for depth, widths in enumerate(WIDTHS[layer]):
            layers += [nn.MaxPool2d(2)] if depth else []
            for width in widths:
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = width
        self.layers = nn.Sequential(*(layers if layer.startswith("relu") else layers[:-1]))

    def forward(self, image: Tensor) -> Tensor:
        """(batch, 1, y, x) in [0, 1] -> (batch, 64, y, x) for relu1_2, (batch, 256, y/4, x/4) for relu3_4, (batch, 512,
        y/16, x/16) for conv5_4."""
        features: Tensor = self.layers((image - self.mean) / self.std if self.normalise else image)
        return features


def patch_cosine(a: Tensor, b: Tensor, patch: int) -> Tensor:
    """Cosine of corresponding patches of two feature maps (spec C.3), as sums over patches; float32.

    (batch, channels, y, x) each, y and x multiples of ``patch`` -> (batch, 1, y/patch, x/patch).
    """
    with torch.autocast(a.device.type, enabled=False):
        a, b = a.float(), b.float()
        product, norm_a, norm_b = (_patch_sums(*pair, patch) for pair in ((a, b), (a, a), (b, b)))
        return product / (norm_a.sqrt().clamp_min(1e-12) * norm_b.sqrt().clamp_min(1e-12))


def _patch_sums(a: Tensor, b: Tensor, patch: int) -> Tensor:
    return F.avg_pool2d((a * b).sum(1, keepdim=True), patch) * patch**2
