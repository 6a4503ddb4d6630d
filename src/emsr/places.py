"""Where a source lies: a path on disk, or an address such as precomputed://gs://bucket/folder."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import stat
from pathlib import Path
from urllib.parse import urlsplit

SCHEMES = ("file", "gs", "s3", "https", "http")
PREFIX = "precomputed://"
MISSING = "does not exist"
VARIABLE = re.compile(r"\$(\w+|\{\w+\})", re.ASCII)
WILDCARD = re.compile(r"\{\s*[.\w]+.*\}")
INWARD = ("metadata", "metadata.google.internal", "fd00:ec2::254")  # where clouds give credentials to their machines


def is_address(place: str) -> bool:
    """Whether this is an address and no path."""
    return "://" in place


def local(place: str) -> Path | None:
    """The path of a place on disk; None for one that is reached over the network."""
    if not is_address(place):
        return Path(place)
    scheme, _, rest = place.removeprefix(PREFIX).partition("://")
    return Path(rest) if scheme == "file" else None


def expanded(place: str) -> str:
    """A path with `~`, `$NAME` and `${NAME}` replaced; ValueError where a name is not set in the environment, and for
    a path that Snakemake would not take as it is.

    Addresses, and paths that exist as they are written, are left alone.
    """
    if is_address(place):
        return place
    found = place if os.path.lexists(place) else os.path.expanduser(os.path.expandvars(place))
    if not os.path.lexists(place) and (unset := VARIABLE.search(found)):
        raise ValueError(f"{place} names {unset[0]}, which is not set in the environment: set it, or write it out")
    if wildcard := WILDCARD.search(found):
        raise ValueError(
            f"{place} holds {wildcard[0]}, which Snakemake takes for a wildcard: rename it, or make a link to it"
        )
    return found


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
    except ValueError:
        return "holds a NUL character, which no name has: correct it"
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        return "is neither a file nor a folder: name one that is"
    asked = os.R_OK | (os.X_OK if stat.S_ISDIR(kind) else 0)
    if not os.access(path, asked, effective_ids=os.access in os.supports_effective_ids):
        return "may not be read (Permission denied): mend its permissions, or copy it"
    return None


def check_address(place: str) -> None:
    """ValueError, in one line and without what may be secret, for an address that emsr does not read."""
    shown = ascii(without_secrets(place))
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
    try:
        inward = scheme in ("http", "https") and is_inward(f"{scheme}://{rest}")
    except ValueError as error:
        raise ValueError(f"address {shown} cannot be understood ({error}): correct it") from None
    if inward:
        raise ValueError(
            f"address {shown} lies in this machine's own network, which gives out credentials: copy it here"
        )


def without_secrets(place: str) -> str:
    """An address without query, login and what may be a part of them."""
    head = re.split(r"[?#]", place, maxsplit=1)[0]
    if "@" in place and "@" not in head:  # a password with ? or # in it
        return place.partition("//")[0] + "//..."
    return head.rpartition("@")[2]


def is_inward(url: str) -> bool:
    """Whether a http address is link-local, or of a service of metadata: no volume lies there, but credentials do.

    ValueError for what is no address.
    """
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host in INWARD:
        return True
    found: ipaddress.IPv4Address | ipaddress.IPv6Address
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        try:
            found = ipaddress.ip_address(socket.inet_aton(host))  # 2852039166, 0xa9fea9fe
        except (OSError, UnicodeError):
            return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return found.is_link_local or bool(mapped and mapped.is_link_local)
