"""What agglomeration needs in memory at worst, measured, and what follows from a limit."""

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
