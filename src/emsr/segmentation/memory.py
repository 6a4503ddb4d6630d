"""What agglomeration and lookup tables need in memory at worst, measured, and what follows from a limit."""

from __future__ import annotations

BASE = 400_000_000
"""Bytes of the process itself."""
PER_FRAGMENT = 400
"""Bytes for each fragment, in memory or not; where one region takes in all others, 220 where cells form first."""
PER_EDGE = 500
"""Bytes for each edge in memory; where one region takes in all others, 300 where cells form first."""
TIMES = 50
"""A graph may have so many times the edges that are in memory; beyond that rounds over files take too long."""
MOST = 2**30
"""Edges in memory above which their fragments cannot be numbered in int32, as SciPy's graphs are."""
PER_LOOKUP = 200
"""Bytes for each fragment of a history that is made into a lookup table; 130 without pairs of labels and fragments."""
PER_VOXEL = 80
"""Bytes for each voxel of the box that a worker relabels, where 20 were measured, or counts: 45, with noise more."""
MEGABYTE = 1_000_000


def rows_within(edges: int, fragments: int, method: str, memory_mb: int) -> int | None:
    """None where a graph is agglomerated in memory, else how many of its edges to hold at a time.

    `memory_mb` counts 10^6 bytes. Raises ValueError where neither is possible; "waterz" (binned) knows only the first.
    """
    fixed = BASE + PER_FRAGMENT * fragments
    fitting = min((memory_mb * MEGABYTE - fixed) // PER_EDGE, MOST)
    if fitting >= edges:
        return None
    in_rounds = method == "exact"
    if not in_rounds and edges > MOST:
        raise ValueError(f"{edges} edges are more than the {MOST} that method waterz can hold: take method exact")
    fewest = min(-(-edges // TIMES), MOST)
    if in_rounds and fitting >= fewest:
        return fitting
    least = fixed + PER_EDGE * (fewest if in_rounds else edges)
    raise ValueError(
        f"{memory_mb} MB of memory are too little for {fragments} fragments and {edges} edges by method {method}: "
        f"rerun with --set-resources agglomerate:mem_mb={-(-least // MEGABYTE)}"
        + ("" if in_rounds else ", or take method exact, which needs less")
    )


def check_lookup(fragments: int, voxels: int, memory_mb: int, rule: str) -> None:
    """Raise ValueError unless the history of so many fragments fits beside the `voxels` that workers hold at a time.

    `memory_mb` counts 10^6 bytes and is what `rule` asks for.
    """
    least = BASE + PER_LOOKUP * fragments + PER_VOXEL * voxels
    if least > memory_mb * MEGABYTE:
        raise ValueError(
            f"{memory_mb} MB of memory are too little for the history of {fragments} fragments and {voxels} voxels at "
            f"a time: rerun with --set-resources {rule}:mem_mb={-(-least // MEGABYTE)}"
        )
