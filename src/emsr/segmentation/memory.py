"""What agglomeration needs in memory, measured by benchmarks/agglomeration.py, and what follows from a limit."""

from __future__ import annotations

BASE = 400_000_000
"""Bytes of the process itself."""
PER_FRAGMENT = 200
"""Bytes for each fragment of the volume, also out of core: its id, its first edge and its merge."""
PER_EDGE = 500
"""Bytes for each edge that is in memory."""
FEWEST = 10_000
"""Rows in memory below which rounds over files would take too long."""
MEGABYTE = 1_000_000


def rows_within(edges: int, fragments: int, method: str, memory_mb: int) -> int | None:
    """None where a graph of so many edges fits into memory, else how many rows of it to hold at a time.

    Raises ValueError where neither way fits: "waterz" (binned) knows only the first.
    """
    fixed = BASE + PER_FRAGMENT * fragments
    fitting = (memory_mb * MEGABYTE - fixed) // PER_EDGE
    if fitting >= edges:
        return None
    if method == "exact" and fitting >= FEWEST:
        return fitting
    least = fixed + PER_EDGE * (edges if method == "waterz" else FEWEST)
    mend = "or take method exact" if method == "waterz" else "or make fewer fragments"
    raise ValueError(
        f"{memory_mb} MB of memory are too little to agglomerate {fragments} fragments with {edges} edges by method "
        f"{method}: give rule agglomerate mem_mb={-(-least // MEGABYTE)}, {mend}"
    )
