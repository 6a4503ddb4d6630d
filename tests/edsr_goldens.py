"""Our own golden numbers of EDSR: what it gives for weights drawn from a seed.

``python tests/edsr_goldens.py`` makes them. They were made while the forward equalled plain functional code
(test_edsr.py).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from emsr.models import edsr
from network_goldens import STEP, fill, image

FILE = Path(__file__).parent / "golden" / "edsr.npz"
TINY = replace(edsr.PRESETS["published"], width=6, blocks=2)
# name: options, scale
NETWORKS = {
    **{f"tiny_x{scale}": (TINY, scale) for scale in edsr.SCALES},
    "scaled_x4": (replace(edsr.PRESETS["full"], width=8, blocks=3), 4),
    "small_x4": (edsr.PRESETS["small"], 4),
}


@torch.no_grad()
def numbers() -> dict[str, np.ndarray]:
    """What each network gives, every seventh pixel."""
    found = {}
    for name, (options, scale) in NETWORKS.items():
        model = fill(edsr.build(scale, 1, options))
        found[name] = model(image(name, (1, 1, 1, 9, 13)))[..., ::STEP, ::STEP].numpy()
    return found


if __name__ == "__main__":
    np.savez_compressed(FILE, **numbers())  # type: ignore[arg-type]
