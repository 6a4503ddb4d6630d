"""`emsr rescale`: fine images kept at a fraction of their size, how well they come back, and the way back."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import tensorstore as ts

    from emsr.geometry import Box
    from emsr.inference.rescaling import Rescaler
    from emsr.stores.ome import Layout

CHUNK = (1, 256, 256)
DEPTH = 8  # sections of a shard at most
SAMPLE = 64  # sections at most that are made again to say how well they come back

log = logging.getLogger(__name__)


def rescale(
    image: Path, weights: Path, out: Path, *, back: bool = False, device: str = "auto", workers: int = 1
) -> None:
    """Make the small images that weights of protocol rescaling keep of fine ones; with `--back`, fine ones of these.

    `image` is an image card (hr; with `back` what this command made), `out` that of the images made, whose array lies
    beside it. hr is cropped to a multiple of the scale. Sections are made as a whole, and those that a killed run made
    of the same images and weights are not made again. `out` says `protocol: rescaling`, of which weights, and, of small
    images, "rescaled_psnr": the mean over 64 sections at most, spread over the volume, of what the network makes of
    them again. Super-resolution refuses both. ValueError for other weights, images or voxels.
    """
    from functools import partial

    from emsr.inference.rescaling import PROTOCOL, opened
    from emsr.steps.images import finish, unfinished
    from emsr.stores.card import array_path, read_card
    from emsr.stores.fill import Making, fill
    from emsr.stores.zarr import open_array

    card = read_card(image)
    with opened(weights, device) as rescaler:
        _check(image, card, weights, rescaler.card, back)
        laid = _layout(card, int(rescaler.card["scale"]), back)
        made = {"scale": rescaler.card["scale"], "protocol": PROTOCOL, "weights_sha256": rescaler.card["sha256"]}
        journal = unfinished(out, {"image": card["sha256"], "back": back, **made})
        making = partial(_finer if back else _coarser, rescaler, open_array(array_path(image, card)))
        label = f"{PROTOCOL} x{made['scale']}{' back' if back else ''}"
        levels = fill(out.with_suffix(".zarr"), laid, Making(making, label), journal, 1)
        stated = {
            "source": {"path": image.name, "dataset": None, "format": "card", "sha256": card["sha256"]},
            "degradation": made,
            "hr_shape": None if back else [laid.shape[0], *(made["scale"] * side for side in laid.shape[1:])],
            **{key: card[key] for key in ("missing", "damaged")},
        }
        if not back:
            mean, count = _comes_back(rescaler, card, image, out)
            stated |= {"rescaled_psnr": mean, "rescaled_sections": count}
            log.info("%s: %d sections come back at %s dB", out, count, "?" if mean is None else f"{mean:.2f}")
    finish(out, laid, stated, workers, levels)
    journal.close()


def _check(image: Path, card: dict[str, Any], weights: Path, of: Mapping[str, Any], back: bool) -> None:
    """ValueError, in one line, for images that these weights cannot be used on."""
    if card["dtype"] != "uint8":
        raise ValueError(f"{image} holds {card['dtype']}: rescaling takes uint8")
    kept = (card.get("degradation") or {}).get("weights_sha256", "")
    small = kept and card.get("hr_shape") is not None
    if back and not small:
        raise ValueError(f"{image} was not made by emsr rescale: without --back fine images are made small")
    if back and kept != of["sha256"]:
        raise ValueError(f"{image} was made with weights {kept[:12]}, not {of['sha256'][:12]} ({weights}): name those")
    if not back and small:
        raise ValueError(f"{image} is what emsr rescale keeps of fine images: say --back to make these again")


def _coarser(rescaler: Rescaler, fine: ts.TensorStore, box: Box) -> np.ndarray:
    """The small images of whole sections."""
    import numpy as np

    from emsr.geometry import Box
    from emsr.stores.shards import read_box

    scale, (height, width) = int(rescaler.card["scale"]), box.shape[1:]
    of = [Box((z, 0, 0), (z + 1, scale * height, scale * width)) for z in range(box.start[0], box.stop[0])]
    return np.stack([rescaler.coarser(read_box(fine, each)[0]) for each in of])


def _finer(rescaler: Rescaler, coarse: ts.TensorStore, box: Box) -> np.ndarray:
    """The fine images of whole sections."""
    import numpy as np

    from emsr.geometry import Box
    from emsr.stores.shards import read_box

    scale, (height, width) = int(rescaler.card["scale"]), box.shape[1:]
    of = [Box((z, 0, 0), (z + 1, height // scale, width // scale)) for z in range(box.start[0], box.stop[0])]
    return np.stack([rescaler.finer(read_box(coarse, each)[0]) for each in of])


def _comes_back(rescaler: Rescaler, card: dict[str, Any], image: Path, out: Path) -> tuple[float | None, int]:
    """Mean PSNR of good sections made again, None where there is none, and of how many."""
    import math

    import numpy as np

    from emsr.geometry import Box
    from emsr.metrics.image import psnr
    from emsr.progress import progress
    from emsr.stores.card import array_path
    from emsr.stores.shards import read_box
    from emsr.stores.zarr import open_array

    fine, small, found = open_array(array_path(image, card)), open_array(out.with_suffix(".zarr")), []
    good = [z for z in range(card["shape"][0]) if not {str(z)} & {*card["missing"], *card["damaged"]}]
    looked = [good[i] for i in np.unique(np.linspace(0, len(good) - 1, min(SAMPLE, len(good))).astype(int))]
    with progress(len(looked), "make again", "sections") as shown:
        for z in looked:
            again = rescaler.finer(small[z].read().result())
            section = read_box(fine, Box((z, 0, 0), (z + 1, *again.shape)))[0]
            found.append(psnr(section, again))
            shown.update()
    finite = [value for value in found if math.isfinite(value)]
    return (sum(finite) / len(finite) if finite else None), len(looked)


def _layout(card: dict[str, Any], scale: int, back: bool) -> Layout:
    """How the images lie on disk: shards of whole sections."""
    from emsr.geometry import triple
    from emsr.stores.ome import Layout, level_count

    shape, size, corner = triple(card["shape"]), tuple(card["voxel_size_nm"]), tuple(card["translation_nm"])
    given = Layout(shape, "uint8", CHUNK, CHUNK, size, corner)
    made = given.finer(scale) if back else given.coarser(scale)
    sides = (min(DEPTH, made.shape[0]), *(-(-side // CHUNK[1]) * CHUNK[1] for side in made.shape[1:]))
    levels = level_count(made.shape)
    return Layout(made.shape, "uint8", triple(sides), CHUNK, made.voxel_size_nm, made.translation_nm, levels)
