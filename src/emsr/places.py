"""Where a source lies: a path on disk, or an address such as precomputed://gs://bucket/folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path

SCHEMES = ("file", "gs", "s3", "https", "http")
PREFIX = "precomputed://"
MISSING = "does not exist"


def is_address(place: str) -> bool:
    """Whether this is an address and no path."""
    return "://" in place


def local(place: str) -> Path | None:
    """The path of a place on disk; None for one that is reached over the network."""
    if not is_address(place):
        return Path(place)
    scheme, _, rest = place.removeprefix(PREFIX).partition("://")
    return Path(rest) if scheme == "file" else None


def kvstore(folder: Path) -> dict[str, str]:
    """How tensorstore names a folder on disk: by its whole path, where it refuses `..`."""
    whole = folder.absolute()
    return {"driver": "file", "path": f"{whole.resolve() if '..' in whole.parts else whole}/"}


def fault(path: Path) -> str | None:
    """Why nothing can be read at a path, with the mend unless it is `MISSING`; None where something can."""
    try:
        kind = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return MISSING
    except OSError as error:
        return f"cannot be reached ({error.strerror}): mend the links and permissions on the way there"
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        return "is neither a file nor a folder: name one that is"
    asked = os.R_OK | (os.X_OK if stat.S_ISDIR(kind) else 0)
    if not os.access(path, asked, effective_ids=os.access in os.supports_effective_ids):
        return "may not be read (Permission denied): mend its permissions, or copy it"
    return None


def check_address(place: str) -> None:
    """ValueError, in one line and without what may be secret, for an address that emsr does not read."""
    shown = ascii(place.partition("?")[0].partition("#")[0].rpartition("@")[2])
    if place.startswith("graphene://"):
        raise ValueError(f"address {shown}: graphene is unverified, so it is refused: export it as precomputed")
    if not place.startswith(PREFIX):
        raise ValueError(f"address {shown} is of no format that is read over the network: write {PREFIX}...")
    scheme, _, rest = place.removeprefix(PREFIX).partition("://")
    if scheme not in SCHEMES:
        raise ValueError(f"address {shown}: scheme {scheme!a} is unknown: use {', '.join(SCHEMES)}")
    if not rest.strip("/") or not place.isprintable() or " " in place:
        raise ValueError(f"address {shown} names no folder, or has blanks: write {PREFIX}{scheme}://...")
    if scheme != "file" and any(mark in rest for mark in "?#@"):
        raise ValueError(
            f"address {shown} holds a query or a login: leave them out, credentials belong into ~/.cloudvolume/secrets"
        )
