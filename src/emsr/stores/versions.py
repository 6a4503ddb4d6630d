"""Which version of each object of a volume behind a server was read, by what the server says of it.

http and https: ETag, or else Last-Modified (in seconds) and length. s3 and gs with credentials: the hash of the object,
which one that was uploaded in parts may lack. Nothing is known of an object of which the server says none of these.
"""

from __future__ import annotations

import base64
import binascii
import functools
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

ASKED_AT_ONCE = 16
UNANSWERED = (405, 501)  # of a server that gives nothing but whole objects
_read: dict[str, str] = {}
_lock = threading.Lock()
_last = threading.local()


class Versions:
    """The versions of the objects below one folder of a server; `folder` as cloud-files names it."""

    def __init__(self, folder: str) -> None:
        from cloudfiles import CloudFiles
        from cloudfiles.paths import extract

        self._where, self._files = folder, CloudFiles(folder, progress=False)
        self._prefix = _place(extract(folder), "")

    def taken(self) -> dict[str, str]:
        """The versions of objects that were read since this was last asked, by name below the folder; not of its info,
        which has a hash.
        """
        with _lock:
            mine = [place for place in _read if place.startswith(self._prefix)]
            found = {place.removeprefix(self._prefix): _read.pop(place) for place in mine}
        return {name: version for name, version in found.items() if name != "info"}

    def changed(self, noted: Mapping[str, str]) -> list[str]:
        """The objects that are gone or of another version now than noted; each is asked for, none is read."""
        with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
            now = pool.map(self._now, noted)
            return [name for (name, before), found in zip(noted.items(), now, strict=True) if found != before]

    def _now(self, name: str) -> str | None:
        """The version of an object; None where it is gone, or the server does not say. OSError where nobody answers."""
        try:
            head = self._files.head(name)
        except AttributeError:  # of an object that gs does not have
            return None
        except Exception as error:
            if getattr(getattr(error, "response", None), "status_code", None) in UNANSWERED:
                return None
            raise OSError(f"{self._where}/{name} cannot be asked for ({type(error).__name__}): try again") from None
        return None if head is None else _version(head)


def watch() -> None:
    """Have cloud-files note the version of every object that it reads."""
    from cloudfiles import interfaces

    for kind in (interfaces.HttpInterface, interfaces.S3Interface, interfaces.GoogleCloudStorageInterface):
        kind.get_file = _noting(kind.get_file)


def answered(headers: Mapping[str, str]) -> None:
    """What a server said with the last answer over http that this thread had."""
    _last.headers = headers


def _noting(get_file: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(get_file)
    def noting(self: Any, name: str, *given: Any, **how: Any) -> Any:
        _last.headers = None
        found = get_file(self, name, *given, **how)
        content, _, sha, kind = found
        said = _last.headers or {"Content-Crc32c" if kind == "crc32c" else "Content-Md5": sha}
        if content is not None and (version := _version(said)):
            with _lock:
                _read[_place(self._path, name)] = version
        return found

    return noting


def _place(path: Any, name: str) -> str:
    """The whole name of an object in a place as cloud-files understands it."""
    parts = (path.protocol, path.host or "", path.bucket or "", path.path.strip("/"), name)
    return "/".join(map(str, parts))


def _version(said: Mapping[str, Any]) -> str | None:
    """One text for what a server says of the version of an object; None where that is nothing."""
    if said.get("Content-Md5"):
        return str(said["Content-Md5"])
    if said.get("Content-Crc32c"):
        return str(said["Content-Crc32c"])
    tag = str(said.get("ETag") or "").removeprefix("W/").strip('"').removesuffix("-gzip")
    if tag:
        return _md5_of(tag)
    when, length = said.get("Last-Modified"), said.get("Content-Length")
    return (f"{when}, {length} bytes" if length and not said.get("Content-Encoding") else str(when)) if when else None


def _md5_of(tag: str) -> str:
    """An ETag; that of s3 is a MD5 in hexadecimal digits, which is read in base64."""
    try:
        return base64.b64encode(binascii.unhexlify(tag)).decode() if len(tag) == 32 else tag
    except binascii.Error:
        return tag
