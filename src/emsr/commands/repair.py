"""`emsr repair`: let the next run make again exactly what is damaged."""

from __future__ import annotations

import sys
from pathlib import Path

from emsr import durable


def repair(results: Path, *, volume: str | None = None, workers: int = 1) -> None:
    """Look as `emsr verify` does, and remove what vouches for anything that is wrong: records, marks and cards.

    No voxel is removed. The next run, with the same config, makes again the shards that then lack a record, proves the
    whole anew and writes the same files as before; images and coarser levels are made again and written where they
    differ. What stands behind a link, or lies in a source, is not emsr's to mend: it is named, and the exit code is 1.
    """
    from emsr.commands.verify import examined

    removed, left, mended = 0, 0, 0
    for _, faults in examined(results, volume, workers):
        for fault in faults:
            sys.stdout.write(f"{fault}\n")
            left += not fault.remove
            mended += bool(fault.remove)
            removed += sum(map(_removed, fault.remove))
        sys.stdout.flush()
    if mended:
        sys.stdout.write(
            f"removed {removed} records, marks and cards: run snakemake or emsr run as before, without a target, to "
            "make them again\n"
        )
    if left:
        raise ValueError(f"{left} faults above are not of what emsr made: mend the sources, and run again")
    if not mended and not left:
        sys.stdout.write(f"nothing to repair in {results}\n")


def _removed(path: Path) -> bool:
    """Whether a file stood there; it is gone, durably."""
    if not path.is_file():
        return False
    path.unlink()
    durable.sync_folder(path.parent)
    return True
