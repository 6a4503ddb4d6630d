"""Our own golden numbers of the affinity networks: what narrow ones give for weights drawn from a seed.

``python tests/affinity_goldens.py`` makes them. They were made while the published goldens held (test_affinity.py).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emsr.models import affinity
from network_goldens import draw, fill, image

FILE = Path(__file__).parent / "golden" / "affinity.npz"
NARROW = {
    "superhuman": replace(affinity.PRESETS["superhuman"], widths=(4, 4, 5, 6, 7, 8)),
    "mala": replace(affinity.PRESETS["mala"], widths=(2, 3, 4, 5)),
    "small": affinity.PRESETS["small"],
}
GAINS = {"superhuman": 1.0, "mala": 2.0}
SHAPES = {"superhuman": (3, 32, 48), "mala": (30, 214, 241), "small": (4, 24, 16)}


def filled(options: affinity.Options) -> Any:
    """A network with weights that depend on their names alone, large enough that its output varies."""
    network = fill(affinity.build(options))
    for parameter in network.parameters():
        parameter.data.mul_(GAINS[options.kind] if parameter.ndim == 5 else 1)
    for name, tensor in network.named_buffers():
        if name.endswith("running_mean"):
            tensor.copy_(torch.from_numpy(0.05 * draw(name, tuple(tensor.shape))))
    return network


@torch.no_grad()
def numbers() -> dict[str, np.ndarray]:
    """What narrow networks say, every fifth pixel."""
    found = {}
    for name, options in NARROW.items():
        said = filled(options)(image(name, (1, 1, *SHAPES[name])))
        found[name] = said[..., ::5, ::5].numpy()
    return found


if __name__ == "__main__":
    np.savez_compressed(FILE, **numbers())  # type: ignore[arg-type]
