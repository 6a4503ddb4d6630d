"""A rule of data.smk: hr that was imaged apart from lr is brought onto lr's grid, section by section."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import tensorstore as ts

    from emsr.geometry import Box
    from emsr.registration import Area, Fit
    from emsr.steps.pairs import Fits, Pair

REGISTER_RESULT = 1

CACHE_BYTES = 256 * 2**20  # decoded chunks of each array
BLOCK = 256  # voxels along y and x that are resampled at once; a grid of its own, so that shards change nothing
LEAST_SHARE = 0.5  # of the sections must agree, else the images are not of one place
CLIPPED = 0.001  # part of the voxels beyond the grey levels that is worth a warning
COLUMNS = (
    *("z", "state", "residual_nm", "shift_y_nm", "shift_x_nm", "rotation_deg", "scale"),
    *("gain", "offset", "tiles", "agreeing"),
)

log = logging.getLogger(__name__)


def register(settings: dict[str, Any], lr: Path, hr: Path, out: Path, *, workers: int = 1) -> None:
    """Bring hr onto the grid of lr times scale, and its grey levels to those of lr, each section by itself.

    `settings`: scale, registration (limit_nm, kernel), shard, chunk. Sections that are damaged or missing in either
    image, or that do not agree to `limit_nm`, stay empty and are listed as missing. Beside the card `out` lies
    `.registration.tsv` with what was found of every section. Raises ValueError, before anything is written, where most
    sections do not agree.
    """
    from emsr.durable import write_text
    from emsr.steps.images import finish, layout
    from emsr.steps.pairs import agrees, estimate
    from emsr.stores.card import read_card
    from emsr.stores.shards import each, shard_boxes
    from emsr.stores.zarr import open_array, recreate

    out, scale, limit = Path(out), int(settings["scale"]), float(settings["registration"]["limit_nm"])
    cards = {"lr": read_card(lr), "hr": read_card(hr)}
    pair = _open(settings, {"lr": Path(lr), "hr": Path(hr)}, cards)
    pixel = float(cards["lr"]["voxel_size_nm"][1])
    missing = _unusable(cards)
    sections = [z for z in range(cards["lr"]["shape"][0]) if z not in missing]
    found = estimate(pair, sections, limit / pixel, settings["chunk"][0], workers)
    good = {z: fit for z, fit in found.items() if agrees(fit, limit / pixel)}
    _check_agreement(hr, sections, found, good, limit, pixel)
    covered = _covered(pair, good, hr)
    missing |= {z: "unregistered" for z in sections if z not in good}

    laid = layout(settings, cards["lr"]).finer(scale)
    recreate(out.with_suffix(".zarr"), laid)
    array = open_array(out.with_suffix(".zarr"), write=True)
    clipped = sum(each(partial(_write_shard, pair, array, good), shard_boxes(array), workers, f"register x{scale}"))
    share = clipped / max(1, len(good) * laid.shape[1] * laid.shape[2])
    if share > CLIPPED:
        log.warning(
            "%s: with the contrast of lr %.1f%% of hr's voxels leave the range and are cut", out.stem, 100 * share
        )
    table = {z: _row(pair, z, found.get(z), missing.get(z, "registered"), pixel) for z in range(laid.shape[0])}
    write_text(out.with_suffix(".registration.tsv"), _text(table))
    card = {
        "source": {"path": Path(hr).name, "dataset": None, "format": "card", "sha256": cards["hr"]["sha256"]},
        "degradation": None,
        "hr_shape": None,
        "damaged": {},
        "damaged_parts": _damaged_parts(pair, good, cards["hr"]),
        "missing": {str(z): why for z, why in sorted(missing.items())},
        "covered": [[edge * scale for edge in span] for span in covered],
        "registration": {
            **settings["registration"],
            "lr_sha256": cards["lr"]["sha256"],
            "clipped": share,
            "sections": {str(z): row | {"to_hr": _matrix(pair, found.get(z))} for z, row in table.items()},
        },
    }
    finish(out, laid, card, workers)


def _open(settings: Mapping[str, Any], paths: Mapping[str, Path], cards: Mapping[str, dict[str, Any]]) -> Pair:
    """Both arrays; ValueError where they have not as many sections."""
    from emsr.steps.pairs import Pair
    from emsr.stores.card import array_path
    from emsr.stores.zarr import open_array

    if cards["lr"]["shape"][0] != cards["hr"]["shape"][0]:
        raise ValueError(
            f"{paths['hr']} has {cards['hr']['shape'][0]} sections, {paths['lr']} {cards['lr']['shape'][0]}: "
            "cut one so that both show the same sections"
        )
    lr, hr = (open_array(array_path(paths[name], cards[name]), cache_bytes=CACHE_BYTES) for name in ("lr", "hr"))
    ratio = cards["lr"]["voxel_size_nm"][1] / (settings["scale"] * cards["hr"]["voxel_size_nm"][1])
    return Pair(lr, hr, int(settings["scale"]), str(settings["registration"]["kernel"]), ratio)


def _unusable(cards: Mapping[str, Mapping[str, Any]]) -> dict[int, str]:
    """Sections that one of the images does not show as they are: "missing" or "damaged"."""
    named = {state: {int(z) for card in cards.values() for z in card[state]} for state in ("missing", "damaged")}
    return dict.fromkeys(named["damaged"], "damaged") | dict.fromkeys(named["missing"], "missing")


def _check_agreement(hr: Path, sections: list[int], found: Fits, good: Fits, limit: float, pixel: float) -> None:
    """Refuse images that agree in hardly any section; name those that do not in others."""
    import numpy as np

    apart = [fit.residual * pixel for z, fit in found.items() if z not in good]
    figures = f"the others lie {np.median(apart):.3g} nm apart" if apart else "the others show too little in common"
    if not good or len(good) < LEAST_SHARE * len(sections):
        raise ValueError(
            f"{hr} agrees with lr in {len(good)} of {len(sections)} undamaged sections, {figures}, "
            f"registration.limit_nm is {limit:g}: state images of one place, or raise the limit"
        )
    residuals = [fit.residual * pixel for fit in good.values()]
    log.info("residual %.3g nm (median), %.3g nm (largest)", np.median(residuals), max(residuals))
    for z in (z for z in sections if z not in good):
        log.warning("section %s does not agree to %g nm and is left out", z, limit)


def _covered(pair: Pair, good: Fits, hr: Path) -> Area:
    """The lr pixels that hr shows in every section which agrees; ValueError where they are too few."""
    from emsr.registration import LEAST_SIDE

    sides = (pair.hr.shape[1] / pair.scale, pair.hr.shape[2] / pair.scale)
    areas = [fit.similarity.area(pair.shape, sides) for fit in good.values()]
    y, x = ((max(area[k][0] for area in areas), min(area[k][1] for area in areas)) for k in range(2))
    if min(y[1] - y[0], x[1] - x[0]) < LEAST_SIDE:
        raise ValueError(
            f"{hr} covers no {LEAST_SIDE} x {LEAST_SIDE} lr pixels that all sections share: state images of one place"
        )
    return y, x


def _damaged_parts(pair: Pair, good: Fits, hr: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Boxes around damaged parts of hr in registered hr, which no longer shows them black, by section."""
    height, width = (side * pair.scale for side in pair.shape)
    found: dict[str, list[Any]] = {}
    for z, boxes in (hr.get("damaged_parts") or {}).items():
        for (y0, y1), (x0, x1) in boxes if int(z) in good else ():
            y, x = good[int(z)].similarity.scaled(pair.scale).around(((y0, y1), (x0, x1)))
            cut = [[max(y[0], 0), min(y[1], height)], [max(x[0], 0), min(x[1], width)]]
            if all(low < high for low, high in cut):
                found.setdefault(z, []).append(cut)
    return found


