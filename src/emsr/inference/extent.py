"""Which shards are made at all: those that a pilot box and a mask of tissue touch. The others are skipped."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emsr.geometry import Box, ShardGrid, Triple, rectangles, runs, triple
from emsr.plan import Plan

KEYS = ("pilot", "mask")
"""Settings that say which shards are made; they change no voxel of one that is."""
TOLERANCE = 1e-3  # relative difference of voxel sizes that counts as rounding
Json = Mapping[str, Any]
Spans = tuple[tuple[int, int], tuple[int, int]]


def without_extent(settings: Json) -> dict[str, Any]:
    """Settings that voxels depend on, however much of a volume is made."""
    return {key: value for key, value in settings.items() if key not in KEYS}


# -- the pilot --------------------------------------------------------------------------------------------------------


def pilot_box(pilot: Sequence[Sequence[int]], lr_shape: Triple) -> Box:
    """A pilot [[z0, z1], [y0, y1], [x0, x1]] in voxels of lr; ValueError where it is empty or reaches beyond lr."""
    stated = [list(pair) for pair in pilot]
    if any(low >= high for low, high in stated):
        raise ValueError(f"pilot {stated} holds no voxel: write [[z0, z1], [y0, y1], [x0, x1]] with z0 < z1")
    box = Box(triple([low for low, _ in stated]), triple([high for _, high in stated]))
    if not Box((0, 0, 0), lr_shape).contains(box):
        raise ValueError(f"pilot {stated} reaches beyond lr of shape {list(lr_shape)}: count in voxels of lr")
    return box


# -- the mask ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Placed:
    """An array in space: its shape, its voxel size in nm and the centre of its first voxel, all z, y, x."""

    shape: Triple
    voxel_size_nm: Sequence[float]
    translation_nm: Sequence[float]

    @property
    def corner_nm(self) -> list[float]:
        """The outer corner of the first voxel."""
        return [centre - size / 2 for centre, size in zip(self.translation_nm, self.voxel_size_nm, strict=True)]


@dataclass(frozen=True)
class MaskGrid:
    """A mask of `shape` whose voxels are `factor` units large; the sr volume begins `offset` units inside.

    `units` of an sr voxel are one of these lengths: 1, or at a real scale as many as make pixels of lr whole.
    """

    shape: Triple
    factor: Triple
    offset: Triple
    units: Triple = (1, 1, 1)

    def box(self, box: Box) -> Box:
        """The voxels of the mask that a box of sr voxels touches; past the end of the mask stands its last voxel."""
        sides = zip(self.units, self.offset, self.factor, self.shape, strict=True)
        low, high = [], []
        for (unit, offset, factor, n), first, last in zip(sides, box.start, box.stop, strict=True):
            low.append(min((first * unit + offset) // factor, n - 1))
            high.append(min(-(-(last * unit + offset) // factor), n))
        return Box(triple(low), triple(high))


def mask_grid(where: str, mask: Placed, sr: Placed, lr_shape: Triple | None = None) -> MaskGrid:
    """How a mask lies over the sr volume; `where` names it in errors, `lr_shape` is the shape of lr at a real scale.

    Raises ValueError unless its voxels are a whole number of times larger than those of sr, or of lr, along each axis
    for itself, and it covers the volume but for less than one of its voxels at the far ends.
    """
    ratios = [large / small for large, small in zip(mask.voxel_size_nm, sr.voxel_size_nm, strict=True)]
    factor = triple([max(1, round(ratio)) for ratio in ratios])
    if lr_shape is not None and any(
        abs(ratio - times) > TOLERANCE * times for ratio, times in zip(ratios, factor, strict=True)
    ):
        return _over_lr(where, mask, sr, lr_shape)
    if any(abs(ratio - times) > TOLERANCE * times for ratio, times in zip(ratios, factor, strict=True)):
        raise ValueError(
            f"{where} has voxels of {list(mask.voxel_size_nm)} nm, no whole multiple of {list(sr.voxel_size_nm)} nm: "
            "make it on the grid of lr or hr, or one a whole number of times coarser"
        )
    both = zip(sr.corner_nm, mask.corner_nm, sr.voxel_size_nm, strict=True)
    offset = triple([round((inner - outer) / size) for inner, outer, size in both])
    for axis in range(3):
        if offset[axis] < 0 or offset[axis] + sr.shape[axis] >= (mask.shape[axis] + 1) * factor[axis]:
            lies = [[round(one.corner_nm[axis], 3), _end(one, axis)] for one in (mask, sr)]
            raise ValueError(
                f"{where} reaches from {lies[0][0]} to {lies[0][1]} nm along {'zyx'[axis]}, the volume from "
                f"{lies[1][0]} to {lies[1][1]} nm: give a mask of the whole volume"
            )
    return MaskGrid(mask.shape, factor, offset)


def _over_lr(where: str, mask: Placed, sr: Placed, lr_shape: Triple) -> MaskGrid:
    """The same of a mask on the grid of lr, or one a whole number of times coarser, in parts of a voxel of sr."""
    size = [v * n / few for v, n, few in zip(sr.voxel_size_nm, sr.shape, lr_shape, strict=True)]
    lr = Placed(lr_shape, size, [corner + v / 2 for corner, v in zip(sr.corner_nm, size, strict=True)])
    over = mask_grid(where, mask, lr)
    units = [(few, fine) if few != fine else (1, 1) for few, fine in zip(lr_shape, sr.shape, strict=True)]
    factor, offset = (
        triple([value * fine for value, (_, fine) in zip(values, units, strict=True)])
        for values in (over.factor, over.offset)
    )
    return MaskGrid(mask.shape, factor, offset, triple([few for few, _ in units]))


def _end(one: Placed, axis: int) -> float:
    return round(one.corner_nm[axis] + one.shape[axis] * one.voxel_size_nm[axis], 3)


# -- what is skipped --------------------------------------------------------------------------------------------------


def stated(plan: Plan, pilot: Box | None, has_tissue: Callable[[Box], bool] | None) -> dict[str, Any]:
    """What `allocate` says of the shards that are skipped: "skipped", by reason, runs of their numbers in raster order;
    "within", the box of shard numbers that holds all others.

    `pilot` is in lr voxels, `has_tissue` is asked about boxes of sr voxels. ValueError where no shard is left.
    """
    wanted = pilot and plan.grids.finer(pilot)

    def reason(box: Box) -> str | None:
        if wanted and not box.intersect(wanted).size:
            return "pilot"
        return "mask" if has_tissue and not has_tissue(box) else None

    where = "in the pilot" if wanted else "anywhere"
    nothing = f"the mask has no tissue {where}, so nothing would be made: correct mask or pilot"
    return _sorted_out(plan.grid, KEYS, reason, nothing)


def of_image(grid: ShardGrid, card: Json) -> dict[str, Any]:
    """The same for shards of an array that is made of an image, by the card of the image: skipped ("image") are those
    of which it has no voxel. Nothing where all of the image was made.
    """
    if not (image := Skipped.of(card)):
        return {}
    nothing = "no voxel of the image was made: make some first"
    return _sorted_out(grid, ("image",), lambda box: "image" if image.whole(box) else None, nothing)


@dataclass(frozen=True)
class Skipped:
    """The shards of an image that were skipped: their numbers in raster order."""

    grid: ShardGrid
    numbers: frozenset[int]

    @classmethod
    def of(cls, card: Json) -> Skipped | None:
        """By the card of an image, or of what is made of it voxel by voxel; None where all was made."""
        left = card.get("skipped")
        if not left:
            return None
        numbers = frozenset(number for first, last in left["runs"] for number in range(first, last))
        return cls(ShardGrid(triple(card["shape"]), triple(left["shard"])), numbers)

    def touching(self, box: Box) -> list[int]:
        """Those that share a voxel with a box."""
        return [number for number in self._all(box) if number in self.numbers]

    def whole(self, box: Box) -> bool:
        """Whether no voxel of a box was made."""
        return all(number in self.numbers for number in self._all(box))

    def _all(self, box: Box) -> list[int]:
        low = [first // edge for first, edge in zip(box.start, self.grid.shard, strict=True)]
        high = [-(-last // edge) for last, edge in zip(box.stop, self.grid.shard, strict=True)]
        return [self.grid.number(index) for index in Box(triple(low), triple(high)).indices()]


def _sorted_out(
    grid: ShardGrid, keys: Sequence[str], reason: Callable[[Box], str | None], nothing: str
) -> dict[str, Any]:
    """Shards by the reason why they are skipped, and the box of all others; ValueError `nothing` without any other."""
    skipped: dict[str, list[int]] = {key: [] for key in keys}
    made: list[Triple] = []
    for number, index in enumerate(grid.indices):
        why = reason(grid.box(index))
        if why is None:
            made.append(index)
        else:
            skipped[why].append(number)
    if not made:
        raise ValueError(nothing)
    low, high = ([edge(index[axis] for index in made) for axis in range(3)] for edge in (min, max))
    return {
        "skipped": {key: runs(numbers) for key, numbers in skipped.items()},
        "within": [low, [last + 1 for last in high]],
    }


def reasons(allocated: Json, grid: ShardGrid) -> dict[Triple, str]:
    """Why each shard is skipped that is, "pilot", "mask" or "image", from what `allocate` stated."""
    return {
        grid.index(number): reason
        for reason, spans in (allocated.get("skipped") or {}).items()
        for first, last in spans
        for number in range(first, last)
    }


def made_areas(card: Json, z: int) -> list[Spans]:
    """The parts (y, x) of section z of an sr volume whose voxels were made, as rectangles of whole shards."""
    shape = triple(card["shape"])
    return _areas(card, z, True) if card.get("skipped") else [((0, shape[1]), (0, shape[2]))]


def skipped_areas(card: Json, z: int) -> list[Spans]:
    """The parts (y, x) of section z of an sr volume, or of what is made of one, that were skipped."""
    return _areas(card, z, False) if card.get("skipped") else []


def _areas(card: Json, z: int, wanted: bool) -> list[Spans]:
    """Rectangles of whole shards of the layer of section z: of those made, or of those skipped."""
    shape, skipped = triple(card["shape"]), card["skipped"]
    grid = ShardGrid(shape, triple(skipped["shard"]))
    _, rows, columns = grid.counts
    first = grid.number((z // grid.shard[0], 0, 0))
    made = [True] * (rows * columns)
    spans = skipped["runs"]
    for low, high in spans[bisect_right(spans, first, key=lambda span: span[1]) :]:
        if low >= first + len(made):
            break
        for number in range(max(low - first, 0), min(high - first, len(made))):
            made[number] = False
    table = [[cell is wanted for cell in made[row * columns : (row + 1) * columns]] for row in range(rows)]
    _, deep, wide = grid.shard
    return [
        ((top * deep, min(bottom * deep, shape[1])), (left * wide, min(right * wide, shape[2])))
        for (top, bottom), (left, right) in rectangles(table)
    ]
