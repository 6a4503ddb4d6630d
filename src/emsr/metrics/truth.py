"""What a truth may be, and what of it is counted: checks, borders, and the objects of single sections.

Labels are integers (z, y, x), 0 the background.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from skimage.measure import label

from emsr.metrics.tolerance import Tolerance, dilated

STATED: dict[str, object] = {
    "border_tolerance": "a border voxel shares a face with another label (0 is a label here); truth voxels whose "
    "centre is at most so many nm from the centre of a border voxel are not counted; 0 nm leaves nothing out",
    "section_objects": "connected over the edges of pixels (4-connected), in truth and segmentation alike",
}
"""What is done to labels before they are counted, in words that go beside the figures."""


def check_labels(labels: np.ndarray, name: str) -> None:
    """Raise ValueError in one line unless ``labels`` are integers of at least 0; ``name`` says whose they are."""
    kind = labels.dtype.kind
    if kind == "b":
        raise ValueError(f"{name} is a mask (bool) and has no ids: label its connected components")
    if kind not in "iu":
        raise ValueError(f"{name} has labels of {labels.dtype}, but ids are whole numbers: convert it to uint64")
    if kind == "i" and labels.size and labels.min() < 0:
        raise ValueError(f"{name} holds label {labels.min()}, but ids start at 0, the background: map it to another id")


def held(labels: Iterable[int], dtype: np.dtype) -> np.ndarray:
    """Those of some labels that an array of ``dtype`` can hold at all, in that dtype: others cannot occur in it."""
    return np.array([one for one in labels if 0 <= one <= np.iinfo(dtype).max], dtype)


def check_pair(truth: np.ndarray, segments: np.ndarray) -> None:
    """Raise ValueError in one line unless truth and segmentation are labels (``check_labels``) of one shape."""
    check_labels(truth, "truth")
    check_labels(segments, "segmentation")
    if truth.shape != segments.shape:
        raise ValueError(f"truth is {truth.shape} and segmentation {segments.shape} voxels: score one box of both")


def borders(labels: np.ndarray, in_plane: bool = False) -> np.ndarray:
    """Voxels (z, y, x) that share a face with a voxel of another label, bool; ``in_plane`` ignores faces along z.

    The border lies between two voxels and both are marked; the array's ends are no border. A shard needs a halo of
    one voxel.
    """
    border = np.zeros(labels.shape, bool)
    for axis in (1, 2) if in_plane else (0, 1, 2):
        upper = tuple(slice(1, None) if axis == other else slice(None) for other in range(3))
        lower = tuple(slice(None, -1) if axis == other else slice(None) for other in range(3))
        differs = labels[upper] != labels[lower]
        border[upper] |= differs
        border[lower] |= differs
    return border


def near_border(labels: np.ndarray, tolerance: Tolerance) -> np.ndarray:
    """Voxels (z, y, x) at most ``tolerance`` from a border voxel, bool: those that a border tolerance leaves out.

    In sections thicker than the tolerance take ``in_plane``, as CREMI does (25 nm in the own section); otherwise all
    that differs from the next section is left out. Exact in shards given a halo of ``border_halo`` voxels, less at
    the volume's ends.
    """
    check_labels(labels, "truth")
    if tolerance.nm == 0:
        return np.zeros(labels.shape, bool)
    return dilated(borders(labels, tolerance.in_plane), tolerance)


def border_halo(tolerance: Tolerance) -> tuple[int, int, int]:
    """Voxels (z, y, x) around a shard that ``near_border`` needs: the tolerance and the other side of a border."""
    z, y, x = tolerance.reach
    return (0 if tolerance.in_plane else z + 1, y + 1, x + 1)


def section_objects(section: np.ndarray) -> np.ndarray:
    """Connected pieces (over pixel edges) of equal labels of a section (y, x), numbered from 1; 0 stays 0. int64."""
    ids = np.unique(section)  # scikit-image takes signed ids only
    dense = np.searchsorted(ids, section) + int(ids.size > 0 and ids[0] != 0)
    return np.asarray(label(dense, background=0, connectivity=1), np.int64)