def _write_shard(pair: Pair, array: ts.TensorStore, fits: Fits, box: Box) -> int:
    """One shard of registered hr, block by block; says how many voxels were cut to the range."""
    import numpy as np

    from emsr.geometry import Box, ShardGrid, triple
    from emsr.stores.shards import keep_or_write

    voxels, clipped = np.zeros(box.shape, np.uint8), 0
    depth = int(array.shape[0])
    for block in ShardGrid(triple(list(array.shape)), (depth, BLOCK, BLOCK)).boxes():
        shared = block.intersect(box)
        if not shared.size:
            continue
        to = shared.shifted(triple([-start for start in box.start])).slices[1:]
        cut = Box(shared.start, shared.stop).shifted(triple([-start for start in block.start])).slices[1:]
        area = ((block.start[1], block.stop[1]), (block.start[2], block.stop[2]))
        for z in (z for z in range(box.start[0], box.stop[0]) if z in fits):
            grey = _grey(pair, z, fits[z], area)[cut]
            clipped += int(((grey < -0.5) | (grey > 255.5)).sum())
            voxels[(z - box.start[0], *to)] = np.clip(np.rint(grey), 0, 255)
    keep_or_write(array, box, voxels)
    return clipped


def _grey(pair: Pair, z: int, fit: Fit, area: Area) -> np.ndarray:
    """Grey levels of an area of registered hr with the contrast of lr, as float; 0 beyond hr."""
    import numpy as np

    from emsr.registration import Image, moved, positions
    from emsr.steps.pairs import section

    height, width = (int(side) for side in pair.hr.shape[1:])
    similarity = fit.similarity.scaled(pair.scale)
    at = positions(similarity, area)
    inside = (at.real >= 0) & (at.real <= width) & (at.imag >= 0) & (at.imag <= height)
    if not inside.any():
        return np.zeros(inside.shape)
    grey = moved(Image((height, width), partial(section, pair.hr, z)), similarity, area)
    return np.where(inside, fit.gain * grey + fit.offset, 0.0)


