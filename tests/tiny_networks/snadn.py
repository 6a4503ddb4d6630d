from typing import Any

from torch import Tensor

OPTIONS = {"blocks": 1, "layers": 1, "growth": 4, "max_h": 6, "width": 4, "hashes": 1, "chunk": 144}
COUNTS = {("published", 2): 822_150, ("published", 4): 2_213_660, ("wide", 2): 994_981, ("wide", 4): 2_059_653}
TRAINS = True
RATE = 1e-2
FLOAT32 = True


def used(network: Any, lr: Tensor) -> Tensor:
    """The convolution of a Laplacian level is used on the way down alone."""
    sr: Tensor = network(lr)
    made, latents = network.down(sr)
    return (sr.square().sum() + made.square().sum() + sum(part.square().sum() for part in latents)) / 100  # type: ignore[no-any-return]
