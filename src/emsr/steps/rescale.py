"""`emsr rescale`: fine images kept at a fraction of their size, and how well they come back."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


def rescale(hr: Path, weights: Path, out: Path, *, device: str = "auto", workers: int = 1) -> None:
    """Make the small images that weights of protocol rescaling keep of fine ones, and say how well these come back.

    `hr` is an image card, `out` that of the small images, whose array lies beside it; hr is cropped to a multiple of
    the scale. `out` says `protocol: rescaling`, of which weights, and "rescaled_psnr", the mean over sections of what
    the network makes of them again. Super-resolution refuses these images. ValueError for other weights or voxels.
    """
    import math

    import numpy as np

    from emsr.geometry import Box
    from emsr.inference.rescaling import PROTOCOL, opened
    from emsr.metrics.image import psnr
    from emsr.progress import progress
    from emsr.steps.images import finish
    from emsr.stores.card import array_path, read_card
    from emsr.stores.shards import read_box
    from emsr.stores.zarr import open_array, recreate, write_box

    card = read_card(hr)
    if card["dtype"] != "uint8":
        raise ValueError(f"{hr} holds {card['dtype']}: rescaling takes uint8")
    with opened(weights, device) as rescaler:
        scale = int(rescaler.card["scale"])
        laid = _layout(card, scale)
        depth, height, width = laid.shape
        fine, path = open_array(array_path(hr, card)), out.with_suffix(".zarr")
        recreate(path, laid)
        coarse, found = open_array(path, write=True), []
        with progress(depth, f"{PROTOCOL} x{scale}", "sections") as shown:
            for first in range(0, depth, laid.shard[0]):
                last = min(first + laid.shard[0], depth)
                slab = np.empty((last - first, height, width), np.uint8)
                for z in range(first, last):
                    section = read_box(fine, Box((z, 0, 0), (z + 1, scale * height, scale * width)))[0]
                    slab[z - first] = rescaler.coarser(section)
                    if not {str(z)} & {*card["missing"], *card["damaged"]}:
                        found.append(psnr(section, rescaler.finer(slab[z - first])))
                    shown.update()
                write_box(coarse, (first, 0, 0), slab)
        made: dict[str, Any] = {"scale": scale, "protocol": PROTOCOL, "weights_sha256": rescaler.card["sha256"]}
    finite = [value for value in found if math.isfinite(value)]
    kept = {key: card[key] for key in ("missing", "damaged")}
    source = {"path": hr.name, "dataset": None, "format": "card", "sha256": card["sha256"]}
    shape = [depth, scale * height, scale * width]
    stated = {"source": source, "degradation": made, "hr_shape": shape, **kept}
    mean = sum(finite) / len(finite) if finite else None
    finish(out, laid, {**stated, "rescaled_psnr": mean}, workers)
    log.info("%s: %d sections come back at %s dB", out, len(found), "?" if mean is None else f"{mean:.2f}")


def _layout(card: dict[str, Any], scale: int) -> Any:
    """How the small images lie on disk: shards of whole sections."""
    from emsr.geometry import triple
    from emsr.stores.ome import Layout, level_count

    shape, size, corner = triple(card["shape"]), tuple(card["voxel_size_nm"]), tuple(card["translation_nm"])
    chunk = (1, 256, 256)
    made = Layout(shape, "uint8", chunk, chunk, size, corner).coarser(scale)
    sides = (min(8, made.shape[0]), *(-(-side // 256) * 256 for side in made.shape[1:]))
    return Layout(
        made.shape, "uint8", triple(sides), chunk, made.voxel_size_nm, made.translation_nm, level_count(made.shape)
    )
