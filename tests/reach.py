"""How far away what changes a pixel can lie, by gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def reach(make: Callable[[Tensor], Tensor], expected: int, scale: int = 1) -> tuple[int, int]:
    """The farthest pixels before and after the middle one, along y, that the middle's image depends on.

    ``make`` takes (1, 1, y, x) to (1, 1, scale*y, scale*x) in float64; the image seen is larger than ``expected``.
    """
    middle = expected + 2
    own, seen = slice(scale * middle, scale * middle + scale), torch.zeros(2 * middle + 1)
    for _ in range(3):  # of one image a ReLU may hide the farthest
        image = torch.rand(1, 1, 2 * middle + 1, 2 * middle + 1, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(make(image)[..., own, own].square().sum(), image)
        seen = seen.maximum(gradient[0, 0].abs().amax(1))
    rows = seen.nonzero()
    return middle - int(rows.min()), int(rows.max()) - middle
