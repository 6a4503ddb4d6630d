"""Trunks that make features of an image on its own grid, for networks that enlarge by coordinates."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from emsr.layers.blocks import conv, trunk
from emsr.layers.swin import SwinSizes, SwinTrunk

ENCODERS = ("edsr", "swinir")
COUNTS = ("width", "blocks", "embedding", "groups", "layers", "heads", "window", "mlp_ratio")


class ResidualTrunk(nn.Module):
    """EDSR without its enlargement: a convolution, residual blocks with a skip around them all (Lim et al. 2017)."""

    def __init__(self, channels: int, width: int, blocks: int) -> None:
        super().__init__()
        self.first = conv(channels, width)
        self.blocks = trunk(width, blocks)
        self.join = conv(width, width)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                layer.reset_parameters()  # as published, in the blocks too

    def forward(self, image: Tensor) -> Tensor:
        """(batch, channels, y, x) -> (batch, width, y, x)."""
        features = self.first(image)
        deep: Tensor = features + self.join(self.blocks(features))
        return deep


def encoder(options: Any, channels: int) -> nn.Module:
    """What ``options.encoder`` names, for images of ``channels``; it gives ``options.width`` channels.

    ``options`` has ``COUNTS``, of which "edsr" asks for the first two alone, and ``drop_path``. Raises ValueError for
    an encoder that there is not, or sizes that it cannot have.
    """
    if options.encoder not in ENCODERS:
        raise ValueError(f"encoder {options.encoder!a} is unknown; choose one of {', '.join(ENCODERS)}")
    for name in COUNTS:
        if getattr(options, name) < 1:
            raise ValueError(f"{name} {getattr(options, name)} makes no encoder: use 1 or more")
    if not 0 <= options.drop_path < 1:
        raise ValueError(f"drop_path {options.drop_path} is no share of samples: use 0 or more and less than 1")
    if options.encoder == "edsr":
        return ResidualTrunk(channels, options.width, options.blocks)
    sizes = {name: getattr(options, name) for name in (*COUNTS[2:], "drop_path")}
    return SwinTrunk(channels, options.width, SwinSizes(**sizes))


def reach(options: Any) -> int | None:
    """How many pixels away the encoder sees; None for SwinIR, which knows where the image begins."""
    return 2 * options.blocks + 2 if options.encoder == "edsr" else None
