"""Splits and merges of a segmentation, from tables of label pairs that add up over shards.

Variation of information (Meila 2007) in bits: split is H(segmentation | truth), merge is H(truth | segmentation).
Adapted Rand error (Arganda-Carreras et al. 2015) is one minus the F-score over pairs of voxels: precision falls with
merges, recall with splits. Voxels whose truth is an ignored label are left out; a segment 0 is a segment like others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from emsr.metrics.pairs import added, ranks, runs
from emsr.metrics.truth import check_pair, held, section_objects

STATED: dict[str, object] = {
    "voi": "bits; split = H(segmentation | truth), merge = H(truth | segmentation)",
    "arand": "1 - 2 B / (T + S): ordered pairs of voxels together in both, in truth, in segmentation",
    "precision_recall": "precision = B / S falls with merges, recall = B / T with splits; scikit-image names them the "
    "other way round (scikit-image#6485)",
    "ignored": "voxels whose truth is an ignored label are not counted; label 0 of the segmentation is a segment",
    "equal_to": ["skimage.metrics.variation_of_information", "skimage.metrics.adapted_rand_error"],
}
"""What the figures of ``summary`` are, in words that go beside them."""

MEANS = ("voi_split", "voi_merge", "voi", "arand", "precision", "recall")


@dataclass(frozen=True, eq=False)
class Contingency:
    """Voxels of each pair of a truth label and a segment, of a shard or of a volume; tables of shards add up exactly.

    ``truth`` and ``segment`` uint64 (pairs,), ascending by truth and then segment, and ``voxels`` int64 (pairs,),
    above 0; all read-only. Raises ValueError for arrays that are not.
    """

    truth: np.ndarray
    segment: np.ndarray
    voxels: np.ndarray

    def __post_init__(self) -> None:
        for name, dtype in (("truth", np.uint64), ("segment", np.uint64), ("voxels", np.int64)):
            frozen = np.array(getattr(self, name), dtype)
            frozen.flags.writeable = False
            object.__setattr__(self, name, frozen)
        if not (self.truth.ndim == 1 and self.truth.shape == self.segment.shape == self.voxels.shape):
            raise ValueError(f"{self.truth.shape} truths, {self.segment.shape} segments: a table needs equal numbers")
        same = self.truth[1:] == self.truth[:-1]
        rising = (self.truth[1:] > self.truth[:-1]) | (same & (self.segment[1:] > self.segment[:-1]))
        if not rising.all() or (self.voxels <= 0).any():
            raise ValueError("pairs of a table must ascend and have voxels: make it with Contingency.of")

    @classmethod
    def of(cls, truth: np.ndarray, segments: np.ndarray, counted: np.ndarray | None = None) -> Contingency:
        """Count the pairs of two label arrays of one shape; ``counted`` (bool, same shape) leaves voxels out.

        Raises ValueError for labels that are float or negative, and for other shapes.
        """
        check_pair(truth, segments)
        if counted is not None and (counted.shape != truth.shape or counted.dtype != np.bool_):
            raise ValueError(f"counted is {counted.dtype} {counted.shape}, but must be bool {truth.shape} as the truth")
        flat = [array.ravel() for array in (truth, segments, counted) if array is not None]
        starts, lengths = runs(*flat)
        if counted is not None:
            keep = flat[2][starts]
            starts, lengths = starts[keep], lengths[keep]
        return cls(*added(flat[0][starts].astype(np.uint64), flat[1][starts].astype(np.uint64), lengths))

    @classmethod
    def sum(cls, tables: Iterable[Contingency]) -> Contingency:
        """The table of all shards together; of no table, an empty one."""
        parts = [cls(*[np.empty(0, np.uint64)] * 3), *tables]
        joined = (np.concatenate([getattr(part, name) for part in parts]) for name in ("truth", "segment", "voxels"))
        return cls(*added(*joined))

    def __add__(self, other: Contingency) -> Contingency:
        return Contingency.sum([self, other])

    def __eq__(self, other: object) -> bool:
        names = ("truth", "segment", "voxels")
        return isinstance(other, Contingency) and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in names
        )

    @property
    def total(self) -> int:
        """Voxels of all pairs."""
        return int(self.voxels.sum())

    def without(self, ignored: Iterable[int]) -> Contingency:
        """The table without the voxels of these truth labels."""
        keep = ~np.isin(self.truth, held(ignored, self.truth.dtype))
        return Contingency(self.truth[keep], self.segment[keep], self.voxels[keep])

    def sizes(self) -> tuple[np.ndarray, np.ndarray]:
        """For each pair the voxels of its whole truth object and of its whole segment, float64 (pairs,)."""
        return _size_of_each(self.truth, self.voxels), _size_of_each(self.segment, self.voxels)


def _size_of_each(ids: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    """For each pair the voxels of all pairs of its id; exact below 2^53."""
    _, place = np.unique(ids, return_inverse=True)
    return np.bincount(place, voxels)[place] if len(ids) else np.empty(0)


def weighted_sums(tables: Sequence[Contingency]) -> Callable[[np.ndarray], Contingency]:
    """A function that gives the sum in which table k is taken ``times[k]`` times (integers): for bootstrapping.

    The pairs are sorted once, so a sum costs one product with a sparse matrix.
    """
    truth, segment, voxels = (
        np.concatenate([getattr(table, name) for table in tables]) for name in ("truth", "segment", "voxels")
    )
    owner = np.repeat(np.arange(len(tables)), [len(table.voxels) for table in tables])
    index, rank = ranks(truth, segment)
    matrix = csr_array((voxels, (rank, owner)), shape=(len(index), len(tables)))
    truth, segment = truth[index], segment[index]

    def taken(times: np.ndarray) -> Contingency:
        total = matrix @ np.asarray(times, np.int64)
        keep = total > 0
        return Contingency(truth[keep], segment[keep], total[keep])

    return taken


def contributions(table: Contingency) -> tuple[np.ndarray, np.ndarray]:
    """Bits that each pair adds to VOI split and to VOI merge, float64 (pairs,), at least 0; ValueError without voxels.

    n / N * log2(t / n) and n / N * log2(s / n) for a pair of n voxels, N in all, t of its object and s of its segment.
    """
    if not table.total:
        raise ValueError("no voxel is counted: all of the truth is ignored")
    objects, segments = table.sizes()
    share = table.voxels / table.total
    return share * np.log2(objects / table.voxels), share * np.log2(segments / table.voxels)


def variation_of_information(table: Contingency) -> tuple[float, float]:
    """VOI (split, merge) in bits, at least 0; raises ValueError if no voxel is counted."""
    split, merge = contributions(table)
    return float(split.sum()), float(merge.sum())


@dataclass(frozen=True)
class AdaptedRand:
    """Adapted Rand ``error``, ``precision`` and ``recall``, 0 to 1; None where no two voxels are together."""

    error: float | None
    precision: float | None
    recall: float | None


def adapted_rand(table: Contingency) -> AdaptedRand:
    """Adapted Rand error over ordered pairs of different voxels; raises ValueError if no voxel is counted.

    Precision is the share of the pairs joined by the segmentation that the truth joins (low with merges), recall the
    share of those joined by the truth that the segmentation joins (low with splits).
    """
    if not table.total:
        raise ValueError("no voxel is counted: all of the truth is ignored")
    objects, segments = table.sizes()
    both, truth, segmentation = (float(table.voxels @ (sizes - 1.0)) for sizes in (table.voxels, objects, segments))
    return AdaptedRand(
        1 - 2 * both / (truth + segmentation) if truth + segmentation else None,
        both / segmentation if segmentation else None,
        both / truth if truth else None,
    )


def summary(table: Contingency, ignored: Iterable[int] = (0,)) -> dict[str, object]:
    """Figures of a segmentation from its table, ignored truth labels included: what goes into ``scores.json``.

    ``MEANS`` are None where they are undefined. ``voxels``, ``objects`` and ``segments`` are those counted,
    ``ignored_voxels`` those left out for their label; ``remarks`` says in words what a reader must know of the truth.
    """
    ignored = sorted(set(ignored))
    kept = table.without(ignored)
    objects, segments = len(np.unique(kept.truth)), len(np.unique(kept.segment))
    figures: dict[str, object] = dict.fromkeys(MEANS)
    if kept.total:
        split, merge = variation_of_information(kept)
        rand = adapted_rand(kept)
        values = (split, merge, split + merge, rand.error, rand.precision, rand.recall)
        figures = dict(zip(MEANS, values, strict=True))
    return figures | {
        "voxels": kept.total,
        "ignored_voxels": table.total - kept.total,
        "ignored": ignored,
        "objects": objects,
        "segments": segments,
        "remarks": _remarks(objects, table.total - kept.total, ignored),
    }


def _remarks(objects: int, left_out: int, ignored: list[int]) -> list[str]:
    remarks = []
    if objects == 0:
        remarks.append(f"no voxel has a truth label other than {ignored}: nothing can be scored")
    if objects == 1:
        remarks.append("the truth holds one object: merges cannot show")
    if not left_out:
        remarks.append(f"no voxel has an ignored label {ignored}: the truth is without background and all is counted")
    return remarks


def section_tables(
    truth: np.ndarray, segments: np.ndarray, counted: np.ndarray | None = None, ignored: Iterable[int] = (0,)
) -> list[Contingency]:
    """A table of each section (whole in y and x) of two label arrays (z, y, x), for truths of single sections.

    The objects of a section are its connected pieces, in truth and segmentation, so an object that comes into the
    section twice is two objects and joining them is a merge. Ignored labels become 0. Raises ValueError as
    ``Contingency.of``.
    """
    check_pair(truth, segments)
    labels = held(ignored, truth.dtype)
    tables = []
    for z in range(len(truth)):
        kept = np.where(np.isin(truth[z], labels), truth.dtype.type(0), truth[z])
        mask = None if counted is None else counted[z]
        tables.append(Contingency.of(section_objects(kept), section_objects(segments[z]), mask))
    return tables


def section_summary(tables: Iterable[Contingency]) -> dict[str, object]:
    """Means of the figures over sections, each over the sections where it is defined, else None.

    ``sections`` are those with a labelled voxel, ``unlabelled`` those without, which have no figures.
    """
    rows = [summary(table) for table in tables]
    scored = [row for row in rows if row["voxels"]]
    defined = {name: [value for row in scored if isinstance(value := row[name], float)] for name in MEANS}
    means: dict[str, object] = {name: float(np.mean(values)) if values else None for name, values in defined.items()}
    return means | {"sections": len(scored), "unlabelled": len(rows) - len(scored)}
