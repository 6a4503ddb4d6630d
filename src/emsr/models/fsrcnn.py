"""FSRCNN: narrow convolutions on the lr grid and one transposed convolution (Dong et al. 2016, 1608.00367)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from emsr.layers.blocks import conv
from emsr.models import recipe
from emsr.models.section import SingleSection, check_counts, check_scale

SCALES = (2, 3, 4, 8, 16)
NEEDS: dict[str, tuple[str, ...]] = {"image": ()}
READS = {"image": ("hr", "lr")}


@dataclass(frozen=True)
class Options:
    """What shapes the network; the values are in PRESETS."""

    width: int  # channels of features
    narrow: int  # channels of the mapping
    mappings: int  # convolutions of the mapping
    kernel: int  # side of the transposed convolution, odd; 0: 9, from x8 on 2 scale + 1, since 9 leaves gaps there


PRESETS = {
    "published": Options(width=56, narrow=12, mappings=4, kernel=0),
    "small": Options(width=56, narrow=12, mappings=4, kernel=0),  # it is small as published
}

_PUBLISHED = replace(recipe.PUBLISHED, image_error="squared", learning_rate=1e-3, halvings=(), slow=("up",))
stages = recipe.stages(
    {"published": _PUBLISHED, "small": recipe.small(_PUBLISHED, batch=32)},
    {"small": {2: 64, 3: 64, 4: 64, 8: 40, 16: 20}},
)


def build(scale: int, sections: int, options: Options) -> Fsrcnn:
    """The untrained network; of ``sections`` it reads the centre alone.

    Raises ValueError for a scale or options that it cannot have.
    """
    check_scale("fsrcnn", scale, SCALES)
    check_counts("fsrcnn", width=options.width, narrow=options.narrow, mappings=options.mappings)
    if options.kernel and (options.kernel % 2 == 0 or options.kernel < scale):
        raise ValueError(
            f"kernel {options.kernel} of fsrcnn is even or leaves gaps at scale {scale}: use 0, or an odd number of "
            f"at least {scale}"
        )
    return Fsrcnn(scale, sections, options)


class Fsrcnn(SingleSection):
    """Features, fewer of them, their mapping, as many as before, the image: only the last depends on the scale."""

    def __init__(self, scale: int, sections: int, options: Options) -> None:
        super().__init__(scale, sections)
        width, narrow = options.width, options.narrow
        side = options.kernel or (9 if scale < 8 else 2 * scale + 1)
        self.halo = 2 + options.mappings + (scale - 1 + side // 2) // scale
        self.first = nn.Sequential(conv(1, width, kernel=5), nn.PReLU(width))
        self.shrink = nn.Sequential(conv(width, narrow, kernel=1), nn.PReLU(narrow))
        self.map = nn.Sequential(
            *(nn.Sequential(conv(narrow, narrow), nn.PReLU(narrow)) for _ in range(options.mappings))
        )
        self.expand = nn.Sequential(conv(narrow, width, kernel=1), nn.PReLU(width))
        self.up = nn.ConvTranspose2d(width, 1, side, scale, side // 2, output_padding=scale - 1)

    def enlarge(self, lr: Tensor) -> Tensor:
        """(batch, 1, y, x) in [0, 1] -> (batch, 1, scale*y, scale*x), not clamped."""
        sr: Tensor = self.up(self.expand(self.map(self.shrink(self.first(lr)))))
        return sr
