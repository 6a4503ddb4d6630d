"""A volume in memory, by the engine of the pipeline."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from emsr.geometry import triple
from emsr.inference import clips
from emsr.inference.allocation import at_scale, check_protocol, stated_window
from emsr.inference.deviation import sampled
from emsr.inference.devices import choose_device, claimed
from emsr.inference.run import count_windows, run
from emsr.inference.stream import Network
from emsr.inference.volumetric import VolumeNetwork
from emsr.models import checkpoint
from emsr.plan import Plan, check_window, neighbour_table
from emsr.progress import progress
from emsr.scales import Scale

log = logging.getLogger(__name__)

SHARD = (32, 1024, 1024)  # bounds memory; voxels do not depend on it
OVERLAP = 8  # lr pixels, as in config.yaml: more costs more and shows no better seams (docs/performance.md)
ON_GPU = 2  # windows in flight: one computes while another's voxels come back


def superresolve(
    volume: np.ndarray,
    weights: Path | str,
    window: int | None = None,
    device: str = "auto",
    overlap: int | None = None,
    workers: int | None = None,
    scale: Scale | None = None,
) -> np.ndarray:
    """Super-resolve a volume in memory: uint8 (z, y, x) to uint8 (z, s*y, s*x), s being the scale of the weights.

    Models with a range of scales take another `scale`, which may be real, or (y, x); sides are rounded.

    `weights` is a safetensors file with its card beside it. `window` (lr pixels) is the card's unless given; windows
    overlap by 8 lr pixels, or a quarter of a window below 32, unless `overlap` is given. At the ends of the volume the
    end section is repeated; a volume smaller than the window is reflected. `device` is "auto", "cpu" or "cuda";
    `workers`, how many windows are in flight, is the cores of a CPU or two on a GPU unless given; voxels stay the same.
    What the card warns of (perceptual weights) is logged.
    Raises ValueError for another type of voxels or unusable weights.
    """
    return _enlarged(volume, Path(weights), window, device, overlap, workers, None, scale)


def deviation(
    volume: np.ndarray,
    weights: Path | str,
    samples: int = 8,
    temperature: float = 1.0,
    seed: int = 0,
    window: int | None = None,
    device: str = "auto",
    overlap: int | None = None,
    workers: int | None = None,
) -> np.ndarray:
    """How far samples of sr lie apart: uint8 (z, y, x) to uint8 (z, s*y, s*x), in quarters of a grey level.

    The standard deviation of `samples` images whose latents are drawn with `temperature`, their own standard deviation;
    255 stands for 63.75 grey levels and more. Only weights of models that have latents (snadn, irn) can. The rest is as
    `superresolve` has it, whose sr is that of latents zero. What is drawn depends on `seed` and on where in the volume
    a voxel lies.
    """
    asked = {"count": samples, "temperature": temperature, "seed": seed}
    return _enlarged(volume, Path(weights), window, device, overlap, workers, asked)


def _enlarged(
    volume: np.ndarray,
    weights: Path,
    window: int | None,
    device: str,
    overlap: int | None,
    workers: int | None,
    samples: Mapping[str, Any] | None,
    scale: Scale | None = None,
) -> np.ndarray:
    if volume.ndim != 3 or volume.dtype != np.uint8 or volume.size == 0:
        raise ValueError(f"volume is {volume.dtype} {volume.shape}: give uint8 voxels (z, y, x), one at least")
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}: at least one window must be in flight")
    card = at_scale(checkpoint.load_card(weights), weights, scale)
    check_protocol(card, weights)
    if card.get("caution"):
        log.warning("%s: %s", weights, card["caution"])
    side = stated_window(window, card)
    shared = min(OVERLAP, side // 4) if overlap is None else overlap
    check_window(side, shared, card)
    if clip := clips.of_card(card):
        table = clips.clip_table(len(volume), (), ())
    else:
        table = neighbour_table(len(volume), card["sections"], card.get("section_step", 1), (), ())
    plan = Plan(triple(volume.shape), card["scale"], side, shared, SHARD, table, *(clip or ()))
    with claimed(choose_device(device)) as where:
        module = checkpoint.load(weights, where, used_at=plan.scale)
        clips.check_network(card, module)
        kind = VolumeNetwork if clip else Network
        network = kind(sampled(module, samples, weights) if samples else module, where, "float32")
        return _run(network, plan, volume, workers or (_cores() if where == "cpu" else ON_GPU))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run(network: Network | VolumeNetwork, plan: Plan, volume: np.ndarray, workers: int) -> np.ndarray:
    out = np.empty(plan.shape, np.uint8)
    shards = plan.grid.indices
    with progress(count_windows(plan, shards, workers), "super-resolving", "windows") as shown:
        for index, voxels in run(network, plan, shards, lambda box: volume[box.slices], workers, shown):
            out[plan.grid.box(index).slices] = voxels
    return out
