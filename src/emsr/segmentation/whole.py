"""waterz itself, on a volume that fits into memory: what the agglomeration of the region graph is held against.

Its traps are dealt with here: it overwrites the fragments, needs dense ids, yields the same array again and again, and
writes to standard output from C++.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator

import numpy as np
import waterz

from emsr.segmentation.check import WHITE, check_affinities, check_threshold

MEAN_AFFINITY = "OneMinus<MeanAffinity<RegionGraphType, ScoreValue>>"
WATERZ_MERGE = np.dtype([("a", "<u8"), ("b", "<u8"), ("c", "<u8"), ("score", "<f8")])


def waterz_whole(
    affinities: np.ndarray, fragments: np.ndarray, threshold: float = 0.5, bins: int = 256
) -> tuple[np.ndarray, np.ndarray]:
    """Mean-affinity agglomeration of a whole volume by waterz; as published with the defaults.

    `affinities` uint8 (3, z, y, x), `fragments` uint64 (z, y, x), left as they are; `bins` is discretize_queue, 0 or
    256. Returns segments uint64 (z, y, x), each with the smallest id of its fragments, and the merges (`WATERZ_MERGE`).
    Memory, measured: 45 bytes per voxel. Raises ValueError for other shapes and types, bins and thresholds.
    """
    check_affinities(affinities)
    check_threshold(threshold)
    if fragments.dtype != np.uint64 or fragments.shape != affinities.shape[1:]:
        raise ValueError(
            f"fragments {fragments.dtype} {fragments.shape} do not belong to affinities {affinities.shape}"
        )
    if bins not in (0, 256):
        raise ValueError(f"bins {bins}: waterz is built for 0 (exact) and 256 (published)")
    ids = np.unique(np.append(fragments, np.uint64(0)))
    dense = np.searchsorted(ids, fragments).astype(np.uint64)
    with silenced():
        (segments, merges), *_ = waterz.agglomerate(
            affinities.astype(np.float32) / np.float32(WHITE),
            [threshold],
            fragments=dense,
            return_merge_history=True,
            scoring_function=MEAN_AFFINITY,
            discretize_queue=bins,
        )
    table = np.array([tuple(merge[name] for name in WATERZ_MERGE.names or ()) for merge in merges], WATERZ_MERGE)
    for name in ("a", "b", "c"):
        table[name] = ids[table[name].astype(np.int64)]
    return ids[segments.astype(np.int64)], table


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Nothing reaches standard output inside, neither from Python nor from C or C++, also after an exception.

    File descriptor 1 belongs to the process: what other threads print meanwhile is lost too.
    """
    libc = ctypes.CDLL(None)
    with open(os.devnull, "w") as nowhere:
        _flush(libc)
        try:
            saved = os.dup(1)
        except OSError:  # standard output is closed: C++ has nowhere to write to
            saved = None
        if saved is not None:
            os.dup2(nowhere.fileno(), 1)
        try:
            with contextlib.redirect_stdout(nowhere):
                yield
        finally:
            libc.fflush(None)  # what C++ holds back must not come out afterwards
            if saved is not None:
                os.dup2(saved, 1)
                os.close(saved)


def _flush(libc: ctypes.CDLL) -> None:
    """Let what was printed before out first."""
    if sys.stdout is not None:
        sys.stdout.flush()
    libc.fflush(None)
