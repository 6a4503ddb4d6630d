"""Rescaling: a network of two directions makes lr itself, which it can then enlarge better than any lr that is given.

It is for keeping or sending fine images at a fraction of their size. It says nothing of what a coarse microscope could
show, so its weights, lr and figures never stand beside those of super-resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emsr.inference.devices import choose_device, claimed
from emsr.inference.run import reproducible
from emsr.models import checkpoint
from emsr.models.dual import Dual
from emsr.progress import progress

Section = np.ndarray[Any, np.dtype[np.uint8]]
PROTOCOL = "rescaling"


@dataclass(frozen=True)
class Rescaler:
    """A network of two directions on its device, whose latents are left out on the way down and zero on the way up."""

    network: Dual
    device: str
    card: Mapping[str, Any]

    def coarser(self, hr: Section) -> Section:
        """The network's own lr of a section: (y, x) -> (y/scale, x/scale), rounded up."""
        return self._grey(hr, lambda image: self.network.down(image)[0])

    def finer(self, lr: Section) -> Section:
        """hr again, of what ``coarser`` made: (y, x) -> (scale*y, scale*x)."""
        return self._grey(lr, self.network.up)

    def _grey(self, section: Section, make: Callable[[Tensor], Tensor]) -> Section:
        with reproducible(), torch.inference_mode():
            image = torch.from_numpy(np.array(section)).to(self.device).float().div_(255)
            made = make(image[None, None])[0, 0].float()
            return made.clamp(0, 1).mul(255).round().to(torch.uint8).cpu().numpy()


@contextmanager
def opened(weights: Path, device: str = "auto") -> Iterator[Rescaler]:
    """The network of ``weights``; ValueError, in one line, where they were not trained for rescaling."""
    card = checkpoint.load_card(weights)
    if card.get("protocol") != PROTOCOL:
        raise ValueError(
            f"{weights} was trained to enlarge lr that is given and not its own: name weights of protocol {PROTOCOL}"
        )
    with claimed(choose_device(device)) as where:
        network = checkpoint.load(weights, where)
        if not isinstance(network, Dual):
            raise ValueError(f"{weights} holds weights of {card['model']}, which has one direction: use irn or snadn")
        yield Rescaler(network, where, card)


def coarser(hr: np.ndarray, weights: Path | str, device: str = "auto") -> np.ndarray:
    """The lr that the network makes of hr, each section as a whole: uint8 (z, y, x) -> uint8 (z, y/s, x/s), rounded up.

    Raises ValueError for weights that were not trained for rescaling, and for other voxels.
    """
    with opened(Path(weights), device) as rescaler:
        return _each(hr, rescaler.coarser)


def finer(lr: np.ndarray, weights: Path | str, device: str = "auto") -> np.ndarray:
    """hr again, of what ``coarser`` made with the same weights: uint8 (z, y, x) -> uint8 (z, s*y, s*x).

    Raises ValueError for weights that were not trained for rescaling, and for other voxels.
    """
    with opened(Path(weights), device) as rescaler:
        return _each(lr, rescaler.finer)


def _each(volume: np.ndarray, make: Callable[[Section], Section]) -> np.ndarray:
    if volume.ndim != 3 or volume.dtype != np.uint8 or volume.size == 0:
        raise ValueError(f"volume is {volume.dtype} {volume.shape}: give uint8 voxels (z, y, x), one at least")
    made = []
    with progress(len(volume), PROTOCOL, "sections") as shown:
        for section in volume:
            made.append(make(section))
            shown.update()
    return np.stack(made)
