"""Which inputs an affinity network takes, and what its convolutions leave of them: integers, no torch (spec F)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emsr.geometry import Triple, triple

AXES = ("z", "y", "x")


@dataclass(frozen=True)
class Geometry:
    """Voxels (z, y, x): ``halo`` is used up on either side; an input is ``least`` plus any multiple of ``step`` long.

    The output's voxel (0, 0, 0) lies at the input's voxel ``halo``.
    """

    halo: Triple
    least: Triple
    step: Triple

    def check(self, shape: Sequence[int]) -> None:
        """Raise a one-line ValueError for an input (z, y, x) that the network cannot take."""
        for axis, length, least, step in zip(AXES, triple(tuple(shape)), self.least, self.step, strict=True):
            below = least + (length - least) // step * step
            if length < least:
                raise ValueError(f"{length} voxels along {axis} are too few for the network: give at least {least}")
            if length != below:
                raise ValueError(
                    f"the network cannot take {length} voxels along {axis}, where sides are {least} and a multiple of "
                    f"{step} more: give {below} or {below + step}"
                )

    def output(self, shape: Sequence[int]) -> Triple:
        """(z, y, x) of the output for an input of ``shape``; raises ValueError as ``check`` does."""
        self.check(shape)
        return triple([side - 2 * margin for side, margin in zip(shape, self.halo, strict=True)])


def superhuman(levels: int) -> Geometry:
    """Of a padded network that halves y and x ``levels`` times."""
    side = 2**levels
    return Geometry((0, 0, 0), (1, side, side), (1, side, side))


def mala(levels: int) -> Geometry:
    """Of a valid network that cuts y and x to a third ``levels`` times; two convolutions of 3 use up 4 voxels.

    Two of them lie before each pooling, at the bottom and after each upsampling. Along y and x those at level l use up
    4 * 3**l voxels of the input, so that the pairs above the bottom use up 2 * (3**levels - 1) on the way down, and as
    many on the way up.
    """
    coarse = 3**levels
    pairs = 2 * (coarse - 1)  # 52 for three levels, before the bottom; after it again
    lost = 2 * pairs + 4 * coarse  # 212
    depth = 4 * (2 * levels + 1)  # 28: z is never pooled
    # sides are 27 m + 160, pairs + 4 * coarse, and m = 1 would leave nothing
    side = pairs + 4 * coarse + 2 * coarse
    return Geometry((depth // 2, lost // 2, lost // 2), (depth + 1, side, side), (1, coarse, coarse))
