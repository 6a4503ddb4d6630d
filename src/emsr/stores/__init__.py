"""Arrays on disk, one file a format; a format's name is its module's name."""

from __future__ import annotations

from pathlib import Path

from emsr import plugins
from emsr.stores.source import Source

FORMATS = ("zarr", "hdf")


def open_source(path: Path, dataset: str | None = None, format_name: str | None = None) -> Source:
    """Open a volume for reading by the named format, or by the first that recognises it.

    Raises FileNotFoundError or ValueError, in one line, for what cannot be a volume.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: correct the path in the config")
    if format_name is not None:
        source: Source = plugins.load("stores", format_name).open_source(path, dataset)
        return source
    for name in FORMATS:
        module = plugins.load("stores", name)
        if module.recognises(path):
            found: Source = module.open_source(path, dataset)
            return found
    raise ValueError(f"{path} is neither HDF5 nor OME-Zarr: convert it to one of them")