def _matrix(pair: Pair, fit: Fit | None) -> list[list[float]] | None:
    """Rows y and x of the matrix that takes (y, x, 1) of a voxel of registered hr to its place in hr, in voxels."""
    if fit is None:
        return None
    similarity, centre = fit.similarity.scaled(pair.scale), 0.5 + 0.5j
    turn, at = similarity.turn, similarity.turn * centre + similarity.shift - centre
    return [[turn.real, turn.imag, at.imag], [-turn.imag, turn.real, at.real]]


def _row(pair: Pair, z: int, fit: Fit | None, state: str, pixel: float) -> dict[str, Any]:
    """What was found of one section: where hr has to move to, turned and stretched about the middle of lr."""
    import math

    if fit is None:
        return {"state": state}
    middle = complex(pair.shape[1], pair.shape[0]) / 2
    shift = (fit.similarity.back(pair.ratio * middle) - middle) * pixel
    turn = pair.ratio / fit.similarity.turn
    return {
        "state": state,
        "residual_nm": fit.residual * pixel,
        "shift_nm": [shift.imag, shift.real],
        "rotation_deg": math.degrees(math.atan2(turn.imag, turn.real)),
        "scale": abs(turn),
        "gain": fit.gain,
        "offset": fit.offset,
        "tiles": fit.tiles,
        "agreeing": fit.agreeing,
    }


def _text(table: Mapping[int, Mapping[str, Any]]) -> str:
    """Tab-separated lines, one a section, under a header."""
    lines = ["\t".join(COLUMNS)]
    for z, row in table.items():
        y, x = row.get("shift_nm", (None, None))
        figures = {**row, "z": z, "shift_y_nm": y, "shift_x_nm": x}
        cells = (figures.get(name) for name in COLUMNS)
        lines.append(
            "\t".join(f"{cell:.6g}" if isinstance(cell, float) else str("" if cell is None else cell) for cell in cells)
        )
    return "\n".join(lines) + "\n"
