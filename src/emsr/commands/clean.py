"""`emsr clean`: remove what earlier settings left behind."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from emsr import durable

STAGES = ("affinities", "fragments")


def clean(results: Path, *, yes: bool = False) -> None:
    """Remove arrays and records of sr, affinities and fragments that nothing names any more.

    Looks below `results` at `sr-<hash>.zarr` of `<volume>` and `<volume>/deviation`, at `affinities-<hash>.zarr` and
    `fragments-<hash>.zarr` of `<volume>/segmentations/<name>`, and at the `.records` beside each. Kept are those that
    an allocate.json names and those of the last finished run. Lists the others on standard output; removes them only
    with `--yes`. Where there is no allocate.json nothing is removed.
    """
    if not results.is_dir():
        raise FileNotFoundError(f"{results} is not a folder: name the results folder of a config")
    sr = sorted([*results.glob("*/sr/allocate.json"), *results.glob("*/deviation/sr/allocate.json")])
    old = [path for file in sr for path in superseded_sr(file)]
    for stage in STAGES:
        files = sorted(results.glob(f"*/segmentations/*/{stage}/allocate.json"))
        old += [path for file in files for path in superseded_stage(file)]
    for path in old:
        if yes:
            shutil.rmtree(path)
        sys.stdout.write(f"{'removed' if yes else 'would remove'} {path}\n")
    if not old:
        sys.stdout.write(f"nothing to remove in {results}\n")
    elif not yes:
        sys.stdout.write("nothing was removed: add --yes to remove these\n")


def superseded_sr(allocate: Path) -> list[Path]:
    """Arrays and records of the volume of `allocate` that it does not name, nor the link sr.zarr points to."""
    volume = allocate.parent.parent
    return _others(volume, "sr", {_named(allocate), (volume / "sr.zarr").resolve().stem})


def superseded_stage(allocate: Path) -> list[Path]:
    """Arrays and records beside `allocate` that it does not name, nor the card of the stage, if that is finished."""
    stage = allocate.parent
    card = stage.with_name(f"{stage.name}.json")
    return _others(stage, stage.name, {_named(file) for file in (allocate, card) if file.is_file()})


def _named(file: Path) -> str:
    """The name, without suffix, of the array that a document names."""
    return Path(durable.read_json(file)["array"]).stem


def _others(folder: Path, kind: str, kept: set[str]) -> list[Path]:
    """Folders `<kind>-….zarr` and `.records` in `folder` but for those of the names `kept`."""
    found = sorted(path for suffix in ("zarr", "records") for path in folder.glob(f"{kind}-*.{suffix}"))
    return [path for path in found if path.stem not in kept and path.is_dir() and not path.is_symlink()]
