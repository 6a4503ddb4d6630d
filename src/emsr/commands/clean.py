"""`emsr clean`: remove what earlier settings left behind."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from emsr import durable


def clean(results: Path, *, yes: bool = False) -> None:
    """Remove super-resolved arrays and records that no volume's allocate.json names any more.

    Looks at `results/<volume>/sr-<hash>.zarr` and `.records`. Lists them on standard output; removes them only with
    `--yes`. A volume without allocate.json is left alone.
    """
    if not results.is_dir():
        raise FileNotFoundError(f"{results} is not a folder: name the results folder of a config")
    old = [path for file in sorted(results.glob("*/sr/allocate.json")) for path in superseded(file)]
    for path in old:
        if yes:
            shutil.rmtree(path)
        sys.stdout.write(f"{'removed' if yes else 'would remove'} {path}\n")
    if not old:
        sys.stdout.write(f"nothing to remove in {results}\n")
    elif not yes:
        sys.stdout.write("nothing was removed: add --yes to remove these\n")


def superseded(allocate: Path) -> list[Path]:
    """Arrays and records of the volume of `allocate` that it does not name, nor the link sr.zarr points to."""
    allocated, volume = durable.read_json(allocate), allocate.parent.parent
    kept = {Path(allocated["array"]).stem, (volume / "sr.zarr").resolve().stem}
    found = sorted(path for suffix in ("zarr", "records") for path in volume.glob(f"sr-*.{suffix}"))
    return [path for path in found if path.stem not in kept and path.is_dir() and not path.is_symlink()]
