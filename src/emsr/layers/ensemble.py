"""One image of several, by learned weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """The mean of ``count`` images by weights that are learned; they are positive, sum to 1 and begin alike."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(count))

    def weights(self) -> Tensor:
        """(count,), which sum to 1."""
        return self.logits.softmax(0)

    def forward(self, images: Sequence[Tensor]) -> Tensor:
        """``count`` images of one shape -> one of it."""
        weights = self.weights().to(images[0].dtype)
        return torch.stack([weight * image for weight, image in zip(weights, images, strict=True)]).sum(0)
