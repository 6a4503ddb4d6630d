"""What says that a file or a folder of files is another one than before."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path


def fingerprint(folder: Path) -> str:
    """A hash over names, sizes and time stamps of all files below ``folder``: a zarr or sections are no single file.

    No file is opened. A link to nothing counts by its name, which another one or a mended one changes.
    """
    digest = hashlib.sha256()
    for parent, folders, files in os.walk(folder):
        folders.sort()
        inside = os.path.relpath(parent, folder)
        for name in sorted(files):
            try:
                state = os.stat(os.path.join(parent, name))
                seen = f"{state.st_size} {state.st_mtime_ns}"
            except FileNotFoundError:
                seen = "gone"
            digest.update(os.fsencode(f"{inside}/{name} {seen}\n"))
    return digest.hexdigest()


def hashed(path: str | None) -> dict[str, str] | None:
    """A file of weights by name and content, so that another file under the old name and time stamp is noticed."""
    return None if path is None else {"path": path, "sha256": content_sha256(Path(path))}


def content_sha256(path: Path) -> str:
    """The sha256 of a file; within a process it is read once for each inode, size and pair of time stamps.

    The change time cannot be set by ``touch``, so a swapped file is read again.
    """
    state = path.stat()
    return _content_sha256(str(path), (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns))


@lru_cache(maxsize=256)
def _content_sha256(path: str, state: tuple[int, ...]) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
