"""Rescaling: a network of two directions makes lr itself, which it can then enlarge better than any lr that is given.

It is for keeping or sending fine images at a fraction of their size. It says nothing of what a coarse microscope could
show, so its weights, lr and figures never stand beside those of super-resolution.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from emsr.inference.devices import choose_device, claimed
from emsr.inference.run import reproducible
from emsr.models import checkpoint
from emsr.models.dual import Dual
from emsr.progress import progress


def coarser(hr: np.ndarray, weights: Path | str, device: str = "auto") -> np.ndarray:
    """The lr that the network makes of hr, each section as a whole: uint8 (z, y, x) -> uint8 (z, y/s, x/s), rounded up.

    Its latents are left out: ``finer`` takes the most likely ones. Raises ValueError for weights that were not trained
    for rescaling, and for other voxels.
    """
    return _each(hr, Path(weights), device, lambda network, section: network.down(section)[0])


def finer(lr: np.ndarray, weights: Path | str, device: str = "auto") -> np.ndarray:
    """hr again, of what ``coarser`` made with the same weights: uint8 (z, y, x) -> uint8 (z, s*y, s*x).

    Raises ValueError for weights that were not trained for rescaling, and for other voxels.
    """
    return _each(lr, Path(weights), device, lambda network, section: network.up(section))


def _each(volume: np.ndarray, weights: Path, device: str, make: Any) -> np.ndarray:
    if volume.ndim != 3 or volume.dtype != np.uint8 or volume.size == 0:
        raise ValueError(f"volume is {volume.dtype} {volume.shape}: give uint8 voxels (z, y, x), one at least")
    card = checkpoint.load_card(weights)
    if card.get("protocol") != "rescaling":
        raise ValueError(
            f"{weights} was trained to enlarge lr that is given and not its own: name weights of protocol rescaling"
        )
    made = []
    with claimed(choose_device(device)) as where, reproducible(), torch.inference_mode():
        network = checkpoint.load(weights, where)
        assert isinstance(network, Dual)
        with progress(len(volume), "rescaling", "sections") as shown:
            for section in volume:
                image = torch.from_numpy(np.array(section)).to(where).float().div_(255)[None, None]
                grey = make(network, image)[0, 0].float().clamp(0, 1).mul(255).round()
                made.append(grey.to(torch.uint8).cpu().numpy())
                shown.update()
    return np.stack(made)
