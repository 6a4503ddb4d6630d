"""Crops of a volume for the report, none larger than ``SIDE`` voxels a side, whatever the size of the volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emsr import scales
from emsr.inference.survey import job_borders, shard_borders
from emsr.plan import Plan
from emsr.report.blocks import decibels
from emsr.report.evidence import CrossView, SectionView
from emsr.steps.tiles import Area, Images, Span, bicubic, made_of, read
from emsr.stores.card import array_path, covered
from emsr.stores.zarr import open_array

SIDE = 512  # sr voxels
DEEPEST = 400  # of a plane across the sections, its height in sr voxels of y and x
CACHE_BYTES = 128_000_000
Json = Mapping[str, Any]


def open_images(paths: Json, cards: Mapping[str, Json | None]) -> Images:
    """The arrays of a volume; hr is None where the volume has none."""
    arrays = {
        name: open_array(array_path(Path(paths[name]), dict(card)), cache_bytes=CACHE_BYTES)
        for name, card in cards.items()
        if card is not None
    }
    shown = covered(cards.get("hr"))
    made = made_of(cards["sr"] or {})
    return Images(arrays["lr"], arrays["sr"], arrays.get("hr"), scales.of(paths["scale"]), "bicubic", shown, made)


def around(centre: int, end: int, scale: int, side: int = SIDE, first: int = 0) -> Span:
    """At most ``side`` voxels around ``centre`` within [first, end), on the grid of lr pixels, which ``first`` is."""
    side = min(side - side % scale, end - first)
    low = min(max(centre - side // 2, first), end - side)
    low -= low % scale
    return low, low + side


def _unit(images: Images) -> int:
    """What crops are multiples of: lr pixels where they are whole."""
    return images.scale if isinstance(images.scale, int) else 1


# -- sections side by side --------------------------------------------------------------------------------------------


def chosen(scores: Json) -> list[tuple[int, str]]:
    """Up to three sections to show, and why: median, smallest and largest gain; without truth, of consistency."""
    truth, rows = bool(scores.get("image")), scores.get("per_section") or []
    worth = {row["z"]: value for row in rows if (value := _worth(row, truth)) is not None}
    order = sorted(worth, key=lambda z: (worth[z], z))
    if not order:
        return [(row["z"], "as good as any") for row in rows[:1]]
    what, unit = ("gain in PSNR over bicubic", "dB") if truth else ("consistency with lr", "dB")
    picks = [(order[len(order) // 2], "median"), (order[0], "smallest"), (order[-1], "largest")]
    found: dict[int, str] = {}
    for z, rank in picks:
        found.setdefault(z, f"the {rank} {what} ({decibels(worth[z])} {unit})")
    return list(found.items())


def _worth(row: Json, truth: bool) -> float | None:
    """The figure by which sections are ranked."""
    if not truth:
        value: float | None = row["consistency"]["sr"]
        return value
    before, after = row["bicubic"]["psnr"], row["sr"]["psnr"]
    return None if before is None or after is None else after - before


def section_views(images: Images, scores: Json, sr: Json) -> list[SectionView]:
    """The chosen sections, each around the middle of what was made of what hr shows."""
    rows = {row["z"]: row for row in scores.get("per_section") or ()}
    places = {z: _middle(images, z) for z, _ in chosen(scores)}
    voxel = float(sr["voxel_size_nm"][1]), float(sr["voxel_size_nm"][2])
    return [
        SectionView(
            z,
            why,
            section_crops(images, z, places[z], bool(scores.get("image"))),
            (places[z][0][0], places[z][1][0]),
            voxel,
            (images.axes[0].step, images.axes[1].step),
            images.axes[1].ratio,
            {name: rows[z][name] for name in ("bicubic", "sr") if name in rows[z]},
        )
        for z, why in chosen(scores)
    ]


def _middle(images: Images, z: int) -> Area:
    """Around the middle of the largest part of section ``z`` that was made, within it and what hr shows."""
    parts = images.parts(z, images.covered) or [images.covered]
    largest = max(parts, key=lambda part: (part[0][1] - part[0][0]) * (part[1][1] - part[1][0]))
    y, x = (around((low + high) // 2, high, _unit(images), first=low) for low, high in largest)
    return y, x


def section_crops(images: Images, z: int, area: Area, truth: bool) -> dict[str, np.ndarray]:
    """One place of one section as lr (pixels repeated), bicubic, sr and, where it is to be shown, hr."""
    rows, columns = (along.coarser(*span) for along, span in zip(images.axes, area, strict=True))
    coarse = read(images.lr, z, (rows, columns))
    y, x = (
        np.array([along.pixel(voxel) - first for voxel in range(*span)])
        for along, span, (first, _) in zip(images.axes, area, (rows, columns), strict=True)
    )
    repeated = coarse[np.ix_(y, x)]
    found = {"lr": repeated, "bicubic": bicubic(images, z, area), "sr": read(images.sr, z, area)}
    return {**found, "hr": read(images.hr, z, area)} if truth else found


# -- planes across the sections ---------------------------------------------------------------------------------------


def cross_views(images: Images, sr: Json, plan: Plan, jobs: int, cards: Sequence[Json | None]) -> list[CrossView]:
    """An xz and a yz plane, each around the border of jobs, else of shards, that is nearest to the middle.

    Where shards are skipped the middle is that of the box in which all lie that were made.
    """
    lr, hr = ({int(z) for z in (card or {}).get("missing") or {}} for card in cards)
    absent = lr | set(sr.get("invalid") or ())
    damaged = frozenset(int(z) for card in cards for z in ((card or {}).get("damaged") or {}))
    borders = [(job_borders(plan, axis, jobs), shard_borders(plan, axis)) for axis in range(3)]
    centre = _centre(plan)
    middle = [_nearest(place, found) for place, found in zip(centre, borders, strict=True)]
    views = []
    for axis, name in ((2, "x"), (1, "y")):
        depth = _depth(sr, axis)
        z = around(middle[0], int(sr["shape"][0]), 1, depth)
        along = around(middle[axis], int(sr["shape"][axis]), _unit(images))
        fixed = centre[3 - axis]
        views.append(
            CrossView(
                axis=name,
                images=plane_crops(images, (z, along), fixed, axis, (absent, hr)),
                start=(z[0], along[0]),
                fixed=fixed,
                voxel_nm=(float(sr["voxel_size_nm"][0]), float(sr["voxel_size_nm"][axis])),
                job_borders=(borders[0][0], borders[axis][0]),
                shard_borders=(borders[0][1], borders[axis][1]),
                absent=frozenset(absent),
                untold=frozenset(hr - absent),
                damaged=damaged,
            )
        )
    return views


def _centre(plan: Plan) -> list[int]:
    """The middle (z, y, x) of the box of shards in which all lie that were made, in sr voxels."""
    if plan.within is None:
        return [length // 2 for length in plan.shape]
    ends = zip(plan.within.start, plan.within.stop, plan.shard, plan.shape, strict=True)
    return [(first * edge + min(last * edge, length)) // 2 for first, last, edge, length in ends]


def _nearest(middle: int, found: tuple[Sequence[int], Sequence[int]]) -> int:
    """The border nearest to ``middle``: of jobs, if there are any, else of shards, else the middle itself."""
    return min(found[0] or found[1] or [middle], key=lambda border: abs(border - middle))


def _depth(sr: Json, axis: int) -> int:
    """How many sections a plane shows, so that it is not higher than ``DEEPEST`` voxels."""
    return max(8, int(DEEPEST * float(sr["voxel_size_nm"][axis]) / float(sr["voxel_size_nm"][0])))


def plane_crops(
    images: Images, area: tuple[Span, Span], fixed: int, axis: int, gone: tuple[set[int], set[int]]
) -> dict[str, np.ndarray]:
    """Lines (z, along) of bicubic, sr and, where there is one, hr.

    ``gone`` are the sections without data, of all images and of hr; they are black.
    """
    (z0, z1), along = area
    names = ["bicubic", "sr", "hr"] if images.hr is not None else ["bicubic", "sr"]
    found = {name: np.zeros((z1 - z0, along[1] - along[0]), np.uint8) for name in names}
    line = ((fixed, fixed + 1), along) if axis == 2 else (along, (fixed, fixed + 1))
    for z in range(z0, z1):
        if z in gone[0]:
            continue
        found["bicubic"][z - z0] = bicubic(images, z, line).ravel()
        found["sr"][z - z0] = read(images.sr, z, line).ravel()
        if images.hr is not None and z not in gone[1]:
            found["hr"][z - z0] = read(images.hr, z, line).ravel()
    return found
